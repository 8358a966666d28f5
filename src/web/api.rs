//! The API: JSON in, JSON out, and problems.

mod pats;
mod sessions;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};

use super::Site;

pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route("/sessions", post(sessions::begin))
        .route("/session", get(sessions::show).delete(sessions::end))
        .route("/pats", get(pats::list))
}
