//! A TCP proxy that fails in the way that a test chooses.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the proxy does with connections, including open ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Pass,
    /// Connections are closed, new ones at once.
    Refuse,
    /// Nothing passes in either direction.
    BlackHole,
    /// Replies are delayed by this time.
    Delay(Duration),
    /// Replies pass at this many bytes per second.
    Throttle(usize),
    /// Half of a reply of at least this many bytes passes, then the proxy closes the connection.
    /// Shorter replies, such as greetings, pass.
    CutReplies(usize),
}

/// A proxy on its own port, until it is dropped.
pub struct Proxy {
    pub port: u16,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<()>,
    server: Arc<AtomicU16>,
    /// Replaces the database that the client asks for by another one with a name of the same
    /// length.
    renamed: Arc<Mutex<Option<[String; 2]>>>,
    /// How many connections, from the first one on, are black-holed.
    forgotten: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    /// The replies that are held back.
    delayed: Arc<()>,
    /// The bytes from clients to the server, and from the server to clients.
    upward: Arc<AtomicU64>,
    downward: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Proxy {
    pub async fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, modes) = watch::channel(Mode::Pass);
        let (cuts, cut) = watch::channel(());
        let stop = CancellationToken::new();
        let proxy = Self {
            port,
            mode,
            cuts,
            server: Arc::new(AtomicU16::new(server_port)),
            renamed: Arc::default(),
            forgotten: Arc::default(),
            accepted: Arc::default(),
            delayed: Arc::default(),
            upward: Arc::default(),
            downward: Arc::default(),
            _stop: stop.clone().drop_guard(),
        };
        let server = Arc::clone(&proxy.server);
        let forgotten = Arc::clone(&proxy.forgotten);
        let accepted = Arc::clone(&proxy.accepted);
        let renamed = Arc::clone(&proxy.renamed);
        let delayed = Arc::downgrade(&proxy.delayed);
        let upward = Arc::clone(&proxy.upward);
        let downward = Arc::clone(&proxy.downward);
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let wire = Wire {
                    number: accepted.fetch_add(1, Relaxed),
                    forgotten: Arc::clone(&forgotten),
                    renamed: renamed.lock().unwrap().clone(),
                    modes: modes.clone(),
                    delayed: delayed.clone(),
                    cut: unmoved(&cut),
                };
                let server = SocketAddr::from(([127, 0, 0, 1], server.load(Relaxed)));
                let counts = [Arc::clone(&upward), Arc::clone(&downward)];
                connections.spawn(carry(client, server, wire, counts));
            }
        }));
        proxy
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Leads new connections to that port; open ones stay where they are.
    pub fn retarget(&self, server_port: u16) {
        self.server.store(server_port, Relaxed);
    }

    /// Leads new connections to Postgres that ask for one database to another.
    pub fn lead(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        *self.renamed.lock().unwrap() = Some([from, to].map(|name| format!("\0{name}\0")));
    }

    /// Closes the open connections.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Black-holes the open connections without closing them; new ones work.
    pub fn forget(&self) {
        self.forgotten.store(self.accepted.load(Relaxed), Relaxed);
    }

    /// The number of connections so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// The number of replies that are held back now, without those whose connection has ended.
    pub fn delayed(&self) -> usize {
        Arc::strong_count(&self.delayed) - 1
    }

    pub fn bytes_upward(&self) -> u64 {
        self.upward.load(Relaxed)
    }

    /// The number of bytes, including those on their way.
    pub fn bytes_downward(&self) -> u64 {
        self.downward.load(Relaxed)
    }
}

/// The state that decides about one connection.
#[derive(Clone)]
struct Wire {
    number: u64,
    forgotten: Arc<AtomicU64>,
    renamed: Option<[String; 2]>,
    modes: watch::Receiver<Mode>,
    delayed: Weak<()>,
    cut: watch::Receiver<()>,
}

/// Returns a receiver for a new connection, which ignores earlier cuts.
fn unmoved(cut: &watch::Receiver<()>) -> watch::Receiver<()> {
    let mut cut = cut.clone();
    cut.mark_unchanged();
    cut
}

async fn carry(client: TcpStream, server: SocketAddr, wire: Wire, counts: [Arc<AtomicU64>; 2]) {
    let Wire { mut modes, mut cut, .. } = wire.clone();
    let carried = async {
        if *wire.modes.borrow() == Mode::Refuse {
            return;
        }
        let Ok(server) = TcpStream::connect(server).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let [upward, downward] = counts;
        let up = copy(from_client, to_server, wire.clone(), |_| Mode::Pass, upward);
        let answers = Wire { renamed: None, ..wire.clone() };
        let down = copy(from_server, to_client, answers, |mode| mode, downward);
        tokio::select! { () = up => {} () = down => {} }
    };
    tokio::select! {
        () = carried => {}
        _ = modes.wait_for(|mode| *mode == Mode::Refuse) => {}
        _ = cut.changed() => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut wire: Wire,
    manner: fn(Mode) -> Mode,
    count: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 65536];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mode = match wire.modes.wait_for(|mode| *mode != Mode::BlackHole).await {
            Ok(mode) => *mode,
            Err(_) => return,
        };
        if wire.number < wire.forgotten.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        // The test may continue before this connection is closed, but nothing that is sent
        // afterwards passes.
        if mode == Mode::Refuse || wire.cut.has_changed().unwrap_or(true) {
            return;
        }
        if let Some([from, to]) = &wire.renamed
            && let Some(at) = buffer[..read].windows(from.len()).position(|w| w == from.as_bytes())
        {
            buffer[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        count.fetch_add(read as u64, Relaxed);
        let written = match manner(mode) {
            Mode::CutReplies(length) if read >= length => {
                let _ = to.write_all(&buffer[..read / 2]).await;
                return;
            }
            Mode::Throttle(rate) => trickle(&mut to, &buffer[..read], rate).await,
            Mode::Delay(delay) => {
                let _counted = wire.delayed.upgrade();
                sleep(delay).await;
                to.write_all(&buffer[..read]).await
            }
            _ => to.write_all(&buffer[..read]).await,
        };
        if written.is_err() {
            return;
        }
    }
}

async fn trickle(to: &mut OwnedWriteHalf, bytes: &[u8], rate: usize) -> io::Result<()> {
    const PIECES_A_SECOND: usize = 20;
    for piece in bytes.chunks((rate / PIECES_A_SECOND).max(1)) {
        to.write_all(piece).await?;
        sleep(Duration::from_secs(1) / PIECES_A_SECOND as u32).await;
    }
    Ok(())
}
