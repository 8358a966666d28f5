//! Clients that share no code with patgate, and Envoy as it sends headers when told to send them raw.

use std::{process::Command, sync::Arc};

use patgate_testing::{http::Over, stack::project};
use serde_json::{Value, json};

use crate::support::{
    Suite,
    envoy::{envoy_patch, patient},
    process,
};

/// grpcio reports what was meant, where a call ends with a status and nothing else, too.
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
    let (check, health) = ("/envoy.service.auth.v3.Authorization", "/grpc.health.v1.Health");
    let expected = [
        (format!("{health}/Check"), "OK"),
        (format!("{health}/Check"), "OK"),
        (format!("{health}/Check"), "NOT_FOUND"),
        (format!("{health}/NoSuchMethod"), "UNIMPLEMENTED"),
        (format!("{check}/NoSuchMethod"), "UNIMPLEMENTED"),
        ("/no.such.Service/Method".to_owned(), "UNIMPLEMENTED"),
        (format!("{check}/Check"), "OK"),
        (format!("{health}/Watch"), "OK"),
    ];
    let expected: Vec<_> = expected.iter().map(|(path, status)| (path.as_str(), *status)).collect();
    assert_eq!(statuses, expected, "{said}");
    // SERVING.
    for call in [&heard[0], &heard[1], &heard[7]] {
        assert_eq!(call["answer"], "0801");
    }
    assert_ne!(heard[6]["answer"], "", "an empty answer is an ALLOW");
}

/// Where grpcurl is; `make grpc-test` says so.
const GRPCURL: &str = "GRPCURL";

pub(crate) fn has_grpcurl() -> bool {
    std::env::var_os(GRPCURL).is_some()
}

/// grpc-go takes an answer apart differently: what is missing in it becomes `Internal` or `Unknown`.
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
        let (out, err) = (output.stdout, String::from_utf8(output.stderr).unwrap());
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
    // Without a definition it asks for one first, which is a stream in both directions.
    let mut list = tokio::process::Command::new(&grpcurl);
    list.args(["-plaintext", "-max-time", "60", &address, "list"]);
    let output = list.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("does not support the reflection API"), "{said}");
}

/// With `encode_raw_headers` Envoy sends no map of headers, but a list.
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
        // What a body says of itself is read from the list as well.
        assert_eq!(send(&[bearer], "other").await, expected(403, "permission_denied"));
        assert_eq!(send(&[bearer, ("content-encoding", "br")], "m").await.0, 415);
        assert_eq!(send(&[], "m").await, expected(401, "missing_credential"));
        assert_eq!(send(&[bearer, bearer], "m").await, expected(400, "bad_request"));
    }
}
