//! Wherever a client sends its token, the backend, which records every byte here, does not see it.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use patgate_testing::{
    eventually,
    http::{Over, Reply, Sent},
    shipped::rollout_configurations,
    stack::Server,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    Suite, World,
    cli::Cli,
    envoy::{envoy_patch, patient},
    leaks, outcome,
};

const MODELS: &str = "/proxy/acme/v1/models";
const CHAT: &str = "/proxy/acme/v1/chat/completions";
const BODY: &[u8] = b"{\"model\":\"m\"}";
const EVERY_SOURCE: &str = "credentials: [authorization.Bearer, authorization.Api-Key, x-api-key, \
                            api-key, x-goog-api-key, sec-websocket-protocol]\nremove_cookies: [pat]";

type Header = (&'static str, String);

/// A backend that keeps every byte that it receives.
struct Recorder {
    port: u16,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bytes);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        kept.lock().unwrap().extend_from_slice(&buffer[..count]);
                        request.extend_from_slice(&buffer[..count]);
                        if is_whole(&request) {
                            request.clear();
                            let answer = "HTTP/1.1 200 OK\r\nx-backend: recorder\r\n\
                                          content-length: 0\r\n\r\n";
                            stream.write_all(answer.as_bytes()).await.unwrap();
                        }
                    }
                });
            }
        });
        Self { port, bytes }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns what has arrived since the last call.
    fn taken(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.bytes.lock().unwrap())).unwrap()
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    match head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()) {
        Some(length) => body.len() == length.parse::<usize>().unwrap(),
        None => !head.contains("transfer-encoding") || body.ends_with("0\r\n\r\n"),
    }
}

/// The shipped Cube AI table, extended to accept tokens in every place.
fn everywhere(suite: &Suite, world: &World<'_>) -> String {
    let table = fs::read_to_string(format!("{}/cube-ai.yaml", suite.shipped_tables)).unwrap();
    let (before, rest) = table.split_once("\ncredentials: ").unwrap();
    let (_, after) = rest.split_once('\n').unwrap();
    let file = suite.dir.path().join(format!("everywhere-{}.yaml", world.database));
    fs::write(&file, format!("{before}\n{EVERY_SOURCE}\n{after}")).unwrap();
    format!("apis={}", file.display())
}

/// Each place from which a token is read.
fn sources(text: &str) -> Vec<Header> {
    vec![
        ("authorization", format!("Bearer {text}")),
        ("x-api-key", text.to_owned()),
        ("api-key", text.to_owned()),
        ("x-goog-api-key", text.to_owned()),
        ("sec-websocket-protocol", format!("realtime, openai-insecure-api-key.{text}, v1")),
    ]
}

/// Each place from which no token is ever read.
fn others(text: &str) -> Vec<Header> {
    vec![
        ("proxy-authorization", format!("Bearer {text}")),
        ("x-litellm-api-key", text.to_owned()),
        ("ocp-apim-subscription-key", text.to_owned()),
        ("cookie", format!("kept=1; pat={text}; also=2")),
    ]
}

/// Sends a request without a body and one with a body, in each way.
async fn send(envoy: &Server, headers: &[Header], mut each: impl FnMut(Over, Reply)) {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for (method, target, body) in [("GET", MODELS, &b""[..]), ("POST", CHAT, BODY)] {
        let sent = Sent { method, target, headers: &headers, body, ..Sent::default() };
        for over in Over::ALL {
            each(over, over.send(envoy.port, sent).await);
        }
    }
}

fn holds_token(bytes: &str, token: &str) -> bool {
    bytes.contains(token) || leaks::mentions(bytes, &[token])
}

pub(crate) async fn no_token_reaches_a_backend(suite: Arc<Suite>) {
    let world = suite.world().await;
    let recorder = Recorder::start().await;
    let scopes = ["llm_read", "llm_chat_completions"].map(|it| ("acme", "models", "*", it));
    let token = world.token(&scopes).await.text;
    let replica = world.serve(&[&everywhere(&suite, &world)]).await;
    let mut patch = envoy_patch(&suite, &[replica.grpc], patient("10s", "10s"));
    patch["clusters"]["model-acme"] = json!(recorder.address());
    let envoy = suite.stack.envoy(patch);
    let sources = sources(&token);
    let others = others(&token);
    let kept = ("x-kept", "as it came".to_owned());
    let mut requests = vec![[&sources[..], &others].concat()];
    requests.extend(sources.iter().map(|source| vec![source.clone()]));
    requests.extend(others.iter().map(|other| vec![sources[0].clone(), other.clone()]));
    for mut headers in requests {
        headers.push(kept.clone());
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        send(&envoy, &headers, |over, reply| {
            let came = recorder.taken();
            let to = (reply.status, reply.header("x-backend"));
            assert_eq!(to, (200, Some("recorder")), "{names:?} {over:?} {reply:?}");
            assert!(!holds_token(&came, &token), "{names:?} {over:?}:\n{came}");
            assert!(came.contains("x-kept: as it came\r\n"), "{came}");
            let line = |line: &str| came.contains(&format!("{line}\r\n"));
            assert_eq!(line("cookie: kept=1; also=2"), names.contains(&"cookie"), "{came}");
            let subprotocol = names.contains(&"sec-websocket-protocol");
            assert_eq!(line("sec-websocket-protocol: realtime, v1"), subprotocol, "{came}");
        })
        .await;
    }
    // In each of the ways in which clients repeat a cookie.
    let mut headers = vec![sources[0].clone()];
    headers.extend([("cookie", "a=1".to_owned()), ("cookie", format!("pat={token}"))]);
    headers.push(("cookie", "b=2; c=3".to_owned()));
    send(&envoy, &headers, |over, reply| {
        let came = recorder.taken();
        assert_eq!(reply.status, 200, "{over:?}");
        assert!(!holds_token(&came, &token), "{over:?}:\n{came}");
        let joint = if over == Over::Http1 { "," } else { "; " };
        let cookies = format!("cookie: a=1{joint}b=2; c=3\r\n");
        assert!(came.contains(&cookies), "{over:?}: {came}");
    })
    .await;
}

pub(crate) async fn different_tokens_or_a_token_in_the_query_are_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let recorder = Recorder::start().await;
    let scopes = ["llm_read", "llm_chat_completions"].map(|it| ("acme", "models", "*", it));
    let token = world.token(&scopes).await.text;
    let second = world.token(&scopes).await.text;
    for mode in ["mode=enforce", "mode=shadow"] {
        let replica = world.serve(&[&everywhere(&suite, &world), mode]).await;
        let mut patch = envoy_patch(&suite, &[replica.grpc], patient("10s", "10s"));
        patch["clusters"]["model-acme"] = json!(recorder.address());
        let envoy = suite.stack.envoy(patch);
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        for query in
            [format!("key={token}"), format!("a=b&api-key={token}&c=d"), token.replace('_', "%5f")]
        {
            let target = format!("{MODELS}?{query}");
            for headers in [&headers[..], &[]] {
                let sent = Sent { method: "GET", target: &target, headers, ..Sent::default() };
                for over in Over::ALL {
                    let reply = over.send(envoy.port, sent).await;
                    assert_eq!((reply.status, &*reply.code()), (400, "bad_request"), "{over:?}");
                    let message = reply.json()["error"]["message"].to_string();
                    assert!(message.contains("query") && message.contains("logs"), "{message}");
                    assert!(!holds_token(&reply.body, &token), "{over:?}");
                }
            }
        }
        if mode == "mode=enforce" {
            let one = sources(&token);
            let two = sources(&second);
            for at in 0..one.len() {
                let other = &two[(at + 1) % two.len()];
                send(&envoy, &[one[at].clone(), other.clone()], |over, reply| {
                    let told = (reply.status, &*reply.code());
                    assert_eq!(told, (400, "bad_request"), "{} {over:?}", other.0);
                })
                .await;
            }
        }
        assert_eq!(recorder.taken(), "");
    }
}

pub(crate) async fn in_shadow_no_token_reaches_what_was_there_before(suite: Arc<Suite>) {
    let world = suite.world().await;
    let recorder = Recorder::start().await;
    // A valid token without permissions here.
    let token = world.token(&[("beta", "models", "*", "llm_read")]).await.text;
    let replica = world.serve(&[&everywhere(&suite, &world), "mode=shadow"]).await;
    let clusters = json!({ "model-acme": recorder.address(), "old-gateway": recorder.address() });
    let patch = || -> Value {
        let mut patch = envoy_patch(&suite, &[replica.grpc], patient("10s", "10s"));
        patch["clusters"] = clusters.clone();
        patch
    };
    let theirs = [
        ("authorization", "Bearer their-own".to_owned()),
        ("x-api-key", "their-own".to_owned()),
        ("api-key", "their-own".to_owned()),
        ("x-goog-api-key", "their-own".to_owned()),
    ];
    let basic = BASE64_STANDARD.encode(format!("ann:{token}"));
    for config_yaml in rollout_configurations() {
        let arguments = json!({ "config_yaml": config_yaml, "patch": patch() });
        let envoy = suite.stack.start("envoy", arguments);
        let sources = sources(&token);
        let others = others(&token);
        let mut requests = vec![[&sources[..], &others].concat()];
        requests.extend(sources.iter().chain(&others).map(|place| vec![place.clone()]));
        requests.push(vec![("authorization", token.clone())]);
        requests.push(vec![("authorization", format!("Basic {basic}"))]);
        for headers in requests {
            let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
            send(&envoy, &headers, |over, reply| {
                let came = recorder.taken();
                let to = (reply.status, reply.header("x-backend"));
                assert_eq!(to, (200, Some("recorder")), "{names:?} {over:?} {reply:?}");
                assert!(!holds_token(&came, &token), "{names:?} {over:?}:\n{came}");
                assert!(!came.contains(&basic), "{over:?}:\n{came}");
                let cookies = came.contains("cookie: kept=1; also=2\r\n");
                assert_eq!(cookies, names.contains(&"cookie"), "{came}");
            })
            .await;
        }
        // A credential that is not patgate's stays, also beside one that is: the old gateway checks
        // it.
        send(&envoy, &theirs, |over, reply| {
            let came = recorder.taken();
            assert_eq!(reply.status, 200, "{over:?}");
            for (name, value) in &theirs {
                assert!(came.contains(&format!("{name}: {value}\r\n")), "{over:?}: {came}");
            }
        })
        .await;
        for (at, ours) in sources.iter().enumerate().take(theirs.len()) {
            let mut headers = theirs.to_vec();
            headers[at] = ours.clone();
            send(&envoy, &headers, |over, reply| {
                let came = recorder.taken();
                assert_eq!(reply.status, 200, "{over:?}");
                assert!(!holds_token(&came, &token), "{over:?}:\n{came}");
                for (name, value) in theirs.iter().filter(|(name, _)| *name != ours.0) {
                    assert!(came.contains(&format!("{name}: {value}\r\n")), "{over:?}: {came}");
                }
            })
            .await;
        }
    }
}

/// Like a 403: only for a verified token outside of the share for which denials are enforced.
pub(crate) async fn in_a_rollout_different_tokens_pass_where_a_403_does(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await.text;
    let dead = world.token_for("ann", "-1 hour", &[]).await.text;
    let replica = world.serve(&["mode=per-domain"]).await;
    let ask = async |ours: &str, theirs: &str| {
        let bearer = format!("Bearer {ours}");
        let headers = [("authorization", bearer.as_str()), ("x-api-key", theirs)];
        outcome(&replica.check("GET", MODELS, &headers).await).0
    };
    for (share, proven) in [("0%", 200), ("100%", 400)] {
        cli.ok(&format!("domain update acme --enforced-share {share}"));
        eventually("the share to be obeyed", async || ask(&token, "theirs").await == proven).await;
        assert_eq!(ask("theirs", &token).await, proven, "{share}");
        // A dead token, two tokens, or none prove nothing.
        for (ours, theirs) in [(&*dead, "theirs"), (&token, &dead), ("theirs", "others")] {
            assert_eq!(ask(ours, theirs).await, 400, "{share}");
        }
    }
}
