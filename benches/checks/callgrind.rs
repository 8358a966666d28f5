//! Counts instructions in user space of a server that valgrind runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    bench::{MANY, ask_all},
    grpc::{Connection, Pace, Requests},
    servers::Running,
};

/// Checks in the shorter of two runs. The longer one has three times as many; the difference
/// cancels out what both have in common.
const CHECKS: usize = 2000;
/// How long to watch what a server does without checks.
const IDLE: Duration = Duration::from_secs(4);

/// The hint if valgrind is not installed.
pub(crate) fn missing() -> Option<&'static str> {
    let found = Command::new("valgrind").arg("--version").output();
    (!found.is_ok_and(|done| done.status.success())).then_some(
        "valgrind is missing, which counts instructions. Debian and Ubuntu: apt-get install valgrind",
    )
}

/// The command that runs a program so that its instructions are counted once counting is switched
/// on.
pub(crate) fn tool(dir: &Path) -> Vec<String> {
    let profile = dir.join("callgrind.%p").display().to_string();
    let out = format!("--callgrind-out-file={profile}");
    ["valgrind", "--tool=callgrind", "--instr-atstart=no", &out].map(str::to_owned).into()
}

/// Instructions of one check, and the profile that assigns them to functions.
pub(crate) struct Profile {
    pub(crate) per_check: f64,
    functions: Vec<(String, f64)>,
}

impl Profile {
    /// Returns the instructions of all functions whose name begins with one of these, and of what
    /// they called.
    pub(crate) fn within(&self, names: &[&str]) -> f64 {
        let ours = |function: &str| names.iter().any(|name| function.starts_with(name));
        self.functions.iter().filter(|(name, _)| ours(name)).map(|(_, count)| count).sum()
    }
}

/// Counts checks drawn from `requests` in turn; all requests are sent once before.
pub(crate) fn profile(running: &Running, dir: &Path, requests: &Requests) -> Profile {
    ask_all(running, requests);
    let counter = Counter { pid: running.server.pid, dir: dir.to_owned() };
    counter.control("--instr=on");
    let mut connection = Connection::open(&running.tcp()).unwrap();
    let mut next = 0;
    let mut ask = |count: usize| {
        let end = next + count;
        let draw = || {
            let number = next % requests.len();
            next += 1;
            (next <= end).then_some(number)
        };
        connection.run(requests, Pace::Together(MANY), draw).unwrap();
        next = end;
    };
    // The first checks on a connection make its buffers grow.
    ask(CHECKS);
    counter.count(|| {});
    let idle = counter.count(|| thread::sleep(IDLE));
    let idle = idle.instructions / idle.took;
    let [short, long] = [CHECKS, 3 * CHECKS].map(|checks| counter.count(|| ask(checks)));
    let of = |counted: &Counted| counted.instructions - idle * counted.took;
    let per_check = (of(&long) - of(&short)) / (2 * CHECKS) as f64;
    let functions = functions(&long.file, (3 * CHECKS) as f64);
    Profile { per_check, functions }
}

struct Counter {
    pid: u32,
    dir: PathBuf,
}

struct Counted {
    instructions: f64,
    took: f64,
    file: PathBuf,
}

impl Counter {
    /// Counts from the last count to the end of `work`. Each count is a file with a higher number.
    fn count(&self, work: impl FnOnce()) -> Counted {
        let started = Instant::now();
        work();
        self.control("--dump");
        let took = started.elapsed().as_secs_f64();
        let prefix = format!("callgrind.{}.", self.pid);
        let number =
            |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix(&prefix)?.parse::<u32>().ok();
        let files = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path());
        let file = files.filter(|path| number(path).is_some()).max_by_key(number);
        let file = file.expect("a profile");
        let text = fs::read_to_string(&file).unwrap();
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let instructions = total.expect("a profile's total").trim().parse().unwrap();
        Counted { instructions, took, file }
    }

    fn control(&self, what: &str) {
        let pid = self.pid.to_string();
        let done = Command::new("callgrind_control").args([what, &pid]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && said.contains("OK."), "callgrind_control {what}: {said}");
    }
}

/// Returns the instructions per check within each function, by its name.
fn functions(profile: &Path, checks: f64) -> Vec<(String, f64)> {
    let options = ["--inclusive=yes", "--auto=no", "--threshold=100"];
    let done = Command::new("callgrind_annotate").args(options).arg(profile).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    // A line such as `1,234 ( 0.12%)  ???:patgate::token::Tokens::verify [/…/patgate]`.
    let function = |line: &str| {
        let (count, rest) = line.trim().split_once(' ')?;
        let count: f64 = count.replace(',', "").parse().ok()?;
        let name = rest.split_once("???:")?.1;
        let name = name.rsplit_once(" [").map_or(name, |(name, _)| name);
        Some((name.to_owned(), count / checks))
    };
    text.lines().filter_map(function).collect()
}
