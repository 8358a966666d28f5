//! The shipped configurations in envoy/, and the changes that tests make to them.

use std::fs;

use serde_json::{Value, json};

use crate::stack::project;

pub const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
/// The second filter of the two steps.
pub const WITH_BODY: &str = "patgate.with-body";
pub const GUARD: &str = "patgate.guard";
/// The listener over TLS.
pub const HTTPS: &str = "https";

/// Returns envoy/envoy.yaml.
pub fn shipped() -> Value {
    configuration("envoy.yaml")
}

/// Returns a file of envoy/, without the listener over TLS: tests change the other one, and
/// tools/envoy_config.py puts a copy over TLS after it.
pub fn configuration(name: &str) -> Value {
    let mut config = whole(name);
    let listeners = config["static_resources"]["listeners"].as_array_mut().unwrap();
    listeners.retain(|listener| listener["name"] != HTTPS);
    assert_eq!(listeners.len(), 1);
    config
}

/// Returns a file of envoy/ as it is.
pub fn whole(name: &str) -> Value {
    let text = fs::read_to_string(project(&format!("envoy/{name}"))).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// The HTTP connection manager of a listener.
pub fn manager(listener: &mut Value) -> &mut Value {
    &mut listener["filter_chains"][0]["filters"][0]["typed_config"]
}

/// Returns the first filter of a connection manager that asks patgate.
pub fn ext_authz(manager: &mut Value) -> &mut Value {
    &mut find(&mut manager["http_filters"], EXT_AUTHZ)["typed_config"]
}

/// Returns every filter that asks patgate.
pub fn authorizers(manager: &mut Value) -> impl Iterator<Item = &mut Value> {
    let filters = manager["http_filters"].as_array_mut().unwrap().iter_mut();
    filters.filter(|filter| filter["name"] == EXT_AUTHZ || filter["name"] == WITH_BODY)
}

/// Returns the element with that name.
pub fn find<'v>(list: &'v mut Value, name: &str) -> &'v mut Value {
    let items = list.as_array_mut().unwrap();
    items.iter_mut().find(|item| item["name"] == name).unwrap()
}

/// Points this filter at a dead server, and lets every request through if it fails.
pub fn fail_open(filter: &mut Value) {
    let settings = &mut filter["typed_config"];
    settings["grpc_service"]["envoy_grpc"]["cluster_name"] = json!("nobody");
    settings["failure_mode_allow"] = json!(true);
}

pub fn switch_off_on_the_routes(manager: &mut Value, filters: &[&str]) {
    for route in routes(manager) {
        for filter in filters {
            route["typed_per_filter_config"][*filter] = json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                "disabled": true,
            });
        }
    }
}

pub fn routes(manager: &mut Value) -> impl Iterator<Item = &mut Value> {
    manager["route_config"]["virtual_hosts"][0]["routes"].as_array_mut().unwrap().iter_mut()
}

/// Leads every route to the same backend, whatever patgate names.
pub fn fix_the_routes(manager: &mut Value) {
    for route in routes(manager) {
        if let Some(to) = route.get_mut("route") {
            to.as_object_mut().unwrap().remove("cluster_header").unwrap();
            to["cluster"] = json!("model-acme");
        }
    }
}

pub fn unguard(manager: &mut Value) {
    let filters = manager["http_filters"].as_array_mut().unwrap();
    filters.retain(|filter| filter["name"] != GUARD);
}

/// Applies the changes to the route table that envoy/README.md documents for a rollout, in two
/// steps and in one. So the documented text is what is tested.
pub fn rollout_configurations() -> [String; 2] {
    let readme = fs::read_to_string(project("envoy/README.md")).unwrap();
    let section = readme.split_once("## Rolling out").unwrap().1.split_once("\n## ").unwrap().0;
    let mut blocks = section.split("```yaml\n").skip(1);
    let mut block = || blocks.next().unwrap().split_once("```").unwrap().0.trim_end().to_owned();
    let route = block();
    let shows_the_body = block();
    assert!(route.contains("cluster: old-gateway") && shows_the_body.starts_with("  typed_per"));
    [("envoy.yaml", ""), ("single-step.yaml", &*shows_the_body)].map(|(file, more)| {
        let lines = route.lines().chain(more.lines());
        let indented: String =
            lines.map(|line| format!("                        {line}\n")).collect();
        let shipped = fs::read_to_string(project(&format!("envoy/{file}"))).unwrap();
        let (before, after) = shipped.split_once("                      routes:\n").unwrap();
        format!("{before}                      routes:\n{indented}{after}")
    })
}
