//! The servers that one setting names, and the login for them.

use std::{fmt, sync::Arc};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};

/// The servers of one URL, in its order, each with all that a connection to it needs. Clones share
/// it. It holds the password, so its `Debug` shows nothing.
#[derive(Clone)]
pub struct Servers(Arc<Read>);

struct Read {
    options: Vec<PgConnectOptions>,
    /// The URL, and the content of the files that it needs.
    content: SecretString,
    certificate: Option<String>,
}

impl Servers {
    /// Takes what was read: the options of at least one server, and the content that they were made
    /// from, by which a change is noticed; and the client's certificate in PEM, if it has one.
    ///
    /// The connections need nothing that PgBouncer lacks: no unusual startup parameter, no prepared
    /// statement and no other state of a session.
    pub fn new(
        options: Vec<PgConnectOptions>,
        content: SecretString,
        certificate: Option<String>,
    ) -> Self {
        let plain = |options: PgConnectOptions| {
            options
                .application_name("patgate")
                .extra_float_digits(None)
                .statement_cache_capacity(0)
                // A caller that waits for a slow statement reports the reason itself.
                .disable_statement_logging()
        };
        let options = options.into_iter().map(plain).collect();
        Self(Arc::new(Read { options, content, certificate }))
    }

    /// The client's certificate in PEM, with its chain.
    pub(crate) fn certificate(&self) -> Option<&str> {
        self.0.certificate.as_deref()
    }

    pub(super) fn options(&self) -> &[PgConnectOptions] {
        &self.0.options
    }

    /// The server, if there is only one.
    pub(crate) fn only(&self) -> Option<&PgConnectOptions> {
        match self.options() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The host and port of one server, without user and password.
    pub(super) fn name(&self, index: usize) -> String {
        self.0.options.get(index).map_or_else(String::new, name)
    }

    /// Whether both lead to the same databases as the same user, with whatever password and
    /// certificates.
    pub(super) fn lead_alike(&self, other: &Self) -> bool {
        let place = |options: &PgConnectOptions| {
            (
                name(options),
                options.get_username().to_owned(),
                options.get_database().map(str::to_owned),
                options.get_ssl_mode() as u8,
                options.get_options().map(str::to_owned),
            )
        };
        self.0.options.iter().map(place).eq(other.0.options.iter().map(place))
    }
}

/// Equal if the same was read.
impl PartialEq for Servers {
    fn eq(&self, other: &Self) -> bool {
        self.0.content.expose_secret() == other.0.content.expose_secret()
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").finish_non_exhaustive()
    }
}

/// The host and port, without user and password.
pub(super) fn name(options: &PgConnectOptions) -> String {
    let host = options
        .get_socket()
        .map_or_else(|| options.get_host().to_owned(), |directory| directory.display().to_string());
    format!("{host}, port {}", options.get_port())
}
