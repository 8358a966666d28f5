//! TLS on a listener, with certificates that are replaced while patgate serves.
//!
//! Each connection is a full handshake: sessions are not resumed, because a resumed one would skip
//! the client's certificate. When the files change, connections of the previous ones end as old ones
//! do: with GOAWAY, and after the checks in progress. The connection of a client whose certificate is
//! not accepted any more, because its authority was removed, is closed at once.

mod client;
mod files;

use std::{future::Future, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use self::files::Pem;
pub(crate) use self::files::TlsError;
use crate::{
    clock, config,
    files::{
        certificate::Validity,
        patient::{HANGS, PatientReader},
        settled::Settled,
    },
    telemetry::{
        HandshakeResult, MetricResult, Metrics, OwnCertificate, ReloadResult, TlsListener,
    },
    throttle::Throttle,
};

/// How often the files are read: they are few and small, and their content is compared.
const EVERY: Duration = Duration::from_secs(1);
/// The longest time for a handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// The least time between two log lines about handshakes that failed.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// What a listener needs for handshakes.
#[derive(Clone)]
pub(crate) struct Tls {
    current: Arc<ArcSwap<Generation>>,
    listener: TlsListener,
    metrics: Metrics,
    complaints: Arc<Throttle>,
}

/// The content of the files at one time.
struct Generation {
    config: Arc<ServerConfig>,
    /// Verifies the certificates of clients, if they must have one.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When the listener's own certificate is valid.
    validity: Validity,
    /// Cancelled when the files have changed.
    replaced: CancellationToken,
}

/// The TLS of the listeners that have it.
#[derive(Clone, Default)]
pub(crate) struct ServerTls {
    pub(crate) grpc: Option<Tls>,
    pub(crate) http: Option<Tls>,
}

impl ServerTls {
    /// Reads all files. Returns what reads them again.
    pub(crate) fn load(
        listen: &config::ListenSettings,
        metrics: &Metrics,
    ) -> Result<(Self, Vec<Reloader>), TlsError> {
        let mut reloaders = Vec::new();
        let mut load = |settings: &Option<config::Tls>, listener| {
            let Some(settings) = settings.clone() else { return Ok(None) };
            let (tls, reloader) = Tls::load(settings, listener, metrics)?;
            reloaders.push(reloader);
            Ok(Some(tls))
        };
        let grpc = load(&listen.grpc_tls, TlsListener::Grpc)?;
        let http = load(&listen.http_tls, TlsListener::Http)?;
        Ok((Self { grpc, http }, reloaders))
    }
}

/// Reads the files of all listeners, to say what is wrong with them.
pub(crate) fn check(listen: &config::ListenSettings) -> Result<(), TlsError> {
    ServerTls::load(listen, &Metrics::new(&mut Registry::default())).map(|_| ())
}

/// Reads the files again and again.
pub(crate) struct Reloader {
    tls: Tls,
    settings: config::Tls,
    files: Settled<Result<Pem, String>>,
}

impl Tls {
    /// Reads the files. At startup, they must have no errors.
    fn load(
        settings: config::Tls,
        listener: TlsListener,
        metrics: &Metrics,
    ) -> Result<(Self, Reloader), TlsError> {
        let pem = Pem::read(&settings)?;
        let generation = Generation::new(&pem, &settings, listener)?;
        generation.show(listener, metrics);
        let tls = Self {
            current: Arc::new(ArcSwap::from_pointee(generation)),
            listener,
            metrics: metrics.clone(),
            complaints: Arc::default(),
        };
        let files = Settled::new(Ok(pem));
        Ok((tls.clone(), Reloader { tls, settings, files }))
    }

    /// Makes the handshake, and serves the connection with `serve`, which is told to end by `closing`,
    /// or because the certificates are replaced. It is not asked, but dropped, when the certificate of
    /// the client is not accepted any more.
    pub(crate) async fn serve<S, F>(
        &self,
        stream: S,
        closing: CancellationToken,
        serve: impl FnOnce(TlsStream<S>, CancellationToken) -> F,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
        F: Future<Output = ()>,
    {
        let generation = self.current.load_full();
        let Some(stream) = self.accept_with(&generation, stream).await else { return };
        let client = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let end = closing.child_token();
        let served = serve(stream, end.clone());
        tokio::select! {
            () = served => {}
            () = self.refused(generation, &client, &end) => {}
        }
    }

    /// Ends when the certificate of a client is not accepted any more. Before that, cancels `end` as
    /// soon as the files that the connection rests on are replaced.
    async fn refused(
        &self,
        mut generation: Arc<Generation>,
        client: &[CertificateDer<'static>],
        end: &CancellationToken,
    ) {
        loop {
            generation.replaced.cancelled().await;
            generation = self.current.load_full();
            if !generation.admits(client) {
                let listener = self.listener.as_str();
                tracing::info!(
                    listener,
                    "closed a connection: its certificate is not accepted now"
                );
                return;
            }
            end.cancel();
        }
    }

    /// Makes the handshake. Returns `None` if it failed.
    pub(crate) async fn accept<S>(&self, stream: S) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let generation = self.current.load_full();
        self.accept_with(&generation, stream).await
    }

    async fn accept_with<S>(&self, generation: &Generation, stream: S) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&generation.config));
        let (result, error) = match timeout(PATIENCE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                self.metrics.shook_hands(self.listener, HandshakeResult::Done);
                return Some(stream);
            }
            Ok(Err(error)) => (HandshakeResult::Failed, error.to_string()),
            Err(_) => (HandshakeResult::TimedOut, "it took too long".to_owned()),
        };
        self.metrics.shook_hands(self.listener, result);
        if self.complaints.passes(clock::now(), COMPLAIN_EVERY) {
            let listener = self.listener.as_str();
            tracing::warn!(
                listener,
                error,
                "a TLS handshake failed; further ones are counted only"
            );
        }
        None
    }
}

impl Generation {
    fn new(pem: &Pem, settings: &config::Tls, listener: TlsListener) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::identity(settings, &error))?;
        let clients = pem.clients(settings)?;
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let (chain, key, validity) = pem.identity(settings)?;
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::identity(settings, &error))?;
        config.alpn_protocols = vec![protocol(listener).to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let replaced = CancellationToken::new();
        Ok(Self { config: Arc::new(config), clients, validity, replaced })
    }

    /// Returns whether a client with this chain of certificates may connect now.
    fn admits(&self, client: &[CertificateDer<'static>]) -> bool {
        let Some(verifier) = &self.clients else { return true };
        let Some((own, chain)) = client.split_first() else { return false };
        // The clock that rustls reads in a handshake.
        let now = self.config.time_provider.current_time();
        now.is_some_and(|now| verifier.verify_client_cert(own, chain, now).is_ok())
    }

    fn show(&self, listener: TlsListener, metrics: &Metrics) {
        let certificate = match listener {
            TlsListener::Grpc => OwnCertificate::Grpc,
            TlsListener::Http => OwnCertificate::Http,
        };
        metrics.took_up_certificate(certificate, Some(self.validity.clone()));
    }
}

/// The protocol that a listener speaks above TLS.
fn protocol(listener: TlsListener) -> &'static [u8] {
    match listener {
        TlsListener::Grpc => b"h2",
        TlsListener::Http => b"http/1.1",
    }
}

/// The cryptography of this process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl Reloader {
    /// Reads the files until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut reader = PatientReader::new();
        while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
            let settings = self.settings.clone();
            let read = move || Pem::read(&settings).map_err(|error| error.to_string());
            // The process ends if this fails.
            let Ok(read) = reader.read(read).await else { return };
            let settled = match read {
                Some(read) => self.files.take(read),
                None => self.files.take_at_once(Err(HANGS.to_owned())),
            };
            if let Some(read) = settled {
                self.take_up(read);
            }
        }
    }

    fn take_up(&self, read: Result<Pem, String>) {
        let listener = self.tls.listener.as_str();
        let made = read.and_then(|pem| {
            Generation::new(&pem, &self.settings, self.tls.listener)
                .map_err(|error| error.to_string())
        });
        match made {
            Ok(generation) => {
                generation.show(self.tls.listener, &self.tls.metrics);
                let previous = self.tls.current.swap(Arc::new(generation));
                previous.replaced.cancel();
                self.tls.metrics.reloaded_certificates(self.tls.listener, ReloadResult::Loaded);
                tracing::info!(listener, "certificates reloaded");
            }
            Err(error) => {
                self.tls.metrics.reloaded_certificates(self.tls.listener, ReloadResult::Refused);
                tracing::error!(
                    listener,
                    error,
                    "certificates not reloaded; the previous ones stay in use"
                );
            }
        }
    }
}
