//! The HTTP server of self-service: an API and pages for people.
//!
//! Nothing here decides what anybody may do: each handler parses a request into types that cannot be
//! wrong, calls [`SelfService`], and words the answer. What a request must have passed before is in
//! `guard`: the right host, an origin that is ours, and a rate.

mod api;
mod cookie;
mod guard;
mod limits;
mod oidc;
mod page;
mod problem;
mod visit;

use std::sync::Arc;

use axum::{Router, http::Uri, middleware};

pub(crate) use self::oidc::Provider;
use self::{limits::Limits, problem::Problem};
use crate::{admin::web::SelfService, config::WebSettings, telemetry::SelfServiceMetrics};

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct Site {
    service: SelfService,
    settings: WebSettings,
    limits: Limits,
    /// Signs users in, besides local accounts; `None` if there is none.
    provider: Option<Provider>,
    metrics: SelfServiceMetrics,
}

impl Site {
    pub(crate) fn new(
        service: SelfService,
        settings: WebSettings,
        provider: Option<Provider>,
        metrics: SelfServiceMetrics,
    ) -> Self {
        let WebSettings { requests_per_second, sign_ins_per_minute, .. } = settings;
        let limits = Limits::new(requests_per_second, sign_ins_per_minute, metrics.clone());
        Self { service, settings, limits, provider, metrics }
    }
}

/// The routes of a site.
pub(crate) fn router(site: Site) -> Router {
    let site = Arc::new(site);
    Router::new()
        .nest("/api", api::routes().into())
        .merge(oidc::routes())
        .merge(page::routes())
        .fallback(async |uri: Uri| {
            problem::answer(Problem::not_found("there is nothing at this path"), uri.path())
        })
        .method_not_allowed_fallback(async |uri: Uri| {
            problem::answer(Problem::method_not_allowed(), uri.path())
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&site), guard::guard))
        .with_state(site)
}
