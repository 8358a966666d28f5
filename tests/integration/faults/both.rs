//! Both stores are down.

use std::sync::Arc;

use patgate_testing::proxy::{Mode, Proxy};

use super::{SHORT, turned, unread};
use crate::support::{Suite, front::Front, load::WELL, tokens::revoke};

pub(crate) async fn redis_and_postgres_are_away(suite: Arc<Suite>) {
    let world = suite.world().await;
    let postgres = Proxy::to(suite.postgres.port).await;
    let redis = Proxy::to(suite.valkey.port).await;
    let settings = [
        &format!("postgres.url={}", world.url("server", postgres.port)),
        &world.redis_url.replace(&suite.valkey.port.to_string(), &redis.port.to_string()),
    ];
    let redis_url = format!("redis.url={}", settings[1]);
    let settings = [settings[0].as_str(), &redis_url, "redis.timeout=20ms", SHORT[0], SHORT[1]];
    let front = Front::of(&world, &settings).await;
    let load = front.load(&world).await;
    let fault = async || {
        redis.set(Mode::Refuse);
        postgres.set(Mode::Refuse);
        revoke(&world, &load.turning).await;
    };
    let heal = async || {
        redis.set(Mode::Pass);
        postgres.set(Mode::Pass);
    };
    unread(&front, &load, fault, heal, turned(WELL)).await;
    load.end("Redis and Postgres away").await;
}
