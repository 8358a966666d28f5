//! Reads what an Envoy was told, finds the filters that ask patgate, and names what is unsafe, wrong or
//! slow. It does no I/O: a configuration comes in as a JSON value, and a report comes out.
//!
//! In reading order: [`model`] reads a bootstrap file or a dump of the admin interface; `authorizer`
//! finds patgate in it by what a filter is and how it is set, never by a name; `view` says for each
//! filter chain which filters ask, which guard stands, and which routes a request can take unasked;
//! [`rules`] are the findings; [`routes`] lists every route with what happens on it; [`report`] writes
//! both.

mod authorizer;
mod exception;
mod guard;
mod headers;
mod matcher;
pub mod model;
mod releases;
pub mod report;
pub mod routes;
pub mod rules;
mod value;
mod view;

use serde_json::Value;

pub use self::{
    model::{NotEnvoy, Proxy},
    report::Report,
    rules::Severity,
};

/// What the caller knows and the configuration does not say.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Where patgate listens, as `HOST:PORT` or `unix:PATH`. Without it, patgate is found by how the
    /// filters are set.
    pub authorizer: Option<String>,
}

/// Examines the configuration of one Envoy: a bootstrap, or a dump of its admin interface.
///
/// # Errors
///
/// Returns [`NotEnvoy`] if the value is neither.
pub fn examine(configuration: &Value, hints: &Hints) -> Result<Report, NotEnvoy> {
    let proxy = Proxy::read(configuration)?;
    let context = view::Context::new(&proxy, hints);
    let findings = rules::apply(&context);
    let routes = routes::list(&context);
    Ok(Report::new(&context, findings, routes))
}
