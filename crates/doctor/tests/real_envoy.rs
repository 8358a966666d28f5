//! The planted and the legitimate configurations are given to the real Envoy, and what its admin
//! interface dumps has the same verdict as the file. So the corpus plants what Envoy accepts, and a
//! bootstrap and a dump are read alike.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test")]

mod corpus;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use patgate_doctor::{Hints, examine};
use serde_json::{Value, json};

use self::corpus::{SILENT, base, faults, legitimate, project};

/// An Envoy, which ends with the test.
struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary itself: `.venv/bin/envoy` starts it as a child, which would outlive the test.
fn binary() -> PathBuf {
    let libraries = project().join(".venv/lib");
    let found = fs::read_dir(&libraries).into_iter().flatten().find_map(|python| {
        let path = python.ok()?.path().join("site-packages/envoy/_bin/envoy");
        path.is_file().then_some(path)
    });
    found.unwrap_or_else(|| panic!("no Envoy in {}: run `make tools`", libraries.display()))
}

/// Replaces every port on which Envoy listens by one that the system chooses.
fn with_free_ports(configuration: &Value) -> Value {
    let mut configuration = configuration.clone();
    configuration["admin"]["address"] =
        json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    for listener in configuration["static_resources"]["listeners"].as_array_mut().unwrap() {
        listener["address"]["socket_address"] = json!({ "address": "127.0.0.1", "port_value": 0 });
    }
    configuration
}

/// Starts an Envoy with a configuration and returns its dump, or what it said.
fn dumped(configuration: &Value, folder: &Path) -> Result<Value, String> {
    let file = folder.join("envoy.json");
    let admin = folder.join("admin");
    let log = folder.join("log");
    let _ = fs::remove_file(&admin);
    fs::write(&file, configuration.to_string()).unwrap();
    let child = Command::new(binary())
        .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error"])
        .arg("-c")
        .arg(&file)
        .arg("--admin-address-path")
        .arg(&admin)
        .arg("--log-path")
        .arg(&log)
        // The paths of certificates are relative to the project.
        .current_dir(project())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut envoy = Envoy(child);
    loop {
        if let Ok(address) = fs::read_to_string(&admin)
            && !address.is_empty()
        {
            return Ok(get(&address));
        }
        if let Some(status) = envoy.0.try_wait().unwrap() {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let config = log.lines().find(|line| line.contains("error")).unwrap_or(&log);
            return Err(format!("{status}: {}", config.chars().take(600).collect::<String>()));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn get(address: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    let request =
        format!("GET /config_dump?include_eds HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    serde_json::from_str(&body).unwrap()
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    body
}

/// Rule, severity, what was found, and where.
fn verdict(configuration: &Value) -> BTreeSet<String> {
    let report = examine(configuration, &Hints::default()).unwrap();
    let findings = report.findings.iter().map(|one| {
        let places: Vec<_> = one.places.iter().map(ToString::to_string).collect();
        format!("{} {} {} at {}", one.rule.id, one.severity, one.found, places.join("; "))
    });
    findings.collect()
}

#[test]
fn a_dump_of_the_real_envoy_has_the_verdict_of_its_file() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("doctor");
    fs::create_dir_all(&folder).unwrap();
    let silent = SILENT.iter().map(|name| ((*name).to_owned(), base(name)));
    let changes = legitimate().into_iter().map(|one| (one.change.clone(), one.configuration()));
    let planted = faults().into_iter().filter(|fault| fault.only.as_deref() != Some("read"));
    let planted = planted.map(|fault| (format!("{} ({})", fault.fault, fault.on), fault.configuration()));
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (name, configuration) in silent.chain(changes).chain(planted) {
        // An Envoy of the tests listens on loopback only, so what is said of the admin address differs.
        let configuration = with_free_ports(&configuration);
        match dumped(&configuration, &folder) {
            Err(error) => wrong.push(format!("{name}: refused: {error}")),
            Ok(dump) => {
                compared += 1;
                let (of_file, of_dump) = (verdict(&configuration), verdict(&dump));
                if of_file != of_dump {
                    wrong.push(format!("{name}:\n  file {of_file:#?}\n  dump {of_dump:#?}"));
                }
            }
        }
    }
    println!("{compared} configurations were run by the real Envoy");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
