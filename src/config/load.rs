//! Reads the settings, section by section. It reads all sections before it fails, so that it can
//! report all errors.

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::Zeroizing;

use super::{
    AwaitedBodyLimits, Config, ConfigError, ConfigErrors, ConfigPurpose, ConfigSources,
    DecisionLogSettings, DrainTimes, ListenSettings, LogSettings, MemoryLimits, RedisSettings,
    RouteSettings, StoreAddress, TraceSettings, WebSettings, keys,
    live::ReadTexts,
    sources::SettingTexts,
    traces::{name, otlp_endpoint, otlp_headers},
    transport::{ClientCertificates, Tls, client_names, owner, secrets},
    values::{
        ExpectedValue, address, count, count_or_none, duration, guard_word, headers_prefix,
        log_filter, log_format, log_to, mode, model_reading, optional_time, path, paths,
        percentage, prefixes, relay, rollout_mode, size, socket_path, some_time, start_requires,
    },
};
use crate::postgres::{PostgresSettings, Timelines};

impl Config {
    /// Reads all sources for one purpose.
    ///
    /// # Errors
    ///
    /// Returns all errors of all sources. They never show the value of a secret.
    pub fn load(sources: &ConfigSources, purpose: ConfigPurpose) -> Result<Self, ConfigErrors> {
        let mut reader = SettingsReader::of(sources);
        let texts = ReadTexts::of(&reader.0);
        let listen = ListenSettings::read(&mut reader, purpose);
        let start_requires = reader.get("start.require", start_requires);
        let serves_people = purpose == ConfigPurpose::SelfService;
        let login = if serves_people { &WEB_LOGIN } else { &LOGIN };
        let password_file = reader.get(login.password_file, path);
        let password_file = password_file.flatten();
        let timelines = Timelines::default();
        let postgres = postgres(&mut reader, login, password_file.as_ref(), &timelines);
        let web = serves_people.then(|| WebSettings::read(&mut reader));
        let max_query_rate = reader.get("postgres.max_query_rate", count);
        let relay = reader.get("feed.relay", relay);
        let feed = reader.address("feed.url", password_file.as_ref(), &timelines, true);
        if relay == Some(true) && matches!(feed, Some(None)) {
            reader.mistake("feed.url", RELAY_NEEDS_FEED);
        }
        let redis = RedisSettings::read(&mut reader, relay == Some(true));
        let keyring_file = reader.get("keyring_file", path);
        if purpose != ConfigPurpose::Admin && keyring_file == Some(None) {
            reader.mistake("keyring_file", SERVING_NEEDS_KEYS);
        }
        let apis = reader.get("apis", paths);
        let model_reading = reader.get("model.read", model_reading);
        let token_prefixes = reader.get("token.prefixes", prefixes);
        let token_denials = reader.get("token.denials_per_second", count_or_none);
        let times = TimeLimits::read(&mut reader);
        let canary_every = reader.get("canary.every", optional_time);
        let mode = reader.get("mode", rollout_mode);
        let decision_log = DecisionLogSettings::read(&mut reader);
        let bodies = AwaitedBodyLimits::read(&mut reader);
        let memory = MemoryLimits::read(&mut reader);
        let headers_prefix = reader.get("headers.prefix", headers_prefix);
        let guard_word = reader.get("guard.word", guard_word);
        let drain = DrainTimes::read(&mut reader);
        let grpc_secrets = reader.get("grpc.secret", secrets);
        let max_connections = reader.get("grpc.max_connections", count);
        let max_connection_age = reader.get("grpc.max_connection_age", some_time);
        let log = LogSettings::read(&mut reader);
        let traces = TraceSettings::read(&mut reader);
        let routes = RouteSettings::read(&mut reader);
        let config = || {
            let TimeLimits { max_staleness, negative_ttl, deadline } = times?;
            let (postgres, redis) = (postgres?, redis?);
            let traces = traces?.map(|traces| traces.with_stores(&postgres, redis.as_ref()));
            Some(Self {
                listen: listen?,
                start_requires: start_requires?,
                postgres,
                max_query_rate: max_query_rate?,
                feed: feed?,
                relay: relay?,
                redis,
                keyring_file: keyring_file?,
                apis: apis?,
                model_reading: model_reading?,
                token_prefixes: token_prefixes?,
                token_denials: token_denials?,
                max_staleness,
                negative_ttl,
                deadline,
                canary_every: canary_every?,
                mode: mode?,
                decision_log: decision_log?,
                bodies: bodies?,
                memory: memory?,
                headers_prefix: headers_prefix?,
                guard_word: guard_word?.into(),
                drain: drain?,
                grpc_secrets: grpc_secrets?,
                max_connections: max_connections?,
                max_connection_age: max_connection_age?,
                log: log?,
                traces,
                routes: routes?,
                web: match web {
                    Some(read) => Some(read?),
                    None => None,
                },
                sources: sources.clone(),
                texts,
            })
        };
        reader.finish(config())
    }
}

impl ListenSettings {
    fn read(reader: &mut SettingsReader, purpose: ConfigPurpose) -> Option<Self> {
        let grpc = reader.get("listen.grpc", address);
        let uds = reader.get("listen.uds", socket_path);
        let uds_mode = reader.get("listen.uds_mode", mode);
        let http = reader.get("listen.http", address);
        if purpose == ConfigPurpose::Serve && (&grpc, &uds) == (&Some(None), &Some(None)) {
            reader.mistake("listen.grpc", SERVING_NEEDS_A_LISTENER);
        }
        let uds_owner = reader.get("listen.uds_owner", owner);
        let grpc_tls = Tls::read(reader, &GRPC_TLS, matches!(grpc, Some(None)));
        let http_tls = Tls::read(reader, &HTTP_TLS, matches!(http, Some(None)));
        Some(Self {
            grpc: grpc?,
            uds: uds?,
            uds_mode: uds_mode?,
            uds_owner: uds_owner?,
            grpc_tls: grpc_tls?,
            http: http?,
            http_tls: http_tls?,
        })
    }
}

/// The keys of one listener's TLS.
struct TlsKeys {
    group: &'static str,
    certificate: &'static str,
    private_key: &'static str,
    /// Of the certificates of clients: their authorities, and their names.
    clients: Option<(&'static str, &'static str)>,
}

const GRPC_TLS: TlsKeys = TlsKeys {
    group: "grpc.tls",
    certificate: "grpc.tls.certificate_file",
    private_key: "grpc.tls.private_key_file",
    clients: Some(("grpc.tls.client_ca_file", "grpc.tls.client_names")),
};
const HTTP_TLS: TlsKeys = TlsKeys {
    group: "http.tls",
    certificate: "http.tls.certificate_file",
    private_key: "http.tls.private_key_file",
    clients: None,
};

impl Tls {
    /// Returns `Some(None)` if the listener has no TLS, and `None` after an error. `off` says that
    /// the listener itself is off.
    fn read(reader: &mut SettingsReader, keys: &TlsKeys, off: bool) -> Option<Option<Self>> {
        let certificate = reader.get(keys.certificate, path)?;
        let private_key = reader.get(keys.private_key, path)?;
        let clients = match keys.clients {
            None => None,
            Some((authorities, names)) => {
                let (read, named) =
                    (reader.get(authorities, path)?, reader.get(names, client_names)?);
                match (read, named.is_empty()) {
                    (None, true) => None,
                    (Some(authorities), false) => {
                        Some(ClientCertificates { authorities, names: named.into() })
                    }
                    (Some(_), true) => return reader.refuse(names, CLIENTS_NEED_NAMES),
                    (None, false) => return reader.refuse(authorities, NAMES_NEED_A_CA),
                }
            }
        };
        match (certificate, private_key) {
            (Some(_), Some(_)) if off => reader.refuse(keys.certificate, TLS_NEEDS_A_LISTENER),
            (Some(certificate), Some(private_key)) => {
                Some(Some(Self { key: keys.group, certificate, private_key, clients }))
            }
            (None, None) if clients.is_some() => reader.refuse(keys.certificate, CLIENTS_NEED_TLS),
            (None, None) => Some(None),
            (Some(_), None) => reader.refuse(keys.private_key, CERTIFICATE_NEEDS_A_KEY),
            (None, Some(_)) => reader.refuse(keys.certificate, KEY_NEEDS_A_CERTIFICATE),
        }
    }
}

/// The keys of a login to Postgres.
struct LoginKeys {
    url: &'static str,
    password_file: &'static str,
    max_connections: &'static str,
    query_timeout: &'static str,
}

const LOGIN: LoginKeys = LoginKeys {
    url: "postgres.url",
    password_file: "postgres.password_file",
    max_connections: "postgres.max_connections",
    query_timeout: "postgres.query_timeout",
};
const WEB_LOGIN: LoginKeys = LoginKeys {
    url: "web.postgres.url",
    password_file: "web.postgres.password_file",
    max_connections: "web.postgres.max_connections",
    query_timeout: "web.postgres.query_timeout",
};

fn postgres(
    reader: &mut SettingsReader,
    login: &LoginKeys,
    password_file: Option<&PathBuf>,
    timelines: &Timelines,
) -> Option<PostgresSettings> {
    let key = login.url;
    let address = reader.address(key, password_file, timelines, false);
    let max_connections = reader.get(login.max_connections, count);
    let query_timeout = reader.get(login.query_timeout, some_time);
    Some(PostgresSettings {
        key,
        address: address??,
        max_connections: max_connections?,
        query_timeout: query_timeout?,
    })
}

/// How long cached data may be used, and how long a request may wait for data.
struct TimeLimits {
    max_staleness: Duration,
    negative_ttl: Duration,
    deadline: Duration,
}

impl TimeLimits {
    fn read(reader: &mut SettingsReader) -> Option<Self> {
        let max_staleness = reader.get("max_staleness", some_time);
        let negative_ttl = reader.get("negative_ttl", duration);
        let deadline = reader.get("deadline", some_time);
        for (key, time) in [("negative_ttl", negative_ttl), ("deadline", deadline)] {
            if time > max_staleness && max_staleness.is_some() {
                reader.mistake(key, "a duration of at most max_staleness");
            }
        }
        Some(Self {
            max_staleness: max_staleness?,
            negative_ttl: negative_ttl?,
            deadline: deadline?,
        })
    }
}

impl DecisionLogSettings {
    fn read(reader: &mut SettingsReader) -> Option<Self> {
        let to = reader.get("decision_log.to", log_to);
        let sample_allows = reader.get("decision_log.sample_allows", percentage);
        let denials_per_second = reader.get("decision_log.denials_per_second", count);
        let repeats_per_second = reader.get("decision_log.repeats_per_second", count);
        let queue = reader.get("decision_log.queue", count);
        Some(Self {
            to: to?,
            sample_allows: sample_allows?,
            denials_per_second: denials_per_second?,
            repeats_per_second: repeats_per_second?,
            queue: queue?,
        })
    }
}

impl AwaitedBodyLimits {
    fn read(reader: &mut SettingsReader) -> Option<Self> {
        let per_token = reader.get("bodies.per_token", count);
        let bytes_per_token = reader.get("bodies.bytes_per_token", size);
        let timeout = reader.get("bodies.timeout", some_time);
        Some(Self { per_token: per_token?, bytes_per_token: bytes_per_token?, timeout: timeout? })
    }
}

impl MemoryLimits {
    fn read(reader: &mut SettingsReader) -> Option<Self> {
        let principals = reader.get("memory.principals", size);
        let domains = reader.get("memory.domains", size);
        let negatives = reader.get("memory.negatives", count);
        Some(Self { principals: principals?, domains: domains?, negatives: negatives? })
    }
}

impl DrainTimes {
    fn read(reader: &mut SettingsReader) -> Option<Self> {
        let delay = reader.get("drain.delay", duration);
        let grace = reader.get("drain.grace", duration);
        Some(Self { delay: delay?, grace: grace? })
    }
}

impl LogSettings {
    fn read(reader: &mut SettingsReader) -> Option<Self> {
        let format = reader.get("log.format", log_format);
        let filter = reader.get("log.filter", log_filter);
        let filter_file = reader.get("log.filter_file", path);
        Some(Self { format: format?, filter: filter?, filter_file: filter_file? })
    }
}

impl TraceSettings {
    /// Returns `Some(None)` if traces are off, and `None` after an error.
    fn read(reader: &mut SettingsReader) -> Option<Option<Self>> {
        const AUTHORITIES: &str = "telemetry.otlp.ca_file";
        let endpoint = reader.get("telemetry.otlp.endpoint", otlp_endpoint);
        let headers = reader.get("telemetry.otlp.headers", otlp_headers);
        let authorities = reader.get(AUTHORITIES, path);
        let timeout = reader.get("telemetry.otlp.timeout", some_time);
        let service_name = reader.get("telemetry.service_name", name);
        let (headers, authorities, timeout) = (headers?, authorities?, timeout?);
        let service_name = service_name?;
        let Some(endpoint) = endpoint? else { return Some(None) };
        let traces = Self {
            endpoint,
            headers,
            authorities,
            timeout,
            service_name,
            redis: None,
            postgres: None,
        };
        if traces.authorities.is_some() && !traces.uses_tls() {
            return reader.refuse(AUTHORITIES, AUTHORITIES_NEED_TLS);
        }
        Some(Some(traces))
    }

    /// Adds where the stores are, of which spans tell.
    fn with_stores(self, postgres: &PostgresSettings, redis: Option<&RedisSettings>) -> Self {
        Self {
            postgres: StoreAddress::of_postgres(&postgres.address.current()),
            redis: redis.and_then(StoreAddress::of_redis_settings),
            ..self
        }
    }
}

const RELAY_NEEDS_FEED: &str = "a direct connection to Postgres, because feed.relay is `redis`";
const SERVING_NEEDS_KEYS: &str = "the path of a key ring; `patgate keyring new` makes a key";
const SERVING_NEEDS_A_LISTENER: &str =
    "an address here or a path in listen.uds, for Envoy to connect to";

const CERTIFICATE_NEEDS_A_KEY: &str = "the path of the certificate's private key";
const KEY_NEEDS_A_CERTIFICATE: &str = "the path of the private key's certificate";
const CLIENTS_NEED_TLS: &str = "the path of a certificate, because clients shall present theirs";
const CLIENTS_NEED_NAMES: &str =
    "the names of the clients that may connect: an authority alone admits all that it has signed";
const NAMES_NEED_A_CA: &str = "the path of the authorities that sign the clients' certificates";
const AUTHORITIES_NEED_TLS: &str =
    "no file, because telemetry.otlp.endpoint does not begin with https://";
const TLS_NEEDS_A_LISTENER: &str =
    "no certificate, because the listener that it is for is turned off";

/// What may be shown of a value that was refused: it may be a URL in which somebody has put a password.
fn without_login(text: &str) -> Cow<'_, str> {
    match text.rsplit_once('@') {
        Some((_, rest)) => Cow::Owned(format!("…@{rest}")),
        None => Cow::Borrowed(text),
    }
}

/// Parses settings, and collects an error for each value that does not parse.
pub(super) struct SettingsReader(SettingTexts);

impl SettingsReader {
    pub(super) fn of(sources: &ConfigSources) -> Self {
        Self(SettingTexts::collect(sources))
    }

    /// Returns `None` after an error, which it has collected.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ExpectedValue>,
    ) -> Option<T> {
        let secret = keys::find(key).is_none_or(|key| key.hidden);
        let setting = self.0.get(key)?;
        match parse(&setting.text) {
            Ok(value) => Some(value),
            Err(expected) if secret || setting.text.is_empty() => {
                self.mistake(key, &expected);
                None
            }
            Err(expected) => {
                let found = without_login(&setting.text);
                let expected = format!("{expected}; found `{}`", found.escape_debug());
                self.mistake(key, &expected);
                None
            }
        }
    }

    /// Returns the text of a setting, and the file that holds it alone.
    pub(super) fn text(&self, key: &'static str) -> Option<(Zeroizing<String>, Option<PathBuf>)> {
        let setting = self.0.get(key)?;
        Some((Zeroizing::new(setting.text.clone()), setting.file.clone()))
    }

    /// What reads the text of a file.
    pub(super) fn reads(&self) -> fn(&Path) -> io::Result<String> {
        self.0.read
    }

    /// Collects an error of several settings together.
    pub(super) fn refuse<T>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        self.mistake(key, expected);
        None
    }

    pub(super) fn mistake(&mut self, key: &'static str, expected: &str) {
        let source_name =
            self.0.get(key).map_or_else(String::new, |setting| setting.source.clone());
        self.0.mistakes.push(ConfigError {
            key: key.to_owned(),
            source_name,
            expected: expected.to_owned(),
        });
    }

    /// Returns what was read, unless there was an error.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, ConfigErrors> {
        match read {
            Some(read) if self.0.mistakes.is_empty() => Ok(read),
            _ => Err(ConfigErrors(self.0.mistakes)),
        }
    }
}
