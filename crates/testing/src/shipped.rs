//! The configurations that are shipped in envoy/, to be changed by tests in one thing each.

use std::fs;

use serde_json::Value;

use crate::stack::project;

pub const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
/// The second of the two steps.
pub const WITH_BODY: &str = "patgate.with-body";
pub const GUARD: &str = "patgate.guard";

/// envoy/envoy.yaml.
pub fn shipped() -> Value {
    configuration("envoy.yaml")
}

/// A file of envoy/.
pub fn configuration(name: &str) -> Value {
    let text = fs::read_to_string(project(&format!("envoy/{name}"))).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// The HTTP connection manager of a listener.
pub fn manager(listener: &mut Value) -> &mut Value {
    &mut listener["filter_chains"][0]["filters"][0]["typed_config"]
}

/// The settings by which a connection manager asks patgate first.
pub fn ext_authz(manager: &mut Value) -> &mut Value {
    &mut find(&mut manager["http_filters"], EXT_AUTHZ)["typed_config"]
}

/// Every filter that asks patgate.
pub fn authorizers(manager: &mut Value) -> impl Iterator<Item = &mut Value> {
    let filters = manager["http_filters"].as_array_mut().unwrap().iter_mut();
    filters.filter(|filter| filter["name"] == EXT_AUTHZ || filter["name"] == WITH_BODY)
}

/// The one of that name.
pub fn find<'v>(list: &'v mut Value, name: &str) -> &'v mut Value {
    let items = list.as_array_mut().unwrap();
    items.iter_mut().find(|item| item["name"] == name).unwrap()
}
