//! What platform administrators do. Each call needs a session that was [elevated] lately.
//!
//! [elevated]: SelfService::elevate

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Caller, Error, InvitationSecret, LONGEST_INVITATION, SelfService,
    call::{call_by, change_by},
};
use crate::{
    admin::{
        BackendChanges, BackendKind, BackendName, BackendUrl, DisplayName, Invitation, ListedModel,
        NewModels, NewUser, Outcome, UserRef,
    },
    domain::{DomainRef, Slug},
    rollout::{DomainMode, Share},
};

/// A user.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct UserEntry {
    pub id: Uuid,
    pub email: String,
    pub name: String,
    pub enabled: bool,
    pub platform_admin: bool,
    #[schema(format = DateTime)]
    pub created_at: String,
    pub has_password: bool,
    pub live_tokens: u64,
}

/// A part of the list of users.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UserPage {
    /// How many users the whole list has.
    pub total: u64,
    /// Ordered by address.
    pub users: Vec<UserEntry>,
}

/// What to change about a user. An absent field does not change.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserEdit {
    /// Whether their tokens work and they can sign in.
    pub enabled: Option<bool>,
    /// Whether they may do everything in every domain.
    pub platform_admin: Option<bool>,
}

/// A domain.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the columns of patgate.domains")]
pub struct DomainEntry {
    pub id: Uuid,
    pub slug: String,
    pub name: String,
    pub enabled: bool,
    pub mode: String,
    pub enforced_share: i16,
    pub upstream: String,
    pub all_models: bool,
    #[schema(format = DateTime)]
    pub created_at: String,
    pub models: Vec<ModelEntry>,
}

/// A model that a domain lists.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ModelEntry {
    /// The name in requests, or a pattern of names.
    pub model: String,
    /// The backend that serves it.
    pub upstream: String,
}

/// A domain to create.
#[derive(Clone, Debug)]
pub struct NewSelfServiceDomain {
    /// Its name in paths.
    pub slug: Slug,
    /// What people call it.
    pub name: DisplayName,
    /// The backend that serves it unless a model has its own.
    pub upstream: BackendName,
    /// The models that it sees.
    pub models: NewModels,
}

/// What to change about a domain. An absent field does not change.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the columns of patgate.domains")]
pub struct DomainEdit {
    pub slug: Option<Slug>,
    pub enabled: Option<bool>,
    pub upstream: Option<BackendName>,
    pub mode: Option<DomainMode>,
    pub enforced_share: Option<Share>,
    /// Lets the domain see all models, and deletes its list.
    pub all_models: bool,
}

/// A backend.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the columns of patgate.backends")]
pub struct BackendEntry {
    pub name: String,
    pub url: String,
    pub kind: String,
    #[schema(format = DateTime)]
    pub created_at: String,
    /// The slugs of the domains that use it, in order.
    pub domains: Vec<String>,
}

#[derive(Deserialize)]
struct Made {
    id: Uuid,
}

#[derive(Deserialize)]
struct Invited {
    email: String,
    expires_at: String,
}

impl SelfService {
    /// Lists users, by address. `part` occurs in their address or name.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsElevation`], [`Error::NotPermitted`], as for every call here.
    pub async fn users(
        &self,
        caller: &Caller,
        part: Option<&str>,
        offset: u32,
        limit: u32,
    ) -> Result<UserPage, Error> {
        self.ask(|| {
            call_by(caller, "SELECT patgate.web_users($1, $2, $3, $4)")
                .bind(part.map(str::to_owned))
                .bind(i64::from(offset))
                .bind(i64::from(limit))
        })
        .await
    }

    /// Creates a user, enabled, and returns their id.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] if another user has the address.
    pub async fn create_user(
        &self,
        caller: &Caller,
        new: &NewUser,
    ) -> Result<Outcome<Uuid>, Error> {
        let made = self
            .change::<Made>(|| {
                change_by(
                    caller,
                    "SELECT patgate.web_create_user($1, $2::text::inet, $3, $4, $5, $6)",
                )
                .bind(new.email.as_str().to_owned())
                .bind(new.name.as_str().to_owned())
                .bind(new.platform_admin)
            })
            .await?;
        Ok(made.map(|made| made.id))
    }

    /// Changes a user. Disabling one ends their sessions for good.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for the caller's own user.
    pub async fn update_user(
        &self,
        caller: &Caller,
        user: &UserRef,
        edit: UserEdit,
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(caller, "SELECT patgate.web_update_user($1, $2::text::inet, $3, $4, $5, $6)")
                .bind(user.to_string())
                .bind(edit.enabled)
                .bind(edit.platform_admin)
        })
        .await
    }

    /// Deletes a user with their tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for the caller's own user.
    pub async fn delete_user(&self, caller: &Caller, user: &UserRef) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(caller, "SELECT patgate.web_delete_user($1, $2::text::inet, $3, $4)")
                .bind(user.to_string())
        })
        .await
    }

    /// Invites a user to set a password, for `life`, a week at most. The outcome holds the secret, which
    /// cannot be read again.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the user does not exist.
    pub async fn invite(
        &self,
        caller: &Caller,
        user: &UserRef,
        life: Duration,
    ) -> Result<Outcome<Invitation>, Error> {
        let secret = InvitationSecret::random()?;
        let life = i64::try_from(life.min(LONGEST_INVITATION).as_micros()).unwrap_or(i64::MAX);
        let invited = self
            .change::<Invited>(|| {
                change_by(caller, "SELECT patgate.web_invite($1, $2::text::inet, $3, $4, $5, $6)")
                    .bind(user.to_string())
                    .bind(secret.proof())
                    .bind(life)
            })
            .await?;
        Ok(invited.map(|Invited { email, expires_at }| Invitation { secret, email, expires_at }))
    }

    /// Lists all domains, by slug.
    ///
    /// # Errors
    ///
    /// As for every call here.
    pub async fn domains(&self, caller: &Caller) -> Result<Vec<DomainEntry>, Error> {
        self.ask(|| call_by(caller, "SELECT patgate.web_domains($1)")).await
    }

    /// Creates a domain, enabled, with a role `admin` that holds every operation, and returns its id.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] if another domain has the slug.
    pub async fn create_domain(
        &self,
        caller: &Caller,
        new: &NewSelfServiceDomain,
    ) -> Result<Outcome<Uuid>, Error> {
        let listed: Option<Vec<String>> = match &new.models {
            NewModels::All => None,
            NewModels::Listed(models) => {
                Some(models.iter().map(|model| model.as_str().to_owned()).collect())
            }
        };
        let made = self
            .change::<Made>(|| {
                change_by(
                    caller,
                    "SELECT patgate.web_create_domain($1, $2::text::inet, $3, $4, $5, $6, $7)",
                )
                .bind(new.slug.as_str().to_owned())
                .bind(new.name.as_str().to_owned())
                .bind(new.upstream.as_str().to_owned())
                .bind(listed.clone())
            })
            .await?;
        Ok(made.map(|made| made.id))
    }

    /// Changes a domain.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the domain or the backend does not exist.
    pub async fn update_domain(
        &self,
        caller: &Caller,
        domain: &DomainRef,
        edit: &DomainEdit,
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(
                caller,
                "SELECT patgate.web_update_domain(
                     $1, $2::text::inet, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(domain.to_string())
            .bind(edit.slug.as_ref().map(|slug| slug.as_str().to_owned()))
            .bind(edit.enabled)
            .bind(edit.upstream.as_ref().map(|name| name.as_str().to_owned()))
            .bind(edit.mode.map(|mode| mode.as_str()))
            .bind(edit.enforced_share.map(|share| i16::from(share.percent())))
            .bind(edit.all_models)
        })
        .await
    }

    /// Deletes a domain with its models, its roles and every scope in it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the domain does not exist.
    pub async fn delete_domain(
        &self,
        caller: &Caller,
        domain: &DomainRef,
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(caller, "SELECT patgate.web_delete_domain($1, $2::text::inet, $3, $4)")
                .bind(domain.to_string())
        })
        .await
    }

    /// Lets a domain see a model, served by a backend; without a backend, takes it off the list.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the domain, the backend or the model does not exist.
    pub async fn set_model(
        &self,
        caller: &Caller,
        domain: &DomainRef,
        model: &ListedModel,
        upstream: Option<&BackendName>,
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(caller, "SELECT patgate.web_set_model($1, $2::text::inet, $3, $4, $5, $6)")
                .bind(domain.to_string())
                .bind(model.as_str().to_owned())
                .bind(upstream.map(|name| name.as_str().to_owned()))
        })
        .await
    }

    /// Lists all backends, by name. Their credentials are not shown, and cannot be set here.
    ///
    /// # Errors
    ///
    /// As for every call here.
    pub async fn backends(&self, caller: &Caller) -> Result<Vec<BackendEntry>, Error> {
        self.ask(|| call_by(caller, "SELECT patgate.web_backends($1)")).await
    }

    /// Creates a backend.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] if another backend has the name; [`Error::Invalid`] if none may have it.
    pub async fn create_backend(
        &self,
        caller: &Caller,
        name: &BackendName,
        url: &BackendUrl,
        kind: BackendKind,
    ) -> Result<Outcome<()>, Error> {
        let reserved = &self.rules.reserved;
        reserved.admit(name).map_err(|error| Error::Invalid(error.to_string()))?;
        self.set_backend(caller, true, name, Some(url), Some(kind)).await
    }

    /// Changes a backend in place.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it does not exist.
    pub async fn update_backend(
        &self,
        caller: &Caller,
        name: &BackendName,
        changes: &BackendChanges,
    ) -> Result<Outcome<()>, Error> {
        self.set_backend(caller, false, name, changes.url.as_ref(), changes.kind).await
    }

    /// Deletes a backend that no domain uses.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a domain uses it.
    pub async fn delete_backend(
        &self,
        caller: &Caller,
        name: &BackendName,
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(caller, "SELECT patgate.web_delete_backend($1, $2::text::inet, $3, $4)")
                .bind(name.as_str().to_owned())
        })
        .await
    }

    async fn set_backend(
        &self,
        caller: &Caller,
        creates: bool,
        name: &BackendName,
        url: Option<&BackendUrl>,
        kind: Option<BackendKind>,
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(
                caller,
                "SELECT patgate.web_set_backend($1, $2::text::inet, $3, $4, $5, $6, $7)",
            )
            .bind(creates)
            .bind(name.as_str().to_owned())
            .bind(url.map(|url| url.as_str().to_owned()))
            .bind(kind.map(BackendKind::as_str))
        })
        .await
    }
}
