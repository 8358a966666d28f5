//! TLS in front of a server without TLS support, as the Valkey of the tests is.

use std::sync::{Arc, Mutex};

use rustls::{
    RootCertStore, ServerConfig, crypto::ring::default_provider, server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::authority::{Authority, Identity};

/// The first byte of a TLS connection.
const HANDSHAKE: u8 = 22;

/// Terminates TLS, and passes on what is in it.
pub(crate) struct TlsFront {
    pub(crate) port: u16,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    connections: Arc<Mutex<Vec<AbortOnDropHandle<()>>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl TlsFront {
    pub(crate) async fn to(target: u16, config: ServerConfig) -> Self {
        Self::start(target, config, false).await
    }

    /// Also passes on connections without TLS, as those of Sentinels that speak none.
    pub(crate) async fn and_plain_to(target: u16, config: ServerConfig) -> Self {
        Self::start(target, config, true).await
    }

    async fn start(target: u16, config: ServerConfig, and_plain: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(Mutex::new(Arc::new(config)));
        let connections = Arc::<Mutex<Vec<_>>>::default();
        let current = Arc::clone(&config);
        let open = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&current.lock().unwrap()));
                let connection = tokio::spawn(async move {
                    let mut first = [0];
                    let Ok(1) = client.peek(&mut first).await else { return };
                    if and_plain && first != [HANDSHAKE] {
                        return pass_on(client, target).await;
                    }
                    let Ok(client) = acceptor.accept(client).await else { return };
                    pass_on(client, target).await;
                });
                open.lock().unwrap().push(AbortOnDropHandle::new(connection));
            }
        });
        let _accepting = AbortOnDropHandle::new(accepting);
        Self { port, config, connections, _accepting }
    }

    /// Uses this from now on, and ends all connections.
    pub(crate) fn replace(&self, config: ServerConfig) {
        *self.config.lock().unwrap() = Arc::new(config);
        self.cut();
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().clear();
    }
}

async fn pass_on(mut client: impl AsyncRead + AsyncWrite + Unpin, target: u16) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

/// A server with this identity that wants certificates of that authority's clients.
pub(crate) fn server(identity: &Identity, clients: &Authority) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(clients.der().clone()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(identity.chain.clone(), identity.key())
        .unwrap()
}
