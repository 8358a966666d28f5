//! Signing in and out, and the password.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Caller, Error, InvitationSecret, Origin, Password, SelfService, SessionSecret,
    call::{call, call_by, call_from, change_by},
    password::Answer,
};
use crate::{
    admin::Email,
    telemetry::{SignInMethod, SignInResult},
};

/// A session that has just begun.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// For the client's cookie. It is kept nowhere else.
    pub secret: SessionSecret,
    /// The id of the session, which the audit log shows.
    pub session: Uuid,
    /// The user.
    pub user: Uuid,
    /// The user's address.
    pub email: String,
}

/// What a provider has said about the user whom it signed in. The caller has verified it.
#[derive(Clone, Debug)]
pub struct ProviderSignIn {
    /// The provider: the claim `iss`.
    pub issuer: String,
    /// Whom it signed in: the claim `sub`.
    pub subject: String,
    /// The address, if the provider says that it has verified it.
    pub verified_email: Option<String>,
}

/// Whom an invitation is for.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Invitee {
    /// The user's address.
    pub email: String,
}

/// The session of a caller.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct CurrentSession {
    pub session: Uuid,
    pub user: Uuid,
    pub email: String,
    pub name: String,
    /// `local` or `oidc`.
    pub method: String,
    /// Whether the user is a platform administrator; whether the session has these rights now is
    /// `elevated`.
    pub platform_admin: bool,
    pub has_password: bool,
    pub elevated: bool,
    #[schema(format = DateTime)]
    pub elevated_until: Option<String>,
    #[schema(format = DateTime)]
    pub begun_at: String,
    #[schema(format = DateTime)]
    pub ends_at: String,
    pub idle_seconds: u64,
    /// The longest time that a new token may live; `None` if there is no limit.
    pub token_longest_seconds: Option<u64>,
    pub token_default_seconds: u64,
}

#[derive(Deserialize)]
struct Begun {
    session: Uuid,
    user: Uuid,
    email: String,
}

impl Begun {
    fn with(self, secret: SessionSecret) -> SignedIn {
        let Self { session, user, email } = self;
        SignedIn { secret, session, user, email }
    }
}

#[derive(Deserialize)]
struct InvitationRow {
    email: String,
    salt: String,
}

/// What a sign-in counts as.
fn result(outcome: &Result<SignedIn, Error>) -> SignInResult {
    match outcome {
        Ok(_) => SignInResult::Begun,
        Err(Error::SignInFailed) => SignInResult::Failed,
        Err(Error::TooManyAttempts | Error::TooMany(_)) => SignInResult::TooMany,
        Err(_) => SignInResult::Unavailable,
    }
}

impl SelfService {
    /// Signs a user of a local account in.
    ///
    /// # Errors
    ///
    /// [`Error::SignInFailed`] if address and password do not belong together, whether or not the
    /// address is a user's; [`Error::TooManyAttempts`] if the account had too many attempts.
    pub async fn sign_in(
        &self,
        origin: &Origin,
        email: &Email,
        password: &Password,
    ) -> Result<SignedIn, Error> {
        let outcome = self.begin_with_password(origin, email, password).await;
        self.metrics.signed_in(SignInMethod::Password, result(&outcome));
        outcome
    }

    async fn begin_with_password(
        &self,
        origin: &Origin,
        email: &Email,
        password: &Password,
    ) -> Result<SignedIn, Error> {
        let (attempt, answer) = self.attempt(origin, email.as_str(), password).await?;
        let secret = SessionSecret::random()?;
        let begun: Begun = self
            .ask(|| {
                call_from(
                    origin,
                    "SELECT patgate.web_begin_local_session($1::text::inet, $2, $3, $4, $5, $6)",
                )
                .bind(attempt)
                .bind(email.as_str().to_owned())
                .bind(answer.bytes())
                .bind(secret.proof())
            })
            .await?;
        Ok(begun.with(secret))
    }

    /// Begins a session for a user whom a provider has signed in. The caller has verified the
    /// provider's answer: the database takes its word, and limits what such a session may do.
    ///
    /// # Errors
    ///
    /// [`Error::SignInFailed`] if the provider or its subject is not known.
    pub async fn sign_in_by_provider(
        &self,
        origin: &Origin,
        by: &ProviderSignIn,
    ) -> Result<SignedIn, Error> {
        let outcome = self.begin_by_provider(origin, by).await;
        self.metrics.signed_in(SignInMethod::Provider, result(&outcome));
        outcome
    }

    async fn begin_by_provider(
        &self,
        origin: &Origin,
        by: &ProviderSignIn,
    ) -> Result<SignedIn, Error> {
        let secret = SessionSecret::random()?;
        let begun: Begun = self
            .ask(|| {
                call_from(
                    origin,
                    "SELECT patgate.web_begin_oidc_session($1::text::inet, $2, $3, $4, $5, $6)",
                )
                .bind(by.issuer.clone())
                .bind(by.subject.clone())
                .bind(by.verified_email.clone())
                .bind(secret.proof())
            })
            .await?;
        Ok(begun.with(secret))
    }

    /// Returns whom an invitation is for.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it was used, has expired, or never existed.
    pub async fn invitation(&self, invitation: &InvitationSecret) -> Result<Invitee, Error> {
        let InvitationRow { email, .. } = self.read_invitation(invitation).await?;
        Ok(Invitee { email })
    }

    /// Sets the password of the user who was invited. The invitation is used up, and all sessions of
    /// the user end.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the invitation was used, has expired, or never existed.
    pub async fn accept_invitation(
        &self,
        origin: &Origin,
        invitation: &InvitationSecret,
        password: &Password,
    ) -> Result<Invitee, Error> {
        let InvitationRow { salt, .. } = self.read_invitation(invitation).await?;
        let salt = from_hex(&salt).ok_or_else(|| Error::Unavailable("a salt is no text".into()))?;
        let answer = self.passwords.answer(password, salt).await?;
        self.ask(|| {
            call_from(origin, "SELECT patgate.web_accept_invitation($1::text::inet, $2, $3, $4)")
                .bind(invitation.proof())
                .bind(answer.bytes())
        })
        .await
    }

    /// Returns the caller's session.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`] if it has ended.
    pub async fn session(&self, caller: &Caller) -> Result<CurrentSession, Error> {
        self.ask(|| call_by(caller, "SELECT patgate.web_session($1)")).await
    }

    /// Ends the caller's session. One that has ended already is no error.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn sign_out(&self, caller: &Caller) -> Result<(), Error> {
        self.perform(|| change_by(caller, "SELECT patgate.web_end_session($1, $2::text::inet, $3)"))
            .await
    }

    /// Ends all sessions of the caller's user.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`] if the caller's session has ended.
    pub async fn sign_out_everywhere(&self, caller: &Caller) -> Result<(), Error> {
        self.perform(|| {
            change_by(caller, "SELECT patgate.web_end_all_sessions($1, $2::text::inet, $3)")
        })
        .await
    }

    /// Gives the caller the rights of a platform administrator for a while.
    ///
    /// # Errors
    ///
    /// [`Error::SignInFailed`] if the password is wrong, [`Error::NotPermitted`] if the user is no
    /// platform administrator, or signed in by a provider.
    pub async fn elevate(&self, caller: &Caller, password: &Password) -> Result<(), Error> {
        let email = self.session(caller).await?.email;
        let (attempt, answer) = self.attempt(&caller.origin, &email, password).await?;
        self.perform(|| {
            change_by(caller, "SELECT patgate.web_elevate($1, $2::text::inet, $3, $4, $5)")
                .bind(attempt)
                .bind(answer.bytes())
        })
        .await
    }

    /// Gives these rights back.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`] if the session has ended.
    pub async fn lower(&self, caller: &Caller) -> Result<(), Error> {
        self.perform(|| call_by(caller, "SELECT patgate.web_lower($1)")).await
    }

    /// Replaces the caller's password, and ends all their sessions.
    ///
    /// # Errors
    ///
    /// [`Error::SignInFailed`] if the present password is wrong.
    pub async fn change_password(
        &self,
        caller: &Caller,
        present: &Password,
        new: &Password,
    ) -> Result<(), Error> {
        let email = self.session(caller).await?.email;
        let salt = self.salt(&email).await?;
        let (attempt, answer) = self.attempt(&caller.origin, &email, present).await?;
        let new = self.passwords.answer(new, salt).await?;
        self.perform(|| {
            change_by(
                caller,
                "SELECT patgate.web_change_password($1, $2::text::inet, $3, $4, $5, $6)",
            )
            .bind(attempt)
            .bind(answer.bytes())
            .bind(new.bytes())
        })
        .await
    }

    /// Computes the answer for an address, and records the attempt to give it, which the database
    /// must know before it says whether the answer is right.
    async fn attempt(
        &self,
        origin: &Origin,
        email: &str,
        password: &Password,
    ) -> Result<(Uuid, Answer), Error> {
        let salt = self.salt(email).await?;
        let answer = self.passwords.answer(password, salt).await?;
        let attempt = self
            .value(|| {
                call_from(origin, "SELECT patgate.web_begin_attempt($1::text::inet, $2, $3, $4)")
                    .bind(email.to_owned())
                    .bind(answer.commitment())
            })
            .await?;
        Ok((attempt, answer))
    }

    async fn salt(&self, email: &str) -> Result<Vec<u8>, Error> {
        self.value(|| call("SELECT patgate.web_password_salt($1)").bind(email.to_owned())).await
    }

    async fn read_invitation(&self, invitation: &InvitationSecret) -> Result<InvitationRow, Error> {
        self.ask(|| call("SELECT patgate.web_invitation($1)").bind(invitation.proof())).await
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(digit).collect()
}
