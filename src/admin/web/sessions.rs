//! The caller's sessions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Caller, Error, SelfService,
    call::{call_by, change_by},
};

/// A session of the caller's user that counts.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct OwnSession {
    /// The id, which the audit log shows. It proves nothing.
    pub id: Uuid,
    /// Whether it is the caller's own.
    pub current: bool,
    /// `local` or `oidc`.
    pub method: String,
    /// The provider that signed the user in.
    pub issuer: Option<String>,
    /// Where it began, as the process stated it.
    pub address: Option<String>,
    /// Whether it has the rights of a platform administrator now.
    pub elevated: bool,
    /// In UTC.
    pub begun_at: String,
    /// In UTC, up to half a minute late.
    pub last_used_at: String,
    /// When it ends even if it is used, in UTC.
    pub ends_at: String,
}

impl SelfService {
    /// Lists the sessions of the caller's user, the latest first.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`] if the caller's session has ended.
    pub async fn sessions(&self, caller: &Caller) -> Result<Vec<OwnSession>, Error> {
        self.ask(|| call_by(caller, "SELECT patgate.web_sessions($1)")).await
    }

    /// Ends a session of the caller's user, possibly the caller's own.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it has ended, is another user's, or never existed.
    pub async fn end_session(&self, caller: &Caller, session: Uuid) -> Result<(), Error> {
        self.perform(|| {
            change_by(caller, "SELECT patgate.web_end_own_session($1, $2::text::inet, $3, $4)")
                .bind(session)
        })
        .await
    }
}
