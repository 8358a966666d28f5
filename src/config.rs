//! The configuration: a pure function of a YAML file, the environment and flags, which yields
//! either a [`Config`] or every mistake at once, each under its key.

mod keyring_file;
mod keys;
mod load;
mod postgres_url;
mod sources;
mod values;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;

pub(crate) use self::keyring_file::read_keyring_text;
pub use self::{
    keyring_file::{KeyRingFileError, read_keyring},
    keys::reference,
    sources::Sources,
};
use self::{
    keys::KEYS,
    load::Reader,
    sources::Settings,
    values::{path, paths},
};
pub use crate::trusted_file::Untrusted;
use crate::{decide::ModelReading, keyring::KeyRing, mode::Mode, token::Prefixes};

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where checks and probes arrive.
    pub listen: Listen,
    /// The truth.
    pub postgres: Postgres,
    /// Where changes are read, if not where everything else is.
    pub feed_url: Option<SecretString>,
    /// Whether one replica reads changes for all, and relays them through Redis.
    pub relay: bool,
    /// The second tier, if there is one.
    pub redis: Option<Redis>,
    /// Where the key ring is; present when loaded for serving.
    pub keyring_file: Option<PathBuf>,
    /// Files and directories of API tables; none for the one that the binary carries.
    pub apis: Vec<PathBuf>,
    /// When the model of a call is read from its body.
    pub model_reading: ModelReading,
    /// What tokens may begin with.
    pub token_prefixes: Prefixes,
    /// No answer rests on knowledge older than this.
    pub max_staleness: Duration,
    /// How long "no such token" is remembered; at most `max_staleness`.
    pub negative_ttl: Duration,
    /// How long resolving one request may take; at most `max_staleness`.
    pub deadline: Duration,
    /// How often a replica measures what revoking takes, if it does.
    pub canary_every: Option<Duration>,
    /// Whether denials are carried out.
    pub mode: Mode,
    /// What was decided, for people.
    pub decision_log: DecisionLog,
    /// Denials of one token a second; 0 is no bound.
    pub token_denials: u32,
    /// The bodies that Envoy may be asked to hold for one token at a time.
    pub bodies: Bodies,
    /// The bounds of the first tier.
    pub memory: Memory,
    /// What the names of headers for the upstream begin with, such as `x-`.
    pub headers_prefix: String,
    /// By which Envoy's guard knows what patgate lets through.
    pub guard_word: String,
    /// How to stop.
    pub drain: Drain,
    /// How many connections each gRPC listener holds.
    pub max_connections: usize,
    /// When a gRPC connection is closed, so that new replicas receive load.
    pub max_connection_age: Duration,
    /// What is logged, and how.
    pub log: Log,
}

/// Listeners. An absent one is off.
#[derive(Clone, Debug)]
pub struct Listen {
    /// gRPC over TCP.
    pub grpc: Option<SocketAddr>,
    /// gRPC over a Unix socket.
    pub uds: Option<PathBuf>,
    /// The permissions of that socket.
    pub uds_mode: u32,
    /// Health and metrics.
    pub http: Option<SocketAddr>,
}

/// How to reach Postgres.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// The setting that holds the URL, for messages.
    pub key: &'static str,
    /// Well-formed for sqlx.
    pub url: SecretString,
    /// At least 1.
    pub max_connections: u32,
    /// For one statement.
    pub query_timeout: Duration,
    /// Look-ups a second, at least 1.
    pub max_query_rate: u32,
}

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    /// Well-formed for the redis crate.
    pub url: SecretString,
    /// For one round trip.
    pub timeout: Duration,
    /// At least 1.
    pub max_connections: usize,
}

/// What is recorded of decisions.
#[derive(Clone, Debug)]
pub struct DecisionLog {
    /// Where.
    pub to: LogTo,
    /// Of the allows, from 0 to 1.
    pub sample_allows: f64,
    /// Of the denials that anybody can cause; at least 1.
    pub denials_per_second: u32,
    /// Of the denials of one proven token with the same code, operation and domain; at least 1.
    pub repeats_per_second: u32,
    /// Records that may wait; at least 1.
    pub queue: usize,
}

/// Where decisions are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// Nowhere.
    Nowhere,
    /// Standard output, which nothing else is written to.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// Bounds of what is held in memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Bytes, for what tokens resolve to.
    pub principals: u64,
    /// Bytes, for domains.
    pub domains: u64,
    /// Entries, for unknown token ids.
    pub negatives: u64,
}

/// How to stop without dropping a request.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Between "not ready" and the end of listening.
    pub delay: Duration,
    /// For what is then still in flight.
    pub grace: Duration,
}

/// Logging.
#[derive(Clone, Debug)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// Directives that `EnvFilter` understands.
    pub filter: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// What a configuration is loaded for, which decides what it must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Answering Envoy: a key ring and a listener are required.
    Serve,
    /// Administration.
    Admin,
}

/// One thing that is wrong: a key, where its value came from, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} ({source_name}): expected {expected}")]
pub struct Mistake {
    key: String,
    source_name: String,
    expected: String,
}

/// Everything that is wrong, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl std::error::Error for Mistakes {}

/// How much of bodies one token may cause Envoy to hold until their second check.
#[derive(Clone, Copy, Debug)]
pub struct Bodies {
    /// Bodies; at least 1.
    pub per_token: usize,
    /// Bytes of all of them.
    pub bytes_per_token: u64,
    /// When a body that has not come counts no more.
    pub timeout: Duration,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{mistake}")?;
        }
        Ok(())
    }
}

/// A setting as people may see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Effective {
    /// Such as `postgres.url`.
    pub key: &'static str,
    /// The value; of a secret, only whether there is one.
    pub value: String,
    /// Where it was found.
    pub source: String,
}

impl Config {
    /// Reads the key ring.
    ///
    /// # Errors
    ///
    /// When there is none, or its file is not as it should be.
    pub fn key_ring(&self) -> Result<KeyRing, KeyRingFileError> {
        read_keyring(self.keyring_file.as_deref().ok_or(KeyRingFileError::Unset)?)
    }

    /// Where the key ring is, for commands that need nothing else.
    ///
    /// # Errors
    ///
    /// When the sources cannot be understood, or do not name one.
    pub fn keyring_path(sources: &Sources) -> Result<PathBuf, Mistakes> {
        let mut reader = Reader::of(sources);
        let path = reader.get("keyring_file", path).flatten();
        if path.is_none() {
            reader.mistake("keyring_file", "the path of a key ring");
        }
        reader.finish(path)
    }

    /// To read the feed of changes with: one connection, at `feed.url` where that is set.
    pub(crate) fn feed(&self) -> Postgres {
        let (key, url) = match &self.feed_url {
            Some(url) => ("feed.url", url),
            None => (self.postgres.key, &self.postgres.url),
        };
        Postgres { key, url: url.clone(), max_connections: 1, ..self.postgres.clone() }
    }

    /// The key ring and the tables of APIs as the sources name them, whatever else is wrong there.
    pub fn files(sources: &Sources) -> (Option<PathBuf>, Vec<PathBuf>) {
        let mut reader = Reader::of(sources);
        let keyring_file = reader.get("keyring_file", path).flatten();
        (keyring_file, reader.get("apis", paths).unwrap_or_default())
    }

    /// Every key with its effective value, in the order of the reference.
    pub fn effective(sources: &Sources) -> Vec<Effective> {
        let settings = Settings::collect(sources);
        let shown = |key: &keys::Key| {
            let setting = settings.get(key.name)?;
            let value = match (key.secret, setting.text.is_empty()) {
                (true, false) => "(set)".to_owned(),
                _ => setting.text.clone(),
            };
            Some(Effective { key: key.name, value, source: setting.source.clone() })
        };
        KEYS.iter().filter_map(shown).collect()
    }
}

#[cfg(test)]
mod tests;
