//! `patgate doctor` as a command: its sources, its forms, its exit codes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../crates/doctor/tests/corpus/envoy.rs"]
#[expect(unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "it serves several tests")]
mod envoy;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use self::envoy::{Envoy, with_free_ports};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn doctor(arguments: &[&str]) -> Output {
    let binary = assert_cmd::cargo::cargo_bin!("patgate");
    Command::new(binary).arg("doctor").args(arguments).current_dir(project()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Writes envoy.yaml with one text replaced everywhere.
fn changed(folder: &TempDir, from: &str, to: &str) -> PathBuf {
    let shipped = fs::read_to_string(project().join("envoy/envoy.yaml")).unwrap();
    assert!(shipped.contains(from));
    let path = folder.path().join("envoy.yaml");
    fs::write(&path, shipped.replace(from, to)).unwrap();
    path
}

#[test]
fn nothing_is_found_in_what_is_shipped() {
    for name in ["envoy.yaml", "rate-limits.yaml", "single-step.yaml", "other-authentication.yaml"]
    {
        let output = doctor(&[&format!("envoy/{name}"), "--fail-on", "low"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(text(&output.stdout).contains("Nothing found"), "{output:?}");
    }
}

#[test]
fn the_exit_code_follows_the_severity() {
    let folder = TempDir::new().unwrap();
    let path = changed(&folder, "failure_mode_allow: false", "failure_mode_allow: true");
    let path = path.to_str().unwrap();
    // The guard holds, so it is not of the highest severity.
    for (fail_on, code) in [("high", 0), ("medium", 4), ("low", 4)] {
        let output = doctor(&[path, "--fail-on", fail_on]);
        assert_eq!(output.status.code(), Some(code), "{fail_on}: {output:?}");
        let shown = text(&output.stdout);
        for part in [
            "MEDIUM  PG-FAIL-OPEN",
            "listener https",
            "The guard refuses",
            "failure_mode_allow: false",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(output.stderr.is_empty(), "{output:?}");
    }
    let path = changed(
        &folder,
        "address: 127.0.0.1, port_value: 9901",
        "address: 0.0.0.0, port_value: 9901",
    );
    assert_eq!(doctor(&[path.to_str().unwrap()]).status.code(), Some(4));
}

#[test]
fn what_is_no_configuration_is_an_error_that_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("secret.yaml");
    fs::write(&path, "secret: [hunter2").unwrap();
    let output = doctor(&[path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!text(&output.stderr).contains("hunter2"), "{output:?}");
    let output = doctor(&["clippy.toml.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    fs::write(&path, "a: 1").unwrap();
    let output = doctor(&[path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("config_dump?include_eds"), "{output:?}");
    let output = doctor(&["https://127.0.0.1:9901"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn programs_get_json_and_ci_gets_sarif() {
    let folder = TempDir::new().unwrap();
    let path = changed(&folder, "clear_route_cache: true", "clear_route_cache: false");
    let sarif = folder.path().join("doctor.sarif");
    let arguments =
        [path.to_str().unwrap(), "--output", "json", "--sarif", sarif.to_str().unwrap()];
    let output = doctor(&arguments);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &report["findings"][0];
    assert_eq!(finding["rule"], "PG-ROUTE-CACHE");
    assert_eq!(finding["severity"], "high");
    assert_eq!(finding["places"].as_array().unwrap().len(), 4, "{finding}");
    assert_eq!(report["routes"].as_array().unwrap().len(), 16, "{report}");
    let sarif: Value = serde_json::from_str(&fs::read_to_string(sarif).unwrap()).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    assert_eq!(run["results"][0]["ruleId"], "PG-ROUTE-CACHE");
    assert_eq!(run["results"][0]["level"], "error");
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["id"] == "PG-ROUTE-CACHE"));
    let location = &run["results"][0]["locations"][0];
    assert_eq!(location["physicalLocation"]["artifactLocation"]["uri"], path.to_str().unwrap());
}

#[test]
fn routes_are_listed_with_what_may_leave_unasked() {
    let output = doctor(&["envoy/envoy.yaml", "--routes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = text(&output.stdout);
    let undecided = shown.lines().find(|line| line.contains("undecided")).unwrap();
    for part in ["x-upstream-cluster is missing", "yes, twice if the body decides", "32 MiB"] {
        assert!(undecided.contains(part), "{part} in {undecided}");
    }
    assert!(shown.contains("listener https (0.0.0.0:8443, TLS)"), "{shown}");
    assert!(shown.contains(":path = /healthz"), "{shown}");
}

#[test]
fn a_running_envoy_is_asked() {
    let folder = TempDir::new().unwrap();
    let shipped = fs::read_to_string(project().join("envoy/envoy.yaml")).unwrap();
    let mut shipped: Value = serde_saphyr::from_str(&shipped).unwrap();
    let listeners = &mut shipped["static_resources"]["listeners"];
    listeners.as_array_mut().unwrap().truncate(1);
    let configuration = with_free_ports(&shipped);
    let envoy = Envoy::start(project(), &configuration, folder.path())
        .unwrap_or_else(|error| panic!("{error}"));
    let address = format!("http://{}", envoy.admin);
    let output = doctor(&[&address, "--output", "json", "--fail-on", "low"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["form"], &report["maker"]), (&"dump".into(), &"envoy".into()));
    assert!(report["envoy"].as_str().unwrap().starts_with("1."), "{}", report["envoy"]);
    let output = doctor(&[&format!("{address}/nothing")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("404"), "{output:?}");
}

/// The status and the body of an answer over HTTP/1.1; the address is HOST:PORT.
fn send(address: &str, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Prometheus needs the admin interface for nothing: a listener shows the metrics, and nothing else.
#[test]
fn a_listener_shows_the_metrics_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let read = |name: &str| -> Value {
        let text = fs::read_to_string(project().join("envoy").join(name)).unwrap();
        serde_saphyr::from_str(&text).unwrap()
    };
    let (mut configuration, mut more) = (read("envoy.yaml"), read("metrics.yaml"));
    let cluster = &mut more["static_resources"]["clusters"][0];
    let endpoint =
        &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
    assert_eq!(endpoint, &configuration["admin"]["address"]);
    *endpoint = json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let admin = endpoint.clone();
    for list in ["listeners", "clusters"] {
        let added = more["static_resources"][list].as_array().unwrap().clone();
        configuration["static_resources"][list].as_array_mut().unwrap().extend(added);
    }
    let mut configuration = with_free_ports(&configuration);
    configuration["admin"]["address"] = admin;
    let envoy = Envoy::start(project(), &configuration, folder.path())
        .unwrap_or_else(|error| panic!("{error}"));
    let (_, listeners) = send(&envoy.admin, "GET", "/listeners");
    let metrics = listeners.lines().find_map(|line| line.strip_prefix("metrics::"));
    let metrics = metrics.unwrap_or_else(|| panic!("{listeners}"));

    let (status, body) = send(metrics, "GET", "/stats/prometheus");
    assert!(status == 200 && body.contains("envoy_http_rbac_denied"), "{status}: {body}");
    assert_eq!(send(metrics, "GET", "/stats/prometheus?usedonly").0, 200);
    for (method, path) in [
        ("POST", "/stats/prometheus"),
        ("HEAD", "/stats/prometheus"),
        ("GET", "/stats/prometheus/"),
        ("GET", "/stats/prometheus/../../config_dump"),
        ("GET", "/stats/%70rometheus"),
        ("GET", "/stats"),
        ("GET", "/"),
        ("GET", "/config_dump"),
        ("POST", "/quitquitquit"),
        ("POST", "/drain_listeners"),
        ("POST", "/stats/prometheus?/quitquitquit"),
    ] {
        assert_eq!(send(metrics, method, path).0, 404, "{method} {path}");
    }
    assert_eq!(send(&envoy.admin, "GET", "/ready").0, 200);

    // The doctor knows the listener, and what is wider.
    let address = format!("http://{}", envoy.admin);
    let output = doctor(&[&address, "--fail-on", "low", "--routes"]);
    let shown = text(&output.stdout);
    assert!(
        output.status.code() == Some(0) && shown.contains("reads Envoy's metrics only"),
        "{shown}"
    );
}

/// As the document says: the two files together, by an option of Envoy.
#[test]
fn envoy_takes_the_listener_of_the_metrics_beside_its_configuration() {
    let metrics = fs::read_to_string(project().join("envoy/metrics.yaml")).unwrap();
    let readme = project().join("deploy/observability/README.md");
    let told = "envoy -c envoy/envoy.yaml --config-yaml \"$(cat envoy/metrics.yaml)\"";
    assert!(fs::read_to_string(readme).unwrap().contains(told) && metrics.contains(told));
    // A route to a cluster that does not exist is refused: so the second file is read.
    let broken = metrics.replace("{ cluster: _envoy_admin,", "{ cluster: missing,");
    for (more, accepted) in [(metrics, true), (broken, false)] {
        for file in ["envoy.yaml", "rate-limits.yaml", "single-step.yaml"] {
            let file = format!("envoy/{file}");
            let arguments =
                ["--mode", "validate", "-l", "error", "-c", &file, "--config-yaml", &more];
            let run = Command::new(envoy::binary(project()))
                .args(arguments)
                .current_dir(project())
                .output()
                .unwrap();
            assert_eq!(run.status.success(), accepted, "{file}: {run:?}");
        }
    }
}
