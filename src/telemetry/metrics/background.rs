//! What patgate does besides checks: records of use, reloads of API tables, lines of the log, spans.

use prometheus_client::metrics::gauge::Gauge;

use super::{Metrics, Registrar};
use crate::telemetry::{
    closed::Results,
    logs,
    results::{LastUseResult, ReloadResult, SpanResult},
    traces::SpanCounters,
};

#[derive(Clone, Debug)]
pub(super) struct Background {
    last_uses: Results<LastUseResult>,
    api_reloads: Results<ReloadResult>,
    refused_tables: Gauge,
    spans: Results<SpanResult>,
}

impl Background {
    pub(super) fn new(to: &mut Registrar<'_>) -> Self {
        // The process has one log, and so one counter of its lines.
        to.registered("log_lines", "Log lines by result", logs::counts());
        let last_uses = Results::new();
        to.registered("last_used_writes", "Recorded uses of tokens by result", last_uses.family());
        let api_reloads = Results::new();
        to.registered(
            "api_reloads",
            "Changes of API tables by result: loaded or refused",
            api_reloads.family(),
        );
        let refused_tables = to.count(
            "api_tables_refused",
            "1 while the API tables on disk have an error, and earlier ones are in use",
        );
        let spans = Results::new();
        to.registered("spans", "Spans by what became of them", spans.family());
        Self { last_uses, api_reloads, refused_tables, spans }
    }
}

impl Metrics {
    pub(crate) fn last_uses(&self, result: LastUseResult, count: u64) {
        self.background.last_uses.of(result).inc_by(count);
    }

    /// Returns the counters of spans, by result.
    pub(in crate::telemetry) fn spans(&self) -> SpanCounters {
        let count = |result| self.background.spans.handle(result);
        SpanCounters {
            exported: count(SpanResult::Exported),
            failed: count(SpanResult::Failed),
            dropped: count(SpanResult::Dropped),
        }
    }

    pub(crate) fn reloaded_apis(&self, result: ReloadResult) {
        self.background.api_reloads.of(result).inc();
        self.background.refused_tables.set(i64::from(result == ReloadResult::Refused));
    }
}
