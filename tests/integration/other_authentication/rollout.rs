//! A rollout of several mounts beside routes that stay: the blocks of envoy/README.md, in
//! other-authentication.yaml.

use std::{fs, sync::Arc};

use patgate_testing::stack::project;
use serde_json::{Value, json};

use super::{Beside, Change, LOGIN, MODELS, ORDERS, SHIPPED};
use crate::support::{Suite, tables::tables};

/// The route of the section, and the requirement for it.
fn documented() -> (Value, Value) {
    let readme = fs::read_to_string(project("envoy/README.md")).unwrap();
    let section = readme.split_once("### Other mounts").unwrap().1.split_once("\n## ").unwrap().0;
    let mut blocks = section.split("```yaml\n").skip(1);
    let mut block = || {
        let text = blocks.next().unwrap().split_once("```").unwrap().0;
        serde_saphyr::from_str::<Value>(text.trim_end()).unwrap()
    };
    (block()[0].clone(), block()["typed_per_filter_config"].clone())
}

fn add(manager: &mut Value, route: Value) {
    let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
    let routes = routes.as_array_mut().unwrap();
    let at = routes.iter().position(|route| route["name"] == "undecided").unwrap();
    routes.insert(at, route);
}

/// Removes a mount from the expression of a route.
fn forget_the_mount(manager: &mut Value, route: &str) {
    let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array_mut().unwrap();
    let route = routes.iter_mut().find(|known| known["name"] == route).unwrap();
    let regex = &mut route["match"]["safe_regex"]["regex"];
    let without = regex.as_str().unwrap().replace("api/.*|", "");
    assert_ne!(*regex, without);
    *regex = json!(without);
}

pub(crate) async fn each_mount_has_its_old_service(suite: Arc<Suite>) {
    let world = suite.world().await;
    let (route, requirement) = documented();
    let rollout: Change<'_> = &|manager| add(manager, route.clone());
    let with_jwt: Change<'_> = &|manager| {
        let mut route = route.clone();
        route["typed_per_filter_config"] = requirement.clone();
        add(manager, route);
    };
    let not_old: Change<'_> = &|manager| forget_the_mount(manager, "old-gateway");
    let site = Beside::with(
        &world,
        &["mode=shadow", &tables(&suite)],
        &[
            ("rollout", &[rollout]),
            ("with JWT", &[with_jwt]),
            ("not in old-gateway", &[rollout, not_old]),
        ],
        |config, patch| {
            let clusters = config["static_resources"]["clusters"].as_array_mut().unwrap();
            let mut old = clusters.iter().find(|one| one["name"] == "model-beta").unwrap().clone();
            old["name"] = json!("old-gateway");
            clusters.push(old);
            patch["clusters"]["old-gateway"] = patch["clusters"]["model-beta"].clone();
        },
    )
    .await;
    let jwt = site.jwt();
    let ask = async |on: &str, target: &str, authorization: &str| {
        let headers = [("authorization", authorization)];
        let sent = if authorization.is_empty() { &[][..] } else { &headers };
        let reply = site.get(on, target, sent).await;
        let to = reply.header("x-backend").map(str::to_owned);
        (reply.status, to, reply)
    };
    let old = Some("model-beta".to_owned());

    // Wherever it is mounted, with the path and the credential that it has.
    for target in [MODELS, "/api/v1/deployments", "/api/v2/models", "/api/scim/v2/Users", "/users"]
    {
        for authorization in ["", "Bearer of-the-old-service"] {
            let (status, to, reply) = ask("rollout", target, authorization).await;
            assert_eq!((status, &to), (200, &old), "{target}: {reply:?}");
            assert_eq!(reply.json()["seen"]["path"], target);
            assert_eq!(reply.seen("authorization").concat(), authorization);
        }
        // Without the route, it leads nowhere; and patgate's own tokens need no old service.
        let (status, to, reply) = ask(SHIPPED, target, "").await;
        assert_eq!((status, to), (503, None), "{target}: {reply:?}");
    }
    let acme = Some("model-acme".to_owned());
    for on in [SHIPPED, "rollout", "with JWT"] {
        let (status, to, reply) = ask(on, MODELS, &site.pat).await;
        assert_eq!((status, &to), (200, &acme), "{on}: {reply:?}");
    }

    // Where the old service took JWTs, it still does, and no one else passes.
    let (status, to, reply) = ask("with JWT", "/api/v2/models", &jwt).await;
    assert_eq!((status, &to), (200, &old), "{reply:?}");
    for (target, authorization) in
        [("/api/v2/models", ""), (MODELS, "Bearer x.y.z"), ("/users", "")]
    {
        let (status, to, reply) = ask("with JWT", target, authorization).await;
        assert_eq!((status, to), (401, None), "{target}: {reply:?}");
        assert!(reply.header("www-authenticate").is_some(), "{target}: {reply:?}");
    }

    // What is missing in one of the expressions.
    let (status, to, reply) = ask("not in old-gateway", "/api/v2/models", "").await;
    assert_eq!((status, to), (503, None), "{reply:?}");

    // The exceptions are as before, and patgate knows nothing of them.
    let before = site.replica.decisions().await;
    for on in ["rollout", "with JWT"] {
        assert_eq!(ask(on, LOGIN, "").await.1, Some("login".to_owned()), "{on}");
        assert_eq!(ask(on, ORDERS, &jwt).await.1, Some("orders".to_owned()), "{on}");
        assert_eq!(ask(on, ORDERS, "").await.0, 401, "{on}");
    }
    assert_eq!(site.replica.decisions().await, before);
}
