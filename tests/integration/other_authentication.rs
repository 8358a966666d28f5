//! Beside other authentication: envoy/other-authentication.yaml, with a login page that needs none
//! and an API whose clients send a JWT, before real servers. patgate is asked about neither, and
//! nothing else is left unasked.

pub(crate) mod attacks;
pub(crate) mod filters;
pub(crate) mod guarded;
mod issuer;
pub(crate) mod rollout;

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, OnceLock},
};

use patgate_testing::{
    http::{Over, Reply, Sent},
    shipped::{configuration, find, manager},
    stack::{Server, project},
};
use serde_json::{Value, json};

use self::issuer::{Issuer, payload};
use crate::support::{
    Replica, Suite, World,
    envoy::{Gateway, add_nobody, envoy_patch, patient},
    tokens::reader,
};

const FILE: &str = "other-authentication.yaml";
const JWT: &str = "envoy.filters.http.jwt_authn";
const LOGIN: &str = "/login";
const ORDERS: &str = "/orders/7";
const MODELS: &str = "/proxy/acme/v1/models";
/// As shipped.
const SHIPPED: &str = "shipped";
/// Headers that only patgate and Envoy may set, as a client sends them.
const FORGED: [(&str, &str); 9] = [
    ("x-user-id", "root"),
    ("x-domain-id", "forged"),
    ("x-domain-slug", "forged"),
    ("x-pat-id", "forged"),
    ("x-auth-operation", "forged"),
    ("x-auth-model", "forged"),
    ("x-upstream-cluster", "model-acme"),
    ("x-jwt-payload", "forged"),
    ("x-envoy-original-path", MODELS),
];

type Change<'c> = &'c dyn Fn(&mut Value);

/// The two servers beside the model backends, which all of these tests share.
fn others(suite: &Suite) -> &'static [Server; 2] {
    static OTHERS: OnceLock<[Server; 2]> = OnceLock::new();
    let start = |name: &str| suite.stack.start("backend", json!({ "name": name }));
    OTHERS.get_or_init(|| [start("login"), start("orders")])
}

/// The shipped configuration in front of a replica, with a listener for each of these variations.
struct Beside {
    replica: Arc<Replica>,
    gateway: Gateway,
    issuer: Issuer,
    /// A token that may read about the models of acme.
    pat: String,
}

impl Beside {
    async fn start(world: &World<'_>, variations: &[(&str, &[Change<'_>])]) -> Self {
        Self::with(world, &[], variations, |_, _| {}).await
    }

    /// The same with settings of the replica, and changes of the whole and of where its clusters are.
    async fn with(
        world: &World<'_>,
        settings: &[&str],
        variations: &[(&str, &[Change<'_>])],
        change: impl FnOnce(&mut Value, &mut Value),
    ) -> Self {
        let suite = world.suite;
        let replica = Arc::new(world.serve(settings).await);
        let issuer = Issuer::new();
        let mut config = configuration(FILE);
        let mut patch = envoy_patch(suite, &[replica.grpc], patient("60s", "60s"));
        for (name, server) in ["login", "orders"].into_iter().zip(others(suite)) {
            patch["clusters"][name] = json!(format!("127.0.0.1:{}", server.port));
        }
        add_nobody(suite, &mut config, &mut patch);
        let mut listener = config["static_resources"]["listeners"][0].clone();
        let jwt = &mut find(&mut manager(&mut listener)["http_filters"], JWT)["typed_config"];
        jwt["providers"]["orders"]["local_jwks"]["inline_string"] = json!(issuer.keys());
        change(&mut config, &mut patch);
        let mut listeners = BTreeMap::from([(SHIPPED.to_owned(), listener.clone())]);
        for (name, changes) in variations {
            let mut listener = listener.clone();
            changes.iter().for_each(|change| change(manager(&mut listener)));
            listeners.insert((*name).to_owned(), listener);
        }
        let gateway = Gateway::start(suite, config, listeners, patch);
        let pat = reader(world).await.bearer();
        Self { replica, gateway, issuer, pat }
    }

    fn jwt(&self) -> String {
        format!("Bearer {}", self.issuer.good())
    }

    async fn send(&self, over: Over, on: &str, sent: Sent<'_>) -> Reply {
        over.send(self.gateway.port(on), sent).await
    }

    async fn get(&self, on: &str, target: &str, headers: &[(&str, &str)]) -> Reply {
        let sent = Sent { method: "GET", target, headers, ..Sent::default() };
        self.send(Over::Http1, on, sent).await
    }

    /// How many requests the model backends got.
    async fn of_models(&self) -> u64 {
        let acme = self.gateway.stat("cluster.model-acme.upstream_rq_total").await;
        acme + self.gateway.stat("cluster.model-beta.upstream_rq_total").await
    }
}

/// None of the client's copies arrives, and nothing that patgate sets.
fn has_no_identity(reply: &Reply, case: &str) {
    for (name, _) in FORGED.iter().filter(|(name, _)| *name != "x-jwt-payload") {
        assert!(reply.seen(name).is_empty(), "{case}: {name}: {reply:?}");
    }
}

pub(crate) async fn the_file_differs_only_where_it_says_so(suite: Arc<Suite>) {
    let read = |name: &str| fs::read_to_string(project(&format!("envoy/{name}"))).unwrap();
    let (plain, beside) = (read("envoy.yaml"), read(FILE));
    let mut kept = Vec::new();
    let mut marked = false;
    let mut blocks = 0;
    for line in beside.split_once("\n\n").unwrap().1.lines() {
        match line.trim() {
            "# other authentication:" => marked = true,
            "# end of other authentication" => (marked, blocks) = (false, blocks + 1),
            _ if !marked => kept.push(line),
            _ => {}
        }
    }
    assert_eq!(blocks, 6);
    let mut rest = plain.split_once("\n\n").unwrap().1.lines().filter(|line| !line.is_empty());
    let mut missing = Vec::new();
    for line in kept.iter().filter(|line| !line.is_empty()) {
        loop {
            let plain = rest.next().unwrap_or_else(|| panic!("in {FILE} alone: {line}"));
            if plain == *line {
                break;
            }
            missing.push(plain.trim());
        }
    }
    missing.extend(rest.map(str::trim));
    // One part is replaced: what the guard permits to requests with patgate's word.
    assert_eq!(missing, ["permissions:", "- any: true"]);
    let path = project(&format!("envoy/{FILE}"));
    suite.stack.ask(json!({ "do": "envoy-validate", "config": path })).unwrap();
}

/// Over HTTP/1.1, HTTP/2 and TLS.
pub(crate) async fn each_route_serves_as_before_patgate(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Beside::start(&world, &[]).await;
    let (pat, jwt) = (site.pat.clone(), site.jwt());
    for over in Over::ALL {
        let ask = async |method, target, authorization: &str| {
            let mut headers = FORGED.to_vec();
            headers.push(("cookie", "session=7"));
            if !authorization.is_empty() {
                headers.push(("authorization", authorization));
            }
            let sent = Sent { method, target, headers: &headers, ..Sent::default() };
            site.send(over, SHIPPED, sent).await
        };
        // The login page, for everyone, without what a client sends by mistake.
        for (method, target) in [("GET", LOGIN), ("POST", LOGIN), ("GET", "/login?to=/proxy/acme")]
        {
            for authorization in ["", &pat, &jwt, "Bearer forged"] {
                let case = format!("{over:?} {method} {target} {authorization:.12}");
                let reply = ask(method, target, authorization).await;
                assert_eq!(
                    (reply.status, reply.header("x-backend")),
                    (200, Some("login")),
                    "{case}"
                );
                assert_eq!(reply.json()["seen"]["path"], target, "{case}");
                assert_eq!(reply.seen("cookie"), ["session=7"], "{case}");
                for removed in ["authorization", "x-jwt-payload"] {
                    assert!(reply.seen(removed).is_empty(), "{case}: {removed}: {reply:?}");
                }
                has_no_identity(&reply, &case);
            }
        }
        // The API, for those who have a good JWT, which it does not get.
        for (method, target) in [("GET", "/orders"), ("GET", ORDERS), ("DELETE", "/orders/7?force")]
        {
            let case = format!("{over:?} {method} {target}");
            let reply = ask(method, target, &jwt).await;
            assert_eq!((reply.status, reply.header("x-backend")), (200, Some("orders")), "{case}");
            assert_eq!(reply.json()["seen"]["path"], target, "{case}");
            assert!(reply.seen("authorization").is_empty(), "{case}: {reply:?}");
            let told = reply.seen("x-jwt-payload");
            assert_eq!(told.len(), 1, "{case}: {told:?}");
            assert_eq!(payload(&told[0])["sub"], "client-7", "{case}");
            has_no_identity(&reply, &case);
        }
        // In the words of Envoy's filter, as before.
        for (authorization, text) in
            [("", "Jwt is missing"), (&pat, "Jwt is not in the form"), ("Bearer x.y.z", "Jwt ")]
        {
            let case = format!("{over:?} {authorization:.12}");
            let reply = ask("GET", ORDERS, authorization).await;
            assert_eq!((reply.status, reply.header("x-backend")), (401, None), "{case}: {reply:?}");
            assert!(reply.body.starts_with(text), "{case}: {reply:?}");
            assert_eq!(reply.header("content-type"), Some("text/plain"), "{case}");
            let challenge = reply.header("www-authenticate").unwrap_or_default();
            assert!(challenge.starts_with("Bearer realm="), "{case}: {challenge}");
        }
        assert_eq!(ask("GET", "/healthz", "").await.status, 200, "{over:?}");
    }
    assert_eq!(site.replica.decisions().await, 0, "patgate was asked");
    assert_eq!(site.of_models().await, 0);

    // Everything else is patgate's.
    for over in Over::ALL {
        for (authorization, status, code) in [
            (&*pat, 200, ""),
            (&*jwt, 401, "invalid_token"),
            ("Bearer forged", 401, "invalid_token"),
        ] {
            let mut headers = FORGED.to_vec();
            headers.push(("authorization", authorization));
            let sent = Sent { method: "GET", target: MODELS, headers: &headers, ..Sent::default() };
            let reply = site.send(over, SHIPPED, sent).await;
            assert_eq!((reply.status, &*reply.code()), (status, code), "{over:?}: {reply:?}");
            if status == 200 {
                assert_eq!(reply.header("x-backend"), Some("model-acme"));
                assert_eq!(reply.seen("x-user-id"), [world.id("ann").to_string()]);
                assert!(reply.seen("x-jwt-payload").is_empty());
                assert!(reply.seen("authorization").is_empty());
            }
        }
    }
    assert_eq!(site.replica.decisions().await, 9);
}

pub(crate) async fn only_a_good_jwt_reaches_the_api(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Beside::start(&world, &[]).await;
    let issuer = &site.issuer;
    let good = issuer.good();
    let mut cut = good.clone();
    cut.truncate(good.rfind('.').unwrap() + 20);
    for (case, jwt) in [
        ("another key", Issuer::new().good()),
        ("no signature", issuer.unsigned()),
        ("a part of the signature", cut),
        ("another issuer", issuer.with(&json!({ "iss": "https://evil.example.com" }))),
        ("no issuer", issuer.with(&json!({ "iss": null }))),
        ("another audience", issuer.with(&json!({ "aud": "billing" }))),
        ("no audience", issuer.with(&json!({ "aud": null }))),
        ("expired", issuer.with(&json!({ "exp": 1_700_000_000 }))),
        ("without end", issuer.with(&json!({ "exp": null }))),
        ("not yet", issuer.with(&json!({ "nbf": 4_000_000_000_u64 }))),
    ] {
        let bearer = format!("Bearer {jwt}");
        let reply = site.get(SHIPPED, ORDERS, &[("authorization", &bearer)]).await;
        assert!(matches!(reply.status, 401 | 403), "{case}: {reply:?}");
        assert!(
            reply.body.starts_with("Jwt ") || reply.body.contains("udience"),
            "{case}: {reply:?}"
        );
        assert_eq!(reply.header("x-backend"), None, "{case}");
    }
    // Not in the query, where logs would have it, and not in another header.
    let in_query = format!("{ORDERS}?access_token={good}");
    for (target, header) in
        [(&*in_query, "x-none"), (ORDERS, "x-jwt-payload"), (ORDERS, "x-authorization")]
    {
        let reply = site.get(SHIPPED, target, &[(header, &format!("Bearer {good}"))]).await;
        assert_eq!((reply.status, &*reply.body), (401, "Jwt is missing"), "{header}");
    }
    let reply = site.get(SHIPPED, ORDERS, &[("authorization", &site.jwt())]).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("orders")));
}

/// Its errors are those of Envoy, as before, and not in the form of a model's API.
pub(crate) async fn a_server_that_is_away_is_told_as_before(suite: Arc<Suite>) {
    let world = suite.world().await;
    let nobody = suite.dir.path().join("nobody.sock").display().to_string();
    let site = Beside::with(&world, &[], &[], |_, patch| {
        for name in ["login", "orders", "model-acme"] {
            patch["clusters"][name] = json!(format!("unix:{nobody}"));
        }
    })
    .await;
    let jwt = site.jwt();
    for (target, authorization) in [(LOGIN, ""), (ORDERS, &jwt)] {
        let reply = site.get(SHIPPED, target, &[("authorization", authorization)]).await;
        assert_eq!(reply.status, 503, "{target}: {reply:?}");
        assert!(reply.body.starts_with("upstream connect error"), "{target}: {reply:?}");
        assert_eq!(reply.header("content-type"), Some("text/plain"), "{target}");
    }
    let reply = site.get(SHIPPED, MODELS, &[("authorization", &site.pat)]).await;
    assert_eq!((reply.status, &*reply.code()), (503, "backend_unavailable"), "{reply:?}");
}
