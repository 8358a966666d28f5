//! The sockets that patgate listens on.

use std::{
    fs::Permissions,
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
};

use tokio::net::{TcpListener, UnixListener};

use crate::config;

/// The bound sockets. They are bound before anything else starts, so that a taken port is found at
/// once.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(super) grpc: Option<TcpListener>,
    /// The file stays when patgate ends: it may belong to a successor by then, which replaces the
    /// file anyway.
    pub(super) uds: Option<UnixListener>,
    pub(super) http: Option<TcpListener>,
}

impl Listeners {
    pub(crate) async fn bind(config: &config::ListenSettings) -> Result<Self, BindError> {
        let tcp = async |address: Option<SocketAddr>, key| match address {
            None => Ok(None),
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                bound.map(Some).map_err(|error| BindError::new(key, address.to_string(), error))
            }
        };
        let uds = match &config.uds {
            None => None,
            Some(path) => Some(bind_unix(path, config).map_err(|error| {
                BindError::new("listen.uds", path.display().to_string(), error)
            })?),
        };
        Ok(Self {
            grpc: tcp(config.grpc, "listen.grpc").await?,
            uds,
            http: tcp(config.http, "listen.http").await?,
        })
    }

    /// Returns the TCP address that serves gRPC.
    pub(crate) fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref()?.local_addr().ok()
    }

    /// Returns the address that serves health and metrics.
    pub(crate) fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.local_addr().ok()
    }
}

/// A socket that could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there, possibly another patgate.
    #[error("{key}: another process listens on {at}; stop it, or give {key} another value")]
    InUse {
        /// The setting that holds the address.
        key: &'static str,
        /// The address, as the setting has it.
        at: String,
    },
    /// Any other error.
    #[error("{key}: cannot listen on {at}: {error}")]
    Io {
        /// The setting that holds the address.
        key: &'static str,
        /// The address, as the setting has it.
        at: String,
        /// The operating system's reason.
        error: io::Error,
    },
}

impl BindError {
    pub(crate) fn new(key: &'static str, at: String, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { key, at },
            _ => Self::Io { key, at, error },
        }
    }
}

/// Replaces the socket file of a process that has ended; refuses to replace anything else.
fn bind_unix(path: &Path, config: &config::ListenSettings) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    let config::Owner { user, group } = config.uds_owner;
    if (user, group) != (None, None) {
        // Before the mode: changing the owner may clear bits of it.
        std::os::unix::fs::chown(path, user, group)?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(config.uds_mode))?;
    Ok(listener)
}
