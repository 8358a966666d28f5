//! Uploads that do not end, and what Envoy keeps of them.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use patgate_testing::{
    PAUSE, eventually,
    http::{self, Over, Sent},
    stack::{Server, project},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use crate::support::{
    Suite,
    envoy::{envoy_patch, patient},
};

const CHAT: &str = "/proxy/acme/v1/chat/completions";
const MIB: u64 = 1 << 20;
/// If no byte is accepted for this time, the reader has stopped.
const STALLED: Duration = Duration::from_secs(3);

/// Envoy as shipped, with these replacements in its text.
fn envoy(suite: &Suite, authz: &str, ext_authz: Value, changes: &[(&str, &str)]) -> Server {
    let mut text = fs::read_to_string(project("envoy/envoy.yaml")).unwrap();
    for (from, to) in changes {
        assert_eq!(text.matches(from).count(), 1, "{from} in envoy/envoy.yaml");
        text = text.replace(from, to);
    }
    let patch = envoy_patch(suite, &[authz], ext_authz);
    suite.stack.start("envoy", json!({ "config_yaml": text, "patch": patch }))
}

/// The bytes that Envoy has allocated and not returned.
async fn allocated(envoy: &Server) -> u64 {
    let page = http::send(envoy.admin_port, "GET", "/memory", &[], "").await.body;
    // The answer comes in chunks, which this client does not decode.
    let object = &page[page.find('{').unwrap()..=page.find('}').unwrap()];
    let memory: Value = serde_json::from_str(object).unwrap();
    memory["allocated"].as_str().unwrap().parse().unwrap()
}

/// Everything except the end of an upload.
fn unfinished<'a>(headers: &'a [(&'a str, &'a str)], body: &'a [u8]) -> Sent<'a> {
    Sent { method: "POST", target: CHAT, headers, body, unfinished: true, ..Sent::default() }
}

/// Without a valid token, an upload is refused at once. With one, a client that sends everything
/// except the last byte is refused later, and Envoy frees what it held.
pub(crate) async fn an_upload_that_does_not_end_is_ended(suite: Arc<Suite>) {
    const EACH: usize = 12;
    let world = suite.world().await;
    let limited = world.token(&[("acme", "models", "m", "llm_chat_completions")]).await.bearer();
    let replica = world.serve(&[]).await;
    let shorter = [("request_timeout: 120s", "request_timeout: 2s")];
    let envoy = envoy(&suite, &replica.grpc.to_string(), patient("10s", "10s"), &shorter);
    let body: Arc<[u8]> = vec![b'x'; MIB as usize - 1].into();
    let before = allocated(&envoy).await;

    let mut replies = JoinSet::new();
    for over in Over::ALL {
        for number in 0..2 * EACH {
            let token = (number % 2 == 0).then(|| limited.clone());
            let body = Arc::clone(&body);
            let port = envoy.port;
            replies.spawn(async move {
                let content_type = ("content-type", "application/json");
                let authorization = token.as_deref().map(|value| ("authorization", value));
                let headers: Vec<_> = authorization.into_iter().chain([content_type]).collect();
                let reply = over.send(port, unfinished(&headers, &body)).await;
                (over, token.is_some(), reply)
            });
        }
    }
    let mut peak = 0;
    let mut ended = 0;
    while ended < Over::ALL.len() * 2 * EACH {
        while let Some(reply) = replies.try_join_next() {
            let (over, has_token, reply) = reply.unwrap();
            let expected = if has_token { 408 } else { 401 };
            assert_eq!(reply.status, expected, "{over:?}: {reply:?}");
            ended += 1;
        }
        peak = peak.max(allocated(&envoy).await);
        sleep(PAUSE).await;
    }
    assert!(peak > before + EACH as u64 * MIB, "held {peak} of {before}: not what this is about");
    eventually("the memory to be free again", async || allocated(&envoy).await < before + 8 * MIB)
        .await;
}

/// If a client does not read a long answer, Envoy holds little of it: the routes limit how much of
/// bodies it holds elsewhere.
pub(crate) async fn an_answer_that_nobody_reads_holds_little(suite: Arc<Suite>) {
    const CLIENTS: u64 = 12;
    const ANSWER: usize = 30 << 20;
    let world = suite.world().await;
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let replica = world.serve(&[]).await;
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut patch = envoy_patch(&suite, &[replica.grpc], patient("60s", "60s"));
    patch["clusters"]["model-acme"] = json!(backend.local_addr().unwrap().to_string());
    let envoy = suite.stack.envoy(patch);
    let before = allocated(&envoy).await;

    let head = format!(
        "GET /proxy/acme/v1/models HTTP/1.1\r\nhost: gateway\r\nauthorization: {}\r\n\r\n",
        token.bearer()
    );
    let mut clients = Vec::new();
    let mut answers = JoinSet::new();
    for _ in 0..CLIENTS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = socket.connect(([127, 0, 0, 1], envoy.port).into()).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        clients.push(client);
        let (mut served, _) = backend.accept().await.unwrap();
        answers.spawn(async move {
            let start = format!("HTTP/1.1 200 OK\r\ncontent-length: {ANSWER}\r\n\r\n");
            served.write_all(start.as_bytes()).await.unwrap();
            let piece = vec![b'x'; 1 << 16];
            let mut sent = 0;
            // As long as bytes are accepted; accepting all of them would be the fault.
            while sent < ANSWER {
                match timeout(STALLED, served.write(&piece)).await {
                    Ok(written) => sent += written.unwrap(),
                    Err(_) => break,
                }
            }
            (served, sent)
        });
    }
    let sent: Vec<_> = answers.join_all().await;
    for mut client in clients {
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
    }
    let held = allocated(&envoy).await - before;
    println!("{} KiB are held for each of {CLIENTS}", held / CLIENTS / 1024);
    assert!(held < CLIENTS * 4 * MIB, "{held}: {:?}", sent.iter().map(|s| s.1).max());
}

/// A flood of bodies while the authorization server is silent, so that Envoy must hold them all:
/// above its memory limit, it drops some of them and survives.
pub(crate) async fn beyond_its_limit_envoy_sheds_uploads(suite: Arc<Suite>) {
    const LIMIT: u64 = 96 * MIB;
    const FLOOD: u64 = 480 * MIB;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authz = silent.local_addr().unwrap().to_string();
    let limit = format!("max_heap_size_bytes: {LIMIT}");
    let lower = [("max_heap_size_bytes: 2147483648", limit.as_str())];
    for (over, size) in [(Over::Http1, MIB), (Over::Http2, 30 * MIB)] {
        let envoy = envoy(&suite, &authz, patient("120s", "120s"), &lower);
        let body: Arc<[u8]> = vec![b'x'; usize::try_from(size).unwrap()].into();
        let ended = Arc::new(AtomicU64::new(0));
        let mut uploads = JoinSet::new();
        // The flood has a rate, so that Envoy can react: here 100 MiB/s.
        let mut pace = interval(Duration::from_secs(size) / (100 * MIB) as u32);
        let mut peak = 0;
        let mut sent = 0;
        while ended.load(Relaxed) == 0 {
            pace.tick().await;
            if sent < FLOOD {
                sent += size;
                let body = Arc::clone(&body);
                let port = envoy.port;
                let ended = Arc::clone(&ended);
                uploads.spawn(async move {
                    over.hold(port, unfinished(&[], &body)).await;
                    ended.fetch_add(1, Relaxed);
                });
            }
            peak = peak.max(allocated(&envoy).await);
            assert!(peak < 3 * LIMIT, "{over:?}: {peak} B are held, and no upload was given up");
        }
        println!("{over:?}: at most {} MiB of {}", peak / MIB, sent / MIB);
        assert!(peak > LIMIT / 2 && peak < 3 * LIMIT, "{over:?}: {peak}");
        drop(uploads);
        // A preflight is answered without a check.
        let headers =
            [("origin", "https://app.example.com"), ("access-control-request-method", "POST")];
        let sent = Sent { method: "OPTIONS", target: CHAT, headers: &headers, ..Sent::default() };
        let preflight = async || Over::Http2.try_send(envoy.port, sent).await;
        let served = async || preflight().await.is_ok_and(|reply| reply.status == 200);
        eventually("Envoy to serve as before", served).await;
        let before = peak / 2;
        eventually("memory to be free", async || allocated(&envoy).await < before).await;
        suite.stack.stop(&envoy);
    }
}
