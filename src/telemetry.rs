//! Logs, traces, and every metric by name.
//!
//! Label values come from closed sets: never a token, a user, a path or a model. Every series exists
//! from the start, at 0: a series that begins with its first event hides this event from
//! `increase()`, and an alert on it never fires.

mod at_scrape;
mod closed;
mod exposition;
mod histogram;
mod logs;
mod metrics;
pub(crate) mod outlet;
mod results;
mod traces;

pub(crate) use self::{
    at_scrape::{show_bounds, show_readiness, show_success, show_watermark},
    exposition::{Exemplars, metrics_page},
    logs::{flush, last_words, replace_filter},
    metrics::RouteMetrics,
    results::{
        CanaryRound, EntryContent, FrameResult, HandshakeResult, LastUseResult, LookupResult,
        MetricResult, OwnCertificate, RecordResult, ReloadResult, RouteChange, RoutePart,
        SignInMethod, SignInResult, Store, TlsListener, WebRefusal,
    },
    traces::{CheckSpan, CheckSummary, LookupTrace, RoundTrip, StoreQuestion, Traces},
};
pub use self::{
    logs::init,
    metrics::{Metrics, SelfServiceMetrics},
    traces::TracesError,
};
