//! Files that are read again while patgate serves: the key ring, and the settings that can change.

use prometheus_client::metrics::gauge::Gauge;

use super::{Metrics, Registrar};
use crate::telemetry::{closed::Results, results::ReloadResult};

/// What became of the changes of one kind of files.
#[derive(Clone, Debug)]
struct Reloaded {
    reloads: Results<ReloadResult>,
    /// An alert on a counter would end while the file still has an error.
    refused: Gauge,
}

impl Reloaded {
    fn count(&self, result: ReloadResult) {
        self.reloads.of(result).inc();
        self.refused.set(i64::from(result == ReloadResult::Refused));
    }
}

#[derive(Clone, Debug)]
pub(super) struct Reloads {
    ring: Reloaded,
    settings: Reloaded,
}

impl Reloads {
    pub(super) fn new(to: &mut Registrar<'_>) -> Self {
        let ring = Reloaded {
            reloads: Results::new(),
            refused: to.count(
                "key_ring_refused",
                "1 while the key ring on disk cannot be used, and the earlier one is in force",
            ),
        };
        to.registered(
            "key_ring_reloads",
            "Changes of the key ring by result: loaded or refused",
            ring.reloads.family(),
        );
        let settings = Reloaded {
            reloads: Results::new(),
            refused: to.count(
                "settings_refused",
                "1 while the settings on disk have an error, and earlier ones are in use",
            ),
        };
        to.registered(
            "settings_reloads",
            "Changes of settings while patgate serves by result: loaded or refused",
            settings.reloads.family(),
        );
        Self { ring, settings }
    }
}

impl Metrics {
    pub(crate) fn reloaded_ring(&self, result: ReloadResult) {
        self.reloads.ring.count(result);
    }

    pub(crate) fn reloaded_settings(&self, result: ReloadResult) {
        self.reloads.settings.count(result);
    }
}
