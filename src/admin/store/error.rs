//! Why a read or a change fails.

use std::fmt;

use sqlx::error::ErrorKind;

/// A read or a change that failed.
///
/// Holds only text: an error of sqlx holds the refused row, digest included, and its `Debug` shows
/// it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("{what} `{name}` does not exist")]
    NotFound { what: ObjectKind, name: String },
    #[error("{what} `{name}` already exists")]
    Exists { what: ObjectKind, name: String },
    #[error("{0}")]
    Refused(String),
    #[error("the database login lacks a privilege for this ({0}); grant it patgate_admin")]
    Denied(String),
    #[error("Postgres cancelled this change to resolve a deadlock with another one; try again")]
    Deadlock,
    #[error(
        "not done: other sessions hold a lock that this needs; the warnings above name them. Try \
         again when they have ended; an administrator of the cluster can end them with \
         pg_terminate_backend(pid)"
    )]
    Locked,
    #[error("Postgres: {0}")]
    Database(String),
}

/// The kind of an object that a caller named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ObjectKind {
    Token,
    TokenOfKey,
    Scope,
    User,
    Role,
    Member,
    Domain,
    Model,
    Backend,
    BackendCredential,
    Provider,
    Subject,
}

impl ObjectKind {
    /// Returns the name of the kind in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::TokenOfKey => "a token, live or not, that was signed by key",
            Self::Scope => "scope",
            Self::User => "user",
            Self::Role => "role",
            Self::Member => "member",
            Self::Domain => "domain",
            Self::Model => "model",
            Self::Backend => "backend",
            Self::BackendCredential => "credential of backend",
            Self::Provider => "provider",
            Self::Subject => "subject",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const INSUFFICIENT_PRIVILEGE: &str = "42501";
const DATETIME_OVERFLOW: &str = "22008";
const DEADLOCK_DETECTED: &str = "40P01";
const LOCK_NOT_AVAILABLE: &str = "55P03";

impl Error {
    pub(super) fn not_found(what: ObjectKind, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    /// Converts a violation of uniqueness into [`Self::Exists`].
    pub(super) fn exists(error: sqlx::Error, what: ObjectKind, name: impl ToString) -> Self {
        match error.as_database_error().map(|error| error.kind()) {
            Some(ErrorKind::UniqueViolation) => Self::Exists { what, name: name.to_string() },
            _ => error.into(),
        }
    }

    /// Converts a reference to a row that does not exist into [`Self::NotFound`].
    pub(super) fn dangling(error: sqlx::Error, what: ObjectKind, name: impl ToString) -> Self {
        match error.as_database_error().map(|error| error.kind()) {
            Some(ErrorKind::ForeignKeyViolation) => Self::not_found(what, name),
            _ => error.into(),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let Some(refusal) = error.as_database_error() else {
            return Self::Database(error.to_string());
        };
        let message = refusal.message().to_owned();
        match refusal.code().as_deref() {
            Some(INSUFFICIENT_PRIVILEGE) => Self::Denied(message),
            Some(DATETIME_OVERFLOW) => Self::Refused("the time is out of range".to_owned()),
            Some(DEADLOCK_DETECTED) => Self::Deadlock,
            Some(LOCK_NOT_AVAILABLE) => Self::Locked,
            _ => Self::Database(message),
        }
    }
}
