//! Receivers that do not receive.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};
use tokio::net::TcpListener;

use super::{TRACE, traceparent};
use crate::support::{
    Suite, fleet::MODELS, outcome, process, receiver::Receiver, request, tokens::reader,
};

/// More checks than the queue has places for their spans, and a batch.
const MORE_THAN_WAIT: usize = 6000;

/// Every check is answered, the lost spans are counted, and the process ends. A receiver that comes
/// back gets what is made from then on.
pub(crate) async fn a_receiver_that_is_down_or_silent_costs_only_spans(suite: Arc<Suite>) {
    let Some(receiver) = Receiver::start(&suite) else { return };
    let world = suite.world().await;
    let bearer = reader(&world).await.bearer();
    let traced = traceparent(TRACE, "01");
    let nobody = suite.stack.free_port();
    // Accepts nothing: the kernel makes the connections, and nothing answers on them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap().port();
    let proxy = Proxy::to(receiver.port).await;
    proxy.set(Mode::BlackHole);
    for (port, timeout, checks, lost) in [
        (nobody, "2s", 100, "failed"),
        // The first batch is not given up during this test, so the queue fills.
        (silent, "10m", MORE_THAN_WAIT, "dropped"),
        (proxy.port, "2s", 100, "failed"),
    ] {
        let endpoint = format!("telemetry.otlp.endpoint=http://127.0.0.1:{port}");
        let timeout = format!("telemetry.otlp.timeout={timeout}");
        let process = process::serve(&world, &[&endpoint, &timeout, "drain.delay=0s"]).await;
        let replica = &process.replica;
        let spans = async |result: &str| {
            replica.metric(&format!("patgate_spans_total{{result=\"{result}\"}}")).await
        };
        let ask = async || {
            let request = request("GET", MODELS, &[("authorization", &bearer)]);
            outcome(&replica.raw_with(&[("traceparent", &traced)], request).await).0
        };
        for _ in 0..checks / 100 {
            let answers = join_all((0..100).map(|_| ask())).await;
            assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
        }
        eventually("lost spans to be counted", async || spans(lost).await > 0).await;
        assert_eq!(spans("exported").await, 0);
        if port == proxy.port {
            proxy.set(Mode::Pass);
            proxy.cut();
            let exported = async || {
                ask().await;
                spans("exported").await > 0
            };
            eventually("spans to be exported again", exported).await;
            proxy.set(Mode::BlackHole);
            ask().await;
        }
        suite.stack.signal(&process.server, "TERM");
        let ended = suite.stack.exit_code(&process.server);
        let exit = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("an end");
        assert_eq!(exit, 0, "port {port}");
    }
}
