//! Writes a bootstrap as the dump that a control plane's proxy would show: listeners by LDS, routes by
//! RDS, clusters by CDS, endpoints by EDS.

use serde_json::{Value, json};

pub fn of(bootstrap: &Value) -> Value {
    let mut bootstrap = bootstrap.clone();
    let resources = bootstrap.as_object_mut().unwrap().remove("static_resources").unwrap();
    let mut tables = Vec::new();
    let mut listeners = Vec::new();
    for (number, mut listener) in
        resources["listeners"].as_array().unwrap().iter().cloned().enumerate()
    {
        let default = listener.get_mut("default_filter_chain").map(|chain| {
            by_rds(chain, &format!("table-{number}-default"), &mut tables);
        });
        if default.is_none() {
            let chains = listener["filter_chains"].as_array_mut().unwrap();
            for (at, chain) in chains.iter_mut().enumerate() {
                by_rds(chain, &format!("table-{number}-{at}"), &mut tables);
            }
        }
        listeners
            .push(json!({ "name": listener["name"], "active_state": { "listener": listener } }));
    }
    let mut clusters = Vec::new();
    let mut endpoints = Vec::new();
    for mut cluster in resources["clusters"].as_array().unwrap().iter().cloned() {
        if cluster["type"] == "STATIC" {
            let mut assigned = cluster.as_object_mut().unwrap().remove("load_assignment").unwrap();
            assigned["cluster_name"] = cluster["name"].clone();
            endpoints.push(json!({ "endpoint_config": assigned }));
        }
        clusters.push(json!({ "cluster": cluster }));
    }
    json!({ "configs": [
        { "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": bootstrap },
        { "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "dynamic_active_clusters": clusters },
        { "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump", "dynamic_endpoint_configs": endpoints },
        { "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": listeners },
        { "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": tables },
    ] })
}

fn by_rds(chain: &mut Value, name: &str, tables: &mut Vec<Value>) {
    let config = &mut chain["filters"][0]["typed_config"];
    let Some(mut table) = config.as_object_mut().unwrap().remove("route_config") else { return };
    table["name"] = name.into();
    tables.push(json!({ "route_config": table }));
    config["rds"] = json!({ "route_config_name": name, "config_source": { "ads": {} } });
}
