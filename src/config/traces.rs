//! Settings of traces.

use http::{HeaderName, Uri};
use redis::{ConnectionAddr, IntoConnectionInfo};
use secrecy::{ExposeSecret, SecretString};

use super::{RedisSettings, RedisTopology, StoreAddress, values::ExpectedValue};
use crate::postgres::Servers;

impl StoreAddress {
    /// Returns where Postgres is. Of several servers, only the answer says which one it is.
    pub(super) fn of_postgres(servers: &Servers) -> Option<Self> {
        let options = servers.only()?;
        let namespace = options.get_database().map(str::to_owned);
        Some(match options.get_socket() {
            Some(path) => Self { host: path.display().to_string(), port: None, namespace },
            None => {
                let host = options.get_host().to_owned();
                Self { host, port: Some(options.get_port()), namespace }
            }
        })
    }

    /// Returns where Redis is. Sentinels and the nodes of a cluster say that only later.
    pub(super) fn of_redis_settings(settings: &RedisSettings) -> Option<Self> {
        match (&settings.topology, &*settings.urls) {
            (RedisTopology::Single, [url]) => Self::of_redis(url),
            _ => None,
        }
    }

    /// Returns where a Redis URL leads.
    fn of_redis(url: &SecretString) -> Option<Self> {
        let info = url.expose_secret().into_connection_info().ok()?;
        let namespace = Some(info.redis_settings().db().to_string());
        match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Self { host: host.clone(), port: Some(*port), namespace })
            }
            ConnectionAddr::Unix(path) => {
                Some(Self { host: path.display().to_string(), port: None, namespace })
            }
            _ => None,
        }
    }
}

/// The scheme of an address with TLS.
pub(super) const TLS: &str = "https";

/// Parses the address of an OTLP receiver. A path would not be used, and a password would be shown.
pub(super) fn otlp_endpoint(text: &str) -> Result<Option<String>, ExpectedValue> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_known = |uri: &Uri| {
        let scheme = uri.scheme_str();
        let authority = uri.authority();
        (scheme == Some("http") || scheme == Some(TLS))
            && authority.is_some_and(|at| {
                !at.host().is_empty() && at.port_u16().is_some() && !at.as_str().contains('@')
            })
            && ["", "/"].contains(&uri.path())
            && uri.query().is_none()
    };
    match text.parse::<Uri>() {
        Ok(uri) if is_known(&uri) => Ok(Some(text.to_owned())),
        _ => Err("the address of an OTLP receiver that speaks gRPC, such as \
                  `http://collector:4317` or `https://collector:4317`, with a port and without a path \
                  or a password, or nothing to turn traces off"
            .into()),
    }
}

/// Parses headers, such as `authorization=Bearer …`.
pub(super) fn otlp_headers(text: &str) -> Result<Vec<(HeaderName, SecretString)>, ExpectedValue> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        let value = value.trim();
        let is_shown = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let known = !value.is_empty()
            && value.bytes().all(is_shown)
            // gRPC's own, and values in base64.
            && !name.starts_with("grpc-")
            && !name.ends_with("-bin");
        known.then_some((name.parse().ok()?, value.into()))
    };
    text.split(',').map(header).collect::<Option<_>>().ok_or_else(|| {
        "`name=value` pairs separated by commas, such as `authorization=Bearer …`, of ASCII \
         characters"
            .into()
    })
}

/// Parses a name that may be absent.
pub(super) fn name(text: &str) -> Result<Option<String>, ExpectedValue> {
    let known = text.len() <= 255 && !text.chars().any(char::is_control);
    if known && text.trim() == text {
        Ok((!text.is_empty()).then(|| text.to_owned()))
    } else {
        Err("a name of up to 255 characters, or nothing".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_an_address_with_a_port() {
        assert_eq!(otlp_endpoint(""), Ok(None));
        for good in
            ["http://127.0.0.1:4317", "https://collector.tracing.svc:4317/", "http://[::1]:1"]
        {
            assert_eq!(otlp_endpoint(good), Ok(Some(good.to_owned())));
        }
        for bad in [
            "collector:4317",
            "collector",
            "grpc://collector:4317",
            "http://collector",
            "http://collector:4318/v1/traces",
            "http://collector:4317?x=1",
            "http://user:secret@collector:4317",
            "http://:4317",
            "http://",
        ] {
            assert!(otlp_endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_are_pairs() {
        assert!(otlp_headers("").unwrap().is_empty());
        let headers = otlp_headers("Authorization=Bearer a=b, x-tenant = acme").unwrap();
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
        assert_eq!(headers, [("authorization", "Bearer a=b"), ("x-tenant", "acme")]);
        for bad in
            ["authorization", "=x", "a=", "a b=c", "a=ü", "a=b,", "grpc-timeout=1", "a-bin=1"]
        {
            let refused = otlp_headers(bad).unwrap_err();
            assert!(!refused.contains(&format!("`{bad}`")), "{refused}");
        }
    }

    #[test]
    fn names_are_short() {
        assert_eq!(name(""), Ok(None));
        assert_eq!(name("gateway authz"), Ok(Some("gateway authz".to_owned())));
        for bad in [" a", "a\n", &"a".repeat(256)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_says_where_a_store_is_and_shows_no_password() {
        let at = |host: &str, port, namespace: &str| {
            let (host, namespace) = (host.to_owned(), Some(namespace.to_owned()));
            Some(StoreAddress { host, port, namespace })
        };
        let postgres = |url: &str| {
            let servers = Servers::new(vec![url.parse().unwrap()], url.into(), None);
            StoreAddress::of_postgres(&servers)
        };
        assert_eq!(
            postgres("postgres://u:secret@db:5433/patgate"),
            at("db", Some(5433), "patgate")
        );
        let redis = |url: &str| StoreAddress::of_redis(&url.into());
        assert_eq!(redis("redis://u:secret@cache:6380/2"), at("cache", Some(6380), "2"));
        assert_eq!(redis("rediss://:secret@cache"), at("cache", Some(6379), "0"));
        assert_eq!(redis("unix:///run/redis.sock"), at("/run/redis.sock", None, "0"));
    }
}
