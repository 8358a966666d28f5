//! How to reach Redis: one server, a master that Sentinels know, or the nodes of a cluster.

use std::{path::PathBuf, time::Duration};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use secrecy::{ExposeSecret, SecretString};

use super::{
    load::SettingsReader,
    values::{ExpectedValue, count, path, some_time},
};

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// One URL per host, each of which the redis crate can parse; there is at least one. Except for
    /// host and port, they are equal.
    pub urls: Vec<SecretString>,
    /// What the URLs lead to.
    pub topology: RedisTopology,
    /// The files of logins and certificates.
    pub files: RedisFiles,
    /// The longest time for one round trip.
    pub timeout: Duration,
    /// Most connections for lookups; at least 1.
    pub max_connections: usize,
}

/// What the URLs lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisTopology {
    /// One server.
    Single,
    /// Sentinels, which know the master. User, password and database of the URLs are the master's.
    Sentinel(SentinelSettings),
    /// Nodes of a Redis Cluster, which know the others.
    Cluster,
}

/// The master that Sentinels are asked for, and the login at the Sentinels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelSettings {
    /// The name of the master.
    pub master: String,
    /// The user with which patgate logs in to the Sentinels, if not as the default one.
    pub username: Option<String>,
}

/// The files that are read at startup, and again when they change.
#[derive(Clone, Debug, Default)]
pub struct RedisFiles {
    /// The path of the password for Redis.
    pub password: Option<PathBuf>,
    /// The path of the password for the Sentinels.
    pub sentinel_password: Option<PathBuf>,
    /// The path of the authorities that sign the servers' certificates, in PEM; `None` if they are
    /// those of the system.
    pub authorities: Option<PathBuf>,
    /// The certificate that patgate presents.
    pub identity: Option<RedisIdentity>,
}

/// The certificate of a client, and its key.
#[derive(Clone, Debug)]
pub struct RedisIdentity {
    /// The path of the certificate chain, in PEM, patgate's own certificate first.
    pub certificate: PathBuf,
    /// The path of its private key, in PEM.
    pub private_key: PathBuf,
}

/// The keys of these files, as errors and logs name them.
pub(crate) mod file_keys {
    pub(crate) const PASSWORD: &str = "redis.password_file";
    pub(crate) const SENTINEL_PASSWORD: &str = "redis.sentinel.password_file";
    pub(crate) const AUTHORITIES: &str = "redis.tls.ca_file";
    pub(crate) const CERTIFICATE: &str = "redis.tls.certificate_file";
    pub(crate) const PRIVATE_KEY: &str = "redis.tls.private_key_file";
}

const URL: &str = "redis.url";
const TOPOLOGY: &str = "redis.topology";
const MASTER: &str = "redis.sentinel.master";
const USERNAME: &str = "redis.sentinel.username";

/// The value of `redis.topology`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TopologyName {
    Single,
    Sentinel,
    Cluster,
}

impl RedisSettings {
    /// Returns `Some(None)` if no Redis is configured, and `None` after an error.
    pub(super) fn read(reader: &mut SettingsReader, relays: bool) -> Option<Option<Self>> {
        let urls = reader.get(URL, redis_urls);
        if relays && urls.as_ref().is_some_and(Vec::is_empty) {
            reader.mistake(URL, RELAY_NEEDS_REDIS);
        }
        let topology = read_topology(reader);
        let files = RedisFiles::read(reader);
        let timeout = reader.get("redis.timeout", some_time);
        let max_connections = reader.get("redis.max_connections", count);
        let urls = urls?;
        let topology = topology?;
        let files = files?;
        let settings =
            Self { urls, topology, files, timeout: timeout?, max_connections: max_connections? };
        let Some(first) = settings.first() else { return Some(None) };
        if let Some((key, expected)) = settings.contradiction(&first) {
            return reader.refuse(key, expected);
        }
        Some(Some(settings))
    }

    /// The first URL, as the crate reads it.
    fn first(&self) -> Option<ConnectionInfo> {
        self.urls.first()?.expose_secret().into_connection_info().ok()
    }

    /// Returns which setting contradicts another one, and what is expected of it.
    fn contradiction(&self, first: &ConnectionInfo) -> Option<(&'static str, &'static str)> {
        let single = self.topology == RedisTopology::Single;
        let sentinel = matches!(self.topology, RedisTopology::Sentinel(_));
        let has_tls_files = self.files.authorities.is_some() || self.files.identity.is_some();
        match first.addr() {
            ConnectionAddr::Unix(_) if !single => return Some((URL, NODES_HAVE_HOSTS)),
            ConnectionAddr::TcpTls { .. } => {}
            _ if has_tls_files => return Some((URL, FILES_NEED_TLS)),
            _ => {}
        }
        if single && self.urls.len() > 1 {
            return Some((URL, SINGLE_HAS_ONE_HOST));
        }
        let login = first.redis_settings();
        if self.files.password.is_some() && login.password().is_some() {
            return Some((file_keys::PASSWORD, ONE_PASSWORD));
        }
        if self.files.sentinel_password.is_some() && !sentinel {
            return Some((file_keys::SENTINEL_PASSWORD, ONLY_WITH_SENTINEL));
        }
        if self.topology == RedisTopology::Cluster && login.db() != 0 {
            return Some((URL, CLUSTER_HAS_ONE_DATABASE));
        }
        None
    }
}

fn read_topology(reader: &mut SettingsReader) -> Option<RedisTopology> {
    let name = reader.get(TOPOLOGY, topology_name)?;
    let master = reader.get(MASTER, optional)?;
    let username = reader.get(USERNAME, optional)?;
    match (name, master) {
        (TopologyName::Sentinel, Some(master)) => {
            Some(RedisTopology::Sentinel(SentinelSettings { master, username }))
        }
        (TopologyName::Sentinel, None) => reader.refuse(MASTER, SENTINEL_NEEDS_A_MASTER),
        (_, Some(_)) => reader.refuse(MASTER, ONLY_WITH_SENTINEL),
        (_, None) if username.is_some() => reader.refuse(USERNAME, ONLY_WITH_SENTINEL),
        (TopologyName::Single, None) => Some(RedisTopology::Single),
        (TopologyName::Cluster, None) => Some(RedisTopology::Cluster),
    }
}

impl RedisFiles {
    fn read(reader: &mut SettingsReader) -> Option<Self> {
        let password = reader.get(file_keys::PASSWORD, path)?;
        let sentinel_password = reader.get(file_keys::SENTINEL_PASSWORD, path)?;
        let authorities = reader.get(file_keys::AUTHORITIES, path)?;
        let certificate = reader.get(file_keys::CERTIFICATE, path)?;
        let private_key = reader.get(file_keys::PRIVATE_KEY, path)?;
        let identity = match (certificate, private_key) {
            (Some(certificate), Some(private_key)) => {
                Some(RedisIdentity { certificate, private_key })
            }
            (None, None) => None,
            (Some(_), None) => return reader.refuse(file_keys::PRIVATE_KEY, ONE_WITHOUT_KEY),
            (None, Some(_)) => {
                return reader.refuse(file_keys::CERTIFICATE, ONE_WITHOUT_CERTIFICATE);
            }
        };
        Some(Self { password, sentinel_password, authorities, identity })
    }

    /// Returns whether any file is set.
    pub(crate) fn are_set(&self) -> bool {
        let Self { password, sentinel_password, authorities, identity } = self;
        password.is_some()
            || sentinel_password.is_some()
            || authorities.is_some()
            || identity.is_some()
    }
}

fn topology_name(text: &str) -> Result<TopologyName, ExpectedValue> {
    match text {
        "single" => Ok(TopologyName::Single),
        "sentinel" => Ok(TopologyName::Sentinel),
        "cluster" => Ok(TopologyName::Cluster),
        _ => Err("`single`, `sentinel` or `cluster`".into()),
    }
}

fn optional(text: &str) -> Result<Option<String>, ExpectedValue> {
    Ok(if text.is_empty() { None } else { Some(text.to_owned()) })
}

/// Parses a URL that may name several hosts: `redis://user:password@a:6379,b:6379/0` is two URLs.
fn redis_urls(text: &str) -> Result<Vec<SecretString>, ExpectedValue> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let urls: Vec<SecretString> = each_host(text).map(SecretString::from).collect();
    let is_known = |url: &SecretString| url.expose_secret().into_connection_info().is_ok();
    match urls.iter().all(is_known) {
        true => Ok(urls),
        false => Err("a URL such as `redis://user:password@host:6379/0`, `rediss://…` or \
                      `unix:///path`, or nothing to do without Redis"
            .into()),
    }
}

/// Repeats everything around the list of hosts.
fn each_host(url: &str) -> impl Iterator<Item = String> {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url[begin..].find(['/', '?', '#']).map_or(url.len(), |at| begin + at);
    // A password may have a comma, a host has none.
    let hosts = url[begin..end].rfind('@').map_or(begin, |at| begin + at + 1);
    let around = (&url[..hosts], &url[end..]);
    url[hosts..end].split(',').map(move |host| format!("{}{}{}", around.0, host.trim(), around.1))
}

const RELAY_NEEDS_REDIS: &str = "a Redis URL, because feed.relay is `redis`";
const NODES_HAVE_HOSTS: &str = "hosts and ports, because redis.topology is not `single`";
const FILES_NEED_TLS: &str = "a `rediss://` URL, because redis.tls names files";
const SINGLE_HAS_ONE_HOST: &str =
    "one host; several are for redis.topology `sentinel` or `cluster`";
const ONE_PASSWORD: &str = "no file, because redis.url holds a password already";
const ONLY_WITH_SENTINEL: &str = "nothing, because redis.topology is not `sentinel`";
const CLUSTER_HAS_ONE_DATABASE: &str = "no database but 0, because redis.topology is `cluster`";
const SENTINEL_NEEDS_A_MASTER: &str =
    "the name of the master, because redis.topology is `sentinel`; `sentinel masters` lists them";
const ONE_WITHOUT_KEY: &str = "the path of the certificate's private key";
const ONE_WITHOUT_CERTIFICATE: &str = "the path of the private key's certificate";

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<String> {
        let urls = redis_urls(text).unwrap();
        urls.iter().map(|url| url.expose_secret().to_owned()).collect()
    }

    #[test]
    fn a_url_names_one_host_or_several() {
        assert!(urls("").is_empty());
        for one in [
            "redis://:secret@h:6379/1",
            "redis://user:a,b@h:6379/1",
            "rediss://[::1]:6380",
            "unix:///run/redis.sock?db=2&user=a,b",
        ] {
            assert_eq!(urls(one), [one]);
        }
        assert_eq!(
            urls("rediss://u:p,q@a:1, b,[::1]:3/0?protocol=resp3"),
            [
                "rediss://u:p,q@a:1/0?protocol=resp3",
                "rediss://u:p,q@b/0?protocol=resp3",
                "rediss://u:p,q@[::1]:3/0?protocol=resp3",
            ]
        );
        for bad in ["h", "h:6379", "http://h", "redis://a:1,http://b", "redis://a:1,b:x"] {
            assert!(redis_urls(bad).is_err(), "{bad}");
        }
    }
}
