//! Postgres URLs, in libpq's form with one or several servers.
//!
//! sqlx knows one server, and ignores a parameter that it does not know, such as `sslmod` or
//! `channel_binding`. patgate takes the URL apart, gives sqlx a URL for each server, and reports an
//! error for what would be ignored.

use std::str::FromStr;

use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{postgres_tls::TlsFiles, values::ExpectedValue};

/// The parameters that may follow the `?`, without those that patgate sets itself.
const PARAMETERS: [&str; 12] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
    "target_session_attrs",
];
/// Other spellings of these parameters.
const SPELLINGS: [&str; 4] = ["ssl-mode", "ssl-root-cert", "ssl-cert", "ssl-key"];

/// A URL that was read and can be used.
pub(super) struct PostgresUrl {
    /// One for each server, in the order of the URL; at least one.
    pub(super) servers: Vec<PgConnectOptions>,
    /// The files of its TLS, which are not read yet.
    pub(super) tls: TlsFiles,
    /// Whether it holds a password.
    pub(super) has_password: bool,
}

impl PostgresUrl {
    pub(super) fn parse(text: &str) -> Result<Self, ExpectedValue> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(form());
        }
        // Checked before sqlx reads the URL, because sqlx logs an unknown parameter with its value.
        if let Some(parameter) = unknown_parameter(text) {
            let known = PARAMETERS.map(|name| format!("`{name}`")).join(", ");
            return Err(format!("a URL without {parameter}: patgate takes only {known}"));
        }
        let parts = UrlParts::of(text)?;
        let parse = |url: String| PgConnectOptions::from_str(&url).map_err(|_| form());
        let servers: Vec<_> =
            parts.of_each_server()?.into_iter().map(parse).collect::<Result<_, _>>()?;
        let verifies = |options: &PgConnectOptions| {
            matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull)
        };
        if parts.tls.authorities.is_some() && !servers.iter().all(verifies) {
            return Err(
                "sslmode=verify-full (or verify-ca) beside sslrootcert: with any other mode, \
                        the server's certificate is not checked"
                    .into(),
            );
        }
        Ok(Self { servers, has_password: parts.has_password(), tls: parts.tls })
    }
}

/// Returns the expected form of a URL, for an error.
fn form() -> ExpectedValue {
    "a URL such as `postgres://user:password@host:5432/database`, with special characters of the \
     password percent-encoded; several servers as `host1:5432,host2:5432`"
        .into()
}

/// A URL in parts, as text.
struct UrlParts<'u> {
    scheme: &'u str,
    /// The user and the password.
    user: Option<&'u str>,
    /// The servers, as they are written.
    hosts: Vec<&'u str>,
    /// The path with its slash, or nothing.
    path: &'u str,
    /// The parameters that are left to sqlx.
    parameters: Vec<&'u str>,
    /// The values of `host` and `port`.
    listed_hosts: Vec<String>,
    listed_ports: Vec<String>,
    tls: TlsFiles,
}

impl<'u> UrlParts<'u> {
    fn of(text: &'u str) -> Result<Self, ExpectedValue> {
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        // A fragment has no meaning here: it is the rest of a password.
        if rest.contains('#') {
            return Err(form());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let mut parts = Self {
            scheme,
            user,
            hosts: hosts.split(',').collect(),
            path,
            parameters: Vec::new(),
            listed_hosts: Vec::new(),
            listed_ports: Vec::new(),
            tls: TlsFiles::default(),
        };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = decoded(value);
            match name {
                "host" if value.contains(',') => parts.listed_hosts = list(&value),
                "port" if value.contains(',') => parts.listed_ports = list(&value),
                "hostaddr" if value.contains(',') => {
                    return Err("one address in `hostaddr`; several servers as \
                                `host1:5432,host2:5432`"
                        .into());
                }
                "target_session_attrs" if !["primary", "read-write"].contains(&value.as_str()) => {
                    return Err(
                        "`primary` or `read-write` as target_session_attrs: patgate always \
                                looks for the primary"
                            .into(),
                    );
                }
                "target_session_attrs" => {}
                "sslrootcert" | "ssl-root-cert" => parts.tls.authorities = Some(value.into()),
                "sslcert" | "ssl-cert" => parts.tls.certificate = Some(value.into()),
                "sslkey" | "ssl-key" => parts.tls.private_key = Some(value.into()),
                _ => parts.parameters.push(parameter),
            }
        }
        Ok(parts)
    }

    fn has_password(&self) -> bool {
        self.user.is_some_and(|user| user.contains(':'))
            || self.parameters.iter().any(|parameter| parameter.starts_with("password="))
    }

    /// Returns one URL per server.
    fn of_each_server(&self) -> Result<Vec<String>, ExpectedValue> {
        let has = |name: &str| {
            let of_name = |parameter: &&str| parameter.split('=').next() == Some(name);
            self.parameters.iter().any(of_name)
        };
        let several = [self.hosts.len(), self.listed_hosts.len()].iter().any(|count| *count > 1);
        if !several {
            if !self.listed_ports.is_empty() {
                return Err("as many ports as servers".into());
            }
            return Ok(vec![self.url(self.hosts.first().unwrap_or(&""), None)]);
        }
        if self.hosts.len() > 1 {
            if has("host") || has("hostaddr") || !self.listed_hosts.is_empty() {
                return Err("the servers in one place: before the path, or in `host`".into());
            }
            if has("port") || !self.listed_ports.is_empty() {
                return Err("the port of each server after its name, not in `port`".into());
            }
            let empty = |host: &&str| host.is_empty() || host.starts_with(':');
            if self.hosts.iter().any(empty) {
                return Err("a server on each side of a comma".into());
            }
            return Ok(self.hosts.iter().map(|host| self.url(host, None)).collect());
        }
        if self.hosts.iter().any(|host| !host.is_empty()) || has("hostaddr") {
            return Err("the servers in one place: before the path, or in `host`".into());
        }
        if self.listed_hosts.iter().any(String::is_empty) {
            return Err("a server on each side of a comma".into());
        }
        let ports = &self.listed_ports;
        if !ports.is_empty() && (ports.len() != self.listed_hosts.len() || has("port")) {
            return Err("as many ports as servers, or one for all".into());
        }
        let servers = self.listed_hosts.iter().enumerate();
        Ok(servers.map(|(index, host)| self.url("", Some((host, ports.get(index))))).collect())
    }

    /// The URL of one server, which is named before the path, or in parameters.
    fn url(&self, host: &str, listed: Option<(&String, Option<&String>)>) -> String {
        let user = self.user.map_or_else(String::new, |user| format!("{user}@"));
        let mut parameters: Vec<String> =
            self.parameters.iter().map(|parameter| (*parameter).to_owned()).collect();
        if let Some((host, port)) = listed {
            parameters.push(format!("host={}", encoded(host)));
            parameters.extend(port.map(|port| format!("port={}", encoded(port))));
        }
        // A URL with a user needs a host; the parameter replaces it.
        let in_parameters = parameters.iter().any(|parameter| parameter.starts_with("host="));
        let host = if host.is_empty() && in_parameters { "localhost" } else { host };
        let Self { scheme, path, .. } = self;
        format!("{scheme}://{user}{host}{path}?{}", parameters.join("&"))
    }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(|item| item.trim().to_owned()).collect()
}

/// As sqlx decodes the values of parameters.
fn decoded(value: &str) -> String {
    percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned()
}

fn encoded(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Returns the first unknown parameter, for a message.
fn unknown_parameter(url: &str) -> Option<String> {
    let query = url.split('#').next()?.split_once('?')?.1;
    let names = query.split('&').filter(|parameter| !parameter.is_empty());
    let mut names = names.map(|parameter| parameter.split('=').next().unwrap_or_default());
    let unknown = names.find(|name| {
        !PARAMETERS.contains(name) && !SPELLINGS.contains(name) && !is_an_option(name)
    })?;
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    // With an `@` or a `#`, it may be the rest of a password that has a `?`.
    let of_password = url.split_once('?')?.1.contains(['@', '#']);
    if !of_password && unknown.len() <= 40 && unknown.bytes().all(harmless) {
        Some(format!("the parameter `{unknown}`"))
    } else {
        Some("parameters that are not known".to_owned())
    }
}

/// Whether this is `options[search_path]`, with or without its brackets percent-encoded.
fn is_an_option(name: &str) -> bool {
    let name = name.replace("%5B", "[").replace("%5b", "[").replace("%5D", "]").replace("%5d", "]");
    name.strip_prefix("options[").is_some_and(|name| name.len() > 1 && name.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(url: &str) -> Vec<String> {
        let parsed = PostgresUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let shown = |options: &PgConnectOptions| {
            let host = options.get_socket().map_or_else(
                || options.get_host().to_owned(),
                |socket| socket.display().to_string(),
            );
            let database = options.get_database().unwrap_or_default();
            format!("{}@{host}:{}/{database}", options.get_username(), options.get_port())
        };
        parsed.servers.iter().map(shown).collect()
    }

    fn error(url: &str) -> String {
        PostgresUrl::parse(url).err().unwrap_or_else(|| panic!("{url}"))
    }

    #[test]
    fn urls() {
        for good in [
            "postgres://u:p@h/db",
            "postgresql://h",
            "postgres://u@%2Frun%2Fpg/db",
            "postgres://h/db?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgres://h/db?options=-c%20lock_timeout%3D1s&options%5Bstatement_timeout%5D=1s",
            "postgres://u:a,b@h/db?target_session_attrs=read-write",
        ] {
            assert!(PostgresUrl::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "h", "mysql://h/db", "postgres://u:p#x@h/db", "postgres://h?sslmode=maybe"]
        {
            assert!(!error(bad).contains("p#x"), "{bad}");
        }
    }

    #[test]
    fn several_servers_share_everything_else() {
        for (url, expected) in [
            ("postgres://u:p@h1:1,h2:2/db", &["u@h1:1/db", "u@h2:2/db"][..]),
            ("postgres://u:a,b@h1:1,h2:2,h3:3/db", &["u@h1:1/db", "u@h2:2/db", "u@h3:3/db"]),
            ("postgres://u@[::1]:1,[::2]:2/db", &["u@[::1]:1/db", "u@[::2]:2/db"]),
            ("postgres://u@%2Frun%2Fpg,h:2/db", &["u@/run/pg:5432/db", "u@h:2/db"]),
            ("postgres://u@/db?host=h1,h2&port=1,2", &["u@h1:1/db", "u@h2:2/db"]),
            ("postgres://u@/db?host=h1,h2&port=7", &["u@h1:7/db", "u@h2:7/db"]),
            (
                "postgres:///db?user=u&host=h1%2C%2Frun%2Fpg&port=1,2",
                &["u@h1:1/db", "u@/run/pg:2/db"],
            ),
            ("postgres://u@h:1/db?target_session_attrs=primary", &["u@h:1/db"]),
            // A single one is left to sqlx.
            ("postgres://u@h1/db?host=h2&port=2", &["u@h2:2/db"]),
        ] {
            assert_eq!(servers(url), expected, "{url}");
        }
        for (url, expected) in [
            ("postgres://u@h1,/db", "a server on each side"),
            ("postgres://u@h1,:5432/db", "a server on each side"),
            ("postgres://u@/db?host=h1,", "a server on each side"),
            ("postgres://u@h1,h2/db?host=h3", "in one place"),
            ("postgres://u@h1,h2/db?host=h3,h4", "in one place"),
            ("postgres://u@h1/db?host=h3,h4", "in one place"),
            ("postgres://u@h1,h2/db?port=1,2", "after its name"),
            ("postgres://u@/db?host=h1,h2&port=1,2,3", "as many ports"),
            ("postgres://u@h1/db?port=1,2", "as many ports"),
            ("postgres://u@/db?host=h1,h2&hostaddr=::1,::2", "one address in `hostaddr`"),
            ("postgres://u@h1,h2/db?target_session_attrs=any", "`primary` or `read-write`"),
            ("postgres://u@h1,h2:port/db", "a URL such as"),
            ("postgres://h1,h2/db?sslmode=require&sslrootcert=/ca.pem", "verify-full"),
            ("postgres://h/db?sslrootcert=/ca.pem", "verify-full"),
        ] {
            assert!(error(url).contains(expected), "{url}: {}", error(url));
        }
    }

    #[test]
    fn a_parameter_that_would_be_ignored_is_named() {
        for (query, name) in [
            ("sslmod=verify-full", "`sslmod`"),
            ("sslmode=verify-full&channel_binding=require", "`channel_binding`"),
            ("SSLMODE=verify-full", "`SSLMODE`"),
            ("application_name=gateway", "`application_name`"),
            ("statement-cache-capacity=1", "`statement-cache-capacity`"),
            ("options[x=1", "parameters that are not known"),
            ("ssl%6Dod=1", "parameters that are not known"),
        ] {
            let expected = error(&format!("postgres://h/db?{query}"));
            assert!(expected.contains(name) && expected.contains("`sslrootcert`"), "{expected}");
        }
        for password in ["1?secret&more=2", "1?secret#more", "1?secret&x#more", "secret/more"] {
            for host in ["h", "h1,h2"] {
                let expected = error(&format!("postgres://u:{password}@{host}/db"));
                assert!(!expected.contains("secret") && !expected.contains("more"), "{expected}");
            }
        }
    }
}
