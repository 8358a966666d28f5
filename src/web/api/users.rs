//! Users, for platform administrators.

use std::time::Duration;

use axum::{Json, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    created, done, forms,
    input::{Body, Named, Parameters, Part, Signed, parsed, present, read},
};
use crate::{
    admin::{
        NewUser, UserRef,
        web::{LONGEST_INVITATION, UserEdit, UserEntry},
    },
    web::problem::Problem,
};

/// How long an invitation works if the request does not say.
const INVITATION: Duration = Duration::from_secs(24 * 60 * 60);

/// The user that the path names, by address or id.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfUser {
    #[serde(deserialize_with = "parsed")]
    #[param(value_type = forms::UserName, inline)]
    user: UserRef,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct UsersQuery {
    #[serde(default)]
    #[param(maximum = 4294967295_u32)]
    offset: u32,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// A part of the address or the name.
    name: Option<String>,
}

/// A part of the list of users.
#[derive(Serialize, ToSchema)]
pub(super) struct Users {
    total: u64,
    offset: u32,
    limit: u32,
    users: Vec<UserEntry>,
}

/// Lists users, by address.
#[utoipa::path(
    get, path = "/users", tag = "users", params(UsersQuery),
    responses((status = OK, body = Users), (status = FORBIDDEN))
)]
pub(super) async fn list(
    Signed { site, caller }: Signed,
    Parameters(query): Parameters<UsersQuery>,
) -> Result<Json<Users>, Problem> {
    let Part { offset, limit } = Part::read(query.offset, query.limit)?;
    let page = site.service.users(&caller, query.name.as_deref(), offset, limit).await?;
    Ok(Json(Users { total: page.total, offset, limit, users: page.users }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserInput {
    #[schema(value_type = forms::Email)]
    email: String,
    #[schema(value_type = forms::DisplayName)]
    name: String,
    #[serde(default)]
    platform_admin: bool,
}

/// A user who has been created.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedUser {
    id: Uuid,
    /// In lower case.
    email: String,
}

/// Creates a user, enabled.
#[utoipa::path(
    post, path = "/users", tag = "users", request_body = UserInput,
    responses((status = CREATED, body = CreatedUser))
)]
pub(super) async fn create(
    Signed { site, caller }: Signed,
    Body(new): Body<UserInput>,
) -> Result<Response, Problem> {
    let new = NewUser {
        email: read("email", &new.email)?,
        name: read("name", &new.name)?,
        platform_admin: new.platform_admin,
    };
    let id = done(site.service.create_user(&caller, &new).await?);
    let user = CreatedUser { id, email: new.email.to_string() };
    Ok(created(&["users", &id.to_string()], Json(user)))
}

/// What to change about a user.
#[derive(Deserialize, ToSchema)]
#[schema(min_properties = 1)]
#[serde(deny_unknown_fields)]
pub(super) struct UserChanges {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    platform_admin: Option<bool>,
}

/// Enables or disables a user, gives or takes the rights of a platform administrator.
#[utoipa::path(
    patch, path = "/users/{user}", tag = "users", params(OfUser), request_body = UserChanges,
    responses((status = NO_CONTENT))
)]
pub(super) async fn update(
    Signed { site, caller }: Signed,
    Named(OfUser { user }): Named<OfUser>,
    Body(changes): Body<UserChanges>,
) -> Result<StatusCode, Problem> {
    let UserChanges { enabled, platform_admin } = changes;
    if enabled.is_none() && platform_admin.is_none() {
        return Err(Problem::no_change("`enabled` or `platform_admin`"));
    }
    done(site.service.update_user(&caller, &user, UserEdit { enabled, platform_admin }).await?);
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a user with their tokens.
#[utoipa::path(
    delete, path = "/users/{user}", tag = "users", params(OfUser),
    responses((status = NO_CONTENT))
)]
pub(super) async fn delete(
    Signed { site, caller }: Signed,
    Named(OfUser { user }): Named<OfUser>,
) -> Result<StatusCode, Problem> {
    done(site.service.delete_user(&caller, &user).await?);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InvitationInput {
    /// How long it works, such as `12h`; 7 days at most.
    #[schema(value_type = Option<forms::InvitationLife>)]
    duration: Option<String>,
}

/// An invitation to set a password.
#[derive(Serialize, ToSchema)]
pub(super) struct InvitationShown {
    email: String,
    #[schema(format = DateTime)]
    expires_at: String,
    /// Where the user enters the code. Links are logged, so the code is not part of it.
    link: String,
    /// Works once, and is shown only here.
    code: String,
}

/// Invites a user to set a password. Earlier invitations stop working.
#[utoipa::path(
    post, path = "/users/{user}/invitation", tag = "users", params(OfUser),
    request_body = InvitationInput, responses((status = OK, body = InvitationShown))
)]
pub(super) async fn invite(
    Signed { site, caller }: Signed,
    Named(OfUser { user }): Named<OfUser>,
    Body(input): Body<InvitationInput>,
) -> Result<Json<InvitationShown>, Problem> {
    let life = match input.duration.as_deref() {
        None => INVITATION,
        Some(text) => humantime::parse_duration(text)
            .ok()
            .filter(|life| (Duration::from_secs(1)..=LONGEST_INVITATION).contains(life))
            .ok_or_else(|| {
                Problem::invalid("`duration` must be from `1s` to `7d`, such as `12h`")
            })?,
    };
    let invitation = done(site.service.invite(&caller, &user, life).await?);
    Ok(Json(InvitationShown {
        link: format!("{}/invitation", site.settings.url.origin()),
        code: invitation.secret.expose().to_string(),
        email: invitation.email,
        expires_at: invitation.expires_at,
    }))
}
