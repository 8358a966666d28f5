//! Which bodies are shown, and how much of one Envoy can hold.

use serde_json::Value;

use super::{Asker, View};
use crate::{
    model::{Host, Route, Target},
    value::Read,
};

/// The limit of a connection's buffer if a listener sets none, in bytes.
const DEFAULT_BUFFER: u64 = 1 << 20;

impl View<'_> {
    /// The limit for a body that Envoy can hold on a route, in bytes.
    pub(crate) fn buffer(&self, host: &Host, route: &Route) -> u64 {
        let fields = ["request_body_buffer_limit", "per_request_buffer_limit_bytes"];
        let of = |config: &Value| fields.iter().find_map(|field| config.number(field));
        of(&route.config)
            .or_else(|| of(&host.config))
            .or_else(|| self.listener.config.number("per_connection_buffer_limit_bytes"))
            .unwrap_or(DEFAULT_BUFFER)
    }

    /// The largest of these limits.
    pub(crate) fn largest_buffer(&self) -> u64 {
        let routes = self.routes().filter(|(_, route)| !matches!(route.target, Target::Answer(_)));
        routes.map(|(host, route)| self.buffer(host, route)).max().unwrap_or(DEFAULT_BUFFER)
    }

    /// The settings by which a filter shows bodies on a route. `None` if it shows none.
    pub(crate) fn shown(&self, asker: &Asker<'_>, host: &Host, route: &Route) -> Option<Value> {
        let settings = route.per_filter(&asker.filter.name, host, &self.http.table_config, None);
        let check = settings.map(|settings| settings.config.at("check_settings").clone());
        let check = check.unwrap_or_default();
        if check.is_on("disable_request_body_buffering") {
            return None;
        }
        let own = check.at("with_request_body");
        let shown = if own.is_object() { own } else { asker.filter.config.at("with_request_body") };
        shown.is_object().then(|| shown.clone())
    }

    /// Whether it shows a body on any route.
    pub(crate) fn shows_bodies(&self) -> bool {
        self.askers.iter().any(|asker| {
            self.routes().any(|(host, route)| self.shown(asker, host, route).is_some())
        })
    }
}
