//! The real Envoy.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// An Envoy, which ends with the test.
pub struct Envoy {
    child: Child,
    /// The address of its admin interface.
    pub admin: String,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    /// Starts an Envoy, or returns why it has refused its configuration.
    pub fn start(project: &Path, configuration: &Value, folder: &Path) -> Result<Self, String> {
        let file = folder.join("envoy.json");
        let admin = folder.join("admin");
        let log = folder.join("log");
        let _ = (fs::remove_file(&admin), fs::remove_file(&log));
        fs::write(&file, configuration.to_string()).unwrap();
        let child = Command::new(binary(project))
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error"])
            .arg("-c")
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&admin)
            .arg("--log-path")
            .arg(&log)
            // The paths of certificates are relative to the project.
            .current_dir(project)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut envoy = Self { child, admin: String::new() };
        let listeners = configuration["static_resources"]["listeners"].as_array().unwrap().len();
        loop {
            // Envoy serves the admin interface before it has accepted its listeners, and may still end.
            envoy.admin = fs::read_to_string(&admin).unwrap_or_default();
            if envoy.dump().is_some_and(|dump| accepted(&dump) == listeners) {
                return Ok(envoy);
            }
            if let Some(status) = envoy.child.try_wait().unwrap() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let line = log.lines().find(|line| line.contains("error")).unwrap_or(&log);
                return Err(format!("{status}: {}", line.chars().take(600).collect::<String>()));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What its admin interface dumps.
    pub fn dump(&self) -> Option<Value> {
        get(&self.admin)
    }
}

/// The binary itself: `.venv/bin/envoy` starts it as a child, which would outlive the test.
pub fn binary(project: &Path) -> PathBuf {
    let libraries = project.join(".venv/lib");
    let found = fs::read_dir(&libraries).into_iter().flatten().find_map(|python| {
        let path = python.ok()?.path().join("site-packages/envoy/_bin/envoy");
        path.is_file().then_some(path)
    });
    found.unwrap_or_else(|| panic!("no Envoy in {}: run `make tools`", libraries.display()))
}

/// Replaces every port on which Envoy listens by one that the system chooses.
pub fn with_free_ports(configuration: &Value) -> Value {
    let mut configuration = configuration.clone();
    configuration["admin"]["address"] =
        json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    for listener in configuration["static_resources"]["listeners"].as_array_mut().unwrap() {
        listener["address"]["socket_address"] = json!({ "address": "127.0.0.1", "port_value": 0 });
    }
    configuration
}

/// The number of listeners in a dump.
fn accepted(dump: &Value) -> usize {
    let parts = dump["configs"].as_array().into_iter().flatten();
    let lists = parts.filter_map(|part| part["static_listeners"].as_array());
    lists.map(Vec::len).sum()
}

fn get(address: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!(
        "GET /config_dump?include_eds HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)?
    } else {
        body.to_owned()
    };
    serde_json::from_str(&body).ok()
}

fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size + 2..)?;
    }
}
