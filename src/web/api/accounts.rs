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

use super::input::Body;
use crate::{
    admin::web::{Error, InvitationSecret, Invitee, Password},
    web::{
        Site, cookie,
        problem::Problem,
        visit::{ApiCaller, Visit},
    },
};

/// Sets the password of the user who was invited.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Acceptance {
    code: SecretString,
    password: SecretString,
}

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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    present: SecretString,
    password: SecretString,
}

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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmation {
    password: SecretString,
}

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
