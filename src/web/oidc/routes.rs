//! The way of a browser to the provider and back.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::{
    Attempt, Provider,
    attempt::LONGEST,
    stop::{declined, no_provider, no_sign_out, not_accepted, not_begun, of_error, of_failure},
};
use crate::{
    admin::web::{ProviderSignIn, SignedIn},
    web::{
        Site, cookie,
        page::{self, Fault},
        problem::Problem,
        visit::Visit,
    },
};

/// Where a sign-in by the provider begins.
pub(in crate::web) const PATH: &str = "/sign-in/provider";
/// Where the provider offers to sign out there, too. It asks the user, so it matters not who sends the
/// browser there.
pub(in crate::web) const SIGN_OUT_PATH: &str = "/sign-out/provider";
/// Where the provider sends the browser back. It must be registered there.
pub(super) const CALLBACK: &str = "/sign-in/callback";

pub(in crate::web) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route(PATH, get(begin))
        .route(CALLBACK, get(finish))
        .route(SIGN_OUT_PATH, get(leave))
}

/// The provider's answer, as the browser brings it. Other parameters mean nothing here; one of these
/// twice is an error.
#[derive(Deserialize)]
struct Answer {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

async fn begin(State(site): State<Arc<Site>>, visit: Visit) -> Result<Response, Fault> {
    let provider = site.provider.as_ref().ok_or_else(no_provider)?;
    let _place = site.limits.sign_in(visit.address)?;
    let issuer = provider.issuer();
    if !site.service.knows_provider(issuer).await? {
        tracing::warn!(issuer, "the provider is disabled, or `patgate provider add` is missing");
        return Err(no_provider().into());
    }
    let departure = provider.depart().await?;
    let location = HeaderValue::try_from(departure.location).map_err(|_| not_accepted())?;
    let cookie = cookie::give_sign_in(&site.settings.url, &departure.cookie, LONGEST);
    Ok((StatusCode::FOUND, [(header::LOCATION, location), (header::SET_COOKIE, cookie)])
        .into_response())
}

async fn leave(State(site): State<Arc<Site>>, visit: Visit) -> Result<Response, Fault> {
    let provider = site.provider.as_ref().ok_or_else(no_provider)?;
    let _place = site.limits.sign_in(visit.address)?;
    let location = provider.sign_out_url().await?.ok_or_else(no_sign_out)?;
    let location = HeaderValue::try_from(location).map_err(|_| not_accepted())?;
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
}

async fn finish(
    State(site): State<Arc<Site>>,
    visit: Visit,
    headers: HeaderMap,
    answer: Result<Query<Answer>, QueryRejection>,
) -> Result<Response, Fault> {
    let provider = site.provider.as_ref().ok_or_else(no_provider)?;
    let _place = site.limits.sign_in(visit.address)?;
    let Query(answer) = answer.map_err(|_| not_begun())?;
    let url = &site.settings.url;
    let attempt = cookie::sign_in(url, &headers).and_then(|cookie| provider.attempt(cookie));
    let attempt = attempt.ok_or_else(not_begun)?;
    if !answer.state.as_deref().is_some_and(|state| attempt.has_state(state)) {
        return Err(not_begun().into());
    }
    // From here on, the attempt is over, whatever comes of it.
    let outcome = async {
        let by = whom(provider, &attempt, &answer).await?;
        site.service.sign_in_by_provider(&visit.origin, &by).await.map_err(of_error)
    };
    let mut response = match outcome.await {
        Ok(SignedIn { secret, .. }) => {
            let mut response = page::signed_in_elsewhere();
            response.headers_mut().append(header::SET_COOKIE, cookie::give(url, &secret));
            response
        }
        Err(problem) => Fault::from(problem).into_response(),
    };
    let headers = response.headers_mut();
    headers.append(header::SET_COOKIE, cookie::take_sign_in(url));
    // The address of this page has the code in it.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

async fn whom(
    provider: &Provider,
    attempt: &Attempt,
    answer: &Answer,
) -> Result<ProviderSignIn, Problem> {
    if !provider.answers_as(answer.iss.as_deref()).await.map_err(of_failure)? {
        tracing::warn!("an answer in the name of another provider is not accepted");
        return Err(not_accepted());
    }
    if let Some(error) = &answer.error {
        let error: String = error.chars().take(64).flat_map(char::escape_debug).collect();
        tracing::info!(error, "the provider has not signed a user in");
        return Err(declined());
    }
    let code = answer.code.as_deref().filter(|code| !code.is_empty()).ok_or_else(not_accepted)?;
    provider.signed_in(attempt, code).await.map_err(|failure| {
        tracing::warn!(%failure, "a sign-in by the provider failed");
        of_failure(failure)
    })
}
