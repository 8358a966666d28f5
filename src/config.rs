//! The configuration: a pure function of a YAML file, the environment and flags, which yields
//! either a [`Config`] or every mistake at once, each under its key.

mod keyring_file;
mod keys;
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
    sources::Settings,
    values::{
        Expected, address, count, duration, feed_url, headers_prefix, log_filter, log_format,
        log_to, mode, model_reading, optional_time, path, paths, percentage, postgres_url,
        prefixes, redis_url, relay, rollout_mode, size, socket_path, some_time,
    },
};
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
    /// The bounds of the first tier.
    pub memory: Memory,
    /// What the names of headers for the upstream begin with, such as `x-`.
    pub headers_prefix: String,
    /// How to stop.
    pub drain: Drain,
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
    /// Reads all sources for one purpose.
    ///
    /// # Errors
    ///
    /// Every mistake of all sources. A secret's value is never shown.
    pub fn load(sources: &Sources, purpose: Purpose) -> Result<Self, Mistakes> {
        let mut reader = Reader(Settings::collect(sources));
        let grpc = reader.get("listen.grpc", address);
        let uds = reader.get("listen.uds", socket_path);
        let uds_mode = reader.get("listen.uds_mode", mode);
        let http = reader.get("listen.http", address);
        let postgres_url = reader.get("postgres.url", postgres_url);
        let max_connections = reader.get("postgres.max_connections", count);
        let query_timeout = reader.get("postgres.query_timeout", some_time);
        let max_query_rate = reader.get("postgres.max_query_rate", count);
        let feed_url = reader.get("feed.url", feed_url);
        let relays = reader.get("feed.relay", relay);
        let redis_url = reader.get("redis.url", redis_url);
        let redis_timeout = reader.get("redis.timeout", some_time);
        let redis_max_connections = reader.get("redis.max_connections", count);
        let keyring_file = reader.get("keyring_file", path);
        let apis = reader.get("apis", paths);
        let model_reading = reader.get("model.read", model_reading);
        let token_prefixes = reader.get("token.prefixes", prefixes);
        let max_staleness = reader.get("max_staleness", some_time);
        let negative_ttl = reader.get("negative_ttl", duration);
        let deadline = reader.get("deadline", some_time);
        let canary_every = reader.get("canary.every", optional_time);
        let mode = reader.get("mode", rollout_mode);
        let log_to = reader.get("decision_log.to", log_to);
        let sample_allows = reader.get("decision_log.sample_allows", percentage);
        let denials_per_second = reader.get("decision_log.denials_per_second", count);
        let queue = reader.get("decision_log.queue", count);
        let principals = reader.get("memory.principals", size);
        let domains = reader.get("memory.domains", size);
        let negatives = reader.get("memory.negatives", count);
        let headers_prefix = reader.get("headers.prefix", headers_prefix);
        let delay = reader.get("drain.delay", duration);
        let grace = reader.get("drain.grace", duration);
        let max_connection_age = reader.get("grpc.max_connection_age", some_time);
        let format = reader.get("log.format", log_format);
        let filter = reader.get("log.filter", log_filter);

        if negative_ttl > max_staleness && max_staleness.is_some() {
            reader.mistake("negative_ttl", "a duration of at most max_staleness");
        }
        if deadline > max_staleness && max_staleness.is_some() {
            reader.mistake("deadline", "a duration of at most max_staleness");
        }
        if relays == Some(true) {
            let (direct, redis) = ("a direct connection to Postgres", "a Redis to relay by");
            for (key, expected, unset) in [
                ("feed.url", direct, matches!(feed_url, Some(None))),
                ("redis.url", redis, matches!(redis_url, Some(None))),
            ] {
                if unset {
                    reader.mistake(key, &format!("{expected}, because feed.relay is `redis`"));
                }
            }
        }
        if purpose == Purpose::Serve {
            if keyring_file == Some(None) {
                reader.mistake(
                    "keyring_file",
                    "the path of a key ring; `patgate keyring new` makes a key",
                );
            }
            if (&grpc, &uds) == (&Some(None), &Some(None)) {
                reader.mistake(
                    "listen.grpc",
                    "an address here or a path in listen.uds, to be reached by Envoy",
                );
            }
        }

        let Reader(Settings { mistakes, .. }) = reader;
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        // Each value that is missing has left a mistake.
        let config = || {
            Some(Self {
                listen: Listen { grpc: grpc?, uds: uds?, uds_mode: uds_mode?, http: http? },
                postgres: Postgres {
                    key: "postgres.url",
                    url: postgres_url?,
                    max_connections: max_connections?,
                    query_timeout: query_timeout?,
                    max_query_rate: max_query_rate?,
                },
                feed_url: feed_url?,
                relay: relays?,
                redis: match redis_url? {
                    Some(url) => Some(Redis {
                        url,
                        timeout: redis_timeout?,
                        max_connections: redis_max_connections?,
                    }),
                    None => None,
                },
                keyring_file: keyring_file?,
                apis: apis?,
                model_reading: model_reading?,
                token_prefixes: token_prefixes?,
                max_staleness: max_staleness?,
                negative_ttl: negative_ttl?,
                deadline: deadline?,
                canary_every: canary_every?,
                mode: mode?,
                decision_log: DecisionLog {
                    to: log_to?,
                    sample_allows: sample_allows?,
                    denials_per_second: denials_per_second?,
                    queue: queue?,
                },
                memory: Memory {
                    principals: principals?,
                    domains: domains?,
                    negatives: negatives?,
                },
                headers_prefix: headers_prefix?,
                drain: Drain { delay: delay?, grace: grace? },
                max_connection_age: max_connection_age?,
                log: Log { format: format?, filter: filter? },
            })
        };
        config().ok_or(Mistakes(mistakes))
    }

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
        let mut reader = Reader(Settings::collect(sources));
        match reader.get("keyring_file", path).flatten() {
            Some(path) if reader.0.mistakes.is_empty() => return Ok(path),
            Some(_) => {}
            None => reader.mistake("keyring_file", "the path of a key ring"),
        }
        Err(Mistakes(reader.0.mistakes))
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
        let mut reader = Reader(Settings::collect(sources));
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

/// Parses settings, and turns what does not parse into mistakes.
struct Reader(Settings);

impl Reader {
    fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let secret = keys::find(key).is_none_or(|key| key.secret);
        let setting = self.0.get(key)?;
        match parse(&setting.text) {
            Ok(value) => Some(value),
            Err(expected) if secret || setting.text.is_empty() => {
                self.mistake(key, &expected);
                None
            }
            Err(expected) => {
                let expected = format!("{expected}; found `{}`", setting.text.escape_debug());
                self.mistake(key, &expected);
                None
            }
        }
    }

    fn mistake(&mut self, key: &'static str, expected: &str) {
        let source_name =
            self.0.get(key).map_or_else(String::new, |setting| setting.source.clone());
        self.0.mistakes.push(Mistake {
            key: key.to_owned(),
            source_name,
            expected: expected.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests;
