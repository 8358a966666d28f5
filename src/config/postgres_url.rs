//! Postgres URLs. sqlx ignores a parameter that it does not know, such as `sslmod` or
//! `channel_binding`; patgate reports an error.

use std::str::FromStr;

use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;

use super::values::ExpectedValue;

/// The parameters that may follow the `?`, as sqlx reads them, without those that patgate sets
/// itself.
const PARAMETERS: [&str; 11] = [
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
];
/// Other spellings of these parameters.
const SPELLINGS: [&str; 4] = ["ssl-mode", "ssl-root-cert", "ssl-cert", "ssl-key"];

pub(super) fn postgres_url(text: &str) -> Result<SecretString, ExpectedValue> {
    let known_scheme = text.starts_with("postgres://") || text.starts_with("postgresql://");
    // Checked before sqlx reads the URL, because sqlx logs an unknown parameter with its value.
    if known_scheme && let Some(parameter) = unknown_parameter(text) {
        let known = PARAMETERS.map(|name| format!("`{name}`")).join(", ");
        return Err(format!("a URL without {parameter}: patgate takes only {known}"));
    }
    if known_scheme && PgConnectOptions::from_str(text).is_ok() {
        Ok(text.into())
    } else {
        Err("a URL such as `postgres://user:password@host:5432/database`, with special \
             characters of the password percent-encoded"
            .into())
    }
}

pub(super) fn feed_url(text: &str) -> Result<Option<SecretString>, ExpectedValue> {
    if text.is_empty() { Ok(None) } else { postgres_url(text).map(Some) }
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

    #[test]
    fn urls() {
        for good in [
            "postgres://u:p@h/db",
            "postgresql://h",
            "postgres://u@%2Frun%2Fpg/db",
            "postgres://h/db?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgres://h/db?options=-c%20lock_timeout%3D1s&options%5Bstatement_timeout%5D=1s",
        ] {
            assert!(postgres_url(good).is_ok(), "{good}");
        }
        for bad in ["", "h", "mysql://h/db", "postgres://u:p#x@h/db", "postgres://h?sslmode=maybe"]
        {
            let expected = postgres_url(bad).unwrap_err();
            assert!(!expected.contains("p#x"), "{bad}");
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
            let expected = postgres_url(&format!("postgres://h/db?{query}")).unwrap_err();
            assert!(expected.contains(name) && expected.contains("`sslrootcert`"), "{expected}");
        }
        for password in ["1?secret&more=2", "1?secret#more", "1?secret&x#more"] {
            let expected = postgres_url(&format!("postgres://u:{password}@h/db")).unwrap_err();
            assert!(!expected.contains("secret") && !expected.contains("more"), "{expected}");
        }
    }
}
