//! The metrics of `patgate admin`: what is counted, and that the document names each.

use std::{collections::BTreeSet, fs, sync::Arc};

use patgate_testing::{http, stack::project};

use super::{AdminSite, credentials, guards::password};
use crate::support::Suite;

const JSON: (&str, &str) = ("content-type", "application/json");

async fn page(port: u16) -> String {
    let reply = http::send(port, "GET", "/metrics", &[], "").await;
    assert_eq!(reply.status, 200);
    reply.body
}

/// The value of a series; 0 if there is none.
pub(crate) async fn value_of(port: u16, series: &str) -> f64 {
    let page = page(port).await;
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

pub(crate) async fn what_clients_do_is_counted(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::with(&world, &["web.metrics.listen=127.0.0.1:0"]).await;
    let port = site.metrics.unwrap().port();
    // It is a port of its own, and the other one shows nothing of it.
    assert_eq!(site.send("GET", "/metrics", &[], "").await.status, 404);
    let secret = password(&site, "ann").await;
    let before = page(port).await;
    for line in [
        "patgate_ready 1.0",
        "patgate_web_requests_in_progress 0",
        "patgate_web_password_wait_seconds_count 0",
        "patgate_web_refused_total{reason=\"rate\"} 0",
        "patgate_web_refused_total{reason=\"busy\"} 0",
        "patgate_web_refused_total{reason=\"host\"} 0",
        "patgate_web_refused_total{reason=\"origin\"} 0",
        "patgate_web_sign_ins_total{method=\"password\",result=\"ok\"} 0",
        "patgate_web_sign_ins_total{method=\"password\",result=\"failed\"} 0",
        "patgate_web_sign_ins_total{method=\"password\",result=\"too_many\"} 0",
        "patgate_web_sign_ins_total{method=\"password\",result=\"unavailable\"} 0",
        "patgate_web_sign_ins_total{method=\"provider\",result=\"ok\"} 0",
    ] {
        assert!(before.lines().any(|shown| shown == line), "no `{line}` in {before}");
    }
    world.sql("UPDATE patgate.policy SET failed_attempts = 2").await;
    let begin = async |user: &str, password: &str| {
        site.send("POST", "/api/sessions", &[JSON], &credentials(user, password)).await.status
    };
    assert_eq!(begin("ann", &secret).await, 201);
    for expected in [401, 401, 429] {
        assert_eq!(begin("bob", "a wrong password").await, expected);
    }
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(site.send("DELETE", "/api/session", &foreign, "").await.status, 403);
    let path = "/api/pats/019e0000-0000-7000-8000-000000000000?secret=in-a-query";
    let elsewhere = http::send_to("evil.example", site.address.port(), "GET", path, &[], "").await;
    assert_eq!(elsewhere.status, 421);
    assert_eq!(site.send("GET", "/no/such/path", &[], "").await.status, 404);
    let signed_in = "patgate_web_sign_ins_total{method=\"password\",result=";
    for (series, value) in [
        (&*format!("{signed_in}\"ok\"}}"), 1.0),
        (&*format!("{signed_in}\"failed\"}}"), 2.0),
        (&*format!("{signed_in}\"too_many\"}}"), 1.0),
        // The one that is refused for the account's attempts is hashed, too.
        ("patgate_web_password_wait_seconds_count", 4.0),
        ("patgate_web_refused_total{reason=\"origin\"}", 1.0),
        ("patgate_web_refused_total{reason=\"host\"}", 1.0),
        ("patgate_web_requests_total{route=\"/api/sessions\",status=\"2xx\"}", 1.0),
        ("patgate_web_requests_total{route=\"/api/sessions\",status=\"4xx\"}", 3.0),
        ("patgate_web_requests_total{route=\"/api/pats/{id}\",status=\"4xx\"}", 1.0),
        // The first was the one for /metrics.
        ("patgate_web_requests_total{route=\"none\",status=\"4xx\"}", 2.0),
    ] {
        assert_eq!(value_of(port, series).await, value, "{series}");
    }
    let after = page(port).await;
    for private in ["ann@example.com", "in-a-query", "no/such", "019e0000", "evil"] {
        assert!(!after.contains(private), "{private}: {after}");
    }
    assert_eq!(documented(), shown(&after), "docs/operations.md has each metric, and no other");
}

/// The names of a page.
fn shown(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(project("docs/operations.md")).unwrap();
    let of_admin = |block: &&str| block.starts_with("| metric of `patgate admin` |");
    let table = text.split("\n\n").find(of_admin).expect("a table of these metrics");
    let names = table.lines().skip(2).map(|row| row.split('`').nth(1).unwrap().to_owned());
    names.collect()
}
