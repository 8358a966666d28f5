//! What is wrong with a Redis, said in words that help, and seldom.
//!
//! patgate serves without Redis, so a wrong password or a missing permission shows nowhere but in
//! the log, in `patgate check` and in `patgate config check --connect`. All of them say it alike.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};
use tokio::time::timeout;

use crate::{clock::Tick, config, legible, redis_client::connections::RedisConnections};

/// For a connection and the answers to a few commands.
const PATIENCE: Duration = Duration::from_secs(2);

/// While a fault lasts, it is logged again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);
/// A fault that comes and goes is logged so often at most.
const BACK_AFTER: Duration = Duration::from_secs(60);

/// Characters of a fault that are shown.
const MAX_TEXT: usize = 400;

/// A reason why Redis cannot be used. It names the user, a command or a key, and never a password.
#[derive(Clone, Debug)]
pub(crate) struct RedisFault {
    text: String,
    kind: ErrorKind,
}

impl From<&RedisError> for RedisFault {
    fn from(error: &RedisError) -> Self {
        // Of several commands, the first one that failed stands for all.
        let server = error.clone().into_server_errors().and_then(|all| all.first().cloned());
        let text = match (error.kind(), server) {
            (ErrorKind::AuthenticationFailed, _) => {
                "it refuses the user name or the password in redis.url".to_owned()
            }
            (ErrorKind::Server(ServerErrorKind::NoPerm), server) => {
                let detail = server.as_ref().and_then(|(_, error)| error.details());
                let detail = detail.or(error.detail()).unwrap_or("no permission");
                format!(
                    "its ACL refuses what patgate needs: {detail}; see \"What to keep\" in \
                     docs/operations.md for the commands and keys"
                )
            }
            (ErrorKind::Extension, Some((_, error))) if error.code() == "NOAUTH" => {
                "it demands a password, and redis.url has none".to_owned()
            }
            (_, Some((_, error))) => {
                format!("it answers {} {}", error.code(), error.details().unwrap_or_default())
            }
            (_, None) if error.to_string().starts_with("Redis server refused to switch") => {
                let detail = error.detail().unwrap_or("refused");
                format!("it refuses the database that the path of redis.url names: {detail}")
            }
            (_, None) if error.to_string().contains("certificate") => format!(
                "{error}; its certificate must be for the host in redis.url, and signed by a CA of \
                 the system or of the file that SSL_CERT_FILE names"
            ),
            (_, None) => error.to_string(),
        };
        // What a server says must not steer a terminal, nor fill the log.
        Self { text: legible::shown(&text, MAX_TEXT), kind: error.kind() }
    }
}

impl RedisFault {
    /// No answer within that time.
    pub(crate) fn silence(after: Duration) -> Self {
        Self { text: format!("no answer within {after:?}"), kind: ErrorKind::Io }
    }
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}

/// What Redis is used for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Use {
    /// Look-ups.
    Read,
    /// Sharing what was looked up.
    Write,
    /// The administrator's commands, which delete what they have outdated.
    Forget,
    /// Relaying the feed of changes.
    Relay,
}

impl Use {
    /// The commands of this use, on keys that begin with `prefix` and hold nothing else.
    fn commands(self, prefix: &str) -> Vec<Cmd> {
        let command = |name: &str, key: &str, rest: &[&str]| {
            let mut command = redis::cmd(name);
            command.arg(format!("{prefix}probe{key}")).arg(rest);
            command
        };
        match self {
            Self::Read => vec![command("MGET", "", &[])],
            // Gone after a millisecond.
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
/// The first fault, within a few seconds.
pub(crate) async fn probe(
    settings: &config::Redis,
    prefix: &str,
    uses: &[Use],
) -> Result<(), RedisFault> {
    let probe = async {
        let mut connection = RedisConnections::new(&settings.url, None)?.connect().await?;
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

/// Logs faults of one use of Redis: each kind once while it lasts, and then every ten minutes.
pub(crate) struct Complaints {
    /// What becomes of it while there is a fault.
    consequence: &'static str,
    /// By kind, when it may be logged again.
    logged: Mutex<Vec<(ErrorKind, Tick)>>,
    open: AtomicBool,
}

impl Complaints {
    pub(crate) fn new(consequence: &'static str) -> Self {
        Self { consequence, logged: Mutex::default(), open: AtomicBool::new(false) }
    }

    /// Logs a fault unless it was logged lately.
    pub(crate) fn fault(&self, fault: RedisFault, now: Tick) {
        if self.due(fault.kind, now) {
            tracing::warn!(why = %fault, "Redis cannot be used; {}", self.consequence);
            self.open.store(true, Relaxed);
        }
    }

    fn due(&self, kind: ErrorKind, now: Tick) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let next = now.after(AGAIN_AFTER);
        match logged.iter_mut().find(|(of, _)| *of == kind) {
            Some((_, at)) if now < *at => false,
            Some((_, at)) => {
                *at = next;
                true
            }
            None => {
                logged.push((kind, next));
                true
            }
        }
    }

    /// It works, again perhaps.
    pub(crate) fn well(&self, now: Tick) {
        if self.open.load(Relaxed) && self.open.swap(false, Relaxed) {
            tracing::info!("Redis can be used again ({} no longer)", self.consequence);
            let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
            logged.iter_mut().for_each(|(_, at)| *at = (*at).min(now.after(BACK_AFTER)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_logged_once_and_again_seldom() {
        let complaints = Complaints::new("nothing is lost");
        let (silent, refused) = (ErrorKind::Io, ErrorKind::AuthenticationFailed);
        let start = Tick::from_micros(0);
        let just_before = |moment: Tick| moment.before(Duration::from_micros(1));
        assert!(complaints.due(silent, start));
        assert!(!complaints.due(silent, start));
        assert!(complaints.due(refused, start), "it is of another kind");
        let again = start.after(AGAIN_AFTER);
        assert!(!complaints.due(silent, just_before(again)));
        complaints.fault(RedisFault::silence(BACK_AFTER), again);
        assert!(!complaints.due(silent, again), "it was logged");
        // What comes back is told sooner, and not at once.
        complaints.well(again);
        let back = again.after(BACK_AFTER);
        assert!(!complaints.due(silent, just_before(back)));
        assert!(complaints.due(silent, back));
    }
}
