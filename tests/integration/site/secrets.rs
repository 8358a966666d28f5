//! Secrets of self-service in the most talkative log: at the end of the run, they are looked for in it, in
//! the statements that Postgres logs, and everywhere else.

use std::{fs, sync::Arc};

use patgate_testing::http;
use serde_json::{Value, json};

use super::{credentials, process::AdminProcess};
use crate::{
    support::{Suite, cli::Cli, value},
    web::Site,
};

const JSON: (&str, &str) = ("content-type", "application/json");

pub(crate) async fn no_log_level_shows_a_secret(suite: Arc<Suite>) {
    let world = suite.world().await;
    let process = AdminProcess::start(&world, &["log.filter=trace"]);
    let cli = Cli::of(&world);
    let code = cli.json("user invite ann@example.com")["code"].as_str().unwrap().to_owned();
    let password = suite.provider_key();
    let wrong = suite.provider_key();
    let send = async |method: &str, path: &str, headers: &[(&str, &str)], body: Value| {
        let headers = [&[JSON][..], headers].concat();
        process.send(method, path, &headers, &body.to_string()).await
    };
    let accept = json!({ "code": code, "password": password });
    assert_eq!(send("POST", "/api/invitation", &[], accept.clone()).await.status, 200);
    assert_eq!(send("POST", "/api/invitation", &[], accept).await.status, 404);
    let begin = async |password: &str| {
        let body = credentials("ann", password);
        process.send("POST", "/api/sessions", &[JSON], &body).await
    };
    assert_eq!(begin(&wrong).await.status, 401);
    let begun = begin(&password).await;
    assert_eq!(begun.status, 201);
    let secret = begun.json()["secret"].as_str().unwrap().to_owned();
    let cookie = format!("patgate-session={secret}");
    let bearer = format!("Bearer {secret}");
    let origin = format!("http://{}", process.address);
    let by_cookie = [("cookie", &*cookie), ("origin", &*origin)];
    let by_bearer = [("authorization", &*bearer)];
    for proof in [&by_cookie[..], &by_bearer] {
        assert_eq!(send("GET", "/api/session", proof, Value::Null).await.status, 200);
        // Malformed, too long, and of another method.
        assert_eq!(send("POST", "/api/pats", proof, json!([secret])).await.status, 400);
        let long = json!({ "name": secret.repeat(1000) });
        assert_eq!(send("POST", "/api/pats", proof, long).await.status, 400);
        assert_eq!(send("PUT", "/api/session", proof, Value::Null).await.status, 405);
    }
    let change = json!({ "present": wrong, "password": suite.provider_key() });
    assert_eq!(send("POST", "/api/session/password", &by_bearer, change).await.status, 401);
    assert_eq!(send("DELETE", "/api/session", &by_cookie, Value::Null).await.status, 204);

    let log = fs::read_to_string(&process.server.log).unwrap();
    // Nothing that patgate or a library writes at any level shows what it was given.
    assert!(log.contains("\"listening\""), "{log}");
    let page = http::send(process.metrics.unwrap().port(), "GET", "/metrics", &[], "").await.body;
    assert!(page.contains("patgate_web_requests_total{"), "{page}");
    let audit = "SELECT string_agg(a::text, ' ') FROM patgate.audit_log a";
    let audit: String = value(&world, audit).await;
    assert!(audit.contains("session.begin") && audit.contains("account.invite"), "{audit}");
    for secret in [&code, &password, &wrong, &secret] {
        for text in [&log, &page, &audit] {
            let at = text.find(secret.as_str()).map(|at| &text[at.saturating_sub(200)..at]);
            assert_eq!(at, None);
        }
    }
}

/// The search finds what it looks for, so that finding nothing means something.
pub(crate) async fn the_search_knows_every_session(suite: Arc<Suite>) {
    let world = suite.world().await;
    let ann = Site::of(&world).await.signed_in("ann").await;
    let secret = ann.session.expose();
    assert!(suite.sessions.lock().unwrap().iter().any(|known| *known == **secret));
}
