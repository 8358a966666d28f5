//! The API: JSON in, JSON out, and problems.

mod accounts;
mod backends;
mod domains;
mod input;
mod pats;
mod records;
mod roles;
mod scopes;
mod sessions;
mod users;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header::LOCATION},
    middleware,
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post, put},
};

use super::Site;
use crate::admin::Outcome;

pub(super) fn routes() -> Router<Arc<Site>> {
    let lists = Router::new()
        .route("/pats", get(pats::list))
        .route("/pats/{id}/scope", get(pats::scopes))
        .route("/users", get(users::list))
        .route("/domains", get(domains::list))
        .route("/domains/{domain}/roles", get(roles::list))
        .route("/backends", get(backends::list))
        .route("/audit", get(records::audit));
    let others = Router::new()
        .route("/invitation", post(accounts::accept))
        .route("/sessions", post(sessions::begin).delete(sessions::end_all))
        .route("/session/elevation", post(accounts::elevate).delete(accounts::lower))
        .route("/session/password", post(accounts::change))
        .route("/session", get(sessions::show).delete(sessions::end))
        // The name that SuperMQ has for the same.
        .route("/users/tokens/issue", post(sessions::begin))
        .route("/pats", post(pats::create))
        .route("/pats/{id}", get(pats::show).delete(pats::delete))
        .route("/pats/{id}/name", patch(pats::rename))
        .route("/pats/{id}/description", patch(pats::describe))
        .route("/pats/{id}/secret/reset", patch(pats::reset))
        .route("/pats/{id}/secret/revoke", patch(pats::revoke))
        .route("/pats/{id}/scope", delete(pats::clear_scopes))
        .route("/pats/{id}/scope/add", patch(pats::add_scopes))
        .route("/pats/{id}/scope/remove", patch(pats::remove_scopes))
        .route("/grantable", get(records::grantable))
        .route("/users", post(users::create))
        .route("/users/{user}", patch(users::update).delete(users::delete))
        .route("/users/{user}/invitation", post(users::invite))
        .route("/domains", post(domains::create))
        .route(
            "/domains/{domain}",
            get(domains::show).patch(domains::update).delete(domains::delete),
        )
        .route("/domains/{domain}/models/set", patch(domains::set_model))
        .route("/domains/{domain}/models/unset", patch(domains::unset_model))
        .route("/domains/{domain}/roles", post(roles::create))
        .route(
            "/domains/{domain}/roles/{role}",
            get(roles::show).patch(roles::update).delete(roles::delete),
        )
        .route(
            "/domains/{domain}/roles/{role}/members/{user}",
            put(roles::add_member).delete(roles::remove_member),
        )
        .route("/backends", post(backends::create))
        .route(
            "/backends/{backend}",
            get(backends::show).patch(backends::update).delete(backends::delete),
        )
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
