//! Signing in and out.

use std::{fmt, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest as _, Request, State},
    http::{StatusCode, header::SET_COOKIE},
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::input::Body;
use crate::{
    admin::web::{CurrentSession, Error, Password, SignedIn},
    web::{
        Site, cookie,
        problem::Problem,
        visit::{ApiCaller, Visit, bearer, is_jwt},
    },
};

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    /// The other names are SuperMQ's.
    #[serde(alias = "username", alias = "identity")]
    #[schema(example = "ann@example.com")]
    email: String,
    #[serde(alias = "secret")]
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// Who signs in, with the names that SuperMQ's clients send.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SuperMqCredentials {
    #[serde(alias = "email", alias = "identity")]
    #[schema(example = "ann@example.com")]
    username: String,
    #[serde(alias = "secret")]
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Signs in. The answer sets the cookie of the session.
///
/// With an access token of a provider as `Authorization: Bearer`, the request has no body, and the
/// answer no cookie.
#[utoipa::path(
    post, path = "/sessions", tag = "sessions", security(()), request_body = Credentials,
    responses((status = CREATED, body = Begun), (status = UNAUTHORIZED))
)]
pub(super) async fn begin(
    State(site): State<Arc<Site>>,
    visit: Visit,
    request: Request,
) -> Result<Response, Problem> {
    if let Some(token) = bearer(request.headers()).filter(|token| is_jwt(token)) {
        let token = Zeroizing::new(token.to_owned());
        let body = Bytes::from_request(request, &site).await;
        if body.map_or(true, |body| !body.is_empty()) {
            let detail = "a sign-in with an access token has no body";
            return Err(Problem::invalid(detail));
        }
        return by_access_token(&site, &visit, &token).await;
    }
    let Body(credentials): Body<Credentials> = Body::from_request(request, &site).await?;
    sign_in(&site, &visit, &credentials).await
}

/// Signs in, under the name that SuperMQ has for it.
#[utoipa::path(
    post, path = "/users/tokens/issue", tag = "sessions", security(()),
    request_body = SuperMqCredentials,
    responses((status = CREATED, body = Begun), (status = UNAUTHORIZED))
)]
pub(super) async fn issue(
    State(site): State<Arc<Site>>,
    visit: Visit,
    Body(credentials): Body<SuperMqCredentials>,
) -> Result<Response, Problem> {
    let SuperMqCredentials { username: email, password } = credentials;
    sign_in(&site, &visit, &Credentials { email, password }).await
}

/// A session that has begun.
#[derive(Serialize, ToSchema)]
struct Begun {
    id: Uuid,
    user_id: Uuid,
    email: String,
    /// For `Authorization: Bearer`, in place of the cookie.
    secret: String,
    /// The same, as SuperMQ's clients look for it.
    access_token: String,
}

async fn sign_in(
    site: &Site,
    visit: &Visit,
    credentials: &Credentials,
) -> Result<Response, Problem> {
    let _place = site.limits.password(visit.address)?;
    // What cannot be an address or a password is answered as a wrong one.
    let password: Result<Password, _> = credentials.password.expose_secret().parse();
    let (Ok(email), Ok(password)) = (credentials.email.parse(), password) else {
        return Err(Error::SignInFailed.into());
    };
    let begun = site.service.sign_in(&visit.origin, &email, &password).await?;
    let cookie = cookie::give(&site.settings.url, &begun.secret);
    Ok((StatusCode::CREATED, [(SET_COOKIE, cookie)], shown(&begun)).into_response())
}

/// Begins a session for a program, which needs no cookie.
async fn by_access_token(site: &Site, visit: &Visit, token: &str) -> Result<Response, Problem> {
    let Some(provider) = site.provider.as_ref().filter(|it| it.takes_access_tokens()) else {
        return Err(Problem::not_exchanged(false));
    };
    let _place = site.limits.sign_in(visit.address)?;
    let by = provider.owner_of(token).await?;
    let begun = site.service.sign_in_by_provider(&visit.origin, &by).await;
    let begun = begun.map_err(|error| {
        let is_unknown = matches!(error, Error::SignInFailed);
        let mut problem = Problem::from(error);
        if is_unknown {
            problem.detail =
                "the subject of the access token is no user's here; ask an administrator \
                              to link it"
                    .to_owned();
        }
        problem
    })?;
    Ok((StatusCode::CREATED, shown(&begun)).into_response())
}

fn shown(begun: &SignedIn) -> Json<Begun> {
    Json(Begun {
        id: begun.session,
        user_id: begun.user,
        email: begun.email.clone(),
        secret: begun.secret.expose().to_string(),
        access_token: begun.secret.expose().to_string(),
    })
}

/// Shows the session.
#[utoipa::path(
    get, path = "/session", tag = "sessions", responses((status = OK, body = CurrentSession))
)]
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
) -> Result<Json<CurrentSession>, Problem> {
    Ok(Json(site.service.session(&caller).await?))
}

/// Signs out.
#[utoipa::path(
    delete, path = "/session", tag = "sessions", responses((status = NO_CONTENT))
)]
pub(super) async fn end(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
) -> Result<Response, Problem> {
    site.service.sign_out(&caller).await?;
    let cookie = cookie::take(&site.settings.url);
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// Ends all sessions of the caller's user.
#[utoipa::path(
    delete, path = "/sessions", tag = "sessions", responses((status = NO_CONTENT))
)]
pub(super) async fn end_all(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
) -> Result<Response, Problem> {
    site.service.sign_out_everywhere(&caller).await?;
    let cookie = cookie::take(&site.settings.url);
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}
