//! The real servers, which the supervisor in tools/stack.py runs.
//!
//! The first request starts the supervisor. When our end of its standard input closes, it ends
//! every server that it started, so a killed test run leaves nothing behind.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::eventually;

#[derive(Clone, Default)]
pub struct Stack(Arc<OnceLock<Mutex<Supervisor>>>);

struct Supervisor {
    /// `None` after the shutdown.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    process: Child,
}

/// A server that the supervisor started. Which members are set depends on its kind.
///
/// An Envoy or another program ends with its handle. Each takes much, also if nobody needs it any more:
/// memory, queries and health checks, and an Envoy two of the 128 inotify instances that a user has on
/// most machines. Stores end with the supervisor, because what they hold is looked at in the end.
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
    /// The ports of an Envoy's listeners, by their names.
    #[serde(default)]
    pub ports: HashMap<String, u16>,
    pub log: String,
    #[serde(skip)]
    _ends: Option<Arc<EndsWithHandle>>,
}

#[derive(Debug)]
struct EndsWithHandle {
    stack: Stack,
    id: String,
}

impl Drop for EndsWithHandle {
    fn drop(&mut self) {
        // It may have ended already, or all servers with the supervisor.
        let end = json!({ "do": "signal", "id": self.id, "signal": "TERM" });
        let _ = self.stack.request(&end);
    }
}

impl Server {
    /// The memory that it uses, in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The maximum of that memory so far.
    pub fn peak_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, figure: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// Returns the path of a file in the repository.
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

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stack")
    }
}

impl Stack {
    pub fn start(&self, kind: &str, arguments: Value) -> Server {
        let mut request = json!({ "do": "start", "kind": kind });
        request.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
        let mut server: Server = serde_json::from_value(self.ask(request).unwrap()).unwrap();
        if matches!(kind, "envoy" | "process") {
            let ends = EndsWithHandle { stack: self.clone(), id: server.id.clone() };
            server._ends = Some(Arc::new(ends));
        }
        server
    }

    /// Starts Envoy with the shipped configuration, with the changes in `patch`.
    pub fn envoy(&self, patch: Value) -> Server {
        self.start("envoy", json!({ "config": project("envoy/envoy.yaml"), "patch": patch }))
    }

    pub fn stop(&self, server: &Server) {
        self.ask(json!({ "do": "stop", "id": server.id })).unwrap();
    }

    /// Restarts a server, and returns it with its new process id.
    pub fn restart(&self, server: &Server) -> Server {
        let answer = self.ask(json!({ "do": "restart", "id": server.id })).unwrap();
        let restarted: Server = serde_json::from_value(answer).unwrap();
        Server { _ends: server._ends.clone(), ..restarted }
    }

    pub fn signal(&self, server: &Server, signal: &str) {
        self.ask(json!({ "do": "signal", "id": server.id, "signal": signal })).unwrap();
    }

    /// A free port for a process that must return under the same address.
    pub fn free_port(&self) -> u16 {
        let answer = self.ask(json!({ "do": "free-port" })).unwrap();
        answer["port"].as_u64().unwrap().try_into().unwrap()
    }

    /// Returns whether a process still runs.
    pub fn is_running(&self, server: &Server) -> bool {
        self.ask(json!({ "do": "status", "id": server.id })).unwrap()["running"] == true
    }

    /// Waits until a process ends by itself, and returns its exit code. It asks repeatedly, because
    /// the supervisor handles one request at a time, and other tests need it meanwhile.
    pub async fn exit_code(&self, server: &Server) -> Value {
        let status = || self.ask(json!({ "do": "status", "id": server.id })).unwrap();
        eventually("the process to end", async || status()["running"] == false).await;
        status()["exit"].take()
    }

    /// Sends one request and returns the answer; the error is the supervisor's.
    pub fn ask(&self, request: Value) -> Result<Value, String> {
        self.0.get_or_init(|| Mutex::new(Supervisor::launch()));
        let answer = self.request(&request).expect("a supervisor that was not shut down");
        match answer["ok"] {
            Value::Bool(true) => Ok(answer),
            _ => Err(answer["error"].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// Sends one request, unless there is no supervisor any more.
    fn request(&self, request: &Value) -> Option<Value> {
        let mut supervisor = self.0.get()?.lock().ok()?;
        let requests = supervisor.requests.as_mut()?;
        writeln!(requests, "{request}").unwrap();
        requests.flush().unwrap();
        let mut line = String::new();
        supervisor.answers.read_line(&mut line).unwrap();
        Some(serde_json::from_str(&line).expect("an answer of the supervisor"))
    }

    /// Returns whether any server was ever requested.
    pub fn was_used(&self) -> bool {
        self.0.get().is_some()
    }

    /// The folder with all files that the servers write.
    pub fn dir(&self) -> PathBuf {
        let answer = self.ask(json!({ "do": "dir" })).unwrap();
        answer["dir"].as_str().unwrap().into()
    }

    /// Ends every server and waits until all have ended.
    pub fn shut_down(&self) {
        let Some(supervisor) = self.0.get() else { return };
        let mut supervisor = supervisor.lock().unwrap();
        // This closes the supervisor's standard input.
        supervisor.requests = None;
        supervisor.process.wait().unwrap();
    }
}
