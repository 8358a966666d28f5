//! The API: JSON in, JSON out, and problems.

mod accounts;
mod backends;
mod document;
mod domains;
mod forms;
mod input;
mod pats;
mod records;
mod roles;
mod scopes;
mod sessions;
mod users;

use std::sync::Arc;

use axum::{
    http::{HeaderValue, StatusCode, header::LOCATION},
    middleware,
    response::{IntoResponse, Response},
};

use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Site;
use crate::admin::Outcome;

pub(super) fn routes() -> OpenApiRouter<Arc<Site>> {
    // These take a query.
    let lists = OpenApiRouter::with_openapi(document::Api::openapi())
        .routes(routes!(pats::list))
        .routes(routes!(pats::scopes))
        .routes(routes!(users::list))
        .routes(routes!(domains::list))
        .routes(routes!(roles::list))
        .routes(routes!(backends::list))
        .routes(routes!(records::audit));
    let others = OpenApiRouter::default()
        .routes(routes!(document::openapi))
        .routes(routes!(accounts::accept))
        .routes(routes!(sessions::begin, sessions::end_all))
        .routes(routes!(accounts::elevate, accounts::lower))
        .routes(routes!(accounts::change))
        .routes(routes!(sessions::show, sessions::end))
        .routes(routes!(sessions::issue))
        .routes(routes!(pats::create))
        .routes(routes!(pats::show, pats::delete))
        .routes(routes!(pats::rename))
        .routes(routes!(pats::describe))
        .routes(routes!(pats::reset))
        .routes(routes!(pats::revoke))
        .routes(routes!(pats::clear_scopes))
        .routes(routes!(pats::add_scopes))
        .routes(routes!(pats::remove_scopes))
        .routes(routes!(records::grantable))
        .routes(routes!(users::create))
        .routes(routes!(users::update, users::delete))
        .routes(routes!(users::invite))
        .routes(routes!(domains::create))
        .routes(routes!(domains::show, domains::update, domains::delete))
        .routes(routes!(domains::set_model))
        .routes(routes!(domains::unset_model))
        .routes(routes!(roles::create))
        .routes(routes!(roles::show, roles::update, roles::delete))
        .routes(routes!(roles::add_member, roles::remove_member))
        .routes(routes!(backends::create))
        .routes(routes!(backends::show, backends::update, backends::delete))
        .route_layer(middleware::from_fn(input::without_query));
    lists.merge(others)
}

/// Takes the result of a change. The client's user can do nothing about a warning.
fn done<T>(outcome: Outcome<T>) -> T {
    for warning in &outcome.warnings {
        tracing::warn!(?warning, "a change of self-service is made, with a warning");
    }
    outcome.value
}

/// The answer to a request that has created the thing at a path, whose parts need no escapes.
fn created(path: &[&str], thing: impl IntoResponse) -> Response {
    let mut response = (StatusCode::CREATED, thing).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/api/{}", path.join("/"))) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
