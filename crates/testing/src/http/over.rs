//! The same request in each of the ways in which clients reach Envoy.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client};
use http::{HeaderName, HeaderValue, Request, Response, Uri, header::HOST};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Reply, chunked, raw};

/// The files of the certificate and its key.
pub const CERTIFICATE: &str = "gateway.crt";
pub const KEY: &str = "gateway.key";
/// The name in the certificate, and the default host of requests.
const GATEWAY: &str = "gateway";
/// The time limit for an exchange.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// HTTP/1.1 on a plain connection.
    Http1,
    /// HTTP/2 on a plain connection, with prior knowledge.
    Http2,
    /// TLS, with HTTP/2 negotiated by ALPN.
    Tls,
}

/// The parts of a request.
#[derive(Clone, Copy, Default)]
pub struct Sent<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
    /// If set, the client does not state the length, and sends pieces of this size.
    pub pieces: Option<usize>,
    /// If true, the stated length is one byte more than is sent.
    pub unfinished: bool,
}

impl Sent<'_> {
    fn length(&self) -> usize {
        self.body.len() + usize::from(self.unfinished)
    }
}

impl Over {
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Tls];

    /// The ways in which a client can send this request. A request that no library would send goes
    /// over HTTP/1.1 only, where the test writes it by hand.
    pub fn that_carry(sent: Sent<'_>) -> impl Iterator<Item = Self> {
        let uri = format!("http://{}{}", host_of(sent), sent.target).parse::<Uri>();
        let is_same = uri.is_ok_and(|uri| {
            let host = uri.authority().is_some_and(|authority| authority == host_of(sent));
            host && uri.path_and_query().is_some_and(|path| path == sent.target)
        });
        let is_sendable = sent.headers.iter().all(|(name, value)| {
            // HTTP/1.1 ignores white space around a value; HTTP/2 forbids it (RFC 9113, 8.2.1).
            let is_value = HeaderValue::from_str(value).is_ok() && value.trim() == *value;
            HeaderName::from_bytes(name.as_bytes()).is_ok() && is_value
        });
        let all = is_same && is_sendable;
        Self::ALL.into_iter().filter(move |over| all || *over == Self::Http1)
    }

    /// Sends one request on its own connection, and returns the answer.
    pub async fn send(self, port: u16, sent: Sent<'_>) -> Reply {
        let reply = self.try_send(port, sent).await;
        reply.unwrap_or_else(|error| panic!("{self:?} {} {}: {error}", sent.method, sent.target))
    }

    /// The same with a body.
    pub async fn post(
        self,
        port: u16,
        target: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Reply {
        let body = body.as_ref();
        self.send(port, Sent { method: "POST", target, headers, body, ..Sent::default() }).await
    }

    /// Each way in turn, for calls that are counted and therefore cannot be made in all ways.
    pub fn in_turn() -> Self {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        Self::ALL[CALLS.fetch_add(1, Relaxed) % Self::ALL.len()]
    }

    /// The same; the error is that of a stream that was reset before an answer arrived.
    pub async fn try_send(self, port: u16, sent: Sent<'_>) -> Result<Reply, h2::Error> {
        let exchange = async {
            match self {
                Self::Http1 => Ok(raw(port, written(sent)).await),
                Self::Http2 => exchange(connect(port).await, sent).await,
                Self::Tls => exchange(secure(port).await, sent).await,
            }
        };
        timeout(PATIENCE, exchange).await.expect("an answer in time")
    }
}

impl Over {
    /// Sends and waits without a time limit until the server ends the exchange in any way.
    pub async fn hold(self, port: u16, sent: Sent<'_>) {
        match self {
            Self::Http1 => {
                let mut stream = connect(port).await;
                // The server may have closed the connection already.
                let _ = stream.write_all(&written(sent)).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            Self::Http2 => {
                let _ = exchange(connect(port).await, sent).await;
            }
            Self::Tls => {
                let _ = exchange(secure(port).await, sent).await;
            }
        }
    }
}

/// The port of the same listener over TLS: see tools/envoy_config.py.
pub fn tls_port(port: u16) -> u16 {
    port + 1
}

async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Connects to the listener over TLS that belongs to this port.
async fn secure(port: u16) -> TlsStream<TcpStream> {
    let name = ServerName::try_from(GATEWAY).unwrap();
    let config = Arc::clone(TRUST.get().expect("a certificate"));
    let tls =
        TlsConnector::from(config).connect(name, connect(tls_port(port)).await).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    tls
}

/// Writes a request as HTTP/1.1.
fn written(sent: Sent<'_>) -> Vec<u8> {
    let host = host_of(sent);
    let mut head = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", sent.method, sent.target);
    head.push_str("connection: close\r\n");
    for (name, value) in sent.headers.iter().filter(|(name, _)| *name != HOST.as_str()) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = match sent.pieces {
        Some(size) => {
            head.push_str("transfer-encoding: chunked\r\n");
            chunked(sent.body, size)
        }
        None => {
            if !sent.body.is_empty() {
                head.push_str(&format!("content-length: {}\r\n", sent.length()));
            }
            sent.body.to_vec()
        }
    };
    [head.as_bytes(), b"\r\n", &body].concat()
}

fn host_of<'a>(sent: Sent<'a>) -> &'a str {
    let mut headers = sent.headers.iter();
    headers.find(|(name, _)| *name == HOST.as_str()).map_or(GATEWAY, |(_, value)| value)
}

async fn exchange<S>(stream: S, sent: Sent<'_>) -> Result<Reply, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut client, connection) = client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let uri = format!("http://{}{}", host_of(sent), sent.target);
    let mut request = Request::builder().method(sent.method).uri(uri).body(()).unwrap();
    for (name, value) in sent.headers.iter().filter(|(name, _)| *name != HOST.as_str()) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    if sent.pieces.is_none() && !sent.body.is_empty() {
        request.headers_mut().insert("content-length", sent.length().into());
    }
    let (response, body) = client.send_request(request, sent.body.is_empty())?;
    let sending = async {
        if !sent.body.is_empty() {
            // A server that refuses early resets the stream before it has read everything.
            let _ = upload(body, sent).await;
        }
    };
    // Only the answer counts, not whether everything could be sent.
    let reply = async { received(response.await?).await };
    tokio::pin!(reply);
    let reply = tokio::select! {
        reply = &mut reply => reply,
        () = sending => reply.await,
    };
    drop(client);
    connection.abort();
    reply
}

async fn upload(mut stream: SendStream<Bytes>, sent: Sent<'_>) -> Result<(), h2::Error> {
    for piece in sent.body.chunks(sent.pieces.unwrap_or(usize::MAX)) {
        let mut rest = Bytes::copy_from_slice(piece);
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let Some(room) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                return Ok(());
            };
            let part = rest.split_to(room?.min(rest.len()));
            stream.send_data(part, false)?;
        }
    }
    if sent.unfinished {
        // Waits until the server resets the stream.
        std::future::poll_fn(|cx| stream.poll_reset(cx)).await.map(|_| ())
    } else {
        stream.send_data(Bytes::new(), true)
    }
}

async fn received(response: Response<RecvStream>) -> Result<Reply, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let headers = head.headers.iter();
    Ok(Reply {
        status: head.status.as_u16(),
        headers: headers
            .map(|(n, value)| (n.as_str().to_owned(), text(value.as_bytes())))
            .collect(),
        body: text(&body),
    })
}

static TRUST: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// Makes a certificate that this client trusts, and returns the settings with which Envoy serves
/// it: see `tls` in tools/envoy_config.py.
pub fn certify(dir: &Path) -> Value {
    let [certificate, key] = [CERTIFICATE, KEY].map(|name| dir.join(name));
    TRUST.get_or_init(|| {
        let made =
            generate_simple_self_signed(vec![GATEWAY.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let CertifiedKey { cert, signing_key } = made;
        fs::write(&certificate, cert.pem()).unwrap();
        fs::write(&key, signing_key.serialize_pem()).unwrap();
        trusting(cert.der().clone())
    });
    json!({ "certificate": certificate, "key": key })
}

fn trusting(certificate: CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // The protocols that most clients offer.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}
