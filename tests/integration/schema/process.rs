//! Servers that the supervisor does not know, and that refuse to run as root.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use patgate_testing::stack::Server;
use serde_json::json;
use tempfile::TempDir;

use crate::support::Suite;

const NOBODY: u32 = 65534;

/// A directory for such a server, which belongs to the user that runs it.
pub(crate) struct ServerDirectory {
    dir: TempDir,
    is_root: bool,
}

impl ServerDirectory {
    pub(crate) fn new() -> Self {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("patgate-").permissions(Permissions::from_mode(0o755));
        // In a place that every user can reach: root's own folder for temporary files may be
        // closed.
        let dir = builder.tempdir_in("/tmp").unwrap();
        let is_root = fs::metadata(dir.path()).unwrap().uid() == 0;
        let home = Self { dir, is_root };
        home.give(home.dir.path());
        home
    }

    /// Starts a Postgres from these programs, in which everybody may log in, with `more` settings.
    pub(crate) fn postgres(&self, suite: &Suite, bin: &Path, port: u16, more: &[String]) -> Server {
        let data = self.path("data");
        let options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
        self.run(&bin.join("initdb"), &[&["-D", data.as_str()], options.as_slice()].concat());
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            format!("unix_socket_directories={}", self.path("")),
            "fsync=off".to_owned(),
        ];
        let mut arguments = vec!["-D", &data];
        for setting in settings.iter().chain(more) {
            arguments.extend(["-c", setting]);
        }
        self.start(suite, &bin.join("postgres"), &arguments, port)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        self.give(Path::new(&path));
        path
    }

    fn give(&self, path: &Path) {
        if self.is_root {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    fn argv(&self, program: &Path, arguments: &[&str]) -> Vec<String> {
        let mut argv = Vec::new();
        if self.is_root {
            let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
            argv.push("setpriv".to_owned());
            argv.extend(user);
            argv.push("--clear-groups".to_owned());
        }
        argv.push(program.display().to_string());
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        argv
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, program: &Path, arguments: &[&str]) {
        let argv = self.argv(program, arguments);
        let output =
            Command::new(&argv[0]).args(&argv[1..]).current_dir(&self.dir).output().unwrap();
        assert!(output.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a server, and waits until it listens on `port`.
    pub(crate) fn start(
        &self,
        suite: &Suite,
        program: &Path,
        arguments: &[&str],
        port: u16,
    ) -> Server {
        suite.stack.start(
            "process",
            json!({
                "argv": self.argv(program, arguments),
                "cwd": self.path(""),
                "ready": format!("127.0.0.1:{port}"),
            }),
        )
    }
}

/// Finds a program on the path, or where servers are installed outside of any path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    places.into_iter().map(|place| place.join(program)).find(|path| path.is_file())
}
