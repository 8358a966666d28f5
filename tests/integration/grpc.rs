//! Clients that share no code with patgate, and an Envoy that sends headers raw.

use std::{process::Command, sync::Arc};

use patgate_testing::{http::Over, stack::project};
use serde_json::{Value, json};

use crate::support::{
    Suite,
    envoy::{envoy_patch, patient},
    process,
};

/// grpcio reports the intended status, also if a call ends with a status and no message.
pub(crate) async fn grpcio_hears_every_status(suite: Arc<Suite>) {
    let world = suite.world().await;
    let process = process::serve(&world, &[]).await;
    let address = process.replica.grpc.to_string();
    let client = project("tests/clients/grpc_client.py");
    let run =
        move || Command::new(project(".venv/bin/python")).args([client, address]).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let heard: Vec<Value> = output
        .stdout
        .split_inclusive(|b| *b == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let statuses: Vec<_> = heard
        .iter()
        .map(|call| (call["path"].as_str().unwrap(), call["status"].as_str().unwrap()))
        .collect();
    let check = "/envoy.service.auth.v3.Authorization";
    let health = "/grpc.health.v1.Health";
    let expected = [
        (format!("{health}/Check"), "OK"),
        (format!("{health}/Check"), "OK"),
        (format!("{health}/Check"), "NOT_FOUND"),
        (format!("{health}/NoSuchMethod"), "UNIMPLEMENTED"),
        (format!("{check}/NoSuchMethod"), "UNIMPLEMENTED"),
        ("/no.such.Service/Method".to_owned(), "UNIMPLEMENTED"),
        (format!("{check}/Check"), "OK"),
        (format!("{health}/Watch"), "OK"),
        (format!("{check}/Check"), "OK"),
        (format!("{check}/Check"), "OK"),
    ];
    let expected: Vec<_> = expected.iter().map(|(path, status)| (path.as_str(), *status)).collect();
    assert_eq!(statuses, expected, "{said}");
    // SERVING.
    for call in [&heard[0], &heard[1], &heard[7]] {
        assert_eq!(call["answer"], "0801");
    }
    assert_ne!(heard[6]["answer"], "", "an empty answer is an ALLOW");
    assert_ne!(heard[8]["answer"], "", "an empty answer is an ALLOW");
    assert_eq!(heard[8]["answer"], heard[9]["answer"], "one is compressed");
}

/// Names the grpcurl program; `make grpc-test` sets it.
const GRPCURL: &str = "GRPCURL";

pub(crate) fn has_grpcurl() -> bool {
    std::env::var_os(GRPCURL).is_some()
}

/// grpc-go parses an answer in another way: a missing part becomes `Internal` or `Unknown`.
pub(crate) async fn grpcurl_hears_every_status(suite: Arc<Suite>) {
    let grpcurl = std::env::var(GRPCURL).unwrap();
    let world = suite.world().await;
    let process = process::serve(&world, &[]).await;
    let address = process.replica.grpc.to_string();
    let call = async |service: &str, method: &str| {
        let mut command = tokio::process::Command::new(&grpcurl);
        command.args(["-plaintext", "-max-time", "60", "-import-path", &project("tests/clients")]);
        command.args(["-proto", "grpcurl.proto", "-d", &json!({ "service": service }).to_string()]);
        let output = command.arg(&address).arg(method).output().await.unwrap();
        let out = output.stdout;
        let err = String::from_utf8(output.stderr).unwrap();
        let code = err.lines().find_map(|line| line.trim().strip_prefix("Code: "));
        code.map_or_else(
            || {
                let answer = serde_json::from_slice::<Value>(&out);
                answer.unwrap_or_else(|_| panic!("{method}: {err}"))["status"].to_string()
            },
            str::to_owned,
        )
    };
    let health = "grpc.health.v1.Health/Check";
    for (service, method, expected) in [
        ("", health, "\"SERVING\""),
        ("envoy.service.auth.v3.Authorization", health, "\"SERVING\""),
        ("no.such.Service", health, "NotFound"),
        ("", "grpc.health.v1.Health/NoSuchMethod", "Unimplemented"),
        ("", "grpc.health.v1.NoSuchService/Check", "Unimplemented"),
    ] {
        assert_eq!(call(service, method).await, expected, "{service} {method}");
    }
}

/// Without a definition of its own, grpcurl asks patgate for it.
pub(crate) async fn grpcurl_finds_services_and_messages_by_reflection(suite: Arc<Suite>) {
    let grpcurl = std::env::var(GRPCURL).unwrap();
    let world = suite.world().await;
    let token = world.token(&[("acme", "models", "m", "llm_read")]).await;
    let process = process::serve(&world, &[]).await;
    let address = process.replica.grpc.to_string();
    let run = async |options: &[&str], of: &[&str]| {
        let mut command = tokio::process::Command::new(&grpcurl);
        command.args(["-plaintext", "-max-time", "60"]).args(options).arg(&address).args(of);
        let output = command.output().await.unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{of:?}: {err}");
        String::from_utf8(output.stdout).unwrap()
    };
    let authorization = "envoy.service.auth.v3.Authorization";
    let list = run(&[], &["list"]).await;
    let services = [authorization, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];
    assert_eq!(list.lines().collect::<Vec<_>>(), services);
    let described = run(&[], &["describe", authorization]).await;
    assert!(described.contains("rpc Check ( .envoy.service.auth.v3.CheckRequest )"), "{described}");
    for message in ["CheckRequest", "AttributeContext", "CheckResponse"] {
        let described = run(&[], &["describe", &format!("envoy.service.auth.v3.{message}")]).await;
        assert!(described.contains(&format!("message {message} {{")), "{described}");
    }
    let check = async |headers: Value| {
        let http =
            json!({ "method": "GET", "path": "/proxy/acme/v1/models/m", "headers": headers });
        let question = json!({ "attributes": { "request": { "http": http } } }).to_string();
        let answer = run(&["-d", &question], &[&format!("{authorization}/Check")]).await;
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let allowed = check(json!({ "authorization": token.bearer() })).await;
    assert_eq!(allowed["dynamicMetadata"]["outcome"], "allow", "{allowed}");
    assert!(allowed["okResponse"]["headers"].is_array(), "{allowed}");
    let denied = check(json!({})).await;
    assert_eq!(denied["deniedResponse"]["status"]["code"], "Unauthorized", "{denied}");
}

/// With `encode_raw_headers`, Envoy sends a list of headers instead of a map.
pub(crate) async fn envoy_may_send_headers_raw(suite: Arc<Suite>) {
    let world = suite.world().await;
    let mine = world.token(&[("acme", "models", "m", "llm_embeddings")]).await.bearer();
    let replica = world.serve(&[]).await;
    let ext_authz = {
        let mut patient = patient("10s", "10s");
        patient["encode_raw_headers"] = json!(true);
        patient
    };
    let envoy = suite.stack.envoy(envoy_patch(&suite, &[replica.grpc], ext_authz));
    for over in Over::ALL {
        let send = async |headers: &[(&str, &str)], model: &str| {
            let body = json!({ "model": model, "input": "x" }).to_string();
            let headers = [&[("content-type", "application/json")], headers].concat();
            let reply = over.post(envoy.port, "/proxy/acme/v1/embeddings", &headers, &body).await;
            let code = if reply.status == 200 { String::new() } else { reply.code() };
            (reply.status, code)
        };
        let bearer = ("authorization", &*mine);
        let expected = |status: u16, code: &str| (status, code.to_owned());
        assert_eq!(send(&[bearer], "m").await, expected(200, ""));
        // The headers about a body are read from the list also.
        assert_eq!(send(&[bearer], "other").await, expected(403, "permission_denied"));
        assert_eq!(send(&[bearer, ("content-encoding", "br")], "m").await.0, 415);
        assert_eq!(send(&[], "m").await, expected(401, "missing_credential"));
        assert_eq!(send(&[bearer, bearer], "m").await, expected(400, "bad_request"));
    }
}
