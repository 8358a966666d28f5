//! TLS with the replica that `--server` names.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::files::{pem, trusted};

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
        let roots = read("--server-ca-file", authorities, pem::authorities)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config =
            match self.client_certificate_file.as_ref().zip(self.client_key_file.as_ref()) {
                None => config.with_no_client_auth(),
                Some((certificate, key)) => {
                    let chain = read("--client-certificate-file", certificate, pem::certificates)?;
                    let key = read("--client-key-file", key, pem::private_key)?;
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

/// Reads a file of an option with `parse`, whose errors show nothing of the content.
fn read<T, E: Display>(
    option: &str,
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> anyhow::Result<T> {
    let named = || format!("{option} ({})", path.display());
    let (text, _mode) = trusted::read(path).with_context(named)?;
    parse(&text).map_err(|problem| anyhow!("{}: {problem}", named()))
}
