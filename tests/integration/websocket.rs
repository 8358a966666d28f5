//! WebSockets: only if a rule permits them, without the token, and for a limited time.

use std::{fs, sync::Arc, time::Duration};

use patgate_testing::{
    stack::{Server, project},
    wire::{PATIENCE, Wire},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use crate::support::{
    Suite, Token, World,
    envoy::{envoy_patch, patient},
    leaks,
};

const REALTIME: &str = "/proxy/acme/v1/realtime";
const RULES: &str = r#"
  - { methods: [GET], path: "/v1/query", operation: llm_transcription, entity: models, id: query.model, upgrade: websocket }
"#;

/// A backend that accepts every WebSocket, repeats what it receives, and reports each head.
async fn echo() -> (u16, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heads, seen) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).await?;
                    head.push(byte[0]);
                }
                let _ = heads.send(String::from_utf8(head).unwrap());
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n\
                              upgrade: websocket\r\nsec-websocket-protocol: realtime\r\n\r\n";
                stream.write_all(answer.as_bytes()).await?;
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    (port, seen)
}

/// The shipped Envoy, except that a stream lasts this long.
fn envoy(suite: &Suite, replica: std::net::SocketAddr, backend: u16, lasts: &str) -> Server {
    let shipped = fs::read_to_string(project("envoy/envoy.yaml")).unwrap();
    let limit = "max_stream_duration: { max_stream_duration: 600s }";
    assert!(shipped.contains(limit));
    let config = shipped.replace(limit, &limit.replace("600s", lasts));
    let mut patch = envoy_patch(suite, &[replica], patient("10s", "10s"));
    patch["clusters"]["model-acme"] = json!(format!("127.0.0.1:{backend}"));
    suite.stack.start("envoy", json!({ "config_yaml": config, "patch": patch }))
}

/// Asks for a WebSocket, and returns the connection and the answer's head.
async fn open(port: u16, target: &str, headers: &[(&str, &str)]) -> Wire {
    let mut wire = Wire::connect(port).await;
    let mut head = format!("GET {target} HTTP/1.1\r\nhost: gateway\r\n");
    let has = |name: &str| headers.iter().any(|(known, _)| *known == name);
    if !has("connection") {
        head.push_str("connection: Upgrade\r\n");
    }
    head.push_str("upgrade: websocket\r\nsec-websocket-version: 13\r\n");
    head.push_str("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    wire.write(&format!("{head}\r\n")).await;
    wire.read_until("\r\n\r\n").await;
    wire
}

async fn transcriber(world: &World<'_>, model: &str) -> Token {
    world.token(&[("acme", "models", model, "llm_transcription")]).await
}

pub(crate) async fn only_where_a_rule_says_so_and_without_the_token(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = transcriber(&world, "*").await;
    let limited = transcriber(&world, "m-1").await;
    let table = fs::read_to_string(format!("{}/cube-ai.yaml", suite.shipped_tables)).unwrap();
    let file = suite.dir.path().join(format!("realtime-{}.yaml", world.database));
    fs::write(&file, format!("{table}{RULES}")).unwrap();
    let replica = world.serve(&[&format!("apis={}", file.display())]).await;
    let (backend, mut seen) = echo().await;
    let envoy = envoy(&suite, replica.grpc, backend, "600s");
    let bearer = token.bearer();
    let in_header = ("authorization", bearer.as_str());
    let of_browser = format!("realtime, openai-insecure-api-key.{}, v1", token.text);
    let of_browser = ("sec-websocket-protocol", of_browser.as_str());
    let keep_alive = ("connection", "keep-alive, Upgrade");
    for headers in
        [&[of_browser][..], &[in_header], &[in_header, of_browser], &[of_browser, keep_alive]]
    {
        let mut wire = open(envoy.port, REALTIME, headers).await;
        assert!(wire.text.starts_with("HTTP/1.1 101"), "{headers:?}: {}", wire.text);
        let head = seen.recv().await.unwrap().to_ascii_lowercase();
        assert!(head.starts_with("get /v1/realtime http/1.1\r\n"), "{head}");
        assert!(!leaks::mentions(&head, &[&token.text.to_ascii_lowercase()]), "{head}");
        assert!(head.contains("upgrade: websocket\r\n") && head.contains("x-user-id: "), "{head}");
        let subprotocols = head.contains("sec-websocket-protocol: realtime, v1\r\n");
        assert_eq!(subprotocols, headers.contains(&of_browser), "{head}");
        wire.write("said and heard").await;
        wire.read_until("said and heard").await;
    }
    let limited_bearer = limited.bearer();
    let limited_header = ("authorization", limited_bearer.as_str());
    let names_ours = ("connection", "Upgrade, x-user-id");
    let twice = ("connection", "upgrade,x-pat-id , keep-alive");
    for (what, target, headers, status) in [
        ("no token", REALTIME, &[][..], 401),
        ("a header to drop", REALTIME, &[in_header, names_ours], 400),
        ("another one", REALTIME, &[in_header, twice], 400),
        ("no rule for an upgrade", "/proxy/acme/v1/models", &[in_header], 404),
        ("another path", "/proxy/acme/v1/realtime/x", &[in_header], 404),
        // The model comes in a later message, which patgate does not read.
        ("a limited token", REALTIME, &[limited_header], 403),
        ("and a query", "/proxy/acme/v1/realtime?model=m-1", &[limited_header], 400),
        ("the model of the query", "/proxy/acme/v1/query?model=m-1", &[limited_header], 101),
        ("another model", "/proxy/acme/v1/query?model=m-2", &[limited_header], 403),
        ("two", "/proxy/acme/v1/query?model=m-1&model=m-1", &[limited_header], 400),
        ("two keys", "/proxy/acme/v1/query?model=m-1&Model=m-2", &[limited_header], 400),
        ("an encoded one", "/proxy/acme/v1/query?model=m%2D1", &[limited_header], 400),
        ("none", "/proxy/acme/v1/query", &[limited_header], 403),
        ("none that matters", "/proxy/acme/v1/query", &[in_header], 101),
    ] {
        let wire = open(envoy.port, target, headers).await;
        let told = format!("HTTP/1.1 {status}");
        assert!(wire.text.starts_with(&told), "{what}: {}", wire.text);
        if status == 101 {
            seen.recv().await.unwrap();
        } else {
            assert!(seen.try_recv().is_err(), "{what}: a backend was asked");
        }
    }
}

pub(crate) async fn a_websocket_ends_with_the_longest_stream(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = transcriber(&world, "*").await;
    let replica = world.serve(&[]).await;
    let (backend, _seen) = echo().await;
    let bearer = token.bearer();
    for (lasts, ends) in [("1s", true), ("600s", false)] {
        let envoy = envoy(&suite, replica.grpc, backend, lasts);
        let wire = open(envoy.port, REALTIME, &[("authorization", &bearer)]).await;
        assert!(wire.text.starts_with("HTTP/1.1 101"), "{}", wire.text);
        let mut stream = wire.into_stream();
        // It is used all the time, so it does not end because it is idle.
        let used = async {
            let mut byte = [0];
            while stream.write_all(b"x").await.is_ok() && stream.read_exact(&mut byte).await.is_ok()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let patience = if ends { PATIENCE } else { Duration::from_secs(3) };
        assert_eq!(timeout(patience, used).await.is_ok(), ends, "{lasts}");
    }
}
