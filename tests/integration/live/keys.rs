//! Keys that come and go.

use std::{fs, sync::Arc};

use patgate::{keyring::KeyRing, principal::Principal};
use patgate_core::{
    clock::Moment,
    freshness::Stamp,
    seal::{SealPurpose, Sealer, Unsealed},
    snapshot::Snapshot,
};
use patgate_testing::eventually;

use super::{REFUSES, RingFile, line};
use crate::support::{
    Suite, World,
    cli::Cli,
    credentials::{authorization, give, turns},
    entries::{all_held, held, key, repaired},
    fleet::{Fleet, MODELS, answer},
    redis_at,
    replica::lookups,
    settings::PATIENT,
    tokens::{reader, revoke},
    value,
};

/// An entry in Redis, behind its seal.
type Entry = (Moment, Stamp, Option<Principal>);

async fn sealer(world: &World<'_>, ring: &str) -> Sealer {
    let identity: String = value(world, "SELECT patgate.identity()").await;
    Sealer::new(KeyRing::parse(ring).unwrap(), identity.parse().unwrap())
}

/// The thief of a key seals an entry that turns a denial into an allow, and that no change outdates.
/// A replica has it in memory when the key leaves the ring.
pub(crate) async fn a_forged_entry_goes_with_its_key(suite: Arc<Suite>) {
    let world = suite.world().await;
    let redis = redis_at(&world.redis_url).await;
    let ring = RingFile::of(&world);
    let stolen = line("stolen");
    ring.write(&[&ring.own, &stolen]);
    let setting = ring.setting();
    let settings = [&[&*setting][..], &PATIENT].concat();
    let [first, replica] = [world.serve(&settings).await, world.serve(&settings).await];

    let [token, honest] = [reader(&world).await, reader(&world).await];
    assert_eq!(answer(&first, &token, MODELS).await, 200);
    all_held(&redis, &[&token]).await;
    let place = key(&world, &token);
    let genuine = held(&redis, &token).await;
    let good = sealer(&world, &ring.own).await;
    let opened = good.open::<Entry>(SealPurpose::Entries, &place, &genuine).unwrap();
    let Unsealed { payload: (_, stamp, principal), .. } = opened;
    revoke(&world, &token).await;
    eventually("the revocation", async || answer(&first, &token, MODELS).await == 401).await;
    // What the replica writes then must not come after the forgery.
    repaired(&redis, &token, &genuine).await;

    let stamp = Stamp { snapshot: Snapshot::of_all(), ..stamp };
    let now: i64 = value(&world, "SELECT (extract(epoch FROM now()) * 1000000)::int8").await;
    let thief = sealer(&world, &stolen).await;
    let forged = (Moment(now), stamp, principal);
    let forged = thief.seal(SealPurpose::Entries, &place, &forged).unwrap().bytes;
    let plant = async || {
        let mut set = redis::cmd("SET");
        set.arg(&place).arg(&forged);
        set.exec_async(&mut redis.clone()).await.unwrap();
    };
    plant().await;
    for _ in 0..2 {
        assert_eq!(answer(&replica, &token, MODELS).await, 200, "the theft works");
        assert_eq!(answer(&replica, &honest, MODELS).await, 200);
    }
    let counts = async || {
        let of = async |tier, result| lookups(&replica, "principal", tier, result).await;
        [of("redis", "hit").await, of("postgres", "hit").await, of("redis", "retired").await]
    };
    assert_eq!(counts().await, [1, 1, 0], "both are in memory");

    ring.bring(&replica, &[&ring.own]).await;
    assert_eq!(answer(&replica, &token, MODELS).await, 401);
    assert_eq!(counts().await, [1, 2, 1], "the forged entry was asked for again, and not used");
    // What is true is kept, although the forged entry claimed to be newer than everything.
    plant().await;
    assert_eq!(answer(&replica, &token, MODELS).await, 401);
    assert_eq!(answer(&replica, &honest, MODELS).await, 200);
    assert_eq!(counts().await, [1, 2, 1], "the other token has stayed in memory");
    assert_eq!(replica.metric(REFUSES).await, 0);
}

/// The procedure of docs/operations.md, step by step, with replicas that run throughout.
pub(crate) async fn keys_rotate_as_documented(suite: Arc<Suite>) {
    let world = suite.world().await;
    let ring = RingFile::of(&world);
    let setting = ring.setting();
    let fleet = Fleet::of(&world, 2, &[&setting, PATIENT[0], PATIENT[1]]).await;
    let cli = Cli::of(&world).with("keyring_file", &ring.path.display().to_string());
    let of_acme = give(&cli, &suite, "model-acme");
    let create = |name: &str| {
        let scope = "--scope acme:models:*:llm_read";
        cli.mint(&format!("token create {name} --user ann@example.com --expires-in 1h {scope}"))
    };
    let in_force = async |times: u64| {
        for replica in &fleet.0 {
            let reloaded = async || replica.metric(super::RELOADED).await == times;
            eventually("the key ring to be reloaded", reloaded).await;
        }
    };
    let old = create("old");
    fleet.all_answer(&old, MODELS, 200).await;

    cli.ok("keyring add --id k2");
    in_force(1).await;
    cli.ok("keyring promote k2");
    in_force(2).await;
    let new = create("new");
    for token in [&old, &new] {
        fleet.all_answer(token, MODELS, 200).await;
    }
    cli.refused("keyring drop k1", 1, "k1");
    let rotated = cli.mint(&format!("token rotate {} --grace 0s", old.id));
    cli.ok("backend credential reseal");
    turns(&fleet, &rotated, MODELS, Ok(Some(&of_acme))).await;
    world.sql("UPDATE patgate.pats SET revoked_at = now() WHERE key_id = 'k1'").await;
    cli.ok("keyring drop k1");
    in_force(3).await;
    // By bare SQL, it would be live again. But its key has left.
    world.sql("UPDATE patgate.pats SET revoked_at = NULL").await;
    fleet.all_answer(&old, MODELS, 401).await;
    for token in [&new, &rotated] {
        fleet.all_answer(token, MODELS, 200).await;
    }
    turns(&fleet, &new, MODELS, Ok(Some(&of_acme))).await;
}

/// It is not used once its key has left, and is used again when the key is back.
pub(crate) async fn a_credential_opens_while_its_key_is_there(suite: Arc<Suite>) {
    let world = suite.world().await;
    let ring = RingFile::of(&world);
    let setting = ring.setting();
    let sealing = line("k2");
    ring.write(&[&sealing, &ring.own]);
    let cli = Cli::of(&world).with("keyring_file", &ring.path.display().to_string());
    let of_acme = give(&cli, &suite, "model-acme");
    let fleet = Fleet::of(&world, 1, &[&setting, PATIENT[0], PATIENT[1]]).await;
    let replica = &fleet.0[0];
    let token = reader(&world).await;
    turns(&fleet, &token, MODELS, Ok(Some(&of_acme))).await;
    ring.bring(replica, &[&ring.own, &sealing]).await;
    assert_eq!(authorization(replica, &token, MODELS).await, Ok(Some(of_acme.clone())));
    ring.bring(replica, &[&ring.own]).await;
    assert_eq!(authorization(replica, &token, MODELS).await, Err(503));
    ring.bring(replica, &[&ring.own, &sealing]).await;
    assert_eq!(authorization(replica, &token, MODELS).await, Ok(Some(of_acme)));
}

/// The ring was stolen, and all of it is replaced: the new one is taken up once it has signed a token.
pub(crate) async fn the_last_key_of_an_installation_is_replaced(suite: Arc<Suite>) {
    let world = suite.world().await;
    let ring = RingFile::of(&world);
    let setting = ring.setting();
    let replica = world.serve(&[&setting, PATIENT[0], PATIENT[1]]).await;
    let token = reader(&world).await;
    assert_eq!(answer(&replica, &token, MODELS).await, 200);
    let before = fs::read_to_string(&ring.path).unwrap();

    let new = line("k9");
    ring.write(&[&new]);
    eventually("the ring to be refused", async || replica.metric(REFUSES).await == 1).await;
    assert_eq!(
        answer(&replica, &token, MODELS).await,
        200,
        "it may be that of another installation"
    );
    let cli = Cli::of(&world).with("keyring_file", &ring.path.display().to_string());
    let first = cli.mint(
        "token create first --user ann@example.com --expires-in 1h --scope acme:models:*:llm_read",
    );
    eventually("the ring to be taken up", async || replica.metric(REFUSES).await == 0).await;
    assert_eq!(answer(&replica, &token, MODELS).await, 401);
    assert_eq!(answer(&replica, &first, MODELS).await, 200);

    // Removing a key of the ring is obeyed at once, also if it has signed all live tokens but one.
    world.sql(&format!("DELETE FROM patgate.pats WHERE id = '{}'", first.id)).await;
    ring.bring(&replica, &[&new, before.trim()]).await;
    assert_eq!(answer(&replica, &token, MODELS).await, 200);
    ring.bring(&replica, &[&new]).await;
    assert_eq!(answer(&replica, &token, MODELS).await, 401);
}
