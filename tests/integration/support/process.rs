//! patgate as in production: a separate process.

use std::{fs, net::SocketAddr, sync::Arc};

use patgate_testing::{eventually, http, stack::Server};
use serde_json::{Value, json};

use crate::support::{Replica, World};

pub(crate) struct Process {
    pub(crate) replica: Arc<Replica>,
    pub(crate) server: Server,
}

/// Waits until the process is ready. It has the defaults, except for the settings that every
/// replica here has, and `settings`.
pub(crate) async fn serve(world: &World<'_>, settings: &[&str]) -> Process {
    serve_by(world, &[&program(), "serve"], settings).await
}

/// The same, started by another command.
pub(crate) async fn serve_by(world: &World<'_>, argv: &[&str], settings: &[&str]) -> Process {
    let process = listen(world, argv, settings).await;
    let http = process.replica.http.port();
    let ready = async || http::send(http, "GET", "/readyz", &[], "").await.status == 200;
    eventually("patgate to be ready", ready).await;
    process
}

/// The same, without waiting until it is ready.
pub(crate) async fn listen(world: &World<'_>, argv: &[&str], settings: &[&str]) -> Process {
    let env = world.environment(settings);
    let arguments = json!({ "argv": argv, "name": "patgate", "env": env });
    let server = world.suite.stack.start("process", arguments);
    eventually("patgate to listen", async || listening(&server).is_some()).await;
    let (grpc, http) = listening(&server).unwrap();
    Process { replica: Arc::new(Replica::at(grpc, http)), server }
}

/// The addresses for gRPC and HTTP, once the process has logged that it listens.
pub(crate) fn listening(server: &Server) -> Option<(SocketAddr, SocketAddr)> {
    let log = fs::read_to_string(&server.log).ok()?;
    let line = log.lines().find(|line| line.contains("\"listening\""))?;
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |of: &str| line[of].as_str()?.parse().ok();
    Some((address("grpc")?, address("http")?))
}

/// The environment may name another build, for tests of speed and endurance. The variable is not
/// named PATGATE_…, which patgate would read as a setting.
pub(crate) fn program() -> String {
    std::env::var("TESTED_PATGATE").unwrap_or_else(|_| env!("CARGO_BIN_EXE_patgate").to_owned())
}
