//! The patgate from before the latest change of the schema, and this one, on each other's schema.
//!
//! The file `upgrades/previous` names the commit of the previous one: the last with the schema
//! version before [`SCHEMA`]. Change it when the schema version goes up.

pub(crate) mod early;
pub(crate) mod self_service;

use std::{sync::Arc, time::Duration};

use patgate::{postgres::SCHEMA, token::TokenId};
use patgate_testing::eventually;
use serde_json::json;
use tokio::process::Command;

use crate::{
    support::{
        Replica, Suite, Token, World,
        cli::{Cli, get},
        envoy::patient,
        fleet::{Fleet, MODELS},
        load::{AllowedStatuses, WELL},
        previous, process,
        processes::Processes,
        tokens::{reader, revoke},
        value,
    },
    web::Site,
};

const TURNED: AllowedStatuses = AllowedStatuses { turning: &[401], ..WELL };
const READS: &str = "acme:models:*:llm_read";

/// Migrates as an operator does, with this release's command.
async fn migrate(world: &World<'_>) {
    const VERSION: &str = "SELECT version FROM patgate.schema_version";
    let before: i32 = value(world, VERSION).await;
    let migrated = Cli::of(world).login(world, "postgres").json("migrate");
    assert_ne!(migrated["applied"], json!([]), "the previous commit has the same migrations");
    // Otherwise the previous release would not notice a schema that it cannot use, or would refuse
    // this one.
    let expected = format!(
        "the first migration after a release raises the schema version by one; SCHEMA is {SCHEMA}, \
         and the commit that tests/integration/upgrades/previous names has {before}"
    );
    assert_eq!((migrated["version"].clone(), SCHEMA), (json!(SCHEMA), before + 1), "{expected}");
}

/// What `pg_dump` says of the world's database.
async fn dump(world: &World<'_>, options: &[&str]) -> String {
    let program = format!("{}/pg_dump", world.suite.postgres.bin);
    let url = world.url("postgres", world.port);
    let ran = Command::new(program).args(options).arg(url).output().await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8(ran.stdout).unwrap();
    // These lines have a random key.
    let lines = text.lines().filter(|line| !line.contains("restrict "));
    lines.map(|line| format!("{line}\n")).collect()
}

fn fleet(processes: &Processes<'_>) -> Fleet {
    let at = |replica: &Replica| Arc::new(Replica::at(replica.grpc, replica.http));
    Fleet(processes.replicas.iter().map(at).collect())
}

/// Checks that all replicas give the same answers, also from what another one has left in Redis.
async fn agree(world: &World<'_>, processes: &Processes<'_>, what: &str) {
    let scopes = ["acme", "closed", "picky"].map(|slug| (slug, "models", "*", "llm_read"));
    let mut order: Vec<usize> = (0..processes.replicas.len()).collect();
    for _ in 0..order.len() {
        let revoked = reader(world).await;
        revoke(world, &revoked).await;
        let unknown = world.unknown(TokenId(uuid::Uuid::now_v7()));
        let narrow = [("picky", "models", "org/listed", "llm_read")];
        let mut asked = Vec::new();
        for (token, expected) in [
            (world.token(&scopes).await, [200, 403, 403, 200, 404]),
            (world.token(&narrow).await, [403, 403, 403, 200, 404]),
            (world.token_for("gone", "1 hour", &scopes).await, [401; 5]),
            (world.token_for("ann", "-1 hour", &scopes).await, [401; 5]),
            (revoked, [401; 5]),
            (unknown, [401; 5]),
        ] {
            let paths = [
                MODELS,
                "/proxy/beta/v1/models",
                "/proxy/closed/v1/models",
                "/proxy/picky/v1/models/org/listed",
                "/proxy/acme/nothing",
            ];
            asked.extend(
                paths.into_iter().zip(expected).map(|(path, status)| (token.clone(), path, status)),
            );
        }
        // The first one asks Postgres, and leaves in Redis what the others read there.
        for (token, path, status) in &asked {
            let mut answers = Vec::new();
            for &index in &order {
                answers.push(get(&processes.replicas[index], token, path).await);
            }
            let same = answers.iter().all(|answer| *answer == answers[0]);
            assert!(same && answers[0].0 == *status, "{what}: {path}: {answers:?}, not {status}");
        }
        order.rotate_left(1);
    }
}

/// Revokes a token that is used all the time by this release's command, which waits until every
/// replica has obeyed.
fn revoke_and_wait(world: &World<'_>, token: &Token) {
    Cli::of(world).ok(&format!("token revoke {} --wait", token.id));
}

/// Takes permissions away by this release's commands and functions; each replica obeys in time.
async fn withdraw(world: &World<'_>, fleet: &Fleet) {
    let cli = Cli::of(world);
    let site = Site::of(world).await;
    let it = &site.service;
    // The tokens of the load are all of Ann's, who may have no more of them.
    let reader = site.signed_in("reader").await;
    for (what, status) in [
        ("a revocation", 401),
        ("a rotation", 401),
        ("a new secret", 401),
        ("a deletion", 401),
        ("a rotation by the command", 401),
        ("a role without the operation", 403),
        ("a disabled domain", 403),
    ] {
        let token = site.create(&reader, &what.replace(' ', "-"), &[READS]).await;
        let id = token.id;
        fleet.all_answer(&token, MODELS, 200).await;
        let next = match what {
            "a revocation" => it.revoke_token(&reader, id).await.map(|_| None).unwrap(),
            "a rotation" => {
                let rotated = it.rotate_token(&reader, id, None, Duration::ZERO).await;
                let (plain, next, _) = rotated.unwrap().value;
                Some((plain, TokenId(next.id)))
            }
            "a new secret" => {
                let (plain, _) = it.reset_token(&reader, id, None, None).await.unwrap().value;
                Some((plain, id))
            }
            "a deletion" => it.delete_token(&reader, id, None).await.map(|_| None).unwrap(),
            "a rotation by the command" => {
                cli.mint(&format!("token rotate {id} --grace 0s"));
                None
            }
            "a role without the operation" => {
                cli.ok("role revoke acme reader llm_read");
                None
            }
            _ => {
                cli.ok("domain disable acme");
                None
            }
        };
        let took = fleet.turn(what, (&token, MODELS), 200, status).await;
        println!("{what}: {took:?}");
        if what == "a role without the operation" {
            cli.ok("role grant acme reader llm_read");
        }
        if let Some((plain, id)) = next {
            let text = plain.expose().to_owned();
            world.suite.minted.lock().unwrap().push(text.clone());
            fleet.all_answer(&Token { id, text }, MODELS, 200).await;
        }
    }
}

pub(crate) async fn the_previous_release_serves_while_the_schema_is_migrated(suite: Arc<Suite>) {
    let world = suite.previous_world().await;
    let two = Processes::of_previous_release(&world, 2, 0, &json!({}), patient("10s", "10s"));
    let load = two.load(&world).await;
    load.bear(migrate(&world)).await;
    load.bear(load.more(WELL, 50)).await;
    load.allow(AllowedStatuses { turning: &[200, 401], ..WELL });
    revoke_and_wait(&world, &load.turning);
    load.allow(TURNED);
    load.bear(load.more(TURNED, 50)).await;
    load.bear(agree(&world, &two, "the previous release")).await;
    load.end("the schema migrated under the previous release").await;
    withdraw(&world, &fleet(&two)).await;
}

/// Migrates, replaces the replicas one by one, and goes back in the same way. The schema stays. The
/// replicas of both releases relay the feed to each other.
pub(crate) async fn a_rollout_and_a_rollback_fail_no_request(suite: Arc<Suite>) {
    let world = suite.previous_world().await;
    let feed = world.url("server", world.port);
    let settings = json!({ "PATGATE_FEED_URL": feed, "PATGATE_FEED_RELAY": "redis" });
    let mut two = Processes::of_previous_release(&world, 2, 0, &settings, patient("10s", "10s"));
    let load = two.load(&world).await;
    load.bear(migrate(&world)).await;
    let mut allowed = WELL;
    for program in [process::program(), previous::program()] {
        for index in [0, 1] {
            load.bear(two.replace(&world, index, &program, &settings)).await;
            load.bear(two.healthy(2)).await;
            load.bear(load.more(allowed, 20)).await;
            load.bear(agree(&world, &two, &format!("{program} at {index}"))).await;
            // One replica is of each release.
            if allowed.turning == WELL.turning {
                load.allow(AllowedStatuses { turning: &[200, 401], ..WELL });
                revoke_and_wait(&world, &load.turning);
                allowed = TURNED;
                load.allow(allowed);
            }
        }
    }
    println!("retries, refused, late: {:?}", two.failed_tries().await);
    load.end("a rollout and a rollback").await;
    withdraw(&world, &fleet(&two)).await;
}

/// Also `migrate`, which a deployment of the previous release runs again during a rollback.
pub(crate) async fn the_previous_commands_work_on_the_migrated_schema(suite: Arc<Suite>) {
    let world = suite.previous_world().await;
    migrate(&world).await;
    let migrated = dump(&world, &[]).await;
    let owner = Cli::of(&world).login(&world, "postgres").previous();
    assert_eq!(owner.ok("migrate"), format!("nothing to do\nschema version {SCHEMA}\n"));
    assert_eq!(owner.json("migrate"), json!({ "applied": [], "version": SCHEMA }));
    assert_eq!(dump(&world, &[]).await, migrated, "the previous `migrate` changes something");

    let cli = Cli::of(&world).previous();
    cli.ok("config check --admin --connect");
    cli.login(&world, "server").ok("config check --connect");
    let one = Processes::of_previous_release(&world, 1, 1, &json!({}), patient("10s", "10s"));
    eventually("both replicas", async || {
        patgate_testing::http::send(one.replicas[1].http.port(), "GET", "/readyz", &[], "")
            .await
            .status
            == 200
    })
    .await;
    let fleet = fleet(&one);
    for (number, (command, status)) in [
        ("token revoke ID --wait", 401),
        ("token rotate ID --grace 0s", 401),
        ("token delete ID", 401),
        ("role revoke acme admin llm_read", 403),
        ("user disable ann@example.com", 401),
    ]
    .into_iter()
    .enumerate()
    {
        let create = "token create NAME --user ann@example.com --expires-in 1h --scope";
        let create = create.replace("NAME", &format!("t{number}"));
        let token = cli.mint(&format!("{create} {READS}"));
        fleet.all_answer(&token, MODELS, 200).await;
        cli.ok(&command.replace("ID", &token.id.to_string()));
        fleet.turn(command, (&token, MODELS), 200, status).await;
        if status == 403 {
            cli.ok("role grant acme admin llm_read");
        }
    }
    for command in ["token list", "user list", "audit list", "domain list", "policy show"] {
        cli.ok(command);
    }
}
