//! This release on the schema of the previous one.

use std::{fs, sync::Arc};

use patgate::postgres::SCHEMA;
use patgate_testing::{eventually, http};
use serde_json::json;

use super::{TURNED, agree, dump, migrate, revoke_and_wait};
use crate::support::{
    Suite,
    cli::{Cli, answer, found_by, get, server},
    envoy::patient,
    fleet::MODELS,
    load::{AllowedStatuses, WELL},
    processes::Processes,
    replica::health,
    tokens::reader,
};

const NOT_SERVING: i32 = 2;

fn reason() -> String {
    let found = SCHEMA - 1;
    format!(
        "the database has schema version {found}, this release needs {SCHEMA}; run `patgate migrate` \
         of this release"
    )
}

/// A replica of this release is started too early, beside others that serve.
pub(crate) async fn a_replica_waits_for_its_schema_and_serves_without_a_restart(suite: Arc<Suite>) {
    let world = suite.previous_world().await;
    let all = Processes::of_previous_release(&world, 2, 1, &json!({}), patient("10s", "10s"));
    let early = &all.replicas[2];
    let page = async |path: &str| {
        let reply = http::send(early.http.port(), "GET", path, &[], "").await;
        (reply.status, reply.body)
    };
    let waits =
        "postgres.url: the schema is older than this release needs; run `patgate migrate`\n";
    eventually("the reason", async || page("/readyz").await == (503, waits.to_owned())).await;
    let load = all.load_on(&world, 2).await;
    let token = reader(&world).await;
    for _ in 0..3 {
        load.bear(load.more(WELL, 20)).await;
        assert_eq!(page("/readyz").await, (503, waits.to_owned()));
        assert_eq!(page("/startupz").await.0, 503);
        assert_eq!(page("/livez").await.0, 200);
        assert_eq!(health(early.grpc).await, NOT_SERVING);
        assert_eq!(get(early, &token, MODELS).await, answer(503, "unavailable"));
        load.bear(all.healthy(2)).await;
    }
    let log = fs::read_to_string(&all.processes[2].log).unwrap();
    assert!(log.contains(&reason()), "{log}");

    load.bear(migrate(&world)).await;
    load.bear(all.healthy(3)).await;
    assert!(suite.stack.is_running(&all.processes[2]));
    load.bear(load.known_to(early)).await;
    load.bear(load.more(WELL, 20)).await;
    load.allow(AllowedStatuses { turning: &[200, 401], ..WELL });
    revoke_and_wait(&world, &load.turning);
    load.allow(TURNED);
    load.bear(load.more(TURNED, 20)).await;
    load.bear(agree(&world, &all, "two of the previous release and one of this")).await;
    println!("retries, refused, late: {:?}", all.failed_tries().await);
    load.end("a replica before its schema").await;
}

/// Every command that uses the database says what to do, and changes nothing.
pub(crate) async fn nothing_uses_an_older_schema(suite: Arc<Suite>) {
    let world = suite.previous_world().await;
    let token = reader(&world).await;
    let before = dump(&world, &[]).await;
    let reason = reason();
    let cli = Cli::of(&world);
    let id = token.id;
    let scope = "acme:models:*:llm_read";
    for command in [
        "user list",
        "user show ann@example.com",
        "user create new@example.com --name New",
        "user disable ann@example.com",
        "user invite ann@example.com",
        "user sessions ann@example.com",
        "user sign-out ann@example.com",
        "domain list",
        "domain disable acme",
        "domain create new --name New --upstream model-acme --all-models",
        "backend list",
        "backend create new --url http://127.0.0.1:1 --kind vllm",
        "role list acme",
        "role revoke acme admin llm_read",
        "token list",
        &format!("token create new --user ann@example.com --expires-in 1h --scope {scope}"),
        &format!("token revoke {id}"),
        &format!("token revoke {id} --wait"),
        &format!("token rotate {id}"),
        "policy show",
        "policy set --token-longest 30d",
        "provider list",
        "provider add https://id.example.com",
        "provider disable https://id.example.com",
        "installation show",
        "installation renew --yes",
        "audit list",
    ] {
        cli.refused(command, 1, &reason);
    }
    let checked = cli.feed("check --method GET --path /proxy/acme/v1/models", &token.text);
    assert_eq!((checked.code, &*checked.stdout), (1, ""), "{checked:#?}");
    assert!(checked.stderr.contains(&reason), "{checked:#?}");

    let serve = server(&world)
        .with("listen.grpc", "127.0.0.1:0")
        .with("listen.http", "127.0.0.1:0")
        .with("start.require", "postgres");
    serve.refused("serve", 1, &reason);
    let site = Cli::of(&world)
        .with("postgres.url", "")
        .with("web.listen", "127.0.0.1:0")
        .with("web.url", "https://tokens.example.com")
        .with("web.postgres.url", &world.url("web", world.port));
    site.refused("admin", 1, &reason);
    for (cli, command, key) in [
        (&server(&world), "config check --connect", "postgres.url"),
        (&cli, "config check --admin --connect", "postgres.url"),
        (&site, "config check --self-service --connect", "web.postgres.url"),
    ] {
        let (code, outcome, detail) = found_by(cli, command, key);
        assert_eq!((code, &*outcome), (1, "failed"), "{command}: {detail}");
        assert!(detail.contains(&reason), "{command}: {detail}");
    }
    assert_eq!(dump(&world, &[]).await, before, "something was changed");
    // What it is about: the commands of the previous release work on it.
    Cli::of(&world).previous().ok("token list");
}
