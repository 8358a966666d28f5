//! Users, and whether they are platform administrators.

use std::time::Duration;

use super::{
    Admin, Error, NewUser, Outcome, User, UserDetails, UserRef, UserSession,
    web::{InvitationSecret, LONGEST_INVITATION},
};

/// An invitation of a user to set a password.
#[derive(Debug)]
pub struct Invitation {
    /// What the user enters on the page, once.
    pub secret: InvitationSecret,
    /// The user's address.
    pub email: String,
    /// Until when it works, in UTC.
    pub expires_at: String,
}

impl Admin {
    /// Creates a user, enabled.
    ///
    /// # Errors
    ///
    /// If another user has the address.
    pub async fn create_user(&self, new: &NewUser) -> Result<Outcome<User>, Error> {
        Ok(self.complete(self.store.create_user(new).await?).await)
    }

    /// Lists all users, by address, without the owner of canaries.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn users(&self) -> Result<Vec<User>, Error> {
        Ok(self.store.users().await?)
    }

    /// Returns a user with their roles.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub async fn user(&self, user: &UserRef) -> Result<UserDetails, Error> {
        Ok(self.store.user(user).await?)
    }

    /// Enables or disables a user. The tokens of a disabled user are refused, and work again once
    /// the user is enabled.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub async fn set_user_enabled(
        &self,
        user: &UserRef,
        enabled: bool,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.set_user_enabled(user, enabled).await?).await)
    }

    /// Sets whether a user may do everything in every domain.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub async fn set_platform_admin(
        &self,
        user: &UserRef,
        platform_admin: bool,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.set_platform_admin(user, platform_admin).await?).await)
    }

    /// Invites a user to set a password for self-service, for `life`, a week at most. The outcome holds
    /// the secret, which cannot be read again; earlier invitations stop working.
    ///
    /// # Errors
    ///
    /// If the user does not exist, or is disabled.
    pub async fn invite_user(
        &self,
        user: &UserRef,
        life: Duration,
    ) -> Result<Outcome<Invitation>, Error> {
        let secret = InvitationSecret::random()?;
        let life = life.min(LONGEST_INVITATION);
        let invited = self.store.invite_user(user, &secret.proof(), life).await?;
        Ok(self.complete(invited).await.map(|(email, expires_at)| Invitation {
            secret,
            email,
            expires_at,
        }))
    }

    /// Lists the sessions of a user in self-service that count, the latest first.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub async fn user_sessions(&self, user: &UserRef) -> Result<Vec<UserSession>, Error> {
        Ok(self.store.user_sessions(user).await?)
    }

    /// Ends all sessions of a user in self-service, and returns how many counted until then.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub async fn sign_out_user(&self, user: &UserRef) -> Result<Outcome<usize>, Error> {
        Ok(self.complete(self.store.sign_out(user).await?).await)
    }

    /// Deletes a user with all their tokens.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub async fn delete_user(&self, user: &UserRef) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.delete_user(user).await?).await)
    }
}
