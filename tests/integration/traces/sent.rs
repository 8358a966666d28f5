//! How patgate reaches the receiver: TLS, and headers.

use std::{fs, sync::Arc};

use bytes::Bytes;
use patgate_testing::eventually;
use rustls::{ServerConfig, crypto::ring::default_provider};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

use super::{TRACE, ask, check_of, traceparent};
use crate::support::{
    Suite,
    authority::{Authority, Identity},
    receiver::Receiver,
    tokens::reader,
};

/// A TLS listener in front of the receiver. patgate sends only if a known authority has signed its
/// certificate.
pub(crate) async fn a_receiver_is_verified(suite: Arc<Suite>) {
    let Some(receiver) = Receiver::start(&suite) else { return };
    let world = suite.world().await;
    let token = reader(&world).await;
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = acceptor(&authority.certify(&["localhost"]));
    let to = receiver.port;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    let file = |name: &str, pem: String| {
        let path = suite.dir.path().join(format!("{}.{name}.pem", world.database));
        fs::write(&path, pem).unwrap();
        format!("telemetry.otlp.ca_file={}", path.display())
    };
    let stranger = file("stranger", Authority::new().pem());
    let known = file("known", authority.pem());
    let endpoint = format!("telemetry.otlp.endpoint=https://localhost:{port}");
    for (authorities, result) in [(&stranger, "failed"), (&known, "exported")] {
        let replica = world.serve(&[&endpoint, authorities]).await;
        assert_eq!(ask(&replica, &token, &traceparent(TRACE, "01")).await, 200);
        let metric = format!("patgate_spans_total{{result=\"{result}\"}}");
        eventually(result, async || replica.metric(&metric).await > 0).await;
        let arrived = receiver.spans().iter().any(|span| span.trace == TRACE);
        assert!(result == "exported" || !arrived, "sent to a stranger");
    }
    receiver.trace(TRACE, |spans| check_of(spans).is_some()).await;
}

fn acceptor(identity: &Identity) -> TlsAcceptor {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A server of HTTP/2 that reads the first call.
pub(crate) async fn headers_are_sent_to_the_receiver(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, headers) = oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut heard = Some(heard);
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            if let Some(heard) = heard.take() {
                let _ = heard.send(request.headers().clone());
            }
            let mut response = http::Response::new(());
            let headers = response.headers_mut();
            headers.insert("content-type", "application/grpc".parse().unwrap());
            let mut body = respond.send_response(response, false).unwrap();
            // An empty message.
            body.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            body.send_trailers(trailers).unwrap();
        }
    });
    let key = suite.provider_key();
    let replica = world
        .serve(&[
            &format!("telemetry.otlp.endpoint=http://127.0.0.1:{port}"),
            &format!("telemetry.otlp.headers=authorization=Bearer {key},x-tenant=acme"),
        ])
        .await;
    assert_eq!(ask(&replica, &token, &traceparent(TRACE, "01")).await, 200);
    let headers = headers.await.unwrap();
    assert_eq!(headers["authorization"], format!("Bearer {key}"));
    assert_eq!(headers["x-tenant"], "acme");
    let exported = "patgate_spans_total{result=\"exported\"}";
    eventually("the span to be exported", async || replica.metric(exported).await > 0).await;
}
