//! Probes Redis: whether patgate can log in, and has the permissions that its configuration needs.

use super::Finding;
use crate::{
    config::{Config, ConfigPurpose},
    installation::Installation,
    redis_client::{
        access::RedisAccess,
        probe::{RedisUse, probe},
    },
};

const REDIS: &str = "redis.url";

/// Tries keys of this installation, because the ACL may permit no others.
pub(super) async fn find(
    config: &Config,
    purpose: ConfigPurpose,
    installation: Option<Installation>,
) -> Finding {
    let Some(redis) = &config.redis else {
        return Finding::off(REDIS, "not set: lookups that memory cannot answer go to Postgres");
    };
    let uses: &[RedisUse] = match purpose {
        ConfigPurpose::Admin => &[RedisUse::Read, RedisUse::Forget],
        ConfigPurpose::SelfService => &[RedisUse::Forget],
        ConfigPurpose::Serve if config.relay => &[RedisUse::Read, RedisUse::Write, RedisUse::Relay],
        ConfigPurpose::Serve => &[RedisUse::Read, RedisUse::Write],
    };
    let prefix = installation.map_or_else(|| "patgate:".to_owned(), |it| it.redis_prefix());
    let access = match RedisAccess::open(redis) {
        Ok(access) => access,
        Err(error) => return Finding::failed(REDIS, error),
    };
    match probe(&access, &prefix, uses).await {
        Ok(()) => Finding::ok(REDIS, format!("keys begin with {prefix}")),
        Err(fault) => Finding::failed(REDIS, fault),
    }
}
