//! `patgate config check --connect`: reports whether the services that the settings name can be used.
//!
//! Each probe tries one service as `patgate serve` does, and reports what it found. A new probe is a
//! function in a module below and a line in [`findings`].

mod keyring;
mod postgres;
mod redis;
mod self_service;

use std::{pin::pin, time::Duration};

use serde::Serialize;
use tokio::time::timeout;

use crate::{
    cli::output::{Output, complain},
    config::{Config, ConfigPurpose},
};

/// Services that are well answer within this time. After it, the command says that it still tries.
const UNUSUAL: Duration = Duration::from_secs(3);
const SLOW: &str = "still trying: a service does not answer; this can take 40 seconds";

/// Whether a service can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProbeResult {
    /// It can be used.
    Ok,
    /// It can be used, and something about it will cause problems.
    Warning,
    /// It cannot be used.
    Failed,
    /// It is not configured.
    Off,
}

/// What a probe found, with the reason.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// The setting that was tried, such as `postgres.url`.
    pub(super) key: &'static str,
    pub(super) outcome: ProbeResult,
    pub(super) detail: String,
}

/// At least one service cannot be used. The findings say which.
#[derive(Debug, thiserror::Error)]
#[error("cannot be used as configured: {0}")]
pub(super) struct Unusable(String);

/// Runs all probes and prints what they found.
///
/// # Errors
///
/// If a service that is configured cannot be used.
pub(super) async fn run(
    config: &Config,
    purpose: ConfigPurpose,
    out: Output,
) -> anyhow::Result<()> {
    let mut probes = pin!(findings(config, purpose));
    let findings = match timeout(UNUSUAL, &mut probes).await {
        Ok(findings) => findings,
        Err(_) => {
            complain(SLOW);
            probes.await
        }
    };
    out.list(
        &findings,
        &[
            ("KEY", |finding| finding.key.to_owned()),
            ("RESULT", |finding| format!("{:?}", finding.outcome).to_lowercase()),
            ("DETAIL", |finding| finding.detail.clone()),
        ],
    )?;
    let failed: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.outcome == ProbeResult::Failed)
        .map(|finding| finding.key)
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(Unusable(failed.join(", ")).into()) }
}

/// Runs the probes one after the other, so that an operator sees which one is slow.
async fn findings(config: &Config, purpose: ConfigPurpose) -> Vec<Finding> {
    if purpose == ConfigPurpose::SelfService {
        let (postgres, installation) = self_service::probe(config).await;
        let redis = redis::find(config, purpose, installation).await;
        return vec![postgres, redis, self_service::key_ring(config)];
    }
    let (postgres, installation) = postgres::probe(config, purpose).await;
    let mut findings = Vec::from(postgres);
    findings.push(redis::find(config, purpose, installation).await);
    findings.push(keyring::find(config).await);
    findings
}

impl Finding {
    pub(super) fn ok(key: &'static str, detail: impl ToString) -> Self {
        Self { key, outcome: ProbeResult::Ok, detail: detail.to_string() }
    }

    pub(super) fn warning(key: &'static str, detail: impl ToString) -> Self {
        Self { key, outcome: ProbeResult::Warning, detail: detail.to_string() }
    }

    pub(super) fn failed(key: &'static str, detail: impl ToString) -> Self {
        Self { key, outcome: ProbeResult::Failed, detail: detail.to_string() }
    }

    pub(super) fn off(key: &'static str, detail: impl ToString) -> Self {
        Self { key, outcome: ProbeResult::Off, detail: detail.to_string() }
    }
}
