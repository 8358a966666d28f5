//! A TCP proxy that can go wrong in chosen ways.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What happens to connections, those that stand included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Pass,
    /// Connections are closed, new ones at once.
    Refuse,
    /// Nothing arrives any more, in neither direction.
    BlackHole,
    /// Replies come this much later.
    Delay(Duration),
}

/// Listens on a port of its own until dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    /// Bytes from clients to the server.
    upward: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Proxy {
    pub(crate) async fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = SocketAddr::from(([127, 0, 0, 1], server_port));
        let (mode, modes) = watch::channel(Mode::Pass);
        let (upward, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let proxy =
            Self { port, mode, upward: Arc::clone(&upward), _stop: stop.clone().drop_guard() };
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (modes, upward) = (modes.clone(), Arc::clone(&upward));
                connections.spawn(carry(client, server, modes, upward));
            }
        }));
        proxy
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(crate) fn bytes_upward(&self) -> u64 {
        self.upward.load(Relaxed)
    }
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    mut modes: watch::Receiver<Mode>,
    upward: Arc<AtomicU64>,
) {
    let refused = modes.clone();
    let carried = async {
        if *refused.borrow() == Mode::Refuse {
            return;
        }
        let Ok(server) = TcpStream::connect(server).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let up = copy(from_client, to_server, refused.clone(), |_| Duration::ZERO, Some(upward));
        let later = |mode| match mode {
            Mode::Delay(delay) => delay,
            _ => Duration::ZERO,
        };
        let down = copy(from_server, to_client, refused.clone(), later, None);
        tokio::select! { () = up => {} () = down => {} }
    };
    tokio::select! {
        () = carried => {}
        _ = modes.wait_for(|mode| *mode == Mode::Refuse) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    delay: fn(Mode) -> Duration,
    count: Option<Arc<AtomicU64>>,
) {
    let mut buffer = vec![0; 65536];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mode = match modes.wait_for(|mode| *mode != Mode::BlackHole).await {
            Ok(mode) => *mode,
            Err(_) => return,
        };
        if let Some(count) = &count {
            count.fetch_add(read as u64, Relaxed);
        }
        tokio::time::sleep(delay(mode)).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
