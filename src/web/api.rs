//! The API: JSON in, JSON out, and problems.

mod accounts;
mod input;
mod pats;
mod sessions;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, patch, post},
};

use super::Site;

pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route("/invitation", post(accounts::accept))
        .route("/sessions", post(sessions::begin).delete(sessions::end_all))
        .route("/session/elevation", post(accounts::elevate).delete(accounts::lower))
        .route("/session/password", post(accounts::change))
        .route("/session", get(sessions::show).delete(sessions::end))
        // The name that SuperMQ has for the same.
        .route("/users/tokens/issue", post(sessions::begin))
        .route("/pats", get(pats::list).post(pats::create))
        .route("/pats/{id}", get(pats::show).delete(pats::delete))
        .route("/pats/{id}/name", patch(pats::rename))
        .route("/pats/{id}/description", patch(pats::describe))
        .route("/pats/{id}/secret/reset", patch(pats::reset))
        .route("/pats/{id}/secret/revoke", patch(pats::revoke))
        .route("/pats/{id}/scope", get(pats::scopes).delete(pats::clear_scopes))
        .route("/pats/{id}/scope/add", patch(pats::add_scopes))
        .route("/pats/{id}/scope/remove", patch(pats::remove_scopes))
}
