//! The secret that Envoy sends with each call.

use std::{collections::BTreeMap, sync::Arc};

use envoy_types::pb::envoy::service::auth::v3::{
    CheckResponse, authorization_client::AuthorizationClient,
};
use patgate_testing::{
    eventually,
    shipped::{authorizers, manager, shipped},
};
use serde_json::{Value, json};
use tonic::{Code, transport::Channel};

use crate::support::{
    Suite,
    decision_log::{ALL, decisions, file, lines, logging},
    envoy::{Gateway, envoy_patch, patient, refused_as_an_outage},
    replica::{health, outcome, request},
    secrets::{NEW, OLD, WRONG},
};

/// Both values while it is replaced, as Envoy sends them, in both steps.
pub(crate) async fn passes_envoy(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[&format!("grpc.secret={},{}", *OLD, *NEW)]).await;
    let read = world.token(&[("acme", "models", "*", "llm_read")]).await.bearer();
    let embed = world.token(&[("acme", "models", "m", "llm_embeddings")]).await.bearer();
    let config = shipped();
    let listener = |secret: Option<&String>| {
        let mut listener = config["static_resources"]["listeners"][0].clone();
        for filter in authorizers(manager(&mut listener)) {
            let sent = filter["typed_config"]["grpc_service"]["initial_metadata"].as_array_mut();
            let secret = secret.map(|value| json!({ "key": "patgate-secret", "value": value }));
            sent.unwrap().extend(secret);
        }
        listener
    };
    let listeners: BTreeMap<String, Value> =
        [("old", Some(&*OLD)), ("new", Some(&*NEW)), ("wrong", Some(&*WRONG)), ("none", None)]
            .into_iter()
            .map(|(name, secret)| (name.to_owned(), listener(secret)))
            .collect();
    let patch = envoy_patch(&suite, &[replica.grpc], patient("10s", "10s"));
    let gateway = Gateway::start(&suite, config.clone(), listeners, patch);
    let headers = [("authorization", &*read)];
    for name in ["old", "new"] {
        eventually("Envoy to be ready", async || gateway.get(name, &headers).await.status == 200)
            .await;
        // Asked about in two steps, because of the model.
        let body = json!({ "model": "m", "input": "x" }).to_string();
        let headers = [("authorization", &*embed), ("content-type", "application/json")];
        let reply = patgate_testing::http::send(
            gateway.port(name),
            "POST",
            "/proxy/acme/v1/embeddings",
            &headers,
            &body,
        )
        .await;
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
    }
    for name in ["wrong", "none"] {
        refused_as_an_outage(&gateway.get(name, &headers).await, name);
    }
}

/// Without Envoy: everything else is as if it did not exist, except that health is told. A call without
/// the secret is no decision: it is counted by itself, and does not reach the decision log.
pub(crate) async fn is_needed_for_all_but_health(suite: Arc<Suite>) {
    let world = suite.world().await;
    let log = file(&world, "strangers");
    let secrets = format!("grpc.secret={},{}", *OLD, *NEW);
    let replica = logging(&world, &log, &[&ALL[..], &[&secrets]].concat()).await;
    let bearer = world.token(&[("acme", "models", "*", "llm_read")]).await.bearer();
    let channel = Channel::from_shared(format!("http://{}", replica.grpc)).unwrap().connect_lazy();
    let check = async |secrets: &[&str]| -> CheckResponse {
        let headers = [("authorization", &*bearer)];
        let mut call = tonic::Request::new(request("GET", "/proxy/acme/v1/models", &headers));
        for secret in secrets {
            call.metadata_mut().append("patgate-secret", secret.parse().unwrap());
        }
        AuthorizationClient::new(channel.clone()).check(call).await.unwrap().into_inner()
    };
    for (secrets, expected) in [
        (&[&**OLD][..], (200, "ok")),
        (&[&**NEW], (200, "ok")),
        (&[], (503, "unavailable")),
        (&[""], (503, "unavailable")),
        (&[&**WRONG], (503, "unavailable")),
        (&[&OLD[1..]], (503, "unavailable")),
        (&[&**OLD, &**NEW], (503, "unavailable")),
        (&[&**OLD, &**OLD], (503, "unavailable")),
    ] {
        let (status, code) = outcome(&check(secrets).await);
        assert_eq!((status, &*code), expected, "{secrets:?}");
    }
    assert_eq!(health(replica.grpc).await, 1);
    // A message of a megabyte is refused before it is read: the answer comes although the message
    // never ends.
    let stream = tokio::net::TcpStream::connect(replica.grpc).await.unwrap();
    let (mut calls, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (path, status) in [
        ("/envoy.service.auth.v3.Authorization/Check", 0),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Code::Unimplemented as i32),
        ("/grpc.health.v1.Health/List", Code::Unimplemented as i32),
        ("/envoy.service.auth.v3.Authorization/Other", Code::Unimplemented as i32),
        ("/", Code::Unimplemented as i32),
    ] {
        let call = http::Request::post(format!("http://patgate{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut body) = calls.send_request(call, false).unwrap();
        body.send_data(vec![0; 1000].into(), false).unwrap();
        let (head, mut received) = response.await.unwrap().into_parts();
        while let Some(data) = received.data().await {
            data.unwrap();
        }
        let trailers = received.trailers().await.unwrap().unwrap_or_default();
        let told = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status"));
        assert_eq!(told.unwrap(), &*status.to_string(), "{path}");
    }
    // Six of the checks above, and these five calls.
    assert_eq!(replica.metric("patgate_calls_without_secret_total").await, 6 + 5);
    assert_eq!(outcome(&check(&[&**NEW]).await).0, 200);
    assert_eq!(replica.decisions().await, 3, "those with the secret");
    let logged = decisions(&log, 3).await;
    assert!(logged.iter().all(|line| line["code"] == "ok"), "{logged:?}");
    assert_eq!(lines(&log).len(), 3, "nothing is logged about the others, not even their number");
}
