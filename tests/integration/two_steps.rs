//! Asking twice, as envoy/envoy.yaml does: a body is shown to patgate only if its first answer asks
//! for it.

use std::{collections::BTreeMap, fs, sync::Arc};

use patgate_testing::{
    eventually,
    http::{self, Over, Reply},
    shipped::{
        EXT_AUTHZ, WITH_BODY, fail_open, find, fix_the_routes, manager, shipped,
        switch_off_on_the_routes, unguard,
    },
    stack::project,
    wire::Wire,
};
use serde_json::{Value, json};

use crate::support::{
    Replica, Scope, Suite, World,
    envoy::{Gateway, add_nobody, envoy_patch, patient, refused_as_an_outage},
};

const CHAT: &str = "/proxy/acme/v1/chat/completions";
const ONE_MODEL: Scope<'static> = ("acme", "models", "m", "llm_chat_completions");
const EVERY_MODEL: Scope<'static> = ("acme", "models", "*", "llm_chat_completions");

pub(crate) async fn the_single_step_differs_only_where_it_says_so(suite: Arc<Suite>) {
    let read = |name: &str| fs::read_to_string(project(&format!("envoy/{name}"))).unwrap();
    let two = read("envoy.yaml");
    let single = read("single-step.yaml");
    let mut kept = Vec::new();
    let mut marked = false;
    let mut blocks = 0;
    let mut lines = single.split_once("\n\n").unwrap().1.lines().peekable();
    while let Some(line) = lines.next() {
        match line.trim() {
            "# one step:" => marked = true,
            "# end of one step" => {
                (marked, blocks) = (false, blocks + 1);
                lines.next_if(|line| line.is_empty());
            }
            _ if !marked => kept.push(line),
            _ => {}
        }
    }
    assert_eq!(blocks, 6);
    // Only the parts that the marked parts replace are missing; everything else is in the other
    // file.
    let mut rest = two.split_once("\n\n").unwrap().1.lines();
    for line in &kept {
        assert!(rest.any(|two| two == *line), "in single-step.yaml alone: {line}");
    }
    let path = project("envoy/single-step.yaml");
    suite.stack.ask(json!({ "do": "envoy-validate", "config": path })).unwrap();
}

type ConfigChange<'c> = &'c dyn Fn(&mut Value);

/// An Envoy in two steps before this replica, with the listener `shipped` and variations of it.
fn gateway(
    suite: &Suite,
    replica: &Replica,
    variations: &[(&str, &[ConfigChange<'_>])],
) -> Gateway {
    let mut config = shipped();
    let mut patch = envoy_patch(suite, &[replica.grpc], patient("60s", "60s"));
    add_nobody(suite, &mut config, &mut patch);
    let shipped = config["static_resources"]["listeners"][0].clone();
    let mut listeners = BTreeMap::from([("shipped".to_owned(), shipped.clone())]);
    for (name, changes) in variations {
        let mut listener = shipped.clone();
        changes.iter().for_each(|change| change(manager(&mut listener)));
        listeners.insert((*name).to_owned(), listener);
    }
    Gateway::start(suite, config, listeners, patch)
}

async fn chat(gateway: &Gateway, on: &str, over: Over, bearer: &str, body: &[u8]) -> Reply {
    let headers = [("authorization", bearer), ("content-type", "application/json")];
    over.post(gateway.port(on), CHAT, &headers, body).await
}

/// A chat with this model after an image of this many bytes.
fn body(model: &str, length: usize) -> Vec<u8> {
    let image = "A".repeat(length);
    format!(r#"{{"messages":[{{"content":"{image}"}}],"model":"{model}"}}"#).into_bytes()
}

fn each_way<T: Copy, const N: usize>(cases: [T; N]) -> impl Iterator<Item = (Over, T)> {
    Over::ALL.into_iter().flat_map(move |over| cases.map(|case| (over, case)))
}

async fn asked(replica: &Replica) -> u64 {
    replica.metric("patgate_bodies_asked_total").await
}

async fn decided(replica: &Replica) -> u64 {
    let page = replica.page().await;
    let line = |outcome: &str, code: &str| {
        format!(r#"patgate_decisions_total{{outcome="{outcome}",code="{code}",enforced="true"}}"#)
    };
    ["permission_denied", "invalid_token", "missing_credential", "token_revoked", "rate_limited"]
        .map(|code| page.value(&line("deny", code)))
        .iter()
        .chain([&page.value(&line("allow", "ok"))])
        .sum::<f64>() as u64
}

async fn limited(world: &World<'_>) -> String {
    world.token(&[ONE_MODEL]).await.bearer()
}

pub(crate) async fn a_body_is_shown_only_where_it_matters(suite: Arc<Suite>) {
    const LENGTH: usize = 1 << 20;
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let gateway = gateway(&suite, &replica, &[]);
    let sent = async || gateway.stat("cluster.patgate.upstream_cx_tx_bytes_total").await;
    let revoked = world.token(&[ONE_MODEL]).await;
    world
        .sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", revoked.id))
        .await;
    let other = world.token(&[("acme", "models", "m", "llm_read")]).await.bearer();
    let every = world.token(&[EVERY_MODEL]).await.bearer();
    let one = limited(&world).await;

    let long = body("m", LENGTH);
    let before = sent().await;
    let revoked = revoked.bearer();
    let unread = [
        ("", 401),
        ("Bearer pat_forged", 401),
        (&revoked, 401),
        (&other, 403),
        // Permitted, and the model does not matter.
        (&every, 200),
    ];
    for (over, (bearer, status)) in each_way(unread) {
        let counted = decided(&replica).await;
        assert_eq!(chat(&gateway, "shipped", over, bearer, &long).await.status, status, "{over:?}");
        assert_eq!(decided(&replica).await, counted + 1);
    }
    assert_eq!(asked(&replica).await, 0, "bodies were asked for");
    let sent_without = sent().await - before;
    assert!(sent_without < LENGTH as u64 / 4, "{sent_without} bytes for requests without need");

    let read = [("m", 0, 200), ("m", LENGTH, 200), ("other", 0, 403), ("other", LENGTH, 403)];
    for (number, (over, (model, length, status))) in each_way(read).enumerate() {
        let before = sent().await;
        let counted = decided(&replica).await;
        let reply = chat(&gateway, "shipped", over, &one, &body(model, length)).await;
        assert_eq!(reply.status, status, "{over:?} {model} {length}: {reply:?}");
        if status == 200 {
            assert_eq!(reply.header("x-backend"), Some("model-acme"));
            assert_eq!(reply.seen("x-auth-model"), ["m"]);
            assert_eq!(reply.seen("x-user-id"), [world.id("ann").to_string()]);
            assert!(reply.seen("authorization").is_empty(), "{reply:?}");
        }
        // Asked for once, decided once, shown once.
        assert_eq!(asked(&replica).await, number as u64 + 1);
        assert_eq!(decided(&replica).await, counted + 1);
        assert!(sent().await - before >= length as u64);
        assert_eq!(replica.metric("patgate_bodies_awaited").await, 0);
    }
    // A client's copies of patgate's headers survive neither step.
    let headers = [
        ("authorization", one.as_str()),
        ("content-type", "application/json"),
        ("x-user-id", "root"),
        ("x-upstream-cluster", "model-beta"),
    ];
    for over in Over::ALL {
        let reply = over.post(gateway.port("shipped"), CHAT, &headers, body("m", 9)).await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")));
        assert_eq!(reply.seen("x-user-id"), [world.id("ann").to_string()]);
    }
}

pub(crate) async fn thirty_megabytes_are_read(suite: Arc<Suite>) {
    const LENGTH: usize = 30_000_000;
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let gateway = gateway(&suite, &replica, &[]);
    let one = limited(&world).await;
    let long = body("m", LENGTH);
    let other = body("other", LENGTH);
    let too_long = body("m", 32 << 20);
    for over in Over::ALL {
        let reply = chat(&gateway, "shipped", over, &one, &long).await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")));
        assert_eq!(reply.json()["seen"]["body"]["bytes"], long.len());
        // The last bytes decide.
        assert_eq!(chat(&gateway, "shipped", over, &one, &other).await.status, 403, "{over:?}");
        // patgate does not ask for a body that cannot be shown whole.
        let before = asked(&replica).await;
        let reply = chat(&gateway, "shipped", over, &one, &too_long).await;
        assert_eq!((reply.status, reply.code().as_str()), (413, "body_too_large"), "{reply:?}");
        assert!(reply.body.contains("longer than the 32 MiB"), "{reply:?}");
        assert_eq!(asked(&replica).await, before);
    }
}

/// So what a replica counts for a token is what Envoy holds for it. If checks could go to any
/// replica, it would count more, and never less.
pub(crate) async fn both_steps_ask_the_same_replica(suite: Arc<Suite>) {
    const CALLS: u64 = 40;
    let world = suite.world().await;
    let one = limited(&world).await;
    for sticky in [true, false] {
        let replicas = [world.serve(&[]).await, world.serve(&[]).await];
        let mut config = shipped();
        if !sticky {
            let patgate = find(&mut config["static_resources"]["clusters"], "patgate");
            patgate.as_object_mut().unwrap().remove("load_balancing_policy").unwrap();
        }
        let addresses = [replicas[0].grpc, replicas[1].grpc];
        let patch = envoy_patch(&suite, &addresses, patient("60s", "60s"));
        let text = config.to_string();
        let envoy = suite.stack.start("envoy", json!({ "config_yaml": text, "patch": patch }));
        // Envoy asks only replicas that it has found healthy.
        let both = "cluster.patgate.membership_healthy: 2";
        let healthy = async || {
            let page = http::send(envoy.admin_port, "GET", "/stats?filter=healthy", &[], "").await;
            page.body.lines().any(|line| line.trim() == both)
        };
        eventually("both replicas to be healthy", healthy).await;
        let headers = [("authorization", &*one), ("content-type", "application/json")];
        for over in Over::ALL.into_iter().cycle().take(CALLS as usize) {
            let reply = over.post(envoy.port, CHAT, &headers, body("m", 9)).await;
            assert_eq!(reply.status, 200, "{over:?}");
        }
        let count = async |name| [replicas[0].metric(name).await, replicas[1].metric(name).await];
        let asked = count("patgate_bodies_asked_total").await;
        // With round robin, Envoy may ask one replica first and the other one second, every time.
        assert!(!sticky || asked.iter().all(|asked| *asked > 0), "{asked:?}");
        assert_eq!(asked.iter().sum::<u64>(), CALLS);
        let awaited: u64 = count("patgate_bodies_awaited").await.iter().sum();
        let unasked: u64 = count("patgate_bodies_unasked_total").await.iter().sum();
        assert_eq!(awaited, unasked, "{sticky}");
        assert_eq!(awaited == 0, sticky, "{awaited}");
    }
}

/// On other routes, Envoy would hold no more of a body than usual.
pub(crate) async fn the_first_route_has_the_paths_of_all_that_lead_to_backends(_: Arc<Suite>) {
    let mut config = shipped();
    let manager = manager(&mut config["static_resources"]["listeners"][0]);
    let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
    let routes = routes.as_array().unwrap().iter();
    let to_backends = routes.filter(|route| route["route"]["cluster_header"].is_string());
    let mut paths = to_backends.map(|route| {
        let regex = route["match"]["safe_regex"]["regex"].as_str().unwrap();
        let paths = regex.strip_prefix('/').unwrap();
        match paths.strip_prefix('(') {
            Some(paths) => paths.strip_suffix(')').unwrap(),
            None => paths,
        }
    });
    let first: Vec<_> = paths.next().unwrap().split('|').collect();
    assert_eq!(first[0], "proxy/[^/]+(/.*)?");
    for paths in paths.flat_map(|paths| paths.split('|')) {
        let is_known = first.contains(&paths) || paths.starts_with("proxy/[^/]+/");
        assert!(is_known, "the route `undecided` does not name {paths}");
    }
}

/// patgate counts a body for as long as Envoy waits for it.
pub(crate) async fn a_body_counts_for_as_long_as_it_may_take(_: Arc<Suite>) {
    let mut config = shipped();
    let manager = manager(&mut config["static_resources"]["listeners"][0]);
    let document = fs::read_to_string(project("docs/configuration.md")).unwrap();
    let row = document.lines().find(|line| line.starts_with("| `bodies.timeout` |")).unwrap();
    let default = row.split('|').nth(3).unwrap().trim().trim_matches('`');
    assert_eq!(manager["request_timeout"], default);
}

pub(crate) async fn what_is_lost_of_two_steps_reaches_no_backend(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let missing: ConfigChange<'_> = &|manager| {
        let filters = manager["http_filters"].as_array_mut().unwrap();
        filters.retain(|filter| filter["name"] != WITH_BODY);
    };
    let reordered: ConfigChange<'_> = &|manager| {
        let filters = manager["http_filters"].as_array_mut().unwrap();
        let place = |name| filters.iter().position(|filter| filter["name"] == name).unwrap();
        let first = place(EXT_AUTHZ);
        let second = place(WITH_BODY);
        filters.swap(first, second);
    };
    let disabled: ConfigChange<'_> = &|manager| {
        find(&mut manager["http_filters"], WITH_BODY)["disabled"] = json!(true);
    };
    let unmet: ConfigChange<'_> = &|manager| {
        let settings = &mut find(&mut manager["http_filters"], WITH_BODY)["typed_config"];
        settings["filter_enabled_metadata"]["path"][0]["key"] = json!("needs-body");
    };
    let first_off: ConfigChange<'_> = &|manager| {
        find(&mut manager["http_filters"], EXT_AUTHZ)["disabled"] = json!(true);
    };
    let second_off: ConfigChange<'_> = &|manager| switch_off_on_the_routes(manager, &[WITH_BODY]);
    let second_open: ConfigChange<'_> =
        &|manager| fail_open(find(&mut manager["http_filters"], WITH_BODY));
    let losses = [
        ("second missing", missing),
        ("reordered", reordered),
        ("second disabled", disabled),
        ("its condition never met", unmet),
        ("first disabled", first_off),
        ("second off on the routes", second_off),
        ("patgate dead for the second, and failures allowed", second_open),
    ];
    let names: Vec<_> = losses
        .iter()
        .flat_map(|(loss, change)| {
            let fixed: ConfigChange<'_> = &fix_the_routes;
            let open: ConfigChange<'_> = &unguard;
            [
                (format!("{loss}; by header"), vec![*change]),
                (format!("{loss}; by header, unguarded"), vec![*change, open]),
                (format!("{loss}; fixed"), vec![*change, fixed]),
                (format!("{loss}; fixed, unguarded"), vec![*change, fixed, open]),
            ]
        })
        .collect();
    let variations: Vec<_> =
        names.iter().map(|(name, changes)| (name.as_str(), changes.as_slice())).collect();
    let gateway = gateway(&suite, &replica, &variations);
    let served = async || gateway.stat("cluster.model-acme.upstream_rq_total").await;
    let one = limited(&world).await;
    let chat_body = body("other", 10);
    let names = names.iter().map(|(name, _)| name);
    for (name, over) in names.flat_map(|name| Over::ALL.map(|over| (name, over))) {
        let before = served().await;
        // A model that the token may not use: the second step would have refused it.
        let reply = chat(&gateway, name, over, &one, &chat_body).await;
        match (name.contains("unguarded"), name.contains("fixed")) {
            (false, _) => refused_as_an_outage(&reply, name),
            (true, false) => assert_eq!(reply.code(), "backend_unavailable", "{name}: {reply:?}"),
            (true, true) => {
                let to = reply.header("x-backend");
                assert_eq!((reply.status, to), (200, Some("model-acme")), "{name}: {reply:?}");
                assert!(reply.seen("x-user-id").is_empty(), "{name}: {reply:?}");
                continue;
            }
        }
        assert_eq!(served().await, before, "{name}");
    }
}

/// A gateway may keep the request ids of its clients. Whatever id a client chooses, each of its bodies
/// counts, and none of another token's counts less.
pub(crate) async fn a_chosen_request_id_hides_no_body(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&["bodies.per_token=3"]).await;
    let keeps_ids: ConfigChange<'_> =
        &|manager| manager["preserve_external_request_id"] = json!(true);
    let gateway = gateway(&suite, &replica, &[("keeps ids", &[keeps_ids])]);
    let [one, another] = [limited(&world).await, limited(&world).await];
    let chat_body = String::from_utf8(body("m", 10)).unwrap();
    let (begun, rest) = chat_body.split_at(20);
    let begin = async |bearer: &str| {
        let mut slow = Wire::connect(gateway.port("keeps ids")).await;
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nauthorization: {bearer}\r\n\
             x-request-id: chosen\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{begun}",
            chat_body.len()
        );
        slow.write(&head).await;
        slow
    };
    let awaited = async |count| {
        let all = async || replica.metric("patgate_bodies_awaited").await == count;
        eventually(&format!("{count} bodies to be awaited"), all).await;
    };
    let mut slow = Vec::new();
    for (bearer, count) in [(&one, 1), (&one, 2), (&another, 3), (&one, 4)] {
        slow.push(begin(bearer).await);
        awaited(count).await;
    }
    let mut refused = begin(&one).await;
    refused.read_until("rate_limited").await;
    assert!(refused.text.starts_with("HTTP/1.1 429"), "{}", refused.text);
    assert!(refused.text.contains("x-request-id: chosen"), "{}", refused.text);
    for (slow, left) in slow.iter_mut().zip((0..4).rev()) {
        slow.write(rest).await;
        slow.read_until("\"x-auth-model\"").await;
        assert!(slow.text.starts_with("HTTP/1.1 200"), "{}", slow.text);
        assert_eq!(replica.metric("patgate_bodies_awaited").await, left);
    }
    assert_eq!(replica.metric("patgate_bodies_unasked_total").await, 0);
}

/// A token whose bodies have not arrived yet can ask for no more; others can.
pub(crate) async fn a_token_has_so_many_bodies_awaited(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&["bodies.per_token=1"]).await;
    let gateway = gateway(&suite, &replica, &[]);
    let one = limited(&world).await;
    let another = limited(&world).await;
    let chat_body = String::from_utf8(body("m", 10)).unwrap();
    let (begun, rest) = chat_body.split_at(20);
    let mut slow = Wire::connect(gateway.port("shipped")).await;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nauthorization: {one}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{begun}",
        chat_body.len()
    );
    slow.write(&head).await;
    eventually("the body to be awaited", async || {
        replica.metric("patgate_bodies_awaited").await == 1
    })
    .await;
    let chat_with =
        async |over, bearer| chat(&gateway, "shipped", over, bearer, chat_body.as_bytes()).await;
    for over in Over::ALL {
        let reply = chat_with(over, &one).await;
        assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limited"), "{reply:?}");
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(chat_with(over, &another).await.status, 200, "{over:?}");
    }
    slow.write(rest).await;
    slow.read_until("\"x-auth-model\"").await;
    assert!(slow.text.starts_with("HTTP/1.1 200"), "{}", slow.text);
    assert_eq!(replica.metric("patgate_bodies_awaited").await, 0);
    assert_eq!(chat_with(Over::Http2, &one).await.status, 200);
}
