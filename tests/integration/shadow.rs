//! Shadow and ramp: the verdicts are those of enforcing, and a request that passes nevertheless has
//! no identity.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    sync::Arc,
};

use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse};
use futures_util::future::join_all;
use patgate::{domain::DomainId, rollout::Share};
use patgate_testing::{
    access_log, eventually,
    http::{self, Over, Sent},
    proxy::{Mode, Proxy},
    shipped::rollout_configurations,
    stack::Server,
};
use serde_json::{Value, json};

use crate::{
    bodies, cases,
    support::{
        Replica, Scope, Suite, Token, World,
        cli::{Cli, get},
        decision_log::{ALL, decisions, file, logging},
        envoy::patient,
        fleet::status,
        http_of, outcome, process,
        replica::lookups,
        tables::tables,
        tokens::reader,
    },
    surfaces,
};

const MODELS: &str = "/proxy/acme/v1/models";
const READ: Scope<'static> = ("acme", "models", "*", "llm_read");
const OURS: [&str; 7] = [
    "x-auth-model",
    "x-auth-operation",
    "x-domain-id",
    "x-domain-slug",
    "x-pat-id",
    "x-upstream-cluster",
    "x-user-id",
];

/// Every field of a verdict.
const VERDICT: [&str; 11] = [
    "outcome",
    "code",
    "status",
    "pat_id",
    "user_id",
    "domain",
    "domain_id",
    "domain_slug",
    "operation",
    "model",
    "upstream",
];

fn verdict(line: &Value) -> Vec<Value> {
    // If a list that patgate would answer goes to a backend, its line names the backend.
    let answered = line["outcome"] == "answered";
    let names = VERDICT.iter().filter(|name| !(answered && **name == "upstream"));
    names.map(|name| line[name].clone()).collect()
}

/// Returns whether an answer lets a request pass without an identity.
fn softened(response: &CheckResponse) -> bool {
    let Some(HttpResponse::OkResponse(ok)) = &response.http_response else { return false };
    ok.headers.is_empty()
}

fn metadata(response: &CheckResponse, name: &str) -> String {
    let fields = &response.dynamic_metadata.as_ref().unwrap().fields;
    let value = fields.get(name).map(|value| serde_json::to_value(format!("{value:?}")).unwrap());
    value.map_or_else(String::new, |text| text.as_str().unwrap().to_owned())
}

async fn set_mode(world: &World<'_>, mode: &str) {
    world.sql(&format!("UPDATE patgate.domains SET mode = '{mode}'")).await;
}

pub(crate) async fn verdicts_are_the_same_in_every_mode(suite: Arc<Suite>) {
    let world = suite.world().await;
    let mut requests = bodies::requests(&world).await;
    let bodies = requests.len();
    requests.extend(cases::requests(&world).await);
    requests.extend(surfaces::requests(&world).await);
    set_mode(&world, "shadow").await;
    let mut logs: Vec<HashMap<String, Value>> = Vec::new();
    let mut softenings = Vec::new();
    for mode in ["enforce", "per-domain", "shadow"] {
        let log = file(&world, mode);
        let setting = format!("mode={mode}");
        let replica =
            logging(&world, &log, &[&setting, &tables(&suite), ALL[0], ALL[1], ALL[2]]).await;
        let mut softening = HashMap::new();
        for (number, request) in requests.iter().enumerate() {
            let id = format!("case-{number}");
            let mut request = request.clone();
            http_of(&mut request).headers.insert("x-request-id".to_owned(), id.clone());
            softening.insert(id, softened(&replica.raw(request).await));
        }
        let lines = decisions(&log, requests.len()).await;
        let lines =
            lines.into_iter().map(|line| (line["request_id"].as_str().unwrap().to_owned(), line));
        logs.push(lines.collect());
        softenings.push(softening);
    }
    let [enforced, others @ ..] = &logs[..] else { panic!() };
    assert_eq!(enforced.len(), requests.len());
    let mut codes = BTreeSet::new();
    let mut passed = [0; 3];
    let mut lists = 0;
    for (id, line) in enforced {
        codes.insert(line["code"].as_str().unwrap());
        for other in others {
            assert_eq!(verdict(&other[id]), verdict(line), "{id}: {} and {line}", other[id]);
        }
        // Before enforcing, a list that patgate would answer goes to a backend.
        if line["outcome"] == "answered" {
            let enforced: Vec<_> = logs.iter().map(|log| log[id]["enforced"].clone()).collect();
            assert_eq!(enforced, [true, false, false], "{id}: {line}");
            assert!(!softenings[0][id], "{id}: {line}");
            lists += 1;
            continue;
        }
        for ((log, softening), passed) in logs.iter().zip(&softenings).zip(&mut passed) {
            assert_eq!(log[id]["enforced"], !softening[id], "{id}: {}", log[id]);
            *passed += usize::from(softening[id]);
        }
        // An ambiguous request is refused in any mode, and an allow is no unenforced denial.
        let may_pass = !["ok", "bad_request"].contains(&line["code"].as_str().unwrap());
        let closed = line["domain"] == "closed";
        assert_eq!(softenings[2][id], may_pass && !closed, "{id}: {}", logs[2][id]);
        assert!(!softenings[1][id] || may_pass && !closed, "{id}: {}", logs[1][id]);
    }
    println!("of {} requests, each with one verdict, passed: {passed:?}", requests.len());
    assert_eq!(passed[0], 0);
    assert!(lists > 0, "no list is among them");
    // Requests that are refused for their body are among them.
    let refused = (0..bodies).filter(|number| softenings[2][&format!("case-{number}")]).count();
    println!("{refused} of {bodies} bodies are refused");
    assert!(refused > 100 && refused < bodies, "{refused} of {bodies}");
    assert!(passed[1] > 100 && passed[2] > passed[1], "{passed:?}");
    let expected = [
        "bad_request",
        "body_too_large",
        "invalid_body",
        "invalid_query",
        "invalid_token",
        "missing_credential",
        "not_found",
        "ok",
        "owner_disabled",
        "permission_denied",
        "token_expired",
        "token_revoked",
        "unsupported_media_type",
    ];
    assert!(codes.iter().eq(&expected), "{codes:?}");
}

pub(crate) async fn an_unenforced_denial_adds_no_identity_headers(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = world.token(&[]).await.bearer();
    let replica = world.serve(&["mode=shadow"]).await;
    for (headers, code, user) in [
        (vec![], "missing_credential", String::new()),
        (vec![("authorization", "Bearer pat_forged")], "invalid_token", String::new()),
        (
            vec![("authorization", bearer.as_str()), ("x-user-id", "root")],
            "permission_denied",
            world.id("ann").to_string(),
        ),
    ] {
        let response = replica.check("GET", MODELS, &headers).await;
        let Some(HttpResponse::OkResponse(ok)) = &response.http_response else { panic!("{code}") };
        assert!(ok.headers.is_empty(), "{response:?}");
        let mut removed = ok.headers_to_remove.clone();
        removed.sort();
        // `authorization` stays for the previous authorization, unless it has a token of patgate's.
        let of_ours = (code == "permission_denied").then_some("authorization");
        let expected: Vec<_> = of_ours.into_iter().chain(OURS).collect();
        assert_eq!(removed, expected);
        assert_eq!(response.status.as_ref().unwrap().code, 0);
        for (name, value) in [
            ("outcome", "deny"),
            ("code", code),
            ("enforced", "false"),
            ("mode", "shadow"),
            ("user_id", &user),
        ] {
            let told = metadata(&response, name);
            assert!(told.contains(value) && told.is_empty() == value.is_empty(), "{name}: {told}");
        }
    }
    let counted = |enforced: bool| {
        format!(
            "patgate_decisions_total{{outcome=\"deny\",code=\"permission_denied\",\
             enforced=\"{enforced}\"}}"
        )
    };
    assert_eq!(replica.metric(&counted(false)).await, 1);
    assert_eq!(replica.metric(&counted(true)).await, 0);
}

pub(crate) async fn through_envoy_a_softened_request_reaches_the_old_backend(suite: Arc<Suite>) {
    let world = suite.world().await;
    let good = world.token(&[READ, ("acme", "models", "*", "llm_chat_completions")]).await.bearer();
    let replica = world.serve(&["mode=shadow"]).await;
    let backend = |name| format!("127.0.0.1:{}", suite.backends[name].port);
    // The old gateway answers like model-beta, and does not rewrite paths.
    let patch = json!({
        "authz": replica.grpc.to_string(),
        "clusters": { "model-acme": backend("model-acme"), "old-gateway": backend("model-beta") },
        "ext_authz": patient("10s", "10s"),
        "tls": http::certify(suite.dir.path()),
    });
    for text in rollout_configurations() {
        let arguments = json!({ "config_yaml": text, "patch": patch });
        let envoy = suite.stack.start("envoy", arguments);
        softened_requests_reach_the_old_backend(&envoy, &good).await;
    }

    // With the routes as shipped, a request that passes without an identity finds no backend.
    let shipped = replica.envoy(&suite);
    let reply = http::send(shipped.port, "GET", MODELS, &[], "").await;
    assert_eq!((reply.status, reply.header("x-backend")), (503, None), "{reply:?}");
}

async fn softened_requests_reach_the_old_backend(envoy: &Server, good: &str) {
    let forged: Vec<(&str, &str)> = OURS.iter().map(|name| (*name, "model-acme")).collect();
    const CHAT: &str = "/proxy/acme/v1/chat/completions";
    for (credential, code) in [
        (None, "missing_credential"),
        (Some("Bearer their-own-key"), "invalid_token"),
        (Some("Basic YW5uOnBhc3N3b3Jk"), "invalid_token"),
    ] {
        for (method, path, body) in [("GET", MODELS, ""), ("POST", CHAT, "{\"model\":\"m\"}")] {
            let mut headers = forged.clone();
            headers.extend(credential.map(|value| ("authorization", value)));
            let headers = &headers[..];
            let body = body.as_bytes();
            let sent = Sent { method, target: path, headers, body, ..Sent::default() };
            for over in Over::ALL {
                let reply = over.send(envoy.port, sent).await;
                assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-beta")));
                assert_eq!(reply.seen("authorization"), Vec::from_iter(credential), "{reply:?}");
                assert_eq!(reply.json()["seen"]["path"], path, "as it came");
                for name in OURS {
                    assert_eq!(reply.seen(name).len(), 0, "{name}: {reply:?}");
                }
                let line = access_log::line(envoy, &reply).await;
                assert_eq!((&line["outcome"], &line["code"]), (&json!("deny"), &json!(code)));
                let softened = (&json!("false"), &json!("shadow"));
                assert_eq!((&line["enforced"], &line["mode"]), softened);
                assert_eq!(line["tier"], "none");
            }
        }
    }
    // An allowed request goes to the backend that patgate names, as before; an ambiguous one goes
    // nowhere.
    let headers = [("authorization", good)];
    let calls = [("GET", MODELS, ""), ("POST", CHAT, "{\"model\":\"m\"}")];
    for (over, (method, target, body)) in
        Over::ALL.into_iter().flat_map(|over| calls.map(|call| (over, call)))
    {
        let headers = &headers[..];
        let body = body.as_bytes();
        let sent = Sent { method, target, headers, body, ..Sent::default() };
        let reply = over.send(envoy.port, sent).await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")));
        assert_eq!(reply.seen("authorization").len(), 0);
        assert_eq!(reply.seen("x-domain-slug"), ["acme"]);
    }
    let reply = http::send(envoy.port, "GET", "/proxy/acme/v1/models;x", &headers, "").await;
    assert_eq!((reply.status, reply.code()), (400, "bad_request".to_owned()));
}

/// Returns which of these tokens, all without a scope, are refused.
async fn refused(replica: &Replica, tokens: &[Token]) -> Vec<bool> {
    let mut refused = Vec::new();
    for some in tokens.chunks(100) {
        let statuses = join_all(some.iter().map(|token| status(replica, token))).await;
        for status in statuses {
            assert!([200, 403].contains(&status), "{status}");
            refused.push(status == 403);
        }
    }
    refused
}

pub(crate) async fn a_share_is_enforced_of_the_same_tokens_everywhere(suite: Arc<Suite>) {
    const TOKENS: usize = 1000;
    let world = suite.world().await;
    let (tokens, statements): (Vec<Token>, Vec<String>) =
        (0..TOKENS).map(|_| world.issue("ann", "1 hour", &[])).unzip();
    world.sql(&statements.concat()).await;
    let dead = [
        (world.token_for("ann", "-1 hour", &[]).await, "token_expired"),
        (world.token(&[]).await, "token_revoked"),
        (world.token_for("gone", "1 hour", &[]).await, "owner_disabled"),
    ];
    let id = dead[1].0.id;
    world.sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{id}'")).await;
    let good = reader(&world).await;
    let replicas =
        [world.serve(&["mode=per-domain"]).await, world.serve(&["mode=per-domain"]).await];
    let cli = Cli::of(&world);
    let acme = DomainId(world.id("acme"));
    let mut before = vec![false; TOKENS];
    for percent in [0u8, 30, 60, 100] {
        cli.ok(&format!("domain update acme --enforced-share {percent}%"));
        let share = Share::new(percent).unwrap();
        // A token that this share treats differently than the previous one.
        let changed = tokens
            .iter()
            .zip(&before)
            .find(|(token, before)| share.includes(acme, token.id) != **before);
        for replica in &replicas {
            let probe = changed.map_or((&tokens[0], false), |(token, before)| (token, !before));
            let expected = if probe.1 { 403 } else { 200 };
            eventually("the share to be obeyed", async || {
                status(replica, probe.0).await == expected
            })
            .await;
        }
        let first = refused(&replicas[0], &tokens).await;
        for replica in replicas.iter().chain(&replicas) {
            assert!(refused(replica, &tokens).await == first, "{percent}: not the same tokens");
        }
        let count = first.iter().filter(|refused| **refused).count();
        let expected = 10.0 * f64::from(percent);
        let p = f64::from(percent) / 100.0;
        println!("enforced for {count} of {TOKENS} tokens at {percent}%");
        // Five standard deviations of a fair draw.
        assert!((count as f64 - expected).abs() <= 5.0 * (expected * (1.0 - p)).sqrt(), "{count}");
        assert!(before.iter().zip(&first).all(|(before, now)| *now || !before), "{percent}");
        before = first;
        for replica in &replicas {
            assert_eq!(status(replica, &good).await, 200);
            for (token, code) in &dead {
                assert_eq!(get(replica, token, MODELS).await, (401, (*code).to_owned()));
            }
            for garbage in ["", "Bearer pat_forged", "Basic YW5uOnBhc3N3b3Jk"] {
                let headers = [("authorization", garbage)];
                assert_eq!(outcome(&replica.check("GET", MODELS, &headers).await).0, 401);
            }
            assert_eq!(outcome(&replica.check("GET", MODELS, &[]).await).0, 401, "{percent}");
        }
    }
    // Another domain is not affected.
    assert_eq!(get(&replicas[0], &tokens[0], "/proxy/beta/v1/models").await.0, 403);
}

/// By bare SQL and by the command; the domain that a request names decides, whatever its token is
/// for.
pub(crate) async fn a_domains_mode_is_obeyed_at_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&["mode=per-domain"]).await;
    let forged = [("authorization", "Bearer pat_forged")];
    let ask = async |path: &str| outcome(&replica.check("GET", path, &forged).await).0;
    assert_eq!((ask(MODELS).await, ask("/proxy/beta/v1/models").await), (401, 401));
    world.sql("UPDATE patgate.domains SET mode = 'shadow' WHERE slug = 'acme'").await;
    eventually("the shadow to be obeyed", async || ask(MODELS).await == 200).await;
    let by_id = format!("/proxy/{}/v1/models", world.id("acme"));
    for (path, status) in [
        (MODELS, 200),
        (&*by_id, 200),
        // No rule names it: a rollout must show this.
        ("/proxy/acme/v9/new", 200),
        ("/proxy/acme/v1/models;x", 400),
        ("/proxy/beta/v1/models", 401),
        ("/proxy/closed/v1/models", 401),
        ("/proxy/nobody/v1/models", 401),
        ("/proxy/ACME/v1/models", 401),
        ("/elsewhere", 401),
    ] {
        assert_eq!(ask(path).await, status, "{path}");
    }
    // In shadow, a disabled domain stays closed.
    world.sql("UPDATE patgate.domains SET enabled = false WHERE slug = 'acme'").await;
    eventually("the domain to be closed", async || ask(MODELS).await == 401).await;
}

/// Postgres is down, and no cache has the domain.
pub(crate) async fn where_the_mode_is_not_known_it_is_enforced(suite: Arc<Suite>) {
    let world = suite.world().await;
    set_mode(&world, "shadow").await;
    for mode in [Mode::Refuse, Mode::BlackHole] {
        let proxy = Proxy::to(suite.postgres.port).await;
        let url = suite.postgres_url("server", &world.database);
        let url = url.replace(&suite.postgres.port.to_string(), &proxy.port.to_string());
        let postgres = format!("postgres.url={url}");
        let settings = [postgres.as_str(), "redis.url=", "deadline=300ms"];
        let per_domain = world.serve(&[&settings[..], &["mode=per-domain"]].concat()).await;
        let shadow = world.serve(&[&settings[..], &["mode=shadow"]].concat()).await;
        let token = reader(&world).await;
        let forged = [("authorization", "Bearer pat_forged")];
        proxy.set(mode);
        assert_eq!(outcome(&per_domain.check("GET", MODELS, &forged).await).0, 401, "{mode:?}");
        assert_eq!(outcome(&per_domain.check("GET", MODELS, &[]).await).0, 401, "{mode:?}");
        // A request that cannot be decided is neither allowed nor denied, in any mode.
        for replica in [&per_domain, &shadow] {
            assert_eq!(status(replica, &token).await, 503, "{mode:?}");
        }
        // This mode is in the configuration.
        assert_eq!(outcome(&shadow.check("GET", MODELS, &forged).await).0, 200, "{mode:?}");
        proxy.set(Mode::Pass);
        let healed = async || outcome(&per_domain.check("GET", MODELS, &forged).await).0 == 200;
        eventually("the mode to be known", healed).await;
    }
}

/// Forged tokens cost a lookup of the domain in one mode only, and there one lookup for many
/// tokens.
pub(crate) async fn the_mode_of_a_domain_is_looked_up_once_for_many_forged_tokens(
    suite: Arc<Suite>,
) {
    let world = suite.world().await;
    set_mode(&world, "shadow").await;
    for (mode, status, asked) in [("enforce", 401, 0), ("shadow", 200, 0), ("per-domain", 200, 1)] {
        let replica = world.serve(&[&format!("mode={mode}"), "redis.url="]).await;
        let statements = world.statements_with("d.enforced_share");
        for _ in 0..100 {
            let forged = [("authorization", "Bearer pat_forged")];
            assert_eq!(outcome(&replica.check("GET", MODELS, &forged).await).0, status, "{mode}");
        }
        assert_eq!(lookups(&replica, "domain", "postgres", "hit").await, asked, "{mode}");
        assert_eq!(world.statements_with("d.enforced_share") - statements, asked as usize);
        assert_eq!(lookups(&replica, "principal", "postgres", "negative").await, 0, "{mode}");
    }
}

pub(crate) async fn an_open_gate_is_reported(suite: Arc<Suite>) {
    let world = suite.world().await;
    for (mode, told) in
        [("enforce", ""), ("per-domain", "mode is per-domain"), ("shadow", "NOTHING IS ENFORCED")]
    {
        let mode_is = format!("mode={mode}");
        let process = process::serve(&world, &[&mode_is, "drain.delay=0s"]).await;
        let log = fs::read_to_string(&process.server.log).unwrap();
        let warnings: Vec<&str> = log.lines().filter(|l| l.contains("mode is ")).collect();
        assert_eq!(warnings.len(), usize::from(!told.is_empty()), "{log}");
        assert!(warnings.iter().all(|l| l.contains("\"WARN\"") && l.contains(told)), "{log}");
        for shown in ["enforce", "per-domain", "shadow"] {
            let gauge = process.replica.gauge(&format!("patgate_mode{{mode=\"{shown}\"}}")).await;
            assert_eq!(gauge, f64::from(u8::from(shown == mode)), "{mode} {shown}");
        }
        suite.stack.stop(&process.server);
    }
}

pub(crate) async fn an_administrator_sees_and_sets_it(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    cli.ok("domain create new --name New --upstream model-acme --all-models --mode shadow --enforced-share 30%");
    let shown = cli.json("domain show new");
    assert_eq!((&shown["mode"], &shown["enforced_share"]), (&json!("shadow"), &json!(30)));
    assert!(cli.ok("domain show new").contains("shadow 30%"));
    let list = cli.ok("domain list");
    assert!(list.contains("MODE") && list.contains("shadow 30%"), "{list}");

    let token = world.token(&[]).await;
    let check = |command: &str| {
        cli.feed(&format!("check --method GET --path {MODELS} {command}"), &token.text).stdout
    };
    assert!(!check("").contains("rollout"));
    cli.ok("domain update acme --mode shadow");
    assert!(check("").contains("rollout: acme is in shadow"), "{}", check(""));
    cli.ok("domain update acme --mode enforce --enforced-share 40%");
    let share = Share::new(40).unwrap().includes(DomainId(world.id("acme")), token.id);
    let told = if share { "this token is one of them" } else { "this token is none of them" };
    assert!(check("").contains(told), "{}", check(""));
    let last = &cli.json("audit list --action domain.update")[0];
    assert_eq!(
        last["details"],
        json!({ "slug": "acme", "mode": "enforce", "mode_before": "shadow",
                "enforced_share": 40, "enforced_share_before": 100 })
    );
    // The share is kept in shadow, so it holds again, which the operator must know.
    let said = |command: &str| {
        let ran = cli.run(&format!("domain update acme {command}"));
        assert!(ran.code == 0 && ran.stdout.starts_with("id: "), "{ran:#?}");
        ran.stderr
    };
    let in_shadow = said("--mode shadow");
    assert!(in_shadow.contains("acme is not enforced. Its share is 40%"), "{in_shadow}");
    let again = said("--mode enforce");
    for part in [
        "acme is enforced for 40% of its tokens, as before",
        "`patgate domain update acme --enforced-share 100%`",
    ] {
        assert!(again.contains(part), "{again}");
    }
    let chosen = said("--enforced-share 50%");
    assert!(chosen.contains("enforced for 50% of its tokens. For all of them"), "{chosen}");
    assert!(!said("--enforced-share 100%").contains("% of its tokens"));
    cli.ok("domain update acme --enforced-share 40%");
    for (command, reason) in [
        ("domain update acme", "required"),
        ("domain update acme --mode off", "enforce shadow"),
        ("domain update acme --enforced-share 101%", "0%"),
        ("domain update acme --enforced-share 1.5%", "0%"),
    ] {
        cli.refused(command, 2, reason);
    }
    cli.refused("domain update nobody --mode shadow", 3, "nobody");
    // Nor by SQL.
    for wrong in ["mode = 'off'", "enforced_share = 101", "enforced_share = -1", "mode = NULL"] {
        let sql = format!("UPDATE patgate.domains SET {wrong}");
        let tried = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&world.postgres).await;
        assert!(tried.is_err(), "{wrong}");
    }
}
