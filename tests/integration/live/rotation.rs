//! A routine rotation of the key ring, step by step as docs/operations.md has it, through the commands
//! and under load: each replica has a file of its own, and they get the new one one after the other.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use patgate::keyring::KeyRing;
use patgate_core::seal::{SealPurpose, Sealer};
use patgate_testing::{eventually, stack::Server};

use super::{RELOADED, line};
use crate::support::{
    Replica, Suite, World,
    cli::Cli,
    credentials::give,
    entries::{all_held, key},
    envoy::{envoy, patient},
    fleet::{Fleet, MODELS, answer},
    load::{LASTING, Load, WELL},
    redis_at,
    relay::{self, frames},
    replica::lookups,
    tokens::reader,
    value,
};

/// How the replicas hear of changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Feed {
    Polled,
    Relayed,
}

/// How often the clients are answered between two steps.
const ANSWERS: u64 = 5;

/// A replica and its own file.
struct Member {
    replica: Arc<Replica>,
    ring: PathBuf,
}

/// Replicas whose ring is rotated. The key `old` is the current one. That of the world is the second
/// one and stays, so that the tokens of the load do.
pub(crate) struct Rotation<'s> {
    world: &'s World<'s>,
    cli: Cli<'s>,
    /// The file of the operator.
    ring: PathBuf,
    feed: Feed,
    members: Vec<Member>,
    envoy: Server,
}

impl<'s> Rotation<'s> {
    pub(crate) async fn prepare(world: &'s World<'s>, size: usize, feed: Feed) -> Self {
        let path = |of: &str| world.suite.dir.path().join(format!("{}.{of}.keys", world.database));
        let ring = path("operator");
        let own = fs::read_to_string(&world.keyring_file).unwrap();
        fs::write(&ring, format!("{}\n{}\n", line("old"), own.trim())).unwrap();
        let cli = Cli::of(world).with("keyring_file", &ring.display().to_string());
        let mut members = Vec::new();
        for at in 0..size {
            members.push(Member::start(world, &ring, path(&at.to_string()), feed).await);
        }
        let addresses: Vec<_> = members.iter().map(|member| member.replica.grpc).collect();
        let envoy = envoy(world.suite, &addresses, patient("10s", "10s"));
        let rotation = Self { world, cli, ring, feed, members, envoy };
        if feed == Feed::Relayed {
            relay::the_leader(&rotation.fleet()).await;
        }
        rotation
    }

    fn fleet(&self) -> Fleet {
        Fleet(self.members.iter().map(|member| Arc::clone(&member.replica)).collect())
    }

    /// The ports of the metrics.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.replica.http.port()).collect()
    }

    /// Brings the operator's file to one replica after the other, and waits until each has taken it up.
    async fn bring(&self, load: &Load) {
        for Member { replica, ring } in &self.members {
            let before = replica.metric(RELOADED).await;
            replace(&self.ring, ring);
            let reloaded = async || replica.metric(RELOADED).await > before;
            load.bear(eventually("the key ring to be reloaded", reloaded)).await;
            load.bear(load.more(WELL, ANSWERS)).await;
        }
    }

    /// The procedure. `joins` is called with a replica that starts right after the last step.
    pub(crate) async fn run(&mut self, joins: impl FnOnce(&Self, u16)) {
        let Self { world, cli, .. } = &*self;
        let create = |name: &str| {
            let scope = "--scope acme:models:*:llm_read";
            cli.mint(&format!("token create {name} --user ann@example.com --expires-in 1h {scope}"))
        };
        let of_old = [create("one"), create("two")];
        give(cli, world.suite, "model-beta");
        let load = Load::lasting(LASTING, world, self.envoy.port).await;
        for token in &of_old {
            load.bear(self.fleet().all_answer(token, MODELS, 200)).await;
        }

        cli.ok("keyring add --id k2");
        self.bring(&load).await;
        cli.ok("keyring promote k2");
        self.bring(&load).await;
        cli.ok("keyring list --count");
        let live = cli.json("token list --live");
        let ids = live.as_array().unwrap().iter().filter(|token| token["key_id"] == "old");
        let ids: Vec<_> = ids.map(|token| token["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 2);
        let mut rotated = Vec::new();
        for id in ids {
            rotated.push(cli.mint(&format!("token rotate {id} --grace 1s")));
        }
        for token in &rotated {
            load.bear(self.fleet().all_answer(token, MODELS, 200)).await;
        }
        cli.ok("backend credential reseal");
        // Until the time of grace is over.
        eventually("the old key to be dropped", async || cli.run("keyring drop old").code == 0)
            .await;
        self.bring(&load).await;
        for token in &rotated {
            load.bear(self.fleet().all_answer(token, MODELS, 200)).await;
        }

        let path = self.ring.with_extension("newcomer");
        let newcomer = load.bear(Member::start(world, &self.ring, path, self.feed)).await;
        joins(self, newcomer.replica.http.port());
        load.known_to(&newcomer.replica).await;
        load.bear(load.more(WELL, 10 * ANSWERS)).await;
        let row = format!("{} replicas rotate the key ring ({:?})", self.members.len(), self.feed);
        load.end(&row).await;
        self.members.push(newcomer);
    }

    /// How many entries and frames each replica took for those of a stranger.
    pub(crate) async fn refused(&self) -> Vec<u64> {
        self.counts("refused").await
    }

    async fn counts(&self, result: &str) -> Vec<u64> {
        let mut counts = Vec::new();
        for Member { replica, .. } in &self.members {
            let entries = lookups(replica, "principal", "redis", result).await
                + lookups(replica, "domain", "redis", result).await;
            counts.push(entries + frames(replica, result).await);
        }
        counts
    }

    /// Somebody without the key writes what claims to be sealed by it.
    pub(crate) async fn forge_an_entry(&self) {
        let token = reader(self.world).await;
        let [first, .., last] = &*self.members else { panic!("too few replicas") };
        assert_eq!(answer(&first.replica, &token, MODELS).await, 200);
        let redis = redis_at(&self.world.redis_url).await;
        all_held(&redis, &[&token]).await;
        let identity: String = value(self.world, "SELECT patgate.identity()").await;
        let namesake = KeyRing::parse(&line("k2")).unwrap();
        let stranger = Sealer::new(namesake, identity.parse().unwrap());
        let place = key(self.world, &token);
        let forged = stranger.seal(SealPurpose::Entries, &place, &"forged").unwrap();
        let mut set = redis::cmd("SET");
        set.arg(&place).arg(forged.bytes);
        set.exec_async(&mut redis.clone()).await.unwrap();
        assert_eq!(answer(&last.replica, &token, MODELS).await, 200, "Postgres was asked");
        assert!(self.refused().await.iter().sum::<u64>() > 0, "the forgery is counted");
    }
}

impl Member {
    async fn start(world: &World<'_>, from: &Path, ring: PathBuf, feed: Feed) -> Self {
        replace(from, &ring);
        let mut settings = vec![format!("keyring_file={}", ring.display())];
        if feed == Feed::Relayed {
            settings.extend(relay::relayed(world));
        }
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        Self { replica: Arc::new(world.serve(&settings).await), ring }
    }
}

/// Replaces a file in one step.
fn replace(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    fs::copy(from, &new).unwrap();
    fs::rename(new, to).unwrap();
}

async fn nothing_is_refused(suite: Arc<Suite>, size: usize, feed: Feed) {
    let world = suite.world().await;
    let mut rotation = Rotation::prepare(&world, size, feed).await;
    rotation.run(|_, _| {}).await;
    let refused = rotation.refused().await;
    println!("{size} replicas, {feed:?}: refused {refused:?}");
    assert!(refused.iter().all(|count| *count == 0), "{refused:?}");
    let retired = rotation.counts("retired").await;
    assert!(
        retired.iter().sum::<u64>() > 0,
        "nothing was left under the old key, so this shows nothing"
    );
    rotation.forge_an_entry().await;
}

pub(crate) async fn two_replicas_rotate(suite: Arc<Suite>) {
    nothing_is_refused(suite, 2, Feed::Polled).await;
}

pub(crate) async fn three_replicas_rotate(suite: Arc<Suite>) {
    nothing_is_refused(suite, 3, Feed::Polled).await;
}

pub(crate) async fn relayed_replicas_rotate(suite: Arc<Suite>) {
    nothing_is_refused(suite, 3, Feed::Relayed).await;
}
