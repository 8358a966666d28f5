//! Serves health and metrics over HTTP/1.1 to every client that can connect, and prevents these
//! clients from taking what checks need: connections are few, their heads are short, and silent or
//! old connections are closed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{acceptor::ACCEPT_AGAIN_AFTER, readiness::Readiness, tls::Tls};
use crate::telemetry;

/// Open connections. Another one replaces the oldest: an honest request takes milliseconds, so
/// patgate answers it even while an attacker opens silent connections.
const MAX_CONNECTIONS: usize = 64;
/// File descriptors that the listener may use.
pub(crate) const DESCRIPTORS: usize = MAX_CONNECTIONS + 1;
/// Time for the head of a request, from the start of the connection or the end of the previous
/// answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for a whole connection, including the time in which the client reads an answer.
const MAX_AGE: Duration = Duration::from_secs(60);
/// Bytes of unparsed input, such as the head of a request.
const MAX_BUFFER: usize = 16 * 1024;
/// Headers in one request.
const MAX_HEADERS: usize = 64;

/// The routes for kubelets and Prometheus.
pub(super) fn routes(readiness: Readiness, registry: Registry) -> Router {
    let registry = Arc::new(registry);
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || match readiness.get() {
                Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }),
        )
        .route(
            "/metrics",
            get(async move |headers: HeaderMap| telemetry::metrics_page(&registry, &headers)),
        )
}

/// Accepts connections while it is polled. Open connections end with it.
pub(super) async fn serve(listener: TcpListener, tls: Option<Tls>, router: Router) {
    let mut open = VecDeque::<AbortOnDropHandle<()>>::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= MAX_CONNECTIONS {
                    open.pop_front();
                }
                let (tls, router) = (tls.clone(), router.clone());
                open.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
                    match tls {
                        None => answer(stream, router).await,
                        Some(tls) => {
                            // A connection here ends soon by itself.
                            let Some((stream, _replaced)) = tls.accept(stream).await else {
                                return;
                            };
                            answer(stream, router).await;
                        }
                    }
                })));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the HTTP port could not be accepted");
                sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_BUFFER)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // An error of one connection affects only its client.
    let _ = timeout(MAX_AGE, served).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::clock;

    fn router() -> Router {
        Router::new().route("/", get(async || "x".repeat(100_000)))
    }

    /// tokio's clock is paused here: it advances when all tasks wait.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_more_ends() {
        let request = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
        for said in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nhost: h\r\n", request] {
            let (mut client, server) = duplex(1 << 20);
            let served = tokio::spawn(answer(server, router()));
            client.write_all(said).await.unwrap();
            timeout(PATIENCE * 2, served).await.expect("it ends").unwrap();
            let mut told = Vec::new();
            client.read_to_end(&mut told).await.unwrap();
            assert_eq!(told.starts_with(b"HTTP/1.1 200"), said == request);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_answers_are_not_read_ends() {
        let (mut client, server) = duplex(1024);
        let served = tokio::spawn(answer(server, router()));
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        timeout(MAX_AGE * 2, served).await.expect("it ends").unwrap();
    }

    #[tokio::test]
    async fn one_connection_too_many_takes_the_place_of_the_oldest() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(serve(listener, None, router()));
        let connect = async || tokio::net::TcpStream::connect(address).await.unwrap();
        let mut open = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            open.push(connect().await);
        }
        let mut honest = connect().await;
        honest.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut told = String::new();
        honest.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with("HTTP/1.0 200"), "{told}");
        // Long before the time limit of the connection.
        let began = clock::now();
        assert_eq!(open[0].read(&mut [0]).await.unwrap_or(0), 0);
        assert!(clock::now().since(began) < PATIENCE);
        served.abort();
    }
}
