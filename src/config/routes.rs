//! The settings of `patgate export` and `patgate sync`: where backends may be, and for which gateway the
//! routes are.

use std::{net::SocketAddr, str::FromStr};

use patgate_routes::{HostRule, Instance, Network, ReservedNames, Rules};

use super::{
    load::SettingsReader,
    values::{ExpectedValue, address},
};

/// Where backends may be, and what a gateway's routes need.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// Where backends may be.
    pub rules: Rules,
    /// The authorities of backends with TLS; `None` for those of the system.
    pub authorities: Option<String>,
    /// The namespace of the objects; `None` for that of the pod or of the kubeconfig.
    pub namespace: Option<String>,
    /// The name of the `Gateway`; `None` for that of the shipped manifests.
    pub gateway: Option<String>,
    /// The listeners of the `Gateway`; empty means all.
    pub listeners: Vec<String>,
    /// What the objects belong to.
    pub instance: Instance,
    /// Where `patgate sync` shows its health and its metrics, if it does.
    pub listen: Option<SocketAddr>,
}

impl RouteSettings {
    /// Returns `None` after an error.
    pub(super) fn read(reader: &mut SettingsReader) -> Option<Self> {
        let networks = reader.get("routes.networks", list::<Network>);
        let hosts = reader.get("routes.hosts", list::<HostRule>);
        let reserved = reader.get("routes.reserved", |text| Ok(split(text)));
        let authorities = reader.get("routes.authorities", authorities);
        let namespace = reader.get("routes.namespace", label);
        let gateway = reader.get("routes.gateway", label);
        let listeners = reader.get("routes.listeners", listeners);
        let instance = reader.get("routes.instance", |text| {
            text.parse().map_err(|error: patgate_routes::InvalidInstance| {
                error.to_string().trim_start_matches("expected ").to_owned()
            })
        });
        let listen = reader.get("routes.listen", address);
        Some(Self {
            rules: Rules {
                networks: networks?,
                hosts: hosts?,
                reserved: ReservedNames::with(reserved?),
            },
            authorities: authorities?,
            namespace: namespace?,
            gateway: gateway?,
            listeners: listeners?,
            instance: instance?,
            listen: listen?,
        })
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn list<T: FromStr>(text: &str) -> Result<Vec<T>, ExpectedValue>
where
    T::Err: std::fmt::Display,
{
    let parse = |part: &String| {
        part.parse().map_err(|error: T::Err| {
            format!(
                "{}, several separated by commas",
                error.to_string().trim_start_matches("expected ")
            )
        })
    };
    split(text).iter().map(parse).collect()
}

fn authorities(text: &str) -> Result<Option<String>, ExpectedValue> {
    let odd = |c: char| !c.is_ascii_graphic();
    match text {
        "" => Ok(None),
        text if text.contains(odd) => {
            Err("the path of a file, or the name of a ConfigMap or Secret".to_owned())
        }
        text => Ok(Some(text.to_owned())),
    }
}

/// Parses the name of a namespace, a `Gateway` or one of its listeners.
fn label(text: &str) -> Result<Option<String>, ExpectedValue> {
    let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let fits = text.len() <= 63
        && text.bytes().all(known)
        && !text.starts_with('-')
        && !text.ends_with('-');
    match text {
        "" => Ok(None),
        text if fits => Ok(Some(text.to_owned())),
        _ => Err("a name of at most 63 characters of a-z, 0-9 and -".to_owned()),
    }
}

fn listeners(text: &str) -> Result<Vec<String>, ExpectedValue> {
    let parsed: Result<Vec<_>, _> = split(text).iter().map(|part| label(part)).collect();
    parsed.map(|labels| labels.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(list::<Network>("").unwrap(), []);
        assert_eq!(list::<Network>("10.0.0.0/8, fd00::/8").unwrap().len(), 2);
        assert_eq!(list::<HostRule>("api.example.org,*.models.example").unwrap().len(), 2);
        let told = list::<Network>("10.0.0.1/8").unwrap_err();
        assert!(told.starts_with("a network such as `10.20.0.0/16`"), "{told}");
        assert_eq!(list::<HostRule>("http://a.b:*, https://*.c:8443").unwrap().len(), 2);
        assert!(list::<HostRule>("*").is_err() && list::<HostRule>("https://a.b/").is_err());
    }

    #[test]
    fn names() {
        assert_eq!(label(""), Ok(None));
        assert_eq!(label("gateway-1"), Ok(Some("gateway-1".to_owned())));
        let long = "a".repeat(64);
        for bad in ["A", "a.b", "-a", "a-", "a b", "a/b", &long] {
            assert!(label(bad).is_err(), "{bad}");
        }
        assert_eq!(listeners("http, https").unwrap(), ["http", "https"]);
        assert_eq!(authorities("/etc/ca.pem"), Ok(Some("/etc/ca.pem".to_owned())));
        assert!(authorities("a b").is_err());
    }
}
