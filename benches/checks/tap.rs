//! A proxy that notes when bytes pass, so that the steps of a replica can be seen from outside.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

/// What passed in one piece.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Passed {
    /// Bytes of the client.
    Sent,
    /// Bytes of the server.
    Answered,
    /// Bytes of the server that the mark recognizes.
    Marked,
}

/// One tapped server, until the program ends.
pub(crate) struct Tap {
    pub(crate) port: u16,
    passed: Arc<Mutex<Vec<(Instant, Passed)>>>,
}

impl Tap {
    pub(crate) fn to(runtime: &Runtime, port: u16, mark: fn(&[u8]) -> bool) -> Self {
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let passed = Arc::<Mutex<Vec<_>>>::default();
        let noted = Arc::clone(&passed);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("an open connection");
                }
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let [sent, answered] = [(); 2].map(|()| Arc::clone(&noted));
                tokio::spawn(carry(from_client, to_server, sent, |_| Passed::Sent));
                let answer = move |bytes: &[u8]| {
                    if mark(bytes) { Passed::Marked } else { Passed::Answered }
                };
                tokio::spawn(carry(from_server, to_client, answered, answer));
            }
        });
        Self { port, passed }
    }

    /// Forgets what has passed.
    pub(crate) fn clear(&self) {
        self.passed.lock().expect("no thread panics with it").clear();
    }

    /// Returns when such bytes passed first after a time.
    pub(crate) fn first(&self, what: Passed, after: Instant) -> Option<Instant> {
        let passed = self.passed.lock().expect("no thread panics with it");
        passed.iter().find(|(at, kind)| *kind == what && *at >= after).map(|(at, _)| *at)
    }

    /// Returns when such bytes passed last between two times.
    pub(crate) fn last(&self, what: Passed, between: RangeInclusive<Instant>) -> Option<Instant> {
        let passed = self.passed.lock().expect("no thread panics with it");
        let fits = |(at, kind): &&(Instant, Passed)| *kind == what && between.contains(at);
        passed.iter().rev().find(fits).map(|(at, _)| *at)
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    noted: Arc<Mutex<Vec<(Instant, Passed)>>>,
    kind: impl Fn(&[u8]) -> Passed,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let event = (Instant::now(), kind(&piece[..read]));
        noted.lock().expect("no thread panics with it").push(event);
        if to.write_all(&piece[..read]).await.is_err() {
            break;
        }
    }
    // The other side sees the end as well.
    let _ = to.shutdown().await;
}
