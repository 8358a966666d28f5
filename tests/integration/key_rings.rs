//! A replica whose key ring did not sign the live tokens gets no traffic, and differing key rings
//! of replicas are reported.

use std::{fs, path::PathBuf, sync::Arc};

use patgate::keyring;
use patgate_testing::{eventually, http};

use crate::support::{
    Suite, Token, World,
    cli::{Cli, found},
    fleet::status,
    process::{self, Process},
    replica::health,
    tokens::{reader, revoke},
};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const NONE_OF_THEM: &str = "the key ring has signed none of the live tokens";
const OTHERS: &str = "live tokens were signed by keys that this replica's key ring lacks";
const SEALS: &str = "an entry in Redis is not sealed by this key ring";

/// Makes a ring with one new key.
fn new_ring(world: &World<'_>, id: &str) -> PathBuf {
    let path = world.suite.dir.path().join(format!("{}.{id}.other", world.database));
    fs::write(&path, keyring::new_line(&id.parse().unwrap()).unwrap().as_bytes()).unwrap();
    path
}

fn create(cli: &Cli<'_>, name: &str) -> Token {
    cli.mint(&format!(
        "token create {name} --user ann@example.com --expires-in 1h --scope acme:models:*:llm_read"
    ))
}

async fn ready(process: &Process) -> (u16, String) {
    let reply = http::send(process.replica.http.port(), "GET", "/readyz", &[], "").await;
    (reply.status, reply.body)
}

fn logged(process: &Process, message: &str) -> usize {
    let log = fs::read_to_string(&process.server.log).unwrap();
    log.lines().filter(|line| line.contains(message)).count()
}

pub(crate) async fn one_that_signed_no_live_token_is_not_ready(suite: Arc<Suite>) {
    let world = suite.world().await;
    let ring = new_ring(&world, "k2");
    let keyring = format!("keyring_file={}", ring.display());
    let other = Cli::of(&world).with("keyring_file", ring.to_str().unwrap());
    let judged = || found(&other.login(&world, "server"), "keyring_file");
    // Tokens that are dead or of a disabled owner, and canaries, do not count.
    revoke(&world, &reader(&world).await).await;
    world.token_for("ann", "-1 hour", &[]).await;
    world.token_for("gone", "1 hour", &[]).await;
    world.sql("SELECT patgate.flip_canary(gen_random_uuid(), '1 hour')").await;
    let without = process::serve(&world, &[&keyring]).await;
    assert_eq!(ready(&without).await.0, 200);
    assert_eq!(judged(), (0, "ok".into(), "no token is live".into()));

    let token = reader(&world).await;
    // A replica that starts now is not ready. A ready one stays so and reports it, as does every
    // replica in shadow.
    let listen = async |settings: &[&str]| {
        process::listen(&world, &[&process::program(), "serve"], settings).await
    };
    let late = listen(&[&keyring]).await;
    let shadow = listen(&[&keyring, "mode=shadow"]).await;
    for replica in [&without, &shadow] {
        eventually("its complaint", async || logged(replica, NONE_OF_THEM) == 1).await;
        assert_eq!((ready(replica).await.0, health(replica.replica.grpc).await), (200, SERVING));
    }
    eventually("it to be unready", async || ready(&late).await.0 == 503).await;
    assert!(ready(&late).await.1.contains(NONE_OF_THEM));
    eventually("its health to tell", async || health(late.replica.grpc).await == NOT_SERVING).await;
    // A caller that asks may ask again: this is an outage, and no refusal.
    assert_eq!(status(&late.replica, &token).await, 503);
    assert_eq!(logged(&late, NONE_OF_THEM), 1);
    let (code, outcome, detail) = judged();
    assert_eq!((code, &*outcome), (1, "failed"), "{detail}");
    assert!(detail.contains(NONE_OF_THEM), "{detail}");
    // A replica with the right ring is ready.
    let right = process::serve(&world, &[]).await;
    assert_eq!((ready(&right).await.0, health(right.replica.grpc).await), (200, SERVING));

    let first = create(&other, "first");
    for replica in [&without, &late] {
        eventually("it to be ready", async || ready(replica).await.0 == 200).await;
        eventually("its health to tell", async || health(replica.replica.grpc).await == SERVING)
            .await;
        assert_eq!(status(&replica.replica, &first).await, 200);
    }
    // It stays ready, whatever happens to that token.
    revoke(&world, &first).await;
    eventually("the revocation", async || status(&late.replica, &first).await == 401).await;
    assert_eq!(ready(&late).await.0, 200);
    // In shadow, this is no error of the settings either.
    let shadow = other.login(&world, "server").with("mode", "shadow");
    let (code, outcome, detail) = found(&shadow, "keyring_file");
    assert_eq!((code, &*outcome), (0, "warning"), "{detail}");
    assert!(detail.contains(NONE_OF_THEM), "{detail}");
}

pub(crate) async fn different_ones_are_noticed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    // The keys have different names.
    let other = Cli::of(&world).with("keyring_file", new_ring(&world, "k2").to_str().unwrap());
    create(&other, "by-another-ring");
    let one = process::serve(&world, &[]).await;
    assert_eq!(logged(&one, OTHERS), 1);
    let (code, outcome, detail) = found(&Cli::of(&world).login(&world, "server"), "keyring_file");
    assert_eq!((code, &*outcome), (0, "warning"));
    assert!(detail.ends_with("and are refused: k2 (1)"), "{detail}");
    assert_eq!(status(&one.replica, &token).await, 200);

    // The keys have the same name.
    let namesake = new_ring(&world, "k1");
    let keyring = format!("keyring_file={}", namesake.display());
    let two = process::serve(&world, &[&keyring]).await;
    let theirs = Cli::of(&world).with("keyring_file", namesake.to_str().unwrap());
    let theirs = create(&theirs, "by-a-namesake");
    eventually("an entry of the other", async || {
        assert_eq!(status(&one.replica, &token).await, 200);
        assert_eq!(status(&two.replica, &theirs).await, 200);
        logged(&two, SEALS) == 1 || logged(&one, SEALS) == 1
    })
    .await;
}
