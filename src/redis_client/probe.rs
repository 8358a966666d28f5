//! Tries the commands that a use of Redis needs.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, RedisError};
use tokio::time::timeout;

use super::{access::RedisAccess, connector::ConnectionLimits, fault::RedisFault};

/// Time limit for a connection and the answers to a few commands.
const PATIENCE: Duration = Duration::from_secs(2);
const LIMITS: ConnectionLimits = ConnectionLimits { within: None, silence: PATIENCE };

/// What patgate uses Redis for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RedisUse {
    /// Looking up entries.
    Read,
    /// Sharing the results of lookups.
    Write,
    /// Deleting outdated copies, as the operator's commands do.
    Forget,
    /// Relaying the feed of changes.
    Relay,
}

impl RedisUse {
    /// The commands of this use, on keys that begin with `prefix` and are never used otherwise.
    fn commands(self, prefix: &str) -> Vec<Cmd> {
        let command = |name: &str, key: &str, rest: &[&str]| {
            let mut command = redis::cmd(name);
            command.arg(format!("{prefix}probe{key}")).arg(rest);
            command
        };
        match self {
            Self::Read => vec![command("MGET", "", &[])],
            // The key expires after a millisecond.
            Self::Write => vec![command("PSETEX", "", &["1", "-"])],
            Self::Forget => vec![command("DEL", "", &[])],
            Self::Relay => {
                let mut read = redis::cmd("XREAD");
                read.arg("STREAMS").arg(format!("{prefix}probe:feed")).arg("0");
                vec![
                    command("XADD", ":feed", &["MAXLEN", "~", "1", "*", "-", "-"]),
                    read,
                    command("HSET", ":leases", &["-", "-"]),
                    command("HGETALL", ":leases", &[]),
                    command("HDEL", ":leases", &["-"]),
                    command("DEL", ":feed", &[]),
                ]
            }
        }
    }
}

/// Connects, and tries each command of these uses.
///
/// # Errors
///
/// Returns the first fault, within a few seconds.
pub(crate) async fn probe(
    access: &Arc<RedisAccess>,
    prefix: &str,
    uses: &[RedisUse],
) -> Result<(), RedisFault> {
    let probe = async {
        let mut connection = access.connect(LIMITS).await?;
        for command in uses.iter().flat_map(|of| of.commands(prefix)) {
            command.exec_async(&mut connection).await?;
        }
        Ok(())
    };
    match timeout(PATIENCE, probe).await {
        Ok(outcome) => outcome.map_err(|error: RedisError| RedisFault::from(&error)),
        Err(_) => Err(RedisFault::silence(PATIENCE)),
    }
}
