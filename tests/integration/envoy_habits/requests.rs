//! What a check contains about a request, and which requests never reach a check.

use std::sync::Arc;

use futures_util::future::join_all;
use patgate_testing::http::{Over, Sent};
use tonic::Code;

use super::{
    answers::{allow, denied},
    gate::{CANDID, GateAnswer::Says, MODELS, SHIPPED, TO_ACME, gate},
};
use crate::support::Suite;

pub(crate) async fn repeated_authorization_arrives_joined_with_a_comma(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for (sent, seen) in [
        (&["Bearer a"][..], "Bearer a"),
        (&["Bearer a", "Bearer b"], "Bearer a,Bearer b"),
        (&["Bearer a", "Bearer a"], "Bearer a,Bearer a"),
        (&["Bearer a", "Basic b", "c"], "Bearer a,Basic b,c"),
        // An empty value is dropped, so a good one stays good.
        (&["Bearer a", ""], "Bearer a"),
        (&["", "Bearer a"], "Bearer a"),
        (&["", "Bearer a", "", "Bearer b"], "Bearer a,Bearer b"),
        (&["", ""], ""),
        (&[""], ""),
    ] {
        let mut case = gate.case(Says(denied(Code::Unauthenticated)));
        // The second one in capitals: names are compared without case.
        let names = ["authorization", "AUTHORIZATION"].into_iter().cycle();
        let headers: Vec<_> = names.zip(sent.iter().copied()).collect();
        case.get(SHIPPED, MODELS, &headers).await;
        let checks = case.checks();
        let known = checks[0].headers.get("authorization").map(String::as_str);
        assert_eq!(known, Some(seen), "{sent:?}");
    }
}

pub(crate) async fn the_check_sees_the_path_normalized(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for (sent, seen) in [
        ("/proxy/acme/v1/models", "/proxy/acme/v1/models"),
        ("/proxy/acme/../beta/v1/models", "/proxy/beta/v1/models"),
        ("/proxy/acme/%2e%2e/beta/v1/models", "/proxy/beta/v1/models"),
        ("/proxy/acme/%2E%2e/beta/v1/models", "/proxy/beta/v1/models"),
        ("/proxy/acme/.%2e/beta/v1/models", "/proxy/beta/v1/models"),
        ("/proxy/acme/..;/beta/v1/models", "/proxy/beta/v1/models"),
        ("/../../proxy/acme/v1/models", "/proxy/acme/v1/models"),
        ("/proxy/./acme//v1///models", "/proxy/acme/v1/models"),
        ("//proxy/acme/v1/models", "/proxy/acme/v1/models"),
        ("/proxy\\acme\\v1\\models", "/proxy/acme/v1/models"),
        ("/proxy/%61cme/v1/models", "/proxy/acme/v1/models"),
        ("http://elsewhere/proxy/acme/v1/models", "/proxy/acme/v1/models"),
        // These are left for patgate to refuse.
        ("/proxy/acme/%252e%252e/beta", "/proxy/acme/%252e%252e/beta"),
        ("/proxy/acme;x/v1/models", "/proxy/acme;x/v1/models"),
        ("/proxy/ACME/v1/models", "/proxy/ACME/v1/models"),
        ("/proxy/acme/v1/models?a=/../%2F//x", "/proxy/acme/v1/models?a=/../%2F//x"),
    ] {
        let mut case = gate.case(Says(allow(&[TO_ACME], &[])));
        let reply = case.get(SHIPPED, sent, &[]).await;
        let paths: Vec<_> = case.checks().into_iter().map(|check| check.path).collect();
        assert_eq!(paths, [seen], "{sent}");
        // The backend gets the same path that was checked.
        assert_eq!(reply.status, 200, "{sent}");
        let rest = seen.splitn(4, '/').nth(3).unwrap();
        assert_eq!(reply.json()["seen"]["path"], format!("/{rest}"), "{sent}");
    }
}

pub(crate) async fn an_escaped_slash_is_refused_unchecked(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    // Concurrently, because Envoy closes a connection with a bad request only after a while.
    let refused = [
        "/proxy/acme%2Fv1/models",
        "/proxy/acme%2fv1/models",
        "/proxy/acme%5Cv1/models",
        "/proxy/acme%5cv1/models",
        "/proxy/acme/..%2Fbeta/v1/models",
        "/proxy/acme/v1/models%00",
        "/proxy/acme/v1/models#x",
        "/proxy/acme/v1/modéls",
    ]
    .map(async |path| {
        let mut case = gate.case(Says(allow(&[TO_ACME], &[])));
        let reply = case.get(SHIPPED, path, &[]).await;
        assert_eq!((reply.status, case.checks().len()), (400, 0), "{path}");
    });
    join_all(refused).await;
}

pub(crate) async fn as_shipped_a_header_with_an_underscore_reaches_nobody(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let dropped = ["x_domain_id", "X_Domain_Id", "x-domain_id", "x_upstream_cluster", "session_id"];
    let dropped = dropped.map(|name| (name, "underscored"));
    // Headers that a backend would see if it treated underscores as hyphens.
    let headers = [&dropped[..], &[("x-else", "kept")]].concat();
    let sent = Sent { method: "GET", target: MODELS, headers: &headers, ..Sent::default() };
    for over in Over::ALL {
        // The second listener shows every header that Envoy lets in.
        for listener in [SHIPPED, CANDID] {
            let mut case = gate.case(Says(allow(&[TO_ACME], &[])));
            let reply = case.over(over, listener, sent).await;
            let served = (reply.status, reply.header("x-backend"));
            assert_eq!(served, (200, Some("model-acme")), "{over:?} {listener}: {reply:?}");
            assert_eq!(reply.seen("x-else"), ["kept"], "{over:?} {listener}");
            assert!(!reply.body.contains("underscored"), "{over:?} {listener}: {reply:?}");
            let checks = case.checks();
            assert_eq!(checks.len(), 1, "{over:?} {listener}");
            assert_eq!(checks[0].headers.contains_key("x-else"), listener == CANDID);
            let values = &mut checks[0].headers.values();
            assert!(values.all(|value| value != "underscored"), "{over:?} {listener}: {checks:?}");
        }
    }
}
