//! Describes a fault of Redis, in words that say what to change.
//!
//! patgate serves without Redis, so a wrong password or a missing permission shows only in the log,
//! in `patgate check` and in `patgate config check --connect`. All of them use the same words.

use std::{fmt, time::Duration};

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::legible;

/// The maximum number of characters of a fault that are shown.
const MAX_TEXT: usize = 400;

/// A reason why Redis cannot be used. It names the user, a command or a key, and never a password.
#[derive(Clone, Debug)]
pub(crate) struct RedisFault {
    text: String,
    pub(super) kind: ErrorKind,
}

impl From<&RedisError> for RedisFault {
    fn from(error: &RedisError) -> Self {
        // If several commands failed, only the first error is shown.
        let server = error.clone().into_server_errors().and_then(|all| all.first().cloned());
        let text = match (error.kind(), server) {
            _ if is_refused_login(error) => "it refuses the user name or the password in \
                 redis.url or redis.password_file, or a Sentinel refuses those of redis.sentinel"
                .to_owned(),
            (ErrorKind::MasterNameNotFoundBySentinel, _) => "no Sentinel in redis.url knows a \
                 master of the name in redis.sentinel.master that is up and is one"
                .to_owned(),
            (ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask), _) => {
                "it is a node of a cluster: set redis.topology to `cluster`".to_owned()
            }
            (ErrorKind::Server(ServerErrorKind::NoPerm), server) => {
                let detail = server.as_ref().and_then(|(_, error)| error.details());
                let detail = detail.or(error.detail()).unwrap_or("no permission");
                format!(
                    "its ACL refuses what patgate needs: {detail}; see \"Permissions\" \
                     in docs/redis.md for the commands and keys"
                )
            }
            (ErrorKind::Extension, Some((_, error))) if error.code() == "NOAUTH" => {
                "it requires a password, and redis.url has none".to_owned()
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
                 the system, of the file that SSL_CERT_FILE names, or of redis.tls.ca_file"
            ),
            (_, None) => error.to_string(),
        };
        // A server's text must neither control a terminal nor fill the log.
        Self { text: legible::shown(&text, MAX_TEXT), kind: error.kind() }
    }
}

/// Whether Redis or a Sentinel refused the user name or the password.
pub(super) fn is_refused_login(error: &RedisError) -> bool {
    // If all nodes of a cluster refuse it, their error is only the detail of another one.
    let detail = error.detail().unwrap_or_default();
    error.kind() == ErrorKind::AuthenticationFailed || detail.contains("AuthenticationFailed")
}

/// Whether the server says that it is not, or no longer, the one to ask: it has become a replica, or
/// gave its slots away.
pub(crate) fn leads_elsewhere(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly};
    let kind = match error.clone().into_server_errors().and_then(|all| all.first().cloned()) {
        // A blocked command ends with this code when a master becomes a replica.
        Some((_, error)) if error.code() == "UNBLOCKED" => return true,
        Some((_, error)) => error.kind(),
        None => None,
    };
    matches!(kind, Some(BusyLoading | ClusterDown | MasterDown | Moved | ReadOnly))
}

impl RedisFault {
    /// The fault that no answer came within that time.
    pub(crate) fn silence(after: Duration) -> Self {
        Self { text: format!("no answer within {after:?}"), kind: ErrorKind::Io }
    }
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}
