//! How patgate is found, what is said about what cannot be judged, and what the list of routes says.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

#[path = "corpus/corpus.rs"]
mod corpus;

use patgate_doctor::{Hints, NotEnvoy, Report, examine};
use serde_json::{Value, json};

use self::corpus::{base, dump, faults};

fn report(configuration: &Value) -> Report {
    examine(configuration, &Hints::default()).unwrap()
}

fn rules(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.rule.id).collect()
}

/// The first connection manager.
fn manager(configuration: &mut Value) -> &mut Value {
    &mut configuration["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
}

/// An ext_authz filter that nothing shows to be patgate's.
fn plain(cluster: &str) -> Value {
    json!({
        "name": format!("asks {cluster}"),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "grpc_service": { "envoy_grpc": { "cluster_name": cluster } },
        },
    })
}

/// One listener, whose filters ask these clusters.
fn asking(clusters: &[&str]) -> Value {
    let mut configuration = base("envoy.yaml");
    configuration["static_resources"]["listeners"].as_array_mut().unwrap().truncate(1);
    let filters: Vec<_> = clusters.iter().map(|cluster| plain(cluster)).collect();
    manager(&mut configuration)["http_filters"] = filters.into();
    configuration
}

fn says(report: &Report, place: &str, reason: &str) -> bool {
    let mut unjudged = report.unjudged.iter();
    unjudged.any(|one| one.place.contains(place) && one.reason.contains(reason))
}

#[test]
fn patgate_is_found_by_what_it_is() {
    let names = |report: &Report| -> Vec<String> {
        report.authorizers.iter().map(|one| one.cluster.clone()).collect()
    };
    // The only one is believed, and the report says why.
    let only = report(&asking(&["model-beta"]));
    assert_eq!(names(&only), ["model-beta"]);
    assert!(only.authorizers[0].signs[0].contains("nothing else shows"));
    // Of two, none can be told.
    let two = asking(&["patgate", "model-beta"]);
    let unclear = report(&two);
    assert!(names(&unclear).is_empty() && rules(&unclear).contains(&"PG-ASK-NONE"));
    assert!(unclear.findings[0].found.contains("--authorizer"), "{}", unclear.findings[0].found);
    // A hint by address decides, and the other one is another team's.
    let hints = Hints { authorizer: Some("127.0.0.1:9191".to_owned()) };
    let hinted = examine(&two, &hints).unwrap();
    assert_eq!(names(&hinted), ["patgate"]);
    assert!(rules(&hinted).contains(&"PG-ASK-SECOND"));
    // Another cluster with the same address is patgate as well.
    let mut same = base("envoy.yaml");
    let mut alias = same["static_resources"]["clusters"][0].clone();
    alias["name"] = "alias".into();
    same["static_resources"]["clusters"].as_array_mut().unwrap().push(alias);
    manager(&mut same)["http_filters"].as_array_mut().unwrap().insert(0, plain("alias"));
    let same = report(&same);
    assert_eq!(names(&same), ["alias", "patgate"]);
    assert!(!rules(&same).contains(&"PG-ASK-SECOND"));
}

#[test]
fn what_is_not_there_is_said() {
    assert!(matches!(examine(&json!({ "a": 1 }), &Hints::default()), Err(NotEnvoy)));
    let dynamic = json!({ "dynamic_resources": { "lds_config": { "ads": {} }, "cds_config": { "ads": {} } } });
    assert!(says(&report(&dynamic), "dynamic_resources", "config_dump?include_eds"));

    let whole = dump::of(&base("istio"));
    let without = |kind: &str| {
        let mut dump = whole.clone();
        dump["configs"]
            .as_array_mut()
            .unwrap()
            .retain(|part| !part["@type"].as_str().unwrap().ends_with(kind));
        report(&dump)
    };
    assert!(says(&without("RoutesConfigDump"), "0.0.0.0_8080", "RDS"));
    assert!(says(&without("EndpointsConfigDump"), "cluster outbound|9191", "addresses"));
    assert!(says(&without("ListenersConfigDump"), "ListenersConfigDump", "no such part"));

    let mut unbound = whole.clone();
    unbound["configs"][3]["dynamic_listeners"].as_array_mut().unwrap().push(json!({
        "name": "127.0.0.1_80",
        "error_state": {
            "failed_configuration": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 80 } } },
            "details": "cannot bind '127.0.0.1:80': Permission denied",
        },
    }));
    assert!(says(
        &report(&unbound),
        "listener 127.0.0.1_80",
        "cannot bind '127.0.0.1:80': Permission"
    ));
    assert!(rules(&report(&unbound)).is_empty());

    let mut odd = base("envoy.yaml");
    let early = &mut manager(&mut odd)["early_header_mutation_extensions"][0]["typed_config"];
    early["mutations"][7]["remove_on_match"]["key_matcher"]["safe_regex"]["regex"] =
        "(?=x)y".into();
    assert!(says(&report(&odd), "listener gateway", "cannot read the expression (?=x)y"));

    let mut scoped = base("envoy.yaml");
    let manager = manager(&mut scoped).as_object_mut().unwrap();
    manager.remove("route_config");
    manager.insert("scoped_routes".to_owned(), json!({}));
    assert!(says(&report(&scoped), "listener gateway", "scoped routes"));
}

/// A filter may come by ECDS, and then stands elsewhere in the dump.
#[test]
fn a_filter_that_is_discovered_is_judged() {
    let mut configuration = base("envoy-gateway");
    let listener = &mut configuration["static_resources"]["listeners"][0];
    let filters =
        &mut listener["default_filter_chain"]["filters"][0]["typed_config"]["http_filters"];
    let typed = filters[0].as_object_mut().unwrap().remove("typed_config").unwrap();
    filters[0]["config_discovery"] = json!({ "config_source": { "ads": {} } });
    let name = filters[0]["name"].clone();
    let missing = report(&dump::of(&configuration));
    assert!(says(&missing, "listener default/eg/http", "ECDS"));
    assert!(rules(&missing).contains(&"PG-ASK-NONE"));

    let mut whole = dump::of(&configuration);
    whole["configs"].as_array_mut().unwrap().push(json!({
        "@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump",
        "ecds_filters": [{ "ecds_filter": { "name": name, "typed_config": typed } }],
    }));
    assert!(rules(&report(&whole)).is_empty(), "{:?}", rules(&report(&whole)));
}

/// The line of a planted fault's route.
fn line(fault: &str, route: &str) -> (String, String) {
    let fault = faults().into_iter().find(|one| one.fault == fault).unwrap();
    let report = report(&fault.configuration());
    let line = report.routes.into_iter().find(|line| line.route == route).unwrap();
    (line.asked, line.unasked)
}

#[test]
fn the_list_of_routes_says_what_may_leave_unasked() {
    let expected = [
        (
            "ext_authz is disabled on a route, and no guard stands",
            "undecided",
            ("no: disabled on the route", "passes to the backend"),
        ),
        (
            "one of two filters is disabled on a route, the guard holds",
            "undecided",
            ("no: disabled on the route", "the guard refuses it"),
        ),
        (
            "an application team's HTTPRoute has an empty SecurityPolicy, the guard holds",
            "httproute/team/app/rule/0/match/0/*",
            ("no: nothing switches the filter on here", "the guard refuses it"),
        ),
        (
            "the AuthorizationPolicy covers one prefix, and no guard stands",
            "acme",
            ("partly: only for path begins with /proxy/", "passes to the backend"),
        ),
        (
            "a route asks another team's service instead",
            "undecided",
            ("no: model-beta is asked instead", "passes to the backend"),
        ),
    ];
    for (fault, route, (asked, unasked)) in expected {
        assert_eq!(line(fault, route), (asked.to_owned(), unasked.to_owned()), "{fault}");
    }
    let istio = report(&base("istio"));
    let acme = istio.routes.iter().find(|line| line.route == "acme").unwrap();
    assert_eq!(acme.asked, "yes, before this route is chosen");
}

#[test]
fn the_fix_is_in_the_terms_of_what_made_the_configuration() {
    let fix = |fault: &str| {
        let fault = faults().into_iter().find(|one| one.fault == fault).unwrap();
        let report = report(&fault.configuration());
        report.fix(&report.findings[0]).to_owned()
    };
    assert!(fix("Istio drops clearRouteCache").contains("EnvoyFilter"));
    assert!(fix("a SecurityPolicy without recomputeRoute").contains("recomputeRoute: true"));
    assert!(fix("the route cache stays with cluster_header").contains("clear_route_cache: true"));
}

/// The finding of this rule.
fn found<'r>(report: &'r Report, rule: &str) -> &'r str {
    let finding = report.findings.iter().find(|finding| finding.rule.id == rule);
    finding.map_or("nothing", |finding| finding.found.as_str())
}

/// Without all clusters, a name that is not among them may exist.
#[test]
fn a_cluster_is_missing_only_where_all_are_known() {
    let mut typo = base("envoy.yaml");
    let filters = manager(&mut typo)["http_filters"].as_array_mut().unwrap();
    let asks = filters.iter_mut().find(|one| one["name"] == "patgate.with-body").unwrap();
    asks["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = "patgat".into();
    let missing =
        |configuration: &Value| found(&report(configuration), "PG-FAIL-CLUSTER").to_owned();
    assert!(missing(&typo).contains("no cluster is called patgat"));
    assert!(!says(&report(&typo), "cluster patgat", "addresses"));
    let mut from_elsewhere = typo.clone();
    from_elsewhere["dynamic_resources"] = json!({ "cds_config": { "ads": {} } });
    assert_eq!(missing(&from_elsewhere), "nothing");
    assert!(says(&report(&from_elsewhere), "cluster patgat", "addresses"));
    let mut part = dump::of(&typo);
    assert!(missing(&part).contains("patgat"));
    part["configs"]
        .as_array_mut()
        .unwrap()
        .retain(|part| !part["@type"].as_str().unwrap().ends_with("ClustersConfigDump"));
    assert_eq!(missing(&part), "nothing");
}

/// A team's listener with TLS is a chain of its own, with a route table of its own.
#[test]
fn a_fixed_backend_is_found_on_a_listener_without_routes_by_header() {
    let mut configuration = base("envoy-gateway");
    let listeners = configuration["static_resources"]["listeners"].as_array_mut().unwrap();
    let mut team = listeners[0].clone();
    team["name"] = "default/eg/team".into();
    team["address"]["socket_address"]["port_value"] = 10443.into();
    let table = &mut team["default_filter_chain"]["filters"][0]["typed_config"]["route_config"];
    let host = &mut table["virtual_hosts"][0];
    host["domains"] = json!(["team.example.com"]);
    let routes = host["routes"].as_array_mut().unwrap();
    routes.truncate(1);
    routes[0]["match"] = json!({ "prefix": "/" });
    listeners.push(team);
    let report = report(&configuration);
    assert_eq!(rules(&report), ["PG-ROUTE-FIXED"]);
    let place = &report.findings[0].places[0];
    assert_eq!(place.listener.as_deref(), Some("default/eg/team"));
}

#[test]
fn a_name_of_several_addresses_is_not_judged_in_either_form() {
    let mut named = base("envoy.yaml");
    let cluster = &mut named["static_resources"]["clusters"][0];
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        ["address"] = "patgate.example.com".into();
    let asked = "has the address of each replica";
    assert!(!says(&report(&named), "cluster patgate", asked));
    let cluster = &mut named["static_resources"]["clusters"][0];
    cluster.as_object_mut().unwrap().remove("type");
    cluster["cluster_type"] = json!({
        "name": "envoy.cluster.dns",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster" },
    });
    assert!(says(&report(&named), "cluster patgate", asked));
}

#[test]
fn envoy_gateway_is_told_about_a_backend_object() {
    let mut open = base("envoy-gateway");
    let cluster = &mut open["static_resources"]["clusters"][1];
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        ["address"] = "10.9.8.7".into();
    let report = report(&open);
    assert_eq!(rules(&report), ["PG-TLS-BACKEND"]);
    assert!(report.fix(&report.findings[0]).contains("`tls` in the Backend"));
}
