//! `patgate admin` of both releases on the migrated schema.

use std::sync::Arc;

use patgate::token::TokenId;
use patgate_testing::http::Reply;
use serde_json::{Value, json};

use super::migrate;
use crate::{
    site::{credentials, process::AdminProcess},
    support::{
        Suite, Token, World,
        cli::Cli,
        envoy::patient,
        fleet::{Fleet, MODELS},
        processes::Processes,
    },
};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A person who uses one process, with a session.
struct Person<'a> {
    site: &'a AdminProcess<'a, 'a>,
    bearer: &'a str,
}

impl Person<'_> {
    async fn does(&self, status: u16, method: &str, path: &str, body: Value) -> Reply {
        let headers = [("authorization", self.bearer), JSON];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = if body.is_empty() { &headers[..1] } else { &headers[..] };
        let reply = self.site.send(method, path, headers, &body).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        reply
    }

    /// Lets a token live: it is made, used, changed, given a new secret, revoked and deleted.
    async fn uses_it(&self, world: &World<'_>, fleet: &Fleet, name: &str) {
        let minted = |reply: &Reply| {
            let pat = reply.json();
            let text = pat["secret"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned();
            world.suite.minted.lock().unwrap().push(text.clone());
            Token { id: TokenId(pat["id"].as_str().unwrap().parse().unwrap()), text }
        };
        let scope = |domain: &str| {
            json!({ "domain": domain, "entity_type": "models", "entity_id": "*",
                    "operation": "llm_read" })
        };
        let new = json!({ "name": name, "duration": "24h", "scopes": [scope("acme")] });
        let token = minted(&self.does(201, "POST", "/api/pats", new).await);
        let at = format!("/api/pats/{}", token.id);
        fleet.all_answer(&token, MODELS, 200).await;
        let more = json!({ "scopes": [scope("picky")] });
        self.does(200, "PATCH", &format!("{at}/scope/add"), more.clone()).await;
        self.does(200, "PATCH", &format!("{at}/scope/remove"), more).await;
        let renamed = json!({ "name": format!("{name}-renamed") });
        self.does(200, "PATCH", &format!("{at}/name"), renamed).await;
        let listed = self.does(200, "GET", "/api/pats", Value::Null).await;
        assert!(listed.body.contains(&token.id.to_string()), "{listed:?}");
        let reset = json!({ "duration": "12h" });
        let next = minted(&self.does(200, "PATCH", &format!("{at}/secret/reset"), reset).await);
        fleet.turn("a new secret", (&token, MODELS), 200, 401).await;
        fleet.all_answer(&next, MODELS, 200).await;
        self.does(200, "PATCH", &format!("{at}/secret/revoke"), Value::Null).await;
        fleet.turn("a revocation", (&next, MODELS), 200, 401).await;
        self.does(204, "DELETE", &at, Value::Null).await;
    }
}

/// Sessions begin before the migration, and go on in either release.
pub(crate) async fn both_work_on_the_migrated_schema(suite: Arc<Suite>) {
    let world = suite.previous_world().await;
    let processes = Processes::of_previous_release(&world, 1, 0, &json!({}), patient("10s", "10s"));
    let fleet = super::fleet(&processes);
    let earlier = AdminProcess::previous(&world);
    let invited = Cli::of(&world).previous().json("user invite ann@example.com");
    let password = suite.provider_key();
    let accept = json!({ "code": invited["code"], "password": password }).to_string();
    assert_eq!(earlier.send("POST", "/api/invitation", &[JSON], &accept).await.status, 200);
    let begin = async |site: &AdminProcess<'_, '_>| {
        let body = credentials("ann", &password);
        let begun = site.send("POST", "/api/sessions", &[JSON], &body).await;
        assert_eq!(begun.status, 201, "{begun:?}");
        format!("Bearer {}", begun.json()["secret"].as_str().unwrap())
    };
    let mut sessions = vec![begin(&earlier).await];
    Person { site: &earlier, bearer: &sessions[0] }.uses_it(&world, &fleet, "before").await;

    migrate(&world).await;
    // One that ran before, one that is started again, and one of this release.
    let again = AdminProcess::previous(&world);
    let this = AdminProcess::start(&world, &[]);
    for site in [&earlier, &again, &this] {
        assert_eq!(site.send("GET", "/readyz", &[], "").await.status, 200);
        sessions.push(begin(site).await);
    }
    for (number, site) in [&earlier, &again, &this].into_iter().enumerate() {
        for (session, bearer) in sessions.iter().enumerate() {
            let person = Person { site, bearer };
            person.uses_it(&world, &fleet, &format!("after-{number}-{session}")).await;
        }
    }
    // What one release ends has ended for the other.
    for (site, other, bearer) in [(&earlier, &this, &sessions[1]), (&this, &earlier, &sessions[2])]
    {
        Person { site, bearer }.does(204, "DELETE", "/api/session", Value::Null).await;
        Person { site: other, bearer }.does(401, "GET", "/api/session", Value::Null).await;
    }
    for site in [&earlier, &again, &this] {
        suite.stack.stop(&site.server);
    }
}
