//! Spellings and tricks by which a client without a token could try to use an exception for
//! something else.

use std::sync::Arc;

use patgate_testing::{
    http::{self, Over, Sent},
    wire::Wire,
};

use super::{Beside, FORGED, LOGIN, MODELS, ORDERS, SHIPPED, has_no_identity};
use crate::support::Suite;

/// What becomes of a request: refused by patgate, by Envoy or by jwt_authn, or served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// patgate was asked, and there is no token, or the path is ambiguous.
    Patgate,
    /// Envoy refuses the path itself.
    Path,
    /// jwt_authn refuses.
    Jwt,
    Login,
    Orders,
}

use End::{Jwt, Login, Orders, Patgate, Path};

/// Targets without any credential, and with a good JWT.
const TARGETS: [(&str, End, End); 40] = [
    (LOGIN, Login, Login),
    ("/login?", Login, Login),
    ("/login?x=/proxy/acme/v1/models", Login, Login),
    // Envoy makes these the same path.
    ("//login", Login, Login),
    ("/./login", Login, Login),
    ("/x/../login", Login, Login),
    ("/%6Cogin", Login, Login),
    ("/proxy/acme/../../login", Login, Login),
    // And these are other paths.
    ("/login/", Patgate, Patgate),
    ("/login/x", Patgate, Patgate),
    ("/loginx", Patgate, Patgate),
    ("/Login", Patgate, Patgate),
    ("/LOGIN", Patgate, Patgate),
    ("/login;x=1", Patgate, Patgate),
    ("/login;/../proxy/acme/v1/models", Patgate, Patgate),
    ("/login%3Fx", Patgate, Patgate),
    ("/login%23", Patgate, Patgate),
    ("/login.", Patgate, Patgate),
    ("/login%20", Patgate, Patgate),
    ("/login/../proxy/acme/v1/models", Patgate, Patgate),
    ("/login/%2e%2e/proxy/acme/v1/models", Patgate, Patgate),
    ("/login/%252e%252e/proxy/acme/v1/models", Patgate, Patgate),
    ("/login\\..\\proxy\\acme\\v1\\models", Patgate, Patgate),
    ("/login%2F", Path, Path),
    ("/login%2f..%2fproxy%2facme", Path, Path),
    ("/login%5C..%5Cproxy", Path, Path),
    ("/orders", Jwt, Orders),
    ("/orders/", Jwt, Orders),
    ("//orders//7", Jwt, Orders),
    ("/ordersx", Patgate, Patgate),
    ("/Orders/7", Patgate, Patgate),
    ("/orders;/7", Patgate, Patgate),
    ("/orders/../proxy/acme/v1/models", Patgate, Patgate),
    ("/orders/%2e%2e/proxy/acme/v1/models", Patgate, Patgate),
    ("/orders/..;/proxy/acme/v1/models", Patgate, Patgate),
    ("/orders/..%2fproxy/acme/v1/models", Path, Path),
    // These stay as they are, so only the server of the exception can be misled.
    ("/orders/%252e%252e/proxy/acme/v1/models", Jwt, Orders),
    ("/orders/...", Jwt, Orders),
    ("/orders/../orders/../proxy/acme/v1/models", Patgate, Patgate),
    (MODELS, Patgate, Patgate),
];

/// In each way that carries the target.
pub(crate) async fn no_spelling_of_a_path_opens_a_model(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Beside::start(&world, &[]).await;
    let jwt = site.jwt();
    let mut asked = 0;
    for (target, bare, with_jwt) in TARGETS {
        for (authorization, expected) in [(None, bare), (Some(&*jwt), with_jwt)] {
            let mut headers = FORGED.to_vec();
            headers.extend(authorization.map(|value| ("authorization", value)));
            let sent = Sent { method: "GET", target, headers: &headers, ..Sent::default() };
            for over in Over::that_carry(sent) {
                let case = format!("{over:?} {target} {expected:?}");
                let reply = site.send(over, SHIPPED, sent).await;
                let to = reply.header("x-backend");
                let end = match (reply.status, to) {
                    (200, Some("login")) => Login,
                    (200, Some("orders")) => Orders,
                    (401, None) if reply.body.starts_with("Jwt ") => Jwt,
                    (401, None) => Patgate,
                    // Such a path has more than one meaning.
                    (400, None) if reply.code() == "bad_request" => Patgate,
                    (400, None) if reply.code() == "path_not_accepted" => Path,
                    _ => panic!("{case}: {reply:?}"),
                };
                assert_eq!(end, expected, "{case}: {reply:?}");
                asked += u64::from(end == Patgate);
                if to.is_some() {
                    has_no_identity(&reply, &case);
                    let path = reply.json()["seen"]["path"].as_str().unwrap().to_owned();
                    assert!(
                        path.starts_with(LOGIN) || path.starts_with("/orders"),
                        "{case}: {path}"
                    );
                }
            }
        }
    }
    assert_eq!(site.replica.decisions().await, asked);
    assert_eq!(site.of_models().await, 0);
    println!("{} targets, {asked} of the requests were patgate's", TARGETS.len());
}

/// Other hosts, forms, methods, and headers that stand for another path.
pub(crate) async fn no_other_part_of_a_request_opens_a_model(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Beside::start(&world, &[]).await;
    let port = site.gateway.port(SHIPPED);
    let jwt = site.jwt();
    for host in ["login", "orders", "gateway:80", "model-acme", "127.0.0.1"] {
        let reply = http::send_to(host, port, "GET", MODELS, &[], "").await;
        assert_eq!((reply.status, reply.header("x-backend")), (401, None), "{host}: {reply:?}");
        let reply = http::send_to(host, port, "GET", LOGIN, &[], "").await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some("login")), "{host}");
    }
    for name in [
        "x-original-url",
        "x-original-uri",
        "x-rewrite-url",
        "x-envoy-original-path",
        "x-forwarded-uri",
        "x-forwarded-path",
        "x-forwarded-prefix",
        "referer",
    ] {
        // Neither makes a request for a model one for an exception, nor the other way around.
        let reply = site.get(SHIPPED, MODELS, &[(name, LOGIN)]).await;
        assert_eq!((reply.status, reply.header("x-backend")), (401, None), "{name}: {reply:?}");
        let reply = site.get(SHIPPED, LOGIN, &[(name, MODELS)]).await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some("login")), "{name}");
    }
    // A method that is not named is not excepted: patgate is asked, and there is no token.
    for over in Over::ALL {
        for (method, target) in [
            ("DELETE", LOGIN),
            ("PUT", LOGIN),
            ("PATCH", LOGIN),
            ("OPTIONS", LOGIN),
            ("TRACE", LOGIN),
            ("OPTIONS", ORDERS),
            ("TRACE", ORDERS),
        ] {
            let headers = [("x-http-method-override", "GET"), ("authorization", &*jwt)];
            let sent = Sent { method, target, headers: &headers, ..Sent::default() };
            let reply = site.send(over, SHIPPED, sent).await;
            let case = format!("{over:?} {method} {target}: {reply:?}");
            assert_eq!((reply.status, reply.header("x-backend")), (401, None), "{case}");
            assert_eq!(reply.code(), "invalid_token", "{case}");
        }
    }
    let line = async |line: &str| {
        let head = format!("{line} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
        let reply = http::raw(port, head.into_bytes()).await;
        (reply.status, reply.header("x-backend").map(str::to_owned))
    };
    assert_eq!(line("GET http://evil/proxy/acme/v1/models").await, (401, None));
    assert_eq!(line("GET http://login/proxy/acme/v1/models").await, (401, None));
    assert_eq!(line("GET http://evil/login").await, (200, Some("login".to_owned())));
    // patgate is asked about neither.
    for connect in ["CONNECT login:80", "CONNECT 127.0.0.1:8001", "CONNECT gateway:80"] {
        assert_eq!(line(connect).await, (503, None), "{connect}");
    }
    assert_eq!(line("OPTIONS *").await, (404, None));
    assert_eq!(site.of_models().await, 0);
}

/// No connection that Envoy only passes on.
pub(crate) async fn no_exception_is_for_an_upgrade(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Beside::start(&world, &[]).await;
    let jwt = site.jwt();
    let ask = async |target: &str, upgrade: &str| {
        let mut wire = Wire::connect(site.gateway.port(SHIPPED)).await;
        wire.write(&format!(
            "GET {target} HTTP/1.1\r\nhost: gateway\r\nconnection: Upgrade\r\nupgrade: {upgrade}\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             authorization: {jwt}\r\n\r\n"
        ))
        .await;
        wire.read_until("\r\n\r\n").await;
        wire.text
    };
    let before = served(&site).await;
    for target in [LOGIN, ORDERS] {
        for upgrade in ["websocket", "WebSocket", "other"] {
            let head = ask(target, upgrade).await;
            assert!(head.starts_with("HTTP/1.1 403 "), "{target} {upgrade}: {head}");
        }
    }
    assert_eq!(served(&site).await, before);
}

async fn served(site: &Beside) -> u64 {
    let login = site.gateway.stat("cluster.login.upstream_rq_total").await;
    login + site.gateway.stat("cluster.orders.upstream_rq_total").await
}
