//! TLS with the replica that `--server` names.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::files::trusted;

/// What a replica with `grpc.tls` needs. Without an authority, the connection is plain.
#[derive(clap::Args)]
pub(super) struct TlsArguments {
    /// Speaks TLS with the replica, whose certificate one of the authorities in this file (PEM) must
    /// have signed
    #[arg(long, value_name = "FILE", requires = "server")]
    server_ca_file: Option<PathBuf>,
    /// The DNS name or IP address in the replica's certificate, if it is not the host of `--server`
    #[arg(long, value_name = "NAME", requires = "server_ca_file")]
    server_name: Option<String>,
    /// The certificate (PEM) to show to the replica: one with a name in its `grpc.tls.client_names`
    #[arg(long, value_name = "FILE", requires_all = ["server_ca_file", "client_key_file"])]
    client_certificate_file: Option<PathBuf>,
    /// The private key (PEM) of that certificate
    #[arg(long, value_name = "FILE", requires = "client_certificate_file")]
    client_key_file: Option<PathBuf>,
}

/// TLS as a client of one replica.
pub(super) struct ReplicaTls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsArguments {
    /// Reads the files; `None` if the connection is plain. `host` is that of `--server`, the name to
    /// expect unless another one was given; `None` for a socket.
    pub(super) fn load(&self, host: Option<&str>) -> anyhow::Result<Option<ReplicaTls>> {
        let Some(authorities) = &self.server_ca_file else { return Ok(None) };
        let host = host.context(
            "--server-ca-file: a socket speaks no TLS; leave it out, or give --server as host:port",
        )?;
        let name = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .with_context(|| format!("--server-name: `{name}` is no DNS name or IP address"))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates("--server-ca-file", authorities)? {
            let added = roots.add(authority);
            added.with_context(|| format!("--server-ca-file ({})", authorities.display()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config =
            match self.client_certificate_file.as_ref().zip(self.client_key_file.as_ref()) {
                None => config.with_no_client_auth(),
                Some((certificate, key)) => {
                    let chain = certificates("--client-certificate-file", certificate)?;
                    let key = private_key("--client-key-file", key)?;
                    config.with_client_auth_cert(chain, key).with_context(|| {
                        format!("--client-certificate-file ({})", certificate.display())
                    })?
                }
            };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some(ReplicaTls { connector: Arc::new(config).into(), name }))
    }
}

impl ReplicaTls {
    pub(super) async fn connect<S>(&self, stream: S) -> anyhow::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.connector.connect(self.name.clone(), stream).await.context("TLS")
    }
}

fn certificates(option: &str, path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let named = || format!("{option} ({})", path.display());
    let (text, _mode) = trusted::read(path).with_context(named)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let read = read.context("expected certificates in PEM").with_context(named)?;
    anyhow::ensure!(!read.is_empty(), "{}: expected a certificate in PEM, found none", named());
    Ok(read)
}

/// The error shows nothing of the key.
fn private_key(option: &str, path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let named = || format!("{option} ({})", path.display());
    let (text, _mode) = trusted::read(path).with_context(named)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| anyhow::anyhow!("expected a private key in PEM, not encrypted"))
        .with_context(named)
}
