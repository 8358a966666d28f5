//! The real Envoy accepts the clusters, and refuses a broken copy of them.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, process::Command};

use patgate_routes::{Described, Gateway, Plan, ReservedNames, Rules, Target};
use serde_json::{Value, json};

fn clusters(authorities: Option<String>) -> Value {
    let described = |name: &str, url: &str, kind: &str| Described {
        name: name.into(),
        url: url.into(),
        kind: kind.into(),
    };
    let described = [
        described("model-acme", "http://10.20.0.7:8001", "vllm"),
        described("null", "http://model.svc.cluster.local", "ollama"),
        described("1e3", "http://[fd00:20::7]:8003", "openai"),
        described("a.b_c-", "https://api.example.org", "openai"),
        described(&"a_".repeat(31), "https://api.example.org:8443", "vllm"),
    ];
    let rules = Rules {
        networks: vec!["10.20.0.0/16".parse().unwrap(), "fd00:20::/32".parse().unwrap()],
        hosts: ["api.example.org:*", "http://*.svc.cluster.local"]
            .map(|host| host.parse().unwrap())
            .into(),
        reserved: ReservedNames::default(),
    };
    let plan = Plan::of(&described, &rules);
    assert_eq!(plan.backends().len(), described.len());
    let text = plan.file(&Target {
        gateway: Gateway::Envoy,
        namespace: String::new(),
        gateway_name: String::new(),
        listeners: Vec::new(),
        instance: "patgate".parse().unwrap(),
        installation: String::new(),
        authorities,
    });
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    // In the file, each says what it is; in a bootstrap, none does.
    let mut clusters = read["resources"].clone();
    for cluster in clusters.as_array_mut().unwrap() {
        cluster.as_object_mut().unwrap().remove("@type");
    }
    clusters
}

/// Returns what Envoy says against them, if it does.
fn refusal(name: &str, clusters: &Value) -> Option<String> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("routes-{name}.json"));
    fs::write(&file, json!({ "static_resources": { "clusters": clusters } }).to_string()).unwrap();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let ran = Command::new(project.join(".venv/bin/envoy"))
        .args(["--mode", "validate", "-l", "error", "--use-dynamic-base-id", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    (!ran.status.success()).then(|| String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[test]
fn envoy_accepts_the_clusters() {
    assert_eq!(refusal("system", &clusters(None)), None);
    let mut broken = clusters(None);
    broken[3]["health_checks"] = json!([{ "path": "/health" }]);
    assert!(refusal("broken", &broken).is_some());
}

#[test]
fn envoy_reads_the_authorities_that_the_operator_names() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let missing = clusters(Some(project.join("no-such-file.pem").display().to_string()));
    let refused = refusal("authorities", &missing).unwrap();
    assert!(refused.contains("no-such-file.pem"), "{refused}");
}
