//! What a plan keeps, what it refuses, and that the same backends make the same bytes.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeSet, fs, path::Path};

use patgate_routes::{
    ANNOTATION, Described, Gateway, INSTALLATION, INSTANCE, Kind, MANAGED_BY, MANAGER, Plan,
    Reason, ReservedNames, Rules, Target, installation_of,
};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

fn described(name: &str, url: &str, kind: &str) -> Described {
    Described { name: name.into(), url: url.into(), kind: kind.into() }
}

fn rules() -> Rules {
    Rules {
        networks: vec!["10.20.0.0/16".parse().unwrap(), "fd00:20::/32".parse().unwrap()],
        hosts: ["*.models.example", "https://*.models.example:8443"]
            .map(|rule| rule.parse().unwrap())
            .into(),
        reserved: ReservedNames::with(["collector".into()]),
    }
}

fn target(gateway: Gateway) -> Target {
    Target {
        gateway,
        namespace: "gateways".into(),
        gateway_name: "gateway".into(),
        listeners: vec!["http".into(), "https".into()],
        instance: "patgate".parse().unwrap(),
        installation: "1/2/3".into(),
        authorities: None,
    }
}

const ALL: [Gateway; 3] = [Gateway::Envoy, Gateway::EnvoyGateway, Gateway::Istio];

fn some() -> Vec<Described> {
    vec![
        described("model-acme", "http://10.20.0.7:8001", "vllm"),
        described("a.b_", "https://x.models.example", "openai"),
        described("1e3", "http://[fd00:20::7]:8003", "ollama"),
        described("null", "https://y.models.example:8443", "vllm"),
    ]
}

#[test]
fn refusals() {
    let long = "a".repeat(64);
    let list = [
        (described("", "http://10.20.0.7", "vllm"), "expected a backend's name"),
        (described("A", "http://10.20.0.7", "vllm"), "expected a backend's name"),
        (described("a\nb", "http://10.20.0.7", "vllm"), "expected a backend's name"),
        (described("a: {b}", "http://10.20.0.7", "vllm"), "expected a backend's name"),
        (described("-a", "http://10.20.0.7", "vllm"), "expected a backend's name"),
        (described("../a", "http://10.20.0.7", "vllm"), "expected a backend's name"),
        (described(&long, "http://10.20.0.7", "vllm"), "expected a backend's name"),
        (described("patgate", "http://10.20.0.7", "vllm"), "routes.reserved"),
        (described("collector", "http://10.20.0.7", "vllm"), "routes.reserved"),
        (described("undecided", "http://10.20.0.7", "vllm"), "the shipped manifests"),
        (described("a", "http://10.20.0.7/v1", "vllm"), "must not hold a path"),
        (described("a", "http://10.21.0.7", "vllm"), "routes.networks"),
        (described("a", "http://127.0.0.1", "vllm"), "127.0.0.0/8"),
        (described("a", "https://x.example", "vllm"), "routes.hosts"),
        (described("a", "http://x.models.example", "vllm"), "another scheme or port"),
        (described("a", "https://x.models.example:444", "vllm"), "another scheme or port"),
        (described("a", "http://10.20.0.7", "VLLM"), "the kind must be"),
    ];
    for (one, reason) in list {
        let plan = Plan::of(std::slice::from_ref(&one), &rules());
        assert!(plan.is_empty(), "{one:?}");
        let told = plan.refused()[0].reason.to_string();
        assert!(told.contains(reason), "{one:?}: {told}");
        for gateway in ALL {
            assert!(plan.objects(&target(gateway)).is_empty());
        }
    }
    let twice = Plan::of(
        &[described("a", "http://10.20.0.7", "vllm"), described("a", "http://10.20.0.8", "vllm")],
        &rules(),
    );
    assert_eq!(twice.refused()[0].reason, Reason::Twice);
}

/// No object of a backend has the name of one of the same kind that `deploy` brings along.
#[test]
fn no_backend_takes_the_name_of_a_shipped_object() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let kinds: Vec<&str> = [Gateway::EnvoyGateway, Gateway::Istio]
        .into_iter()
        .flat_map(Gateway::kinds)
        .map(|kind| kind.api().2)
        .collect();
    let mut names = BTreeSet::new();
    for folder in ["envoy-gateway", "istio"] {
        for file in fs::read_dir(deploy.join(folder)).into_iter().flatten() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|end| end != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for document in text.split("\n---\n") {
                let read: Value = serde_saphyr::from_str(document).unwrap_or_default();
                let name = read["metadata"]["name"].as_str().unwrap_or_default();
                if read["kind"].as_str().is_some_and(|kind| kinds.contains(&kind)) {
                    names.extend(name.strip_prefix("patgate-").map(str::to_owned));
                }
            }
        }
    }
    // To be copied for each backend.
    names.retain(|name| !name.starts_with("backend-"));
    assert!(names.contains("undecided") && names.contains("nowhere"), "{names:?}");
    for name in names {
        let one = described(&name, "http://10.20.0.7", "vllm");
        let plan = Plan::of(&[one], &rules());
        assert!(plan.is_empty() && plan.refused()[0].reason == Reason::Shipped, "{name}");
    }
}

#[test]
fn a_refused_backend_is_in_no_output() {
    let mut backends = some();
    backends.push(described("stray", "http://192.0.2.77:8001", "vllm"));
    let plan = Plan::of(&backends, &rules());
    assert_eq!((plan.backends().len(), plan.refused().len()), (4, 1));
    for gateway in ALL {
        let text = plan.file(&target(gateway));
        assert!(!text.contains("stray") && !text.contains("192.0.2.77"), "{text}");
        assert_eq!(text, Plan::of(&some(), &rules()).file(&target(gateway)));
    }
}

#[test]
fn clusters_of_a_plain_envoy() {
    let text = Plan::of(&some(), &rules()).file(&target(Gateway::Envoy));
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    let clusters = read["resources"].as_array().unwrap();
    let names: Vec<_> = clusters.iter().map(|cluster| cluster["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["1e3", "a.b_", "model-acme", "null"]);
    let [ollama, openai, vllm, tls] = [0, 1, 2, 3].map(|at| &clusters[at]);
    assert_eq!(vllm["type"], "STATIC");
    assert_eq!(vllm["health_checks"][0]["http_health_check"]["path"], "/health");
    assert_eq!(ollama["health_checks"][0]["http_health_check"]["path"], "/api/version");
    assert_eq!(vllm["transport_socket"], Value::Null);
    assert_eq!(openai["health_checks"], Value::Null);
    assert_eq!(tls["type"], "STRICT_DNS");
    let endpoint = &tls["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    assert_eq!(
        endpoint["address"]["socket_address"],
        json!({ "address": "y.models.example", "port_value": 8443 })
    );
    let config = &tls["transport_socket"]["typed_config"];
    assert_eq!(config["sni"], "y.models.example");
    let context = &config["common_tls_context"];
    assert_eq!(context["tls_params"]["tls_minimum_protocol_version"], "TLSv1_2");
    let validation = &context["validation_context"];
    let file = json!({ "filename": "/etc/ssl/certs/ca-certificates.crt" });
    assert_eq!(validation["trusted_ca"], file);
    assert_eq!(
        validation["match_typed_subject_alt_names"],
        json!([{ "san_type": "DNS", "matcher": { "exact": "y.models.example" } }])
    );
    let own = Target { authorities: Some("/etc/ca.pem".into()), ..target(Gateway::Envoy) };
    let read: Value = serde_saphyr::from_str(&Plan::of(&some(), &rules()).file(&own)).unwrap();
    let context = &read["resources"][3]["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(context["validation_context"]["trusted_ca"], json!({ "filename": "/etc/ca.pem" }));
}

#[test]
fn each_object_is_ours_and_of_one_backend() {
    for gateway in [Gateway::EnvoyGateway, Gateway::Istio] {
        let plan = Plan::of(&some(), &rules());
        let objects = plan.objects(&target(gateway));
        assert_eq!(objects.len(), 3 * 4);
        let kinds: Vec<Kind> = objects.iter().step_by(4).map(|object| object.kind).collect();
        assert_eq!(kinds, gateway.kinds());
        for object in &objects {
            let metadata = &object.content["metadata"];
            assert_eq!(metadata["namespace"], "gateways");
            assert_eq!(metadata["labels"][MANAGED_BY], MANAGER);
            assert_eq!(metadata["labels"][INSTANCE], "patgate");
            assert_eq!(metadata["annotations"][ANNOTATION], object.backend());
            assert_eq!(metadata["annotations"][INSTALLATION], "1/2/3");
            let (group, version, kind, _) = object.kind.api();
            assert_eq!(object.content["apiVersion"], format!("{group}/{version}"));
            assert_eq!(object.content["kind"], kind);
        }
    }
}

/// A route leads to its own backend, and asks for exactly its name.
#[test]
fn routes_ask_for_one_name_each() {
    let plan = Plan::of(&some(), &rules());
    for object in plan.objects(&target(Gateway::EnvoyGateway)) {
        if object.kind != Kind::HttpRoute {
            continue;
        }
        for rule in object.content["spec"]["rules"].as_array().unwrap() {
            for one in rule["matches"].as_array().unwrap() {
                let header = json!([{
                    "type": "Exact", "name": "x-upstream-cluster", "value": object.backend()
                }]);
                assert_eq!(one["headers"], header);
            }
            assert_eq!(rule["backendRefs"][0]["name"], object.name());
            assert_eq!(rule["backendRefs"].as_array().unwrap().len(), 1);
        }
    }
    let objects = plan.objects(&target(Gateway::Istio));
    for object in objects.iter().filter(|object| object.kind == Kind::VirtualService) {
        let entry = objects
            .iter()
            .find(|other| other.kind == Kind::ServiceEntry && other.name() == object.name());
        let host = &entry.unwrap().content["spec"]["hosts"][0];
        for route in object.content["spec"]["http"].as_array().unwrap() {
            for one in route["match"].as_array().unwrap() {
                let header = json!({ "x-upstream-cluster": { "exact": object.backend() } });
                assert_eq!(one["headers"], header);
            }
            assert_eq!(&route["route"][0]["destination"]["host"], host);
        }
    }
}

/// `Host` is that of the backend, whatever the client sent.
#[test]
fn the_host_is_that_of_the_backend() {
    let plan = Plan::of(&some(), &rules());
    let authorities = [
        ("1e3", "[fd00:20::7]:8003"),
        ("a.b_", "x.models.example"),
        ("model-acme", "10.20.0.7:8001"),
        ("null", "y.models.example:8443"),
    ];
    let text = plan.file(&target(Gateway::Envoy));
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    for (cluster, (name, authority)) in
        read["resources"].as_array().unwrap().iter().zip(authorities)
    {
        assert_eq!(cluster["name"], name);
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(endpoint["hostname"], authority);
        if let Some(check) = cluster["health_checks"].get(0) {
            assert_eq!(check["http_health_check"]["host"], authority);
        }
    }
    let of = |gateway, kind| -> Vec<Value> {
        let objects = plan.objects(&target(gateway));
        objects.into_iter().filter(|one| one.kind == kind).map(|one| one.content).collect()
    };
    for (service, (_, authority)) in
        of(Gateway::Istio, Kind::VirtualService).iter().zip(authorities)
    {
        let routes = service["spec"]["http"].as_array().unwrap();
        assert_eq!(routes.len(), 3);
        assert!(routes.iter().all(|route| route["rewrite"]["authority"] == authority));
    }
    let hosts =
        [json!(null), json!("x.models.example"), json!("10.20.0.7"), json!("y.models.example")];
    for (backend, host) in of(Gateway::EnvoyGateway, Kind::Backend).iter().zip(hosts) {
        assert_eq!(backend["spec"]["endpoints"][0]["hostname"], host);
    }
    for route in of(Gateway::EnvoyGateway, Kind::HttpRoute) {
        let filters: Vec<_> = route["spec"]["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule["filters"][0]["extensionRef"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(filters, ["patgate-rewrite-azure", "patgate-rewrite", "patgate-rewrite-host"]);
    }
}

#[test]
fn tls_is_verified_everywhere() {
    let plan = Plan::of(&some(), &rules());
    let of = |gateway, kind| {
        let objects = plan.objects(&target(gateway));
        let found = objects.into_iter().find(|one| one.kind == kind && one.backend() == "null");
        found.unwrap().content
    };
    let backend = of(Gateway::EnvoyGateway, Kind::Backend);
    assert_eq!(
        backend["spec"]["tls"],
        json!({
            "sni": "y.models.example", "minVersion": "1.2", "insecureSkipVerify": false,
            "wellKnownCACertificates": "System",
        })
    );
    let rule = of(Gateway::Istio, Kind::DestinationRule);
    assert_eq!(
        rule["spec"]["trafficPolicy"]["tls"],
        json!({
            "mode": "SIMPLE", "sni": "y.models.example", "subjectAltNames": ["y.models.example"],
        })
    );
}

/// Texts of every kind, and some that are nearly right.
fn any_backend() -> impl Strategy<Value = Described> {
    let name = prop_oneof!["[a-z0-9][a-z0-9._-]{0,62}", "[ -~]{0,9}", ".{0,6}"];
    let url = prop_oneof![
        "https?://10\\.20\\.[0-9]{1,3}\\.[0-9]{1,3}(:[0-9]{1,5})?/?",
        "https?://[a-z0-9.-]{1,12}\\.models\\.example(:[0-9]{1,5})?",
        "https?://[ -~]{0,20}",
        "https?://\\[[0-9a-f:.%]{0,20}\\](:80)?",
        ".{0,20}",
    ];
    (name, url, prop_oneof!["vllm", "ollama", "openai", "[a-z]{0,4}"])
        .prop_map(|(name, url, kind)| Described { name, url, kind })
}

proptest! {
    #[test]
    fn the_same_backends_make_the_same_bytes(mut backends in vec(any_backend(), 0..12)) {
        // The names of a database are unique.
        backends.sort();
        backends.dedup_by(|one, other| one.name == other.name);
        let plan = Plan::of(&backends, &rules());
        prop_assert_eq!(plan.backends().len() + plan.refused().len(), backends.len());
        let texts = ALL.map(|gateway| plan.file(&target(gateway)));
        backends.reverse();
        let again = Plan::of(&backends, &rules());
        prop_assert_eq!(&texts, &ALL.map(|gateway| again.file(&target(gateway))));
        for (gateway, text) in ALL.into_iter().zip(&texts).skip(1) {
            prop_assert_eq!(installation_of(text.as_bytes()), Some("1/2/3"));
            let (_, objects) = text.split_once('\n').unwrap();
            let read: Vec<Value> = objects
                .split("---\n")
                .filter(|text| !text.is_empty())
                .map(|text| serde_saphyr::from_str(text).unwrap())
                .collect();
            let objects: Vec<Value> =
                plan.objects(&target(gateway)).into_iter().map(|object| object.content).collect();
            prop_assert_eq!(read, objects);
        }
    }

    /// Whatever is written is where the rules say.
    #[test]
    fn nothing_leads_outside(backends in vec(any_backend(), 1..6)) {
        let plan = Plan::of(&backends, &rules());
        let read: Value = serde_saphyr::from_str(&plan.file(&target(Gateway::Envoy))).unwrap();
        for cluster in read["resources"].as_array().unwrap() {
            let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
            let at = &endpoint["address"]["socket_address"];
            let host = at["address"].as_str().unwrap();
            let inside = match host.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(ip)) => ip.octets()[..2] == [10, 20],
                Ok(std::net::IpAddr::V6(ip)) => ip.segments()[..2] == [0xfd00, 0x20],
                Err(_) => {
                    host.ends_with(".models.example")
                        && !cluster["transport_socket"].is_null()
                        && (at["port_value"] == 443 || at["port_value"] == 8443)
                }
            };
            prop_assert!(inside, "{}", host);
        }
    }
}
