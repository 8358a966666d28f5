//! Asks a running replica, as Envoy does.

use std::{str::FromStr, time::Duration};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{sent::SentRequest, tls::ReplicaTls};
use crate::wire::{
    codec::{self, frame},
    response::DecodedAnswer,
};

/// Far longer than a replica may take, and short enough for an operator who waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes; longer than any answer of a replica.
const MAX_ANSWER: usize = 1 << 20;

/// Where a replica listens for Envoy's checks.
#[derive(Clone, Debug)]
pub(super) enum ReplicaAddress {
    Tcp(String),
    Unix(String),
}

impl FromStr for ReplicaAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text.strip_prefix("unix:"), text.rsplit_once(':')) {
            (Some(path), _) if !path.is_empty() => Ok(Self::Unix(path.to_owned())),
            (None, Some((host, port))) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err("expected `host:port`, or `unix:/path`"),
        }
    }
}

impl ReplicaAddress {
    /// The host, without the brackets of an IPv6 address; `None` for a socket.
    pub(super) fn host(&self) -> Option<&str> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(address) => {
                let host = address.rsplit_once(':').map_or(&**address, |(host, _)| host);
                Some(host.trim_start_matches('[').trim_end_matches(']'))
            }
        }
    }
}

/// The parts of a request on which a replica's decision depends.
pub(super) struct ReplicaQuestion<'a> {
    pub(super) method: &'a str,
    pub(super) authority: &'a str,
    pub(super) target: &'a str,
    pub(super) sent: &'a SentRequest,
    /// The one of `grpc.secret`, which Envoy sends too.
    pub(super) secret: Option<&'a SecretString>,
}

/// The answer of a replica, and whether it agrees with what the stores say.
#[derive(Serialize)]
pub(super) struct ReplicaAnswer {
    #[serde(flatten)]
    pub(super) answer: DecodedAnswer,
    pub(super) agrees: bool,
}

pub(super) async fn ask(
    server: &ReplicaAddress,
    tls: Option<&ReplicaTls>,
    question: &ReplicaQuestion<'_>,
) -> anyhow::Result<DecodedAnswer> {
    let exchange = async {
        match server {
            ReplicaAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await.context("connecting")?;
                secured(stream, tls, question).await
            }
            ReplicaAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await.context("connecting")?;
                secured(stream, tls, question).await
            }
        }
    };
    let asked = timeout(PATIENCE, exchange).await;
    let asked = asked.unwrap_or_else(|_| bail!("no answer within {PATIENCE:?}"));
    asked.context("the replica (--server)")
}

async fn secured<S>(
    stream: S,
    tls: Option<&ReplicaTls>,
    question: &ReplicaQuestion<'_>,
) -> anyhow::Result<DecodedAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match tls {
        None => exchange(stream, question).await,
        Some(tls) => exchange(tls.connect(stream).await?, question).await,
    }
}

async fn exchange<S>(stream: S, question: &ReplicaQuestion<'_>) -> anyhow::Result<DecodedAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut head = http::Request::post(format!("http://patgate{}", frame::CHECK))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    if let Some(secret) = question.secret {
        let mut secret = HeaderValue::from_str(secret.expose_secret())?;
        secret.set_sensitive(true);
        head.headers_mut().insert("patgate-secret", secret);
    }
    let (response, mut body) = client.send_request(head, false)?;
    body.send_data(framed(question), true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut answer = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        answer.extend_from_slice(&chunk);
        if answer.len() > MAX_ANSWER {
            bail!("the answer is too long");
        }
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
    match status.and_then(|status| status.to_str().ok()) {
        Some("0") => {}
        status => bail!("HTTP {}, gRPC status {}", head.status, status.unwrap_or("missing")),
    }
    DecodedAnswer::decode(&answer).context("the answer is not one of patgate's")
}

/// Encodes a `CheckRequest` in a gRPC frame.
fn framed(question: &ReplicaQuestion<'_>) -> Bytes {
    let ReplicaQuestion { method, authority, target, sent, .. } = question;
    let message = codec::encode(method, authority, target, &sent.headers, &sent.body);
    [&frame::head(message.len())[..], &message].concat().into()
}
