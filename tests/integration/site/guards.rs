//! What a request must have passed before any handler sees it.

use std::sync::Arc;

use patgate_testing::http::{self, Reply};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use uuid::Uuid;

use super::{AdminSite, cookie, credentials};
use crate::support::Suite;

const HTML: Option<&str> = Some("text/html; charset=utf-8");
const JSON: (&str, &str) = ("content-type", "application/json");

fn problem(reply: &Reply) -> (u16, String) {
    let problem = reply.json();
    let kind = problem["type"].as_str().unwrap_or_else(|| panic!("{reply:?}"));
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(problem["status"], reply.status);
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{reply:?}");
    (reply.status, kind.strip_prefix("urn:patgate:problem:").unwrap().to_owned())
}

pub(crate) fn is(reply: &Reply, status: u16, code: &str) {
    assert_eq!(problem(reply), (status, code.to_owned()), "{reply:?}");
}

/// A new account, for a sign-in over HTTP.
pub(crate) async fn password(site: &AdminSite<'_, '_>, user: &str) -> String {
    let text = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    site.world.suite.credentials.lock().unwrap().push(text.clone());
    let invitation = site.site.invited(user, "1 hour").await;
    let origin = Default::default();
    let password = text.parse().unwrap();
    site.site.service.accept_invitation(&origin, &invitation, &password).await.unwrap();
    text
}

pub(crate) async fn a_session_begins_is_used_and_ends(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let password = password(&site, "ann").await;
    let origin = site.origin();
    let own = ("origin", &*origin);
    let begin = async |user, password: &str| {
        site.send("POST", "/api/sessions", &[JSON, own], &credentials(user, password)).await
    };
    // A wrong password, a user without an account, an address of nobody, and what is no address.
    is(&begin("ann", "a wrong password").await, 401, "sign-in-failed");
    let refused = begin("bob", &password).await;
    is(&refused, 401, "sign-in-failed");
    for other in ["nobody", "", "\u{0}"] {
        assert_eq!(begin(other, &password).await.body, refused.body);
    }
    is(&begin("ann", "short").await, 401, "sign-in-failed");

    let begun = begin("ann", &password).await;
    assert_eq!(begun.status, 201, "{begun:?}");
    let given = begun.header("set-cookie").unwrap();
    assert!(given.contains("; HttpOnly; SameSite=Strict"), "{given}");
    let cookie = cookie(&begun);
    let cookie = ("cookie", &*cookie);
    let shown = site.send("GET", "/api/session", &[cookie], "").await;
    assert_eq!((shown.status, shown.json()["email"].as_str()), (200, Some("ann@example.com")));
    let secret = begun.json()["secret"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {secret}");
    let by_program = ("authorization", &*bearer);
    assert_eq!(site.send("GET", "/api/pats", &[by_program], "").await.status, 200);

    let ended = site.send("DELETE", "/api/session", &[cookie, own], "").await;
    assert_eq!(ended.status, 204);
    assert!(ended.header("set-cookie").unwrap().contains("Max-Age=0"));
    for proof in [cookie, by_program] {
        is(&site.send("GET", "/api/session", &[proof], "").await, 401, "not-signed-in");
    }
}

pub(crate) async fn another_site_changes_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let client = site.client("ann").await;
    let cookie = format!("patgate-session={}", client.secret);
    let cookie = ("cookie", &*cookie);
    let origin = site.origin();
    let elsewhere = format!("{origin}.example.org");
    let end = async |headers: &[(&str, &str)]| {
        let headers = [&[cookie], headers].concat();
        site.send("DELETE", "/api/session", &headers, "").await
    };
    for foreign in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("origin", "")],
        &[("origin", &elsewhere)],
        &[("origin", &origin), ("origin", &origin)],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[],
    ] {
        is(&end(foreign).await, 403, "foreign-origin");
    }
    // Nobody is signed in by another site, either.
    let begin = [JSON, ("origin", "https://evil.example")];
    let forced = site.send("POST", "/api/sessions", &begin, &credentials("ann", "x")).await;
    is(&forced, 403, "foreign-origin");
    // A session with two cookies is none: a neighbour domain may have added one.
    let two = format!("{}; {}", cookie.1, cookie.1);
    is(&site.send("GET", "/api/session", &[("cookie", &two)], "").await, 401, "not-signed-in");
    assert_eq!(site.send("GET", "/api/session", &[cookie], "").await.status, 200);
    assert_eq!(end(&[("origin", &origin)]).await.status, 204);
}

pub(crate) async fn a_program_has_the_session_of_its_secret(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let root = site.administrator().await;
    let session = root.get("/api/session").await.json();
    assert_eq!(
        (&session["email"], &session["elevated"]),
        (&"root@example.com".into(), &true.into())
    );
    // No other request ends it.
    let ended = root.json("DELETE", "/api/pats", Value::Null).await;
    is(&ended, 405, "method-not-allowed");
    let ended = root.json("DELETE", "/api/session", Value::Null).await;
    assert_eq!(ended.status, 204);
    is(&root.get("/api/session").await, 401, "not-signed-in");
}

pub(crate) async fn every_answer_protects_a_browser(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    for (method, path, status) in [
        ("GET", "/api/session", 401),
        ("GET", "/api/nothing", 404),
        ("GET", "/nothing/here", 404),
        ("GET", "/sign-in", 200),
        ("PUT", "/api/session", 405),
        ("GET", "/api/../api/session", 404),
    ] {
        let reply = site.send(method, path, &[], "").await;
        match path.starts_with("/api/") {
            true => assert_eq!(problem(&reply).0, status, "{path}"),
            false => assert_eq!((reply.status, reply.header("content-type")), (status, HTML)),
        }
        for (name, part) in [
            ("content-security-policy", "default-src 'none'"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("x-request-id", "-"),
        ] {
            let value = reply.header(name).unwrap_or_else(|| panic!("{path}: no {name}"));
            assert!(value.contains(part), "{name}: {value}");
        }
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    // A name that an attacker's DNS leads here.
    for host in ["evil.example", "127.0.0.1", ""] {
        let reply = http::send_to(host, site.address.port(), "GET", "/api/session", &[], "").await;
        is(&reply, 421, "wrong-host");
    }
    // Probes have no name.
    let alive = http::send_to("10.0.0.1", site.address.port(), "GET", "/livez", &[], "").await;
    assert_eq!(alive.status, 200);
}

/// Requests take a place when they have arrived whole; those that never do keep nobody out.
pub(crate) async fn a_slow_request_keeps_no_place(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let head = format!(
        "POST /sign-in HTTP/1.1\r\nhost: {}\r\norigin: {}\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\ne",
        site.address,
        site.origin()
    );
    // More than there are places.
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut connection = TcpStream::connect(site.address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        slow.push(connection);
    }
    for _ in 0..20 {
        assert_eq!(site.send("GET", "/sign-in", &[], "").await.status, 200);
    }
    // Each is told so, and its connection ends.
    let mut answer = String::new();
    slow.pop().unwrap().read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let long = "x".repeat(65 * 1024);
    is(&site.send("POST", "/api/sessions", &[JSON], &long).await, 413, "too-large");
}

pub(crate) async fn a_client_has_a_rate(suite: Arc<Suite>) {
    let world = suite.world().await;
    let settings = ["web.requests_per_second=1", "web.sign_ins_per_minute=1", "web.proxies=1"];
    let site = AdminSite::with(&world, &settings).await;
    let from = async |address: &str| {
        let headers = [("x-forwarded-for", address)];
        site.send("GET", "/api/session", &headers, "").await
    };
    let mut refused = 0;
    for _ in 0..10 {
        let reply = from("192.0.2.1").await;
        if reply.status == 429 {
            assert!(reply.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
            refused += 1;
        }
    }
    // Five are saved, and some more come in while this runs.
    assert!(refused >= 1, "no request was refused");
    assert_eq!(from("192.0.2.2").await.status, 401);

    // Each for another account, because an account has a limit of its own.
    let attempt = async |address: &str| {
        let headers = [JSON, ("x-forwarded-for", address)];
        let user = Uuid::new_v4().to_string();
        site.send("POST", "/api/sessions", &headers, &credentials(&user, "a wrong password")).await
    };
    let mut seen = Vec::new();
    for number in 0..12 {
        // Another address of the same network; each has a rate for other requests.
        seen.push(attempt(&format!("2001:db8::{number}")).await.status);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert!(seen.contains(&429), "{seen:?}");
    assert_eq!(attempt("198.51.100.9").await.status, 401);
}

pub(crate) async fn a_token_is_no_session_and_a_session_no_token(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let token = world.token(&[]).await;
    let bearer = token.bearer();
    let refused = site.send("GET", "/api/pats", &[("authorization", &bearer)], "").await;
    is(&refused, 401, "not-signed-in");
    let detail = refused.json()["detail"].clone();
    assert!(matches!(&detail, Value::String(text) if text.contains("Personal Access Token")));

    let replica = world.serve(&[]).await;
    let client = site.client("ann").await;
    let session = format!("Bearer {}", client.secret);
    let path = "/proxy/acme/v1/models";
    let answer = replica.check("GET", path, &[("authorization", &session)]).await;
    assert_eq!(crate::support::outcome(&answer).0, 401);
}
