//! The measured processes: one core for them, the other for the client.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use patgate_testing::stack::{Server, Stack};
use serde_json::{Map, Value, json};

use crate::{
    grpc::Target,
    site::{Database, Site},
};

const CLIENT_CORE: &str = "0";
const SERVER_CORE: &str = "1";
/// Generous, because under valgrind everything takes fifty times as long.
const START: Duration = Duration::from_secs(120);
/// For runs that do not measure time: under valgrind, and in checks that wait for a store. On a
/// busy machine, a 503 would end the run.
pub(crate) const PATIENT: [(&str, &str); 2] = [("DEADLINE", "20s"), ("REDIS_TIMEOUT", "1s")];

/// How a process is started: with `taskset`, with valgrind, or directly.
#[derive(Clone, Default)]
pub(crate) struct Launcher(Vec<String>);

impl Launcher {
    /// Binds this process to one core, and what it starts to another, if there are two.
    pub(crate) fn pinned() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let me = std::process::id().to_string();
        let pin = Command::new("taskset").args(["-a", "-c", "-p", CLIENT_CORE, &me]).output();
        if cores < 2 || !pin.is_ok_and(|done| done.status.success()) {
            eprintln!(
                "NOT PINNED: this needs two cores and taskset (util-linux). Client and servers \
                 share {cores} core(s), and the ratios below are closer to 1 than the truth."
            );
            return Self::default();
        }
        Self(["taskset", "-c", SERVER_CORE].map(str::to_owned).into())
    }

    pub(crate) fn under(&self, tool: impl IntoIterator<Item = String>) -> Self {
        Self(self.0.iter().cloned().chain(tool).collect())
    }

    pub(crate) fn argv(&self, program: &[&str]) -> Vec<String> {
        self.0.iter().cloned().chain(program.iter().map(|&text| text.to_owned())).collect()
    }
}

/// A measured server. It ends with the supervisor, or by `stop`.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) grpc: SocketAddr,
    pub(crate) socket: PathBuf,
    http: Option<SocketAddr>,
}

/// The measured release binary; the name of the variable is not one of patgate's settings.
pub(crate) fn program() -> String {
    std::env::var("TESTED_PATGATE").unwrap_or_else(|_| env!("CARGO_BIN_EXE_patgate").to_owned())
}

/// Starts patgate with the defaults, on a separate database and Redis, and with `settings`.
pub(crate) fn patgate(
    site: &Site,
    launcher: &Launcher,
    database: &Database,
    settings: &[(&str, &str)],
) -> Running {
    let socket = fresh(site.dir.path(), "patgate");
    let env = environment(site, database, &socket, settings);
    let argv = launcher.argv(&[&program(), "serve"]);
    let arguments = json!({ "argv": argv, "name": "patgate", "env": env });
    let server = site.stack.start("process", arguments);
    let (grpc, http) = addresses(&site.stack, &server);
    let running = Running { server, grpc, socket, http };
    until(START, "patgate to be ready", || running.get("/readyz").is_some());
    running
}

/// Returns patgate's environment.
pub(crate) fn environment(
    site: &Site,
    database: &Database,
    socket: &Path,
    settings: &[(&str, &str)],
) -> Map<String, Value> {
    let keyring = site.keyring.display().to_string();
    let socket = socket.display().to_string();
    let needed = [
        ("POSTGRES_URL", database.url.as_str()),
        ("KEYRING_FILE", &keyring),
        ("LISTEN_GRPC", "127.0.0.1:0"),
        ("LISTEN_HTTP", "127.0.0.1:0"),
        ("LISTEN_UDS", &socket),
    ];
    let variable = |&(key, value): &(&str, &str)| (format!("PATGATE_{key}"), Value::from(value));
    needed.iter().chain(settings).map(variable).collect()
}

/// Starts the baseline, which is this program under another name.
pub(crate) fn allow_all(site: &Site, launcher: &Launcher) -> Running {
    let socket = fresh(site.dir.path(), "allow-all");
    let this = std::env::current_exe().unwrap().display().to_string();
    let argv = launcher.argv(&[&this, "allow-all", &socket.display().to_string()]);
    let server = site.stack.start("process", json!({ "argv": argv, "name": "allow-all" }));
    let (grpc, http) = addresses(&site.stack, &server);
    Running { server, grpc, socket, http }
}

/// Returns an unused name for a socket.
pub(crate) fn fresh(dir: &Path, name: &str) -> PathBuf {
    let unused = |n: &usize| !dir.join(format!("{name}-{n}")).exists();
    dir.join(format!("{name}-{}", (0..).find(unused).unwrap()))
}

/// Reads the address from the line of the log that names it.
fn addresses(stack: &Stack, server: &Server) -> (SocketAddr, Option<SocketAddr>) {
    let log = || fs::read_to_string(&server.log).unwrap_or_default();
    let mut found = None;
    until(START, "a server to listen", || {
        assert!(stack.is_running(server), "{} ended:\n{}", server.id, log());
        found = log().lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let address = |of: &str| line[of].as_str()?.parse().ok();
            (line["message"] == "listening").then_some(())?;
            Some((address("grpc")?, address("http")))
        });
        found.is_some()
    });
    found.unwrap()
}

impl Running {
    pub(crate) fn tcp(&self) -> Target {
        Target::Tcp(self.grpc)
    }

    pub(crate) fn stop(self, stack: &Stack) {
        // A draining patgate would continue to serve for a while.
        stack.signal(&self.server, "KILL");
        stack.stop(&self.server);
    }

    /// Returns the processor time of all its threads.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(self.server.pid)
    }

    /// Returns its memory in MiB.
    pub(crate) fn resident(&self) -> f64 {
        self.server.resident() as f64 / f64::from(1 << 20)
    }

    /// Returns the value of one line of its metrics; 0 if the line is missing.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let page = self.get("/metrics").expect("metrics");
        let value = page.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    fn get(&self, path: &str) -> Option<String> {
        get(self.http?, path)
    }
}

/// Returns the text of a page, if the page exists.
pub(crate) fn get(from: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(from).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.1 200").then_some(text)
}

/// Reads nanoseconds from the scheduler, because `stat` counts in hundredths of a second.
pub(crate) fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let time = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(time.sum())
}

pub(crate) fn until(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < end, "gave up waiting for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
