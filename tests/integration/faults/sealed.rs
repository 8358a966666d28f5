//! Write access to Redis can make patgate ask Postgres, and do nothing more.

use std::sync::Arc;

use patgate::keyring;
use patgate_testing::eventually;
use redis::aio::MultiplexedConnection;

use crate::support::{
    Suite,
    entries::{all_held, held, key, repaired, settled},
    fleet::{MODELS, answer},
    front::Front,
    load::{AllowedStatuses, TokenKind, WELL},
    redis_at,
    replica::lookups,
    settings::PATIENT,
    tokens::{reader, revoke},
};

async fn plant(redis: &MultiplexedConnection, values: &[(String, Vec<u8>)]) {
    let mut pipeline = redis::pipe();
    for (key, value) in values {
        pipeline.set(key, value).ignore();
    }
    pipeline.query_async::<()>(&mut redis.clone()).await.unwrap();
}

pub(crate) async fn what_redis_holds_is_sealed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let front = Front::of(&world, &PATIENT).await;
    let load = front.load(&world).await;
    let redis = redis_at(&world.redis_url).await;
    // One token without permissions, and one whose earlier state will be put back.
    let poor = world.token(&[]).await;
    let turning = &load.turning;
    load.bear(front.fleet.all_answer(&poor, MODELS, 403)).await;
    load.bear(all_held(&redis, &[&poor, turning, &load.hot[0]])).await;
    let rich = held(&redis, &load.hot[0]).await;
    let old = held(&redis, turning).await;
    let forgeries = forgeries(&rich);
    load.bear(settled(&redis, &world, &front.fleet)).await;

    // Asked of replicas with empty memory, one per forgery.
    for forgery in &forgeries {
        plant(&redis, &[(key(&world, &poor), forgery.clone())]).await;
        let replica = world.serve(&PATIENT).await;
        assert_eq!(load.bear(answer(&replica, &poor, MODELS)).await, 403);
        assert_eq!(lookups(&replica, "principal", "redis", "refused").await, 1);
        load.bear(repaired(&redis, &poor, forgery)).await;
    }
    // An entry under the key of another release does not exist for this one.
    let newer = key(&world, &poor).replace(":5:", ":6:");
    redis::cmd("DEL").arg(key(&world, &poor)).exec_async(&mut redis.clone()).await.unwrap();
    plant(&redis, &[(newer, rich.clone())]).await;
    let replica = world.serve(&PATIENT).await;
    assert_eq!(load.bear(answer(&replica, &poor, MODELS)).await, 403);
    assert_eq!(lookups(&replica, "principal", "redis", "miss").await, 1);

    // A genuine value from before the revocation.
    load.allow(AllowedStatuses { turning: &[200, 401], ..WELL });
    revoke(&world, turning).await;
    load.bear(front.fleet.turn("revoked", (turning, MODELS), 200, 401)).await;
    load.allow(super::turned(WELL));
    load.bear(settled(&redis, &world, &front.fleet)).await;
    plant(&redis, &[(key(&world, turning), old.clone())]).await;
    let replica = world.serve(&PATIENT).await;
    assert_eq!(load.bear(answer(&replica, turning, MODELS)).await, 401);
    assert_eq!(lookups(&replica, "principal", "redis", "stale").await, 1);
    load.bear(repaired(&redis, turning, &old)).await;

    // Under every token that is about to be used.
    let values = load.cold.iter().zip(forgeries.iter().cycle());
    let values: Vec<_> =
        values.map(|(token, forgery)| (key(&world, token), forgery.clone())).collect();
    plant(&redis, &values).await;
    let next = load.count(TokenKind::Cold, 200) as usize + 5;
    let refused = async || front.lookups("redis", "refused").await;
    load.bear(eventually("values to be refused", async || refused().await > 60)).await;
    let used = load.cold.iter().zip(&values).skip(next).take(2 * forgeries.len());
    for (token, (_, planted)) in used {
        load.bear(repaired(&redis, token, planted)).await;
    }
    println!("{} values refused under load", refused().await);
    load.end("Redis holds what is not ours").await;
}

/// What an attacker could write who has read everything.
fn forgeries(genuine: &[u8]) -> [Vec<u8>; 6] {
    let mut newer = genuine.to_vec();
    let mut changed = genuine.to_vec();
    newer[0] += 1;
    *changed.last_mut().unwrap() ^= 1;
    let half = genuine[..genuine.len() / 2].to_vec();
    [genuine.to_vec(), newer, changed, half, b"garbage".to_vec(), Vec::new()]
}

/// Sealed by a replica whose ring begins with a newer key. This replica accepts its tokens, but not
/// its entries, until it has that key.
pub(crate) async fn entries_sealed_with_an_unknown_key_are_not_used(suite: Arc<Suite>) {
    let world = suite.world().await;
    let ring = suite.dir.path().join(format!("{}-rotated.keys", world.database));
    let first = keyring::new_line(&"k2".parse().unwrap()).unwrap();
    let second = std::fs::read_to_string(&world.keyring_file).unwrap();
    std::fs::write(&ring, format!("{}\n{second}", first.trim())).unwrap();
    let ring = format!("keyring_file={}", ring.display());
    let front = Front::of(&world, &PATIENT).await;
    let load = front.load(&world).await;
    let rotated = world.serve(&[&ring, PATIENT[0], PATIENT[1]]).await;
    let redis = redis_at(&world.redis_url).await;
    for _ in 0..8 {
        let token = reader(&world).await;
        assert_eq!(load.bear(answer(&rotated, &token, MODELS)).await, 200);
        load.bear(eventually("an entry", async || !held(&redis, &token).await.is_empty())).await;
        let theirs = held(&redis, &token).await;
        load.bear(front.fleet.all_answer(&token, MODELS, 200)).await;
        load.bear(repaired(&redis, &token, &theirs)).await;
    }
    // To replicas that have just started, it may be one that was dropped before.
    assert!(front.lookups("redis", "retired").await >= 8);
    assert_eq!(front.lookups("redis", "refused").await, 0);
    load.end("Redis holds what another key ring sealed").await;
}
