//! Signing in and out.

use std::{fmt, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::SET_COOKIE},
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::input::Body;
use crate::{
    admin::web::{CurrentSession, Error, Password},
    web::{
        Site, cookie,
        problem::Problem,
        visit::{ApiCaller, Visit},
    },
};

/// Who signs in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    /// The other names are SuperMQ's.
    #[serde(alias = "username", alias = "identity")]
    email: String,
    #[serde(alias = "secret")]
    password: SecretString,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

pub(super) async fn begin(
    State(site): State<Arc<Site>>,
    visit: Visit,
    Body(credentials): Body<Credentials>,
) -> Result<Response, Problem> {
    let _place = site.limits.password(visit.address)?;
    // What cannot be an address or a password is answered as a wrong one.
    let password: Result<Password, _> = credentials.password.expose_secret().parse();
    let (Ok(email), Ok(password)) = (credentials.email.parse(), password) else {
        return Err(Error::SignInFailed.into());
    };
    let begun = site.service.sign_in(&visit.origin, &email, &password).await?;
    let body = json!({
        "id": begun.session,
        "user_id": begun.user,
        "email": begun.email,
        "secret": begun.secret.expose().as_str(),
        "access_token": begun.secret.expose().as_str(),
    });
    let cookie = cookie::give(&site.settings.url, &begun.secret);
    Ok((StatusCode::CREATED, [(SET_COOKIE, cookie)], Json(body)).into_response())
}

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
) -> Result<Json<CurrentSession>, Problem> {
    Ok(Json(site.service.session(&caller).await?))
}

pub(super) async fn end(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
) -> Result<Response, Problem> {
    site.service.sign_out(&caller).await?;
    let cookie = cookie::take(&site.settings.url);
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

pub(super) async fn end_all(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
) -> Result<Response, Problem> {
    site.service.sign_out_everywhere(&caller).await?;
    let cookie = cookie::take(&site.settings.url);
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}
