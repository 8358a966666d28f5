//! Why a call of self-service fails, by the codes of `deploy/migrations/0017`.

use std::time::Duration;

use super::password::PasswordError;
use crate::{admin::StoreError, postgres::SchemaError};

/// A call that was refused, or could not be made.
///
/// Holds only text: an error of sqlx holds the refused row, and its `Debug` shows it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such session, it has ended, or its user was disabled.
    #[error("you are not signed in")]
    NotSignedIn,
    /// The address or the password is wrong, or the provider's subject is no user's. Which of these
    /// is not said.
    #[error("the sign-in failed: check the address and the password")]
    SignInFailed,
    /// The account, or all sign-ins together, had too many attempts lately.
    #[error("too many attempts to sign in; try again later")]
    TooManyAttempts,
    /// The user may not do this.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    /// A platform administrator has to prove the password again.
    #[error("confirm your password first")]
    NeedsElevation,
    /// There is no such thing, or it is none of the caller's.
    #[error("{0}")]
    NotFound(String),
    /// The thing is not at the version that the caller has seen.
    #[error("{0}; look at it again")]
    Changed(String),
    /// Another thing has the name.
    #[error("{0}")]
    Exists(String),
    /// The token would live longer than an operator permits.
    #[error("{message}")]
    LifetimeTooLong {
        /// Names the longest time.
        message: String,
        /// The longest time.
        longest: Option<Duration>,
    },
    /// A value is not valid.
    #[error("{0}")]
    Invalid(String),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// A revoked or expired token gets no new secret.
    #[error("the token is revoked or expired; create a new one")]
    TokenEnded,
    /// There would be more of something than is permitted.
    #[error("{0}")]
    TooMany(String),
    /// Another transaction holds a lock that this needs, or was in the way.
    #[error("another change is in the way; try again")]
    Busy,
    /// The operating system has no random numbers.
    #[error("the operating system has no random numbers: {0}")]
    NoRandomNumbers(#[from] getrandom::Error),
    /// A password could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The database cannot be used with this login.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The login may do more than a process that faces the web should be able to.
    #[error(
        "the login {login} may do more than patgate_web: {reason}. Create a login that is a member of \
         patgate_web and of no other role (CREATE ROLE web LOGIN PASSWORD '…' IN ROLE patgate_web)"
    )]
    TooPowerful {
        /// The login.
        login: String,
        /// What it may do.
        reason: String,
    },
    /// The database is another one than at the start, of which cached copies are deleted and tokens are
    /// made.
    #[error(
        "it leads to another installation of patgate than at the start; restart `patgate admin` if that \
         is meant"
    )]
    OtherInstallation,
    /// The login is no member of `patgate_web`, or the schema does not have the functions.
    #[error(
        "the login may not use self-service ({0}); grant it patgate_web, or run `patgate migrate` if \
         the schema is older"
    )]
    Denied(String),
    /// Postgres did not answer, or not as it should.
    #[error("Postgres: {0}")]
    Unavailable(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let Some(refusal) = error.as_database_error() else {
            return Self::Unavailable(error.to_string());
        };
        let message = refusal.message().to_owned();
        let code = refusal.code();
        let code = code.as_deref().unwrap_or_default();
        match code {
            "PW001" => Self::NotSignedIn,
            "PW002" => Self::NotPermitted(message),
            "PW003" => Self::NotFound(message),
            "PW004" => Self::Changed(message),
            "PW005" => Self::Exists(message),
            "PW006" => Self::LifetimeTooLong { message, longest: longest(refusal) },
            "PW007" => Self::TooManyAttempts,
            "PW008" => Self::Invalid(message),
            "PW009" => Self::NeedsElevation,
            "PW010" => Self::KeyReused,
            "PW011" => Self::TokenEnded,
            "PW013" => Self::TooMany(message),
            "PW014" => Self::SignInFailed,
            // A missing privilege, function, schema, or role.
            "42501" | "42883" | "3F000" => Self::Denied(message),
            // A deadlock, a lock that was not granted in time, and a row that went away meanwhile.
            "40P01" | "55P03" | "23503" => Self::Busy,
            "57014" => Self::Unavailable(format!("{message} (web.postgres.query_timeout)")),
            // Data that is out of range, and constraints that the functions name in no other way.
            _ if code.starts_with("22") || code.starts_with("23") => {
                Self::Invalid("a value is out of range or malformed".to_owned())
            }
            _ => Self::Unavailable(message),
        }
    }
}

/// The seconds that the database adds to the refusal.
fn longest(refusal: &(dyn sqlx::error::DatabaseError + 'static)) -> Option<Duration> {
    let refusal = refusal.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    refusal.detail()?.parse().ok().map(Duration::from_secs)
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operators set for how long an account is locked.
    #[test]
    fn a_locked_account_is_told_no_time() {
        let said = Error::TooManyAttempts.to_string();
        assert_eq!(said, "too many attempts to sign in; try again later");
    }
}
