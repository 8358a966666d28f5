//! Serves HTTP/1.1 to every client that can connect, health and metrics for example, and prevents these
//! clients from taking what checks need: connections are few, their heads are short, and silent or
//! old connections are closed.

use std::{collections::VecDeque, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{
        HeaderMap, HeaderName, Request, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    routing::get,
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    acceptor::ACCEPT_AGAIN_AFTER,
    readiness::{Missing, Readiness},
    tls::Tls,
};
use crate::telemetry::{self, Exemplars};

/// How many connections a listener holds, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Open connections. Another one replaces the oldest: an honest request takes milliseconds, so
    /// patgate answers it even while an attacker opens silent connections.
    pub(crate) connections: usize,
    /// Time for a whole connection, including the time in which the client reads an answer. Then it
    /// ends after the request in progress.
    pub(crate) age: Duration,
    /// Time for that request.
    pub(crate) grace: Duration,
}

/// For probes and Prometheus.
const HEALTH: Bounds =
    Bounds { connections: 64, age: Duration::from_secs(60), grace: Duration::ZERO };
/// File descriptors that the listener may use.
pub(crate) const DESCRIPTORS: usize = HEALTH.connections + 1;
/// Time for the head of a request, from the start of the connection or the end of the previous
/// answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of unparsed input, such as the head of a request.
const MAX_BUFFER: usize = 16 * 1024;
/// How long the task of `/livez` sleeps: long enough to need the timer.
const A_TURN: Duration = Duration::from_millis(1);
/// The most headers in one request.
const MAX_HEADERS: usize = 64;

/// The routes for kubelets and Prometheus.
pub(crate) fn routes(readiness: Readiness, registry: Registry, exemplars: Exemplars) -> Router {
    let metrics = Arc::new((registry, exemplars));
    let started = readiness.clone();
    Router::new()
        .route("/livez", get(is_alive))
        .route(
            "/readyz",
            get(async move |headers: HeaderMap| health_page(readiness.get(), &headers)),
        )
        .route(
            "/startupz",
            get(async move |headers: HeaderMap| {
                let state = if started.has_started() { Ok(()) } else { started.get() };
                health_page(state, &headers)
            }),
        )
        .route(
            "/metrics",
            get(async move |headers: HeaderMap| {
                let (registry, exemplars) = &*metrics;
                telemetry::metrics_page(registry, exemplars, &headers)
            }),
        )
}

/// Answers after a new task has run and a timer has fired. A process that can do neither answers no
/// check, and does not answer here either: the probe fails by its timeout. Nothing else counts,
/// because a new start brings no store back.
pub(crate) async fn is_alive() -> (StatusCode, &'static str) {
    let turn = tokio::spawn(sleep(A_TURN));
    match turn.await {
        Ok(()) => (StatusCode::OK, "ok\n"),
        // The runtime is shutting down.
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "ending\n"),
    }
}

/// What `/readyz` and `/startupz` answer: one line for each thing that is missing, or JSON if the
/// client asks for it.
pub(crate) fn health_page(
    state: Result<(), Vec<Missing>>,
    headers: &HeaderMap,
) -> (StatusCode, [(HeaderName, &'static str); 1], String) {
    let (status, missing) = match state {
        Ok(()) => (StatusCode::OK, Vec::new()),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing),
    };
    let accepts = headers.get(ACCEPT).and_then(|accepted| accepted.to_str().ok());
    if accepts.is_some_and(|accepted| accepted.contains("application/json")) {
        let page = json!({ "ready": missing.is_empty(), "missing": missing });
        return (status, [(CONTENT_TYPE, "application/json")], format!("{page}\n"));
    }
    let text = if missing.is_empty() {
        "ok\n".to_owned()
    } else {
        missing.iter().map(|missing| format!("{missing}\n")).collect()
    };
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text)
}

/// Serves health and metrics while it is polled.
pub(crate) async fn serve_health(listener: TcpListener, tls: Option<Tls>, router: Router) {
    serve(listener, tls, router, HEALTH, CancellationToken::new()).await;
}

/// Accepts connections until `closing`, and then finishes the requests in progress. Each request carries
/// the address of its peer, a [`SocketAddr`]. If this is dropped, all connections end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    bounds: Bounds,
    closing: CancellationToken,
) {
    let mut open = VecDeque::<AbortOnDropHandle<()>>::new();
    while let Some(accepted) = closing.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= bounds.connections {
                    open.pop_front();
                }
                let (tls, router, closing) = (tls.clone(), router.clone(), closing.clone());
                open.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
                    match tls {
                        None => answer(stream, peer, router, bounds, closing).await,
                        Some(tls) => {
                            // A connection here ends soon by itself.
                            let Some(stream) = tls.accept(stream).await else {
                                return;
                            };
                            answer(stream, peer, router, bounds, closing).await;
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
    drop(listener);
    for connection in open {
        // A connection that panicked has ended, too.
        let _ = connection.await;
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    closing: CancellationToken,
) {
    let router = TowerToHyperService::new(router);
    let answers = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_BUFFER)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), answers);
    let mut served = pin!(served);
    let open = timeout(bounds.age, closing.run_until_cancelled(served.as_mut()));
    // An error of one connection affects only its client.
    if !matches!(open.await, Ok(Some(_))) && !bounds.grace.is_zero() {
        served.as_mut().graceful_shutdown();
        let _ = timeout(bounds.grace, served).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::clock;

    fn peer() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    fn router() -> Router {
        Router::new().route("/", get(async || "x".repeat(100_000)))
    }

    /// tokio's clock is paused here: it advances when all tasks wait.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_more_ends() {
        let request = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
        for said in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nhost: h\r\n", request] {
            let (mut client, server) = duplex(1 << 20);
            let served =
                tokio::spawn(answer(server, peer(), router(), HEALTH, CancellationToken::new()));
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
        let served =
            tokio::spawn(answer(server, peer(), router(), HEALTH, CancellationToken::new()));
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        timeout(HEALTH.age * 2, served).await.expect("it ends").unwrap();
    }

    #[tokio::test]
    async fn one_connection_too_many_takes_the_place_of_the_oldest() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(serve_health(listener, None, router()));
        let connect = async || tokio::net::TcpStream::connect(address).await.unwrap();
        let mut open = Vec::new();
        for _ in 0..HEALTH.connections {
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
