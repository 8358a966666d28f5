//! Standard output and standard error that accept nothing: pipes that nothing reads, pipes whose
//! reader is gone, files on a full disk. patgate serves, applies changes and ends as usual.

use std::{
    fs::{self, File, Permissions},
    io::{self, BufRead, BufReader, PipeReader, Write},
    net::SocketAddr,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use patgate_testing::{eventually, http};
use rustix::{
    io::ioctl_fionbio,
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::{
    Replica, Suite, World, fleet::status, process::program, replica::health, tokens::reader,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum BrokenOutput {
    Blocked,
    Closed,
    Full,
}

/// The text that fills a pipe.
const FILL: &str = "###############\n";

impl BrokenOutput {
    /// Only Linux has a file that is always full.
    fn kinds() -> impl Iterator<Item = Self> {
        let full = cfg!(target_os = "linux").then_some(Self::Full);
        [Self::Blocked, Self::Closed].into_iter().chain(full)
    }

    /// Returns one end for the process, and the other end if there is one.
    fn open(self) -> (Stdio, Option<PipeReader>) {
        if self == Self::Full {
            return (File::options().write(true).open("/dev/full").unwrap().into(), None);
        }
        let (reader, mut writer) = io::pipe().unwrap();
        if self == Self::Blocked {
            ioctl_fionbio(&writer, true).unwrap();
            for line in [FILL, "\n"] {
                // A short line is written completely or not at all.
                while writer.write(line.as_bytes()).is_ok() {}
            }
            ioctl_fionbio(&writer, false).unwrap();
        }
        let writer = OwnedFd::from(writer);
        (writer.into(), (self == Self::Blocked).then_some(reader))
    }
}

struct Process {
    replica: Replica,
    child: Child,
    stderr: Option<PipeReader>,
    _stdout: Option<PipeReader>,
}

/// Starts a replica, both of whose outputs are broken from the start.
async fn serve(world: &World<'_>, how: BrokenOutput, settings: &[&str]) -> Process {
    let grpc = world.suite.stack.free_port();
    let http = world.suite.stack.free_port();
    let listen = [format!("listen.grpc=127.0.0.1:{grpc}"), format!("listen.http=127.0.0.1:{http}")];
    let loud = [
        "log.filter=trace",
        "decision_log.to=stdout",
        "decision_log.sample_allows=100%",
        "decision_log.queue=64",
        "drain.delay=3s",
        // A change is applied only because the feed was read.
        "max_staleness=10m",
    ];
    let settings = [&listen.each_ref().map(String::as_str)[..], &loud, settings].concat();
    let (stdout, out) = how.open();
    let (stderr, err) = how.open();
    let child = Command::new(program())
        .arg("serve")
        .envs(world.environment(&settings))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let process =
        Process { replica: Replica::at(at(grpc), at(http)), child, stderr: err, _stdout: out };
    eventually("patgate to be ready", async || process.ready().await == 200).await;
    process
}

impl Process {
    async fn ready(&self) -> u16 {
        let port = self.replica.http.port();
        match tokio::net::TcpStream::connect(self.replica.http).await {
            Ok(_) => http::send(port, "GET", "/readyz", &[], "").await.status,
            Err(_) => 0,
        }
    }

    async fn lines(&self, of: &str, result: &str) -> u64 {
        self.replica.metric(&format!("patgate_{of}_total{{result=\"{result}\"}}")).await
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    }
}

pub(crate) async fn a_blocked_output_ends_and_delays_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let behaves = async |how: BrokenOutput| {
        let token = reader(&world).await;
        let mut process = serve(&world, how, &[]).await;
        let replica = &process.replica;
        assert_eq!(health(replica.grpc).await, 1);
        let lost = if how == BrokenOutput::Blocked { "dropped" } else { "failed" };
        let both_lost = async || {
            process.lines("log_lines", lost).await > 0
                && process.lines("decision_log_records", lost).await > 0
        };
        while !both_lost().await {
            let told = join_all((0..100).map(|_| status(replica, &token))).await;
            assert!(told.iter().all(|status| *status == 200), "{how:?}: {told:?}");
        }
        world
            .sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", token.id))
            .await;
        eventually("the revocation to be obeyed", async || status(replica, &token).await == 401)
            .await;
        assert_eq!(replica.metric("patgate_feed_polls_total{result=\"failed\"}").await, 0);

        process.terminate();
        eventually("patgate to say that it leaves", async || process.ready().await == 503).await;
        assert_eq!(health(process.replica.grpc).await, 2);
        assert_eq!(status(&process.replica, &token).await, 401, "still answered while it drains");
        let ended = tokio::time::timeout(Duration::from_secs(60), process.child.wait()).await;
        assert_eq!(ended.expect("it ends").unwrap().code(), Some(0), "{how:?}");
    };
    join_all(BrokenOutput::kinds().map(behaves)).await;
}

/// The log continues when it can be written again, and says how much is missing.
pub(crate) async fn an_output_that_is_read_again_says_what_was_lost(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let mut process = serve(&world, BrokenOutput::Blocked, &[]).await;
    let replica = &process.replica;
    while process.lines("log_lines", "dropped").await == 0 {
        join_all((0..100).map(|_| status(replica, &token))).await;
    }
    let stderr = process.stderr.take().unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(stderr).lines().map(Result::unwrap);
        let lines = lines.filter(|line| !line.is_empty() && *line != FILL.trim_end());
        lines.map(|line| serde_json::from_str(&line).unwrap()).collect::<Vec<Value>>()
    });
    eventually("lines to be written", async || process.lines("log_lines", "written").await > 0)
        .await;
    process.terminate();
    assert_eq!(process.child.wait().await.unwrap().code(), Some(0));
    let lines = reading.await.unwrap();
    let is = |line: &&Value, message: &str| line["message"] == message;
    let lost =
        lines.iter().find(|line| is(line, "log lines were lost while they could not be written"));
    assert!(lost.expect("a report")["lost"].as_u64().unwrap() > 0);
    for message in ["listening", "ready", "draining"] {
        assert!(lines.iter().any(|line| is(&line, message)), "{message}");
    }
}

/// A blocked output does not delay the start.
pub(crate) async fn a_blocked_output_does_not_hang_the_start(suite: Arc<Suite>) {
    let world = suite.world().await;
    for (setting, code) in
        [("postgres.url=postgres://nobody@127.0.0.1:1/none", 1), ("deadline=x", 2)]
    {
        for how in BrokenOutput::kinds() {
            let (stdout, _out) = how.open();
            let (stderr, _err) = how.open();
            let mut child = Command::new(program())
                .arg("serve")
                .envs(world.environment(&[setting, "start.require=postgres"]))
                .stdout(stdout)
                .stderr(stderr)
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
            let ended = ended.unwrap_or_else(|_| panic!("{how:?}: it hangs")).unwrap();
            assert_eq!(ended.code(), Some(code), "{how:?}: {setting}");
        }
    }
}

/// A command whose warnings cannot be written loses them, and does its work.
pub(crate) async fn a_warning_that_cannot_be_written_fails_no_command(suite: Arc<Suite>) {
    let world = suite.world().await;
    let ring = suite.dir.path().join(format!("{}.read-by-all", world.database));
    fs::copy(&world.keyring_file, &ring).unwrap();
    fs::set_permissions(&ring, Permissions::from_mode(0o644)).unwrap();
    let list = async |stderr: Stdio| {
        let mut list = Command::new(program());
        list.args(["keyring", "list", "--file"]).arg(&ring).stdout(Stdio::piped()).stderr(stderr);
        list.spawn().unwrap().wait_with_output().await.unwrap()
    };
    let warned = list(Stdio::piped()).await;
    assert!(String::from_utf8_lossy(&warned.stderr).contains("everyone can read the key ring"));
    for how in BrokenOutput::kinds().filter(|how| *how != BrokenOutput::Blocked) {
        let (stderr, _) = how.open();
        let listed = list(stderr).await;
        assert_eq!(listed.status.code(), Some(0), "{how:?}");
        assert_eq!(listed.stdout, warned.stdout, "{how:?}");
    }
}

/// Text has colours only on a terminal.
pub(crate) async fn a_file_gets_no_colours(suite: Arc<Suite>) {
    let world = suite.world().await;
    let path = suite.dir.path().join(format!("{}.log", world.database));
    let settings = ["log.format=text", "mode=shadow", "listen.grpc=127.0.0.1:0", "listen.http="];
    let mut process = Command::new(program())
        .arg("serve")
        .envs(world.environment(&settings))
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stderr(File::create(&path).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let log = || fs::read_to_string(&path).unwrap();
    eventually("it to be ready", async || log().contains("ready")).await;
    process.kill().await.unwrap();
    assert!(log().contains("WARN") && log().contains("NOTHING IS ENFORCED"), "{}", log());
    assert!(!log().contains('\x1b'), "{:?}", log());
}
