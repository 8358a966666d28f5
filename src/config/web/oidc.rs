//! The settings of a provider of OpenID Connect.

use std::path::Path;

use http::Uri;
use rustls::RootCertStore;
use secrecy::SecretString;

use super::is_this_machine;
use crate::{
    config::{
        load::SettingsReader,
        values::{ExpectedValue, path},
    },
    files::pem,
};

/// Who signs users in, besides the passwords of local accounts.
#[derive(Clone, Debug)]
pub struct OidcSettings {
    /// The provider, exactly as it names itself.
    pub issuer: String,
    /// What the provider calls patgate.
    pub client_id: String,
    /// With which patgate proves that; `None` for a public client, which has only PKCE.
    pub client_secret: Option<SecretString>,
    /// What patgate asks for, separated by spaces; `openid` is among them.
    pub scopes: String,
    /// The audience of the access tokens with which programs begin sessions; `None` if they cannot.
    pub api_audience: Option<String>,
    /// The authorities that sign the provider's certificate; `None` for those of the system.
    pub authorities: Option<RootCertStore>,
}

const ISSUER: &str = "web.oidc.issuer";
const CLIENT: &str = "web.oidc.client_id";
const SECRET: &str = "web.oidc.client_secret_file";
const AUDIENCE: &str = "web.oidc.api_audience";
const AUTHORITIES: &str = "web.oidc.ca_file";

const EXPECTED_ISSUER: &str = "the issuer as the provider writes it, such as `https://id.example.org/realms/a`, without a query; \
     `http://` only for `localhost`, `127.0.0.1` or `[::1]`";
const NEEDS_A_CLIENT: &str = "the client id that the provider has given to patgate";
const NEEDS_AN_ISSUER: &str = "nothing, because web.oidc.issuer is not set";
const OTHER_AUDIENCE: &str = "another audience than web.oidc.client_id: an ID token, which every client \
                              of the provider may see, would begin sessions";

impl OidcSettings {
    /// Returns `Some(None)` if there is no provider, and `None` after an error.
    pub(super) fn read(reader: &mut SettingsReader) -> Option<Option<Self>> {
        let issuer = reader.get(ISSUER, issuer);
        let client_id = reader.get(CLIENT, word);
        let secret_file = reader.get(SECRET, path);
        let scopes = reader.get("web.oidc.scopes", scopes);
        let api_audience = reader.get(AUDIENCE, word);
        let ca_file = reader.get(AUTHORITIES, path);
        let (issuer, client_id, api_audience) = (issuer?, client_id?, api_audience?);
        let (secret_file, ca_file) = (secret_file?, ca_file?);
        let Some(issuer) = issuer else {
            let set = [
                (CLIENT, client_id.is_some()),
                (SECRET, secret_file.is_some()),
                (AUDIENCE, api_audience.is_some()),
                (AUTHORITIES, ca_file.is_some()),
            ];
            let alone = set.into_iter().find(|(_, is_set)| *is_set);
            return match alone {
                Some((key, _)) => reader.refuse(key, NEEDS_AN_ISSUER),
                None => Some(None),
            };
        };
        let Some(client_id) = client_id else { return reader.refuse(CLIENT, NEEDS_A_CLIENT) };
        if api_audience.as_ref() == Some(&client_id) {
            return reader.refuse(AUDIENCE, OTHER_AUDIENCE);
        }
        let client_secret = optional(secret_file, |file| client_secret(reader, file));
        let authorities = optional(ca_file, |file| authorities(reader, file));
        Some(Some(Self {
            issuer,
            client_id,
            client_secret: client_secret?,
            scopes: scopes?,
            api_audience,
            authorities: authorities?,
        }))
    }
}

/// Reads what is set; `None` after an error.
fn optional<F: AsRef<Path>, T>(
    file: Option<F>,
    read: impl FnOnce(&Path) -> Option<T>,
) -> Option<Option<T>> {
    match file {
        Some(file) => read(file.as_ref()).map(Some),
        None => Some(None),
    }
}

fn client_secret(reader: &mut SettingsReader, file: &Path) -> Option<SecretString> {
    const EXPECTED: &str = "a file with the client secret alone, in one line of visible ASCII";
    let text = content(reader, SECRET, file)?;
    let line = text.trim();
    if line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return reader.refuse(SECRET, EXPECTED);
    }
    Some(line.into())
}

fn authorities(reader: &mut SettingsReader, file: &Path) -> Option<RootCertStore> {
    let text = content(reader, AUTHORITIES, file)?;
    match pem::authorities(&text) {
        Ok(roots) => Some(roots),
        Err(problem) => reader.refuse(AUTHORITIES, &format!("authorities in PEM: {problem}")),
    }
}

fn content(
    reader: &mut SettingsReader,
    key: &'static str,
    file: &Path,
) -> Option<zeroize::Zeroizing<String>> {
    match reader.reads()(file) {
        Ok(text) => Some(text.into()),
        Err(error) => {
            reader.refuse(key, &format!("a readable file, `{}`: {error}", file.display()))
        }
    }
}

/// Whether only the provider reads what is sent there, and only it has written what is read: by TLS,
/// or because it is this machine itself.
pub(crate) fn is_protected(url: &Uri) -> bool {
    let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    plain
        && match url.scheme_str() {
            Some("https") => true,
            Some("http") => url.host().is_some_and(is_this_machine),
            _ => false,
        }
}

fn issuer(text: &str) -> Result<Option<String>, ExpectedValue> {
    if text.is_empty() {
        return Ok(None);
    }
    let url: Option<Uri> = text.parse().ok();
    let fits = |url: &Uri| is_protected(url) && url.query().is_none() && !text.contains('#');
    url.filter(fits).map(|_| Some(text.to_owned())).ok_or_else(|| EXPECTED_ISSUER.to_owned())
}

fn word(text: &str) -> Result<Option<String>, ExpectedValue> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_word = text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_word.then(|| Some(text.to_owned())).ok_or_else(|| "visible ASCII without spaces".to_owned())
}

fn scopes(text: &str) -> Result<String, ExpectedValue> {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b))
    };
    if text.split(' ').all(is_word) && text.split(' ').any(|word| word == "openid") {
        Ok(text.to_owned())
    } else {
        Err("scopes separated by one space each, `openid` among them".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_reached_by_tls_or_is_this_machine() {
        for good in [
            "https://id.example.org",
            "https://id.example.org/",
            "https://id.example.org:8443/realms/a",
            "http://localhost:3000",
            "http://127.0.0.1:3000/a",
            "http://[::1]:3000",
        ] {
            assert_eq!(issuer(good), Ok(Some(good.to_owned())));
        }
        for bad in [
            "id.example.org",
            "/realms/a",
            "http://id.example.org",
            "http://localhost.example.org",
            "https://user@id.example.org",
            "https://id.example.org?a=b",
            "https://id.example.org#a",
            "https:///a",
            "ftp://id.example.org",
            "https://id.example.org/a b",
        ] {
            assert_eq!(issuer(bad), Err(EXPECTED_ISSUER.to_owned()), "{bad}");
        }
    }

    #[test]
    fn scopes_ask_for_a_sign_in() {
        assert_eq!(scopes("openid email"), Ok("openid email".to_owned()));
        for bad in ["", "email", "openid  email", " openid", "openid\temail", "openid \"a\""] {
            assert!(scopes(bad).is_err(), "{bad}");
        }
    }
}
