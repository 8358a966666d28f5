//! Passwords of local accounts: set with an invitation, changed, and proven again.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::SET_COOKIE},
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{forms, input::Body};
use crate::{
    admin::web::{Error, InvitationSecret, Invitee, Password},
    web::{
        Site, cookie,
        problem::Problem,
        visit::{ApiCaller, Visit},
    },
};

/// Sets the password of the user who was invited.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Acceptance {
    #[schema(value_type = String, format = Password)]
    code: SecretString,
    #[schema(value_type = forms::Password)]
    password: SecretString,
}

/// Sets the password of the user who was invited.
#[utoipa::path(
    post, path = "/invitation", tag = "sessions", security(()), request_body = Acceptance,
    responses((status = OK, body = Invitee), (status = NOT_FOUND))
)]
pub(super) async fn accept(
    State(site): State<Arc<Site>>,
    visit: Visit,
    Body(acceptance): Body<Acceptance>,
) -> Result<Json<Invitee>, Problem> {
    let _place = site.limits.password(visit.address)?;
    let code = InvitationSecret::parse(acceptance.code.expose_secret().trim());
    let unknown = || Problem::not_found("the invitation does not exist, was used or has expired");
    let code = code.ok_or_else(unknown)?;
    let password = new(&acceptance.password)?;
    Ok(Json(site.service.accept_invitation(&visit.origin, &code, &password).await?))
}

/// Replaces the caller's password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    #[schema(value_type = String, format = Password)]
    present: SecretString,
    #[schema(value_type = forms::Password)]
    password: SecretString,
}

/// Replaces the caller's password, and ends all their sessions.
#[utoipa::path(
    post, path = "/session/password", tag = "sessions", request_body = Change,
    responses((status = NO_CONTENT))
)]
pub(super) async fn change(
    State(site): State<Arc<Site>>,
    visit: Visit,
    ApiCaller(caller): ApiCaller,
    Body(change): Body<Change>,
) -> Result<Response, Problem> {
    let _place = site.limits.password(visit.address)?;
    let password = new(&change.password)?;
    let present = present(&change.present)?;
    site.service.change_password(&caller, &present, &password).await?;
    let cookie = cookie::take(&site.settings.url);
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// Proves the caller's password again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmation {
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// Proves the password again, for the rights of a platform administrator.
#[utoipa::path(
    post, path = "/session/elevation", tag = "sessions", request_body = Confirmation,
    responses((status = NO_CONTENT))
)]
pub(super) async fn elevate(
    State(site): State<Arc<Site>>,
    visit: Visit,
    ApiCaller(caller): ApiCaller,
    Body(confirmation): Body<Confirmation>,
) -> Result<StatusCode, Problem> {
    let _place = site.limits.password(visit.address)?;
    let password = present(&confirmation.password)?;
    site.service.elevate(&caller, &password).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives these rights back.
#[utoipa::path(
    delete, path = "/session/elevation", tag = "sessions", responses((status = NO_CONTENT))
)]
pub(super) async fn lower(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
) -> Result<StatusCode, Problem> {
    site.service.lower(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn new(text: &SecretString) -> Result<Password, Problem> {
    let read = text.expose_secret().parse();
    read.map_err(|error| Problem::invalid(format!("`password`: {error}")))
}

/// What cannot be a password is answered as a wrong one.
fn present(text: &SecretString) -> Result<Password, Problem> {
    text.expose_secret().parse().map_err(|_| Error::SignInFailed.into())
}
