//! The process: start, health, drain, and messages that no Envoy would send.

use std::{fs, sync::Arc, time::Duration};

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use patgate_testing::{
    eventually,
    http::{self, Over},
    stack::project,
};
use serde_json::json;

use crate::support::{
    Suite,
    envoy::{envoy_patch, patient},
    fleet::status,
    outcome, process,
    replica::health,
    tokens::reader,
};

/// On SIGTERM a replica reports not ready, continues to answer for a while, and ends with 0.
pub(crate) async fn drains_before_it_ends(suite: Arc<Suite>) {
    const SERVING: i32 = 1;
    const NOT_SERVING: i32 = 2;
    let world = suite.world().await;
    let process = process::serve(&world, &["drain.delay=10s"]).await;
    let replica = process.replica;
    let process = process.server;
    let grpc = replica.grpc;
    let http = replica.http;
    let ready = async || http::send(http.port(), "GET", "/readyz", &[], "").await.status;
    assert_eq!(http::send(http.port(), "GET", "/livez", &[], "").await.status, 200);
    assert_eq!(health(grpc).await, SERVING);
    let token = reader(&world).await;
    assert_eq!(status(&replica, &token).await, 200);

    suite.stack.signal(&process, "TERM");
    eventually("patgate to say that it leaves", async || ready().await == 503).await;
    eventually("the same by gRPC", async || health(grpc).await == NOT_SERVING).await;
    assert_eq!(status(&replica, &token).await, 200, "still answered while it drains");
    assert_eq!(suite.stack.exit_code(&process).await, 0);
}

/// A message that is not a request is denied; it never gets a gRPC error, which could be an ALLOW.
pub(crate) async fn an_empty_request_is_denied(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let response = replica.raw(CheckRequest::default()).await;
    assert_eq!(outcome(&response), (400, "bad_request".to_owned()));
}

/// Envoy may be configured to show more of a body than patgate accepts. The client, who did nothing
/// wrong, is told to try again, in patgate's words; and the next call on that connection works.
pub(crate) async fn a_message_that_is_too_long_is_an_outage(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = world.token(&[("acme", "models", "m", "llm_embeddings")]).await.bearer();
    let replica = world.serve(&[]).await;
    let mut showing = fs::read_to_string(project("envoy/single-step.yaml")).unwrap();
    // Above the other limit, Envoy itself refuses with 413.
    for bound in ["max_request_bytes", "per_connection_buffer_limit_bytes"] {
        let raised = showing.replace(&format!("{bound}: 1048576"), &format!("{bound}: 8388608"));
        assert_ne!(raised, showing);
        showing = raised;
    }
    let patch = envoy_patch(&suite, &[replica.grpc], patient("10s", "10s"));
    let envoy = suite.stack.start("envoy", json!({ "config_yaml": showing, "patch": patch }));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let sizes = [(3, (200, "")), (6, (503, "unavailable")), (3, (200, ""))];
    for (over, (megabytes, expected)) in
        Over::ALL.into_iter().flat_map(|over| sizes.map(|size| (over, size)))
    {
        let input = "x".repeat(megabytes << 20);
        let body = json!({ "model": "m", "input": input }).to_string();
        let reply = over.post(envoy.port, "/proxy/acme/v1/embeddings", &headers, &body).await;
        let code = if reply.status == 200 { String::new() } else { reply.code() };
        assert_eq!((reply.status, code.as_str()), expected, "{over:?} {megabytes} MiB");
    }
    let denied = |code| {
        let labels = format!("outcome=\"deny\",code=\"{code}\",enforced=\"true\"");
        format!("patgate_decisions_total{{{labels}}}")
    };
    assert_eq!(replica.metric(&denied("unavailable")).await, Over::ALL.len() as u64);
    assert_eq!(replica.metric(&denied("bad_request")).await, 0);
}

/// If Postgres is down when a replica starts, and `start.require` names it, the replica ends with an
/// error that names the setting.
pub(crate) async fn does_not_start_without_postgres(suite: Arc<Suite>) {
    let world = suite.world().await;
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_patgate"))
        .arg("serve")
        .env("PATGATE_POSTGRES_URL", "postgres://nobody@127.0.0.1:1/none")
        .env("PATGATE_KEYRING_FILE", &world.keyring_file)
        .env("PATGATE_START_REQUIRE", "postgres")
        .env("PATGATE_LISTEN_GRPC", "127.0.0.1:0")
        .env("PATGATE_LISTEN_HTTP", "")
        .output();
    let output = tokio::time::timeout(Duration::from_secs(20), output).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("postgres.url"), "{said}");
}

/// Whichever listener it is, the error names the setting and the remedy, each once.
pub(crate) async fn an_address_in_use_is_told_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let path = suite.dir.path().join(format!("{}.sock", world.database));
    let _taken = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for (key, at) in [
        ("listen.grpc", &*address),
        ("listen.http", &*address),
        ("listen.uds", path.to_str().unwrap()),
    ] {
        let setting = format!("{key}={at}");
        let started = tokio::process::Command::new(env!("CARGO_BIN_EXE_patgate"))
            .arg("serve")
            .envs(world.environment(&["listen.grpc=127.0.0.1:0", "listen.http=", &setting]))
            .output();
        let output = tokio::time::timeout(Duration::from_secs(60), started).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let told = format!(
            "patgate: {key}: another process listens on {at}; stop it, or give {key} another value"
        );
        // The log's own lines are objects.
        let told_beside: Vec<_> = said.lines().filter(|line| !line.starts_with('{')).collect();
        assert_eq!(told_beside, [told]);
    }
}
