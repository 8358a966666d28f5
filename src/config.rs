//! The configuration: a pure function of a YAML file, the environment and flags. It yields either a
//! [`Config`] or all errors at once, each with its key.

mod keyring_file;
mod keys;
mod live;
mod load;
mod postgres_address;
mod postgres_tls;
mod postgres_url;
mod redis;
mod routes;
mod sources;
mod traces;
mod transport;
mod values;
mod web;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;

pub use self::{
    keyring_file::{KeyRingFileError, read_keyring},
    keys::reference,
    redis::{RedisFiles, RedisIdentity, RedisSettings, RedisTopology, SentinelSettings},
    routes::RouteSettings,
    sources::ConfigSources,
    transport::{ClientCertificates, ClientName, Owner, Tls},
    web::{SiteUrl, WebSettings, oidc::OidcSettings},
};
pub(crate) use self::{
    keyring_file::{read_keyring_text, reread_keyring},
    live::ReadSettings,
    redis::file_keys as redis_file_keys,
    values::log_filter,
    web::oidc::is_protected,
};
use self::{
    keys::KEYS,
    live::ReadTexts,
    load::SettingsReader,
    sources::SettingTexts,
    values::{path, paths},
};
pub use crate::files::trusted::UntrustedFile;
use crate::{
    decide::ModelReading,
    keyring::KeyRing,
    postgres::{Address, PostgresSettings},
    rollout::Mode,
    token::Prefixes,
};

/// All settings, as they were read from file, environment and flags, and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses for checks and probes.
    pub listen: ListenSettings,
    /// The stores that must be in order when patgate starts.
    pub start_requires: StartRequires,
    /// The primary Postgres server, which holds all data.
    pub postgres: PostgresSettings,
    /// Lookup queries in Postgres per second; at least 1.
    pub max_query_rate: u32,
    /// Where patgate reads changes, if that differs from `postgres.url`.
    pub feed: Option<Address>,
    /// Whether one replica reads changes for all replicas, and relays them through Redis.
    pub relay: bool,
    /// The second tier, if one is configured.
    pub redis: Option<RedisSettings>,
    /// The path of the key ring; present when loaded for serving.
    pub keyring_file: Option<PathBuf>,
    /// Files and directories of API tables; if empty, patgate uses the table in the binary.
    pub apis: Vec<PathBuf>,
    /// When the model of a call is read from its body.
    pub model_reading: ModelReading,
    /// The prefixes that tokens may have.
    pub token_prefixes: Prefixes,
    /// No answer is based on data older than this.
    pub max_staleness: Duration,
    /// How long patgate remembers that a token or domain is unknown; at most `max_staleness`.
    pub negative_ttl: Duration,
    /// The longest time for the lookups of one request; at most `max_staleness`.
    pub deadline: Duration,
    /// How often a replica measures how long a revocation takes, if it does.
    pub canary_every: Option<Duration>,
    /// For which domains verdicts are enforced.
    pub mode: Mode,
    /// What is recorded of decisions.
    pub decision_log: DecisionLogSettings,
    /// Denials of one token per second; 0 means no limit.
    pub token_denials: u32,
    /// The limits of the bodies that Envoy holds for one token at a time.
    pub bodies: AwaitedBodyLimits,
    /// The limits of the first tier.
    pub memory: MemoryLimits,
    /// The prefix of the headers for the upstream, such as `x-`.
    pub headers_prefix: String,
    /// The word by which Envoy's guard recognizes what patgate lets through. Whoever knows it and has
    /// an authorization service of their own on the same Envoy could open the guard.
    pub guard_word: SecretString,
    /// How long patgate drains when it stops.
    pub drain: DrainTimes,
    /// The secrets of which one must come with each gRPC call; none if that is off.
    pub grpc_secrets: Vec<SecretString>,
    /// Most connections per gRPC listener.
    pub max_connections: usize,
    /// The age at which a gRPC connection is closed, so that new replicas receive load.
    pub max_connection_age: Duration,
    /// The format and the filter of patgate's own log.
    pub log: LogSettings,
    /// Where traces go; `None` if that is nowhere.
    pub traces: Option<TraceSettings>,
    /// Where backends may be, and for which gateway the routes are.
    pub routes: RouteSettings,
    /// Self-service; present when loaded for it.
    pub web: Option<WebSettings>,
    /// Where all of this was read, to read it again while patgate serves.
    pub sources: ConfigSources,
    /// The texts from which it was built.
    pub(crate) texts: ReadTexts,
}

/// The listeners. An absent one is off.
#[derive(Clone, Debug)]
pub struct ListenSettings {
    /// The TCP address for gRPC.
    pub grpc: Option<SocketAddr>,
    /// The path of the Unix socket for gRPC.
    pub uds: Option<PathBuf>,
    /// The permissions of that socket.
    pub uds_mode: u32,
    /// The owner of that socket.
    pub uds_owner: Owner,
    /// The certificates of the TCP address for gRPC; `None` if it has no TLS.
    pub grpc_tls: Option<Tls>,
    /// The certificates of the address for health and metrics; `None` if it has no TLS.
    pub http_tls: Option<Tls>,
    /// The address for health and metrics.
    pub http: Option<SocketAddr>,
}

/// The stores without which patgate does not start. Without the others, it starts and waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartRequires {
    /// None: patgate starts, and answers 503 until it has reached them.
    Nothing,
    /// Postgres, and the feed, which is in Postgres too.
    Postgres,
    /// Redis as well, if one is configured.
    All,
}

/// What is recorded of decisions.
#[derive(Clone, Debug)]
pub struct DecisionLogSettings {
    /// Where the log is written.
    pub to: LogTo,
    /// The logged share of the allows, from 0 to 1.
    pub sample_allows: f64,
    /// Logged denials per second of requests without a verified token; at least 1.
    pub denials_per_second: u32,
    /// Logged denials per second of one verified token with the same code, domain, and operation or
    /// path; at least 1.
    pub repeats_per_second: u32,
    /// Most records that wait; at least 1.
    pub queue: usize,
}

/// Where decisions are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// Decisions are not logged.
    Nowhere,
    /// Standard output; nothing else writes to it.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// The memory limits of the caches.
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// Bytes for cached tokens, with their scopes and owners.
    pub principals: u64,
    /// Bytes for cached domains.
    pub domains: u64,
    /// The most unknown token ids that are remembered, and as many unknown domains.
    pub negatives: u64,
}

/// The times by which patgate stops without dropping a request.
#[derive(Clone, Copy, Debug)]
pub struct DrainTimes {
    /// The time between "not ready" and the end of listening.
    pub delay: Duration,
    /// The time for requests that are then still in progress.
    pub grace: Duration,
}

/// The settings of patgate's own log.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The format of a line.
    pub format: LogFormat,
    /// Directives that `EnvFilter` understands.
    pub filter: String,
    /// The path of a file with directives that apply instead while it exists.
    pub filter_file: Option<PathBuf>,
}

/// Where traces go, and what they say about this process.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The address of an OTLP receiver that speaks gRPC: a URL with a port.
    pub endpoint: String,
    /// The headers of each call, such as a credential for the receiver.
    pub headers: Vec<(http::HeaderName, SecretString)>,
    /// The path of the authorities that sign the receiver's certificate, in PEM; `None` for those of
    /// the system.
    pub authorities: Option<PathBuf>,
    /// The longest time to connect, and for one attempt to send a batch.
    pub timeout: Duration,
    /// The name of the service, if the environment does not give it.
    pub service_name: Option<String>,
    /// Where Redis is, if `redis.url` names one server.
    pub redis: Option<StoreAddress>,
    /// Where `postgres.url` leads.
    pub postgres: Option<StoreAddress>,
}

impl TraceSettings {
    /// Returns whether the receiver is reached by TLS.
    pub(crate) fn uses_tls(&self) -> bool {
        self.endpoint.starts_with(traces::TLS)
    }
}

/// The place of a store, without its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAddress {
    /// The name or address of the host, or the path of a socket.
    pub host: String,
    /// The port, unless it is a socket.
    pub port: Option<u16>,
    /// The database on that server.
    pub namespace: Option<String>,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text that people read.
    Text,
}

/// The purpose for which a configuration is loaded; it decides which settings are required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigPurpose {
    /// Answering Envoy: a key ring and a listener are required.
    Serve,
    /// The operator's commands: neither key ring nor listener is required.
    Admin,
    /// Self-service: a key ring and a login of its own are required, and those of `serve` are not.
    SelfService,
}

/// One error: a key, the source of its value, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} ({source_name}): expected {expected}")]
pub struct ConfigError {
    key: String,
    source_name: String,
    expected: String,
}

/// All errors, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl std::error::Error for ConfigErrors {}

/// The limits of the bodies that one token may cause Envoy to hold until their second check.
#[derive(Clone, Copy, Debug)]
pub struct AwaitedBodyLimits {
    /// The most bodies that Envoy may hold for one token; at least 1.
    pub per_token: usize,
    /// The most bytes of these bodies together.
    pub bytes_per_token: u64,
    /// The age at which a body that has not arrived no longer counts.
    pub timeout: Duration,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{mistake}")?;
        }
        Ok(())
    }
}

/// A setting, in a form that people may see.
#[derive(Clone, Debug, serde::Serialize)]
pub struct EffectiveSetting {
    /// The key, such as `postgres.url`.
    pub key: &'static str,
    /// The value; for a secret, and for the word of the guard, only whether it is set.
    pub value: String,
    /// Where the value comes from, for people: a default, a file, a variable or a flag.
    pub source: String,
}

impl Config {
    /// Reads the key ring.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no key ring, or its file is not valid.
    pub fn key_ring(&self) -> Result<KeyRing, KeyRingFileError> {
        read_keyring(self.keyring_file.as_deref().ok_or(KeyRingFileError::Unset)?)
    }

    /// Returns the path of the key ring, for commands that need nothing else.
    ///
    /// # Errors
    ///
    /// Returns all errors of the sources, or that they name no key ring.
    pub fn keyring_path(sources: &ConfigSources) -> Result<PathBuf, ConfigErrors> {
        let mut reader = SettingsReader::of(sources);
        let path = reader.get("keyring_file", path).flatten();
        if path.is_none() {
            reader.mistake("keyring_file", "the path of a key ring");
        }
        reader.finish(path)
    }

    /// Returns the settings for reading the change feed: one connection, at `feed.url` if that is
    /// set.
    pub(crate) fn feed(&self) -> PostgresSettings {
        let (key, address) = match &self.feed {
            Some(address) => ("feed.url", address),
            None => (self.postgres.key, &self.postgres.address),
        };
        PostgresSettings {
            key,
            address: address.clone(),
            max_connections: 1,
            query_timeout: self.postgres.query_timeout,
        }
    }

    /// Returns the key ring and the API tables that the sources name, even if other settings have
    /// errors.
    pub fn files(sources: &ConfigSources) -> (Option<PathBuf>, Vec<PathBuf>) {
        let mut reader = SettingsReader::of(sources);
        let keyring_file = reader.get("keyring_file", path).flatten();
        (keyring_file, reader.get("apis", paths).unwrap_or_default())
    }

    /// Returns the URL under which browsers reach self-service.
    ///
    /// # Errors
    ///
    /// If no setting says it.
    pub fn site_url(sources: &ConfigSources) -> Result<SiteUrl, ConfigErrors> {
        let mut reader = SettingsReader::of(sources);
        let url = web::read_url(&mut reader);
        reader.finish(url)
    }

    /// Returns every key with its effective value, in the order of the reference.
    pub fn effective(sources: &ConfigSources) -> Vec<EffectiveSetting> {
        let settings = SettingTexts::collect(sources);
        let shown = |key: &keys::Key| {
            let setting = settings.get(key.name)?;
            // Everybody knows the defaults.
            let value = if key.hidden && setting.text != key.default {
                "(set)".to_owned()
            } else {
                setting.text.clone()
            };
            Some(EffectiveSetting { key: key.name, value, source: setting.source.clone() })
        };
        KEYS.iter().filter_map(shown).collect()
    }
}

#[cfg(test)]
mod tests;
