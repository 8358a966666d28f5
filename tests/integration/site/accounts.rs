//! Passwords of local accounts over HTTP.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    AdminSite, Client, credentials,
    guards::{is, password},
};
use crate::support::Suite;

const JSON: (&str, &str) = ("content-type", "application/json");

fn secret(site: &AdminSite<'_, '_>) -> String {
    let text = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    site.world.suite.credentials.lock().unwrap().push(text.clone());
    text
}

async fn sign_in<'a>(site: &'a AdminSite<'a, 'a>, user: &str, password: &str) -> Client<'a> {
    let begun = site.send("POST", "/api/sessions", &[JSON], &credentials(user, password)).await;
    let secret = begun.json()["secret"].as_str().unwrap_or_else(|| panic!("{begun:?}")).to_owned();
    Client { site, secret }
}

pub(crate) async fn an_invitation_sets_one_password(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let code = site.site.invited("ann", "1 hour").await.expose().to_string();
    let chosen = secret(&site);
    let accept = async |code: &str, password: &str| {
        let body = json!({ "code": code, "password": password }).to_string();
        site.send("POST", "/api/invitation", &[JSON], &body).await
    };
    is(&accept(&code, "short").await, 400, "invalid");
    for wrong in ["", "x", &code[1..], &"A".repeat(43)] {
        is(&accept(wrong, &chosen).await, 404, "not-found");
    }
    let accepted = accept(&format!(" {code}\n"), &chosen).await;
    assert_eq!((accepted.status, &accepted.json()["email"]), (200, &"ann@example.com".into()));
    is(&accept(&code, &secret(&site)).await, 404, "not-found");
    let late = site.site.invited("bob", "-1 second").await.expose().to_string();
    is(&accept(&late, &chosen).await, 404, "not-found");
    assert_eq!(sign_in(&site, "ann", &chosen).await.get("/api/session").await.status, 200);
}

pub(crate) async fn a_new_password_ends_all_sessions(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let old = password(&site, "ann").await;
    let (one, other) = (sign_in(&site, "ann", &old).await, sign_in(&site, "ann", &old).await);
    let new = secret(&site);
    let change = async |present: &str, password: &str| {
        let body = json!({ "present": present, "password": password });
        one.json("POST", "/api/session/password", body).await
    };
    is(&change("a wrong password", &new).await, 401, "sign-in-failed");
    is(&change(&old, "short").await, 400, "invalid");
    assert_eq!(other.get("/api/session").await.status, 200);
    assert_eq!(change(&old, &new).await.status, 204);
    for ended in [&one, &other] {
        is(&ended.get("/api/session").await, 401, "not-signed-in");
    }
    let refused = site.send("POST", "/api/sessions", &[JSON], &credentials("ann", &old)).await;
    is(&refused, 401, "sign-in-failed");
    let (one, other) = (sign_in(&site, "ann", &new).await, sign_in(&site, "ann", &new).await);
    assert_eq!(one.json("DELETE", "/api/sessions", Value::Null).await.status, 204);
    is(&other.get("/api/session").await, 401, "not-signed-in");
}

pub(crate) async fn an_administrator_proves_the_password_again(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let passwords = [password(&site, "root").await, password(&site, "ann").await];
    let root = sign_in(&site, "root", &passwords[0]).await;
    let ann = sign_in(&site, "ann", &passwords[1]).await;
    let prove = async |client: &Client<'_>, password: &str| {
        let body = json!({ "password": password });
        client.json("POST", "/api/session/elevation", body).await
    };
    let elevated = async || root.get("/api/session").await.json()["elevated"].clone();
    is(&prove(&root, &passwords[1]).await, 401, "sign-in-failed");
    is(&prove(&ann, &passwords[1]).await, 403, "not-permitted");
    assert_eq!(elevated().await, false);
    assert_eq!(prove(&root, &passwords[0]).await.status, 204);
    assert_eq!(elevated().await, true);
    assert_eq!(root.json("DELETE", "/api/session/elevation", Value::Null).await.status, 204);
    assert_eq!(elevated().await, false);
}
