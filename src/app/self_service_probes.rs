//! What probes of self-service are answered.

use std::{sync::Arc, time::Duration};

use axum::{Router, http::HeaderMap, routing::get};
use prometheus_client::registry::Registry;
use tokio::{sync::Mutex, time::timeout};

use super::Error;
use crate::{
    admin::web::{self, SelfService},
    clock::{self, Tick},
    server::{
        Missing, Readiness,
        http::{health_page, is_alive},
    },
    telemetry,
};

/// How long an answer of the database holds, so that probes are no load for it.
const HOLDS: Duration = Duration::from_secs(1);
/// Time limit for the database. Kubelets wait for 1 s unless they are told otherwise, and try again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether requests should be sent here. Clones are about the same process.
#[derive(Clone)]
pub(super) struct Probes {
    service: SelfService,
    readiness: Readiness,
    /// When the database last answered a probe, or did not. Held while one asks; others wait for what it
    /// learns.
    asked: Arc<Mutex<Option<Tick>>>,
}

impl Probes {
    /// Of a service whose database was just checked.
    pub(super) fn new(service: SelfService) -> Self {
        let readiness = Readiness::starting();
        readiness.started();
        Self { service, readiness, asked: Arc::default() }
    }

    /// Shows the latest answer among the metrics.
    pub(super) fn show_in(&self, registry: &mut Registry) {
        let readiness = self.readiness.clone();
        telemetry::show_readiness(registry, move || readiness.get().is_ok());
    }

    /// Answers from now on that no request should be sent here.
    pub(super) fn drain(&self) {
        self.readiness.drain();
    }

    /// Probes know no host name, and are not refused for a rate. `/livez` does not ask the database: no
    /// restart of this process brings one back.
    pub(super) fn routes(&self) -> Router {
        let probes = self.clone();
        Router::new().route("/livez", get(is_alive)).route(
            "/readyz",
            get(async move |headers: HeaderMap| health_page(probes.state().await, &headers)),
        )
    }

    async fn state(&self) -> Result<(), Vec<Missing>> {
        let mut asked = self.asked.lock().await;
        if asked.is_none_or(|at| clock::now().since(at) >= HOLDS) {
            self.ask().await;
            *asked = Some(clock::now());
        }
        self.readiness.get()
    }

    async fn ask(&self) {
        let answer = timeout(PATIENCE, self.service.ready()).await;
        let late = || web::Error::Unavailable(format!("no answer within {PATIENCE:?}"));
        match answer.unwrap_or_else(|_| Err(late())) {
            Ok(()) => {
                if self.readiness.lacks(Vec::new()) {
                    tracing::info!("ready again");
                }
            }
            Err(error) => {
                let error = Error::from(error);
                if self.readiness.lacks(vec![error.missing()]) {
                    // It may name hosts and logins.
                    tracing::warn!(%error, "not ready");
                }
            }
        }
    }
}
