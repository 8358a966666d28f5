//! Where a Postgres URL and its password come from, so that they can be read again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::{load::SettingsReader, postgres_url::PostgresUrl, values::ExpectedValue};
use crate::postgres::{Address, Servers, Timelines};

const POSTGRES_URL: &str = "postgres.url";

/// The sources of one URL.
struct UrlSource {
    key: &'static str,
    url: UrlText,
    /// The file with the password of each URL that has none.
    password_file: Option<PathBuf>,
    read: fn(&Path) -> io::Result<String>,
}

enum UrlText {
    /// From the environment, or from the configuration file.
    Fixed(SecretString),
    /// From the file that `…_FILE` names.
    File(PathBuf),
}

/// The servers of a URL, and whether anything of them is in a file.
struct ReadSource {
    servers: Servers,
    in_files: bool,
}

impl UrlSource {
    fn read(&self) -> Result<ReadSource, ExpectedValue> {
        let text = match &self.url {
            UrlText::Fixed(text) => Zeroizing::new(text.expose_secret().to_owned()),
            UrlText::File(path) => {
                let text =
                    Zeroizing::new((self.read)(path).map_err(|error| {
                        format!("a readable file, `{}`: {error}", path.display())
                    })?);
                Zeroizing::new(text.trim().to_owned())
            }
        };
        let url = PostgresUrl::parse(&text)?;
        let password = self.password(&url)?;
        let tls = url.tls.read(self.read)?;
        let options = url.servers.into_iter().map(|options| match &password {
            Some(password) => tls.add_to(options.password(password)),
            None => tls.add_to(options),
        });
        let options = options.collect();
        let password_text = password.as_ref().map_or("", |password| password.as_str());
        let content = Zeroizing::new([&text, password_text, &tls.text()].join("\0"));
        Ok(ReadSource {
            servers: Servers::new(options, content.as_str().into(), tls.certificate()),
            in_files: matches!(self.url, UrlText::File(_))
                || password.is_some()
                || url.tls.are_named(),
        })
    }

    /// The password of the file, if the URL needs it.
    fn password(&self, url: &PostgresUrl) -> Result<Option<Zeroizing<String>>, ExpectedValue> {
        let Some(path) = &self.password_file else { return Ok(None) };
        if url.has_password {
            // The login of the feed may be another one.
            return match self.key {
                POSTGRES_URL => {
                    Err("a URL without a password, because postgres.password_file names \
                                     the file that holds it"
                        .into())
                }
                _ => Ok(None),
            };
        }
        let shown = path.display();
        let text = Zeroizing::new((self.read)(path).map_err(|error| {
            format!("a readable file in postgres.password_file, `{shown}`: {error}")
        })?);
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() || password.contains(['\r', '\n', '\0']) {
            return Err(format!(
                "a password on one line, and nothing else, in postgres.password_file, `{shown}`"
            ));
        }
        Ok(Some(Zeroizing::new(password.to_owned())))
    }
}

impl SettingsReader {
    /// Reads the address that a setting holds. Returns `Some(None)` if it is empty and may be, and
    /// `None` after an error.
    pub(super) fn address(
        &mut self,
        key: &'static str,
        password_file: Option<&PathBuf>,
        timelines: &Timelines,
        may_be_empty: bool,
    ) -> Option<Option<Address>> {
        let (text, file) = self.text(key)?;
        if text.is_empty() && may_be_empty {
            return Some(None);
        }
        // An error of reading that file is collected already.
        let url = file.map_or_else(|| UrlText::Fixed(text.as_str().into()), UrlText::File);
        let password_file = password_file.cloned();
        let source = UrlSource { key, url, password_file, read: self.reads() };
        match source.read() {
            Ok(ReadSource { servers, in_files }) => {
                let again = Arc::new(move || {
                    source
                        .read()
                        .map(|read| read.servers)
                        .map_err(|expected| format!("{key}: expected {expected}"))
                });
                let again = in_files.then_some(again as _);
                Some(Some(Address::new(key, servers, again, timelines)))
            }
            Err(expected) => {
                self.mistake(key, &expected);
                None
            }
        }
    }
}
