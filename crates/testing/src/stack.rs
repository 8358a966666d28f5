//! The real servers, through the supervisor in tools/stack.py.
//!
//! The supervisor is started by the first request. It ends what it started when our end of its
//! standard input closes, so that a test run that is killed leaves nothing behind.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::eventually;

#[derive(Default)]
pub struct Stack(OnceLock<Mutex<Supervisor>>);

struct Supervisor {
    /// `None` once it was shut down.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    process: Child,
}

/// A server that the supervisor started. Which members mean something depends on its kind.
#[derive(Debug, Deserialize)]
pub struct Server {
    pub id: String,
    pub pid: u32,
    #[serde(default)]
    pub port: u16,
    #[serde(default)]
    pub url: String,
    #[serde(default)]
    pub bin: String,
    #[serde(default)]
    pub access_log: String,
    #[serde(default)]
    pub admin_port: u16,
    pub log: String,
}

impl Server {
    /// Bytes of memory that it occupies.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it ever occupied.
    pub fn peak_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, figure: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// The path of a file of the repository.
pub fn project(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    root.join(path).display().to_string()
}

impl Supervisor {
    fn launch() -> Self {
        let python = project(".venv/bin/python");
        let mut process = Command::new(&python)
            .arg(project("tools/stack.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python}: {error}; run `make tools` first"));
        let requests = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { requests, answers, process }
    }
}

impl Stack {
    pub fn start(&self, kind: &str, arguments: Value) -> Server {
        let mut request = json!({ "do": "start", "kind": kind });
        request.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
        serde_json::from_value(self.ask(request).unwrap()).unwrap()
    }

    /// Envoy with the shipped configuration, pointed at `authz`, its clusters at `clusters`.
    pub fn envoy(&self, patch: Value) -> Server {
        self.start("envoy", json!({ "config": project("envoy/envoy.yaml"), "patch": patch }))
    }

    pub fn stop(&self, server: &Server) {
        self.ask(json!({ "do": "stop", "id": server.id })).unwrap();
    }

    /// The same server as it is now: under another process id.
    pub fn restart(&self, server: &Server) -> Server {
        let answer = self.ask(json!({ "do": "restart", "id": server.id })).unwrap();
        serde_json::from_value(answer).unwrap()
    }

    pub fn signal(&self, server: &Server, signal: &str) {
        self.ask(json!({ "do": "signal", "id": server.id, "signal": signal })).unwrap();
    }

    /// For a process that has to come back where it was.
    pub fn free_port(&self) -> u16 {
        let answer = self.ask(json!({ "do": "free-port" })).unwrap();
        answer["port"].as_u64().unwrap().try_into().unwrap()
    }

    /// Whether a process has not ended.
    pub fn is_running(&self, server: &Server) -> bool {
        self.ask(json!({ "do": "status", "id": server.id })).unwrap()["running"] == true
    }

    /// What a process ends with that ends by itself. Asked again and again: the supervisor does one
    /// thing at a time, and other tests need it meanwhile.
    pub async fn exit_code(&self, server: &Server) -> Value {
        let status = || self.ask(json!({ "do": "status", "id": server.id })).unwrap();
        eventually("the process to end", async || status()["running"] == false).await;
        status()["exit"].take()
    }

    /// One request, one answer; the error is the supervisor's.
    pub fn ask(&self, request: Value) -> Result<Value, String> {
        let supervisor = self.0.get_or_init(|| Mutex::new(Supervisor::launch()));
        let mut supervisor = supervisor.lock().unwrap();
        let requests = supervisor.requests.as_mut().expect("a supervisor that was not shut down");
        writeln!(requests, "{request}").unwrap();
        requests.flush().unwrap();
        let mut line = String::new();
        supervisor.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).expect("an answer of the supervisor");
        match answer["ok"] {
            Value::Bool(true) => Ok(answer),
            _ => Err(answer["error"].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// Whether any server was ever asked for.
    pub fn was_used(&self) -> bool {
        self.0.get().is_some()
    }

    /// The folder with all that the servers write.
    pub fn dir(&self) -> PathBuf {
        let answer = self.ask(json!({ "do": "dir" })).unwrap();
        answer["dir"].as_str().unwrap().into()
    }

    /// Ends every server and waits until all have ended.
    pub fn shut_down(&self) {
        let Some(supervisor) = self.0.get() else { return };
        let mut supervisor = supervisor.lock().unwrap();
        // The end of its requests.
        supervisor.requests = None;
        supervisor.process.wait().unwrap();
    }
}
