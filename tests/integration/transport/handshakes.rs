//! Handshakes: which fail, and which do not.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use patgate_testing::eventually;
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore,
    client::ResolvesClientCert,
    crypto::ring::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{borrowed, known};
use crate::support::{
    Suite,
    authority::{Authority, Identity, params, with_names},
    tls_files::{DNS, Files, SERVER, SPIFFE},
};

const PATIENCE: Duration = Duration::from_secs(20);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A client of HTTP/2 over TLS.
struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    fn new(
        server: &Authority,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(server.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                // The key need not belong to the certificate.
                let key = any_supported_type(&key).unwrap();
                let certified = Arc::new(CertifiedKey::new(chain, key));
                builder.with_client_cert_resolver(Arc::new(Presents(certified)))
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Self { config: Arc::new(config) }
    }

    fn of(server: &Authority, identity: &Identity) -> Self {
        let identity = (identity.chain.clone(), identity.key());
        Self::new(server, Some(identity), &[&TLS13], &[b"h2"])
    }

    /// Whether the server speaks HTTP/2 with it.
    async fn is_served(&self, at: SocketAddr) -> bool {
        match self.connect(at).await {
            Some(mut stream) => speaks_http2(&mut stream).await,
            None => false,
        }
    }

    async fn connect(&self, at: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(at).await.unwrap();
        let name = ServerName::try_from(SERVER).unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        timeout(PATIENCE, connector.connect(name, stream)).await.unwrap().ok()
    }

    /// Opens a connection on which it will never answer a ping.
    async fn open(&self, at: SocketAddr) -> OpenConnection {
        let mut stream = self.connect(at).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        let mut open = OpenConnection(stream);
        assert_eq!(open.next().await, Some(SETTINGS));
        open
    }
}

/// The kinds of frames.
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// A connection over which the client only listens.
struct OpenConnection(TlsStream<TcpStream>);

impl OpenConnection {
    /// The kind of the next frame; `None` if the connection has ended.
    async fn next(&mut self) -> Option<u8> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut payload).await.ok()?;
            Some(head[3])
        };
        timeout(PATIENCE, read).await.expect("a frame, or the end of the connection")
    }

    /// The kinds of the frames until the connection ends.
    async fn rest(mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let Some(kind) = self.next().await {
            kinds.push(kind);
        }
        kinds
    }
}

#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whether the first that the server says is its settings.
async fn speaks_http2(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
    let exchange = async {
        stream.write_all(PREFACE).await?;
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head[3] == SETTINGS)
    };
    timeout(PATIENCE, exchange).await.unwrap().unwrap_or(false)
}

pub(crate) async fn of_strangers_fail(suite: Arc<Suite>) {
    let world = suite.world().await;
    let files = Files::new(&world);
    let replica = world.serve(&borrowed(&files.settings())).await;
    let ours = &files.authority;
    let (others, intermediate) = (Authority::new(), ours.intermediate());
    let with = |change: fn(&mut rcgen::CertificateParams)| {
        let mut params = params(&[SPIFFE]);
        change(&mut params);
        ours.sign(params)
    };
    let unreadable = |name| ours.sign(with_names(&[(6, SPIFFE.as_bytes()), name]));
    let mut judged = Vec::new();
    for (identity, served, what) in [
        (known(ours), true, "a SPIFFE id"),
        (ours.certify(&[DNS]), true, "a DNS name"),
        (ours.certify(&["other.svc", DNS]), true, "one DNS name of several"),
        (ours.certify(&["Envoy.Gateway.svc"]), true, "DNS names have no case"),
        (intermediate.certify(&[SPIFFE]).by(&intermediate), true, "an authority in between"),
        (intermediate.certify(&[SPIFFE]), false, "an authority in between that is missing"),
        (Identity::self_signed(&[SPIFFE]), false, "signed by itself"),
        (others.certify(&[SPIFFE]), false, "another authority"),
        (others.certify(&[SPIFFE]).by(ours), false, "another authority, and ours beside it"),
        (ours.certify(&[]), false, "no name"),
        (ours.certify(&["envoy"]), false, "a part of the name"),
        (ours.certify(&["envoy.gateway.svc.evil"]), false, "a longer name"),
        (ours.certify(&["a.envoy.gateway.svc"]), false, "a name below"),
        (ours.certify(&["*.gateway.svc"]), false, "a wildcard"),
        (ours.certify(&["127.0.0.1"]), false, "an address"),
        (ours.certify(&["spiffe://cluster.local/ns/gateway/sa/other"]), false, "another id"),
        (ours.certify(&["spiffe://cluster.local/ns/gateway/sa/envoy/x"]), false, "a longer id"),
        (ours.certify(&["spiffe://other.local/ns/gateway/sa/envoy"]), false, "another domain"),
        (ours.certify(&["SPIFFE://cluster.local/ns/gateway/sa/envoy"]), false, "another spelling"),
        (ours.certify(&[SPIFFE, "spiffe://cluster.local/other"]), false, "two ids"),
        (ours.sign(with_names(&[(6, SPIFFE.as_bytes()), (7, &[1; 4])])), true, "and an address"),
        (unreadable((6, b"spiffe://\xff")), false, "an id, and one that is no text"),
        (unreadable((6, "spiffe://é".as_bytes())), false, "an id, and one that is no ASCII"),
        (unreadable((2, b"a.\xff")), false, "an id, and a name of DNS that is no text"),
        (unreadable((2, b"-a-")), false, "an id, and a name of DNS that is none"),
        (unreadable((1, b"\xff")), false, "an id, and mail that is no text"),
        (unreadable((7, &[1; 5])), false, "an id, and an address of five bytes"),
        (unreadable((9, b"a")), false, "an id, and a name of a kind that does not exist"),
        (with(|p| p.not_after = date_time_ymd(2020, 1, 1)), false, "expired"),
        (with(|p| p.not_before = date_time_ymd(2090, 1, 1)), false, "not valid yet"),
        (
            with(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            false,
            "for servers only",
        ),
    ] {
        judged.push((Client::of(ours, &identity), served, what));
    }
    let client = |identity: Option<&Identity>, versions: &[_], alpn: &[&[u8]]| {
        let identity = identity.map(|identity| (identity.chain.clone(), identity.key()));
        Client::new(ours, identity, versions, alpn)
    };
    let mine = known(ours);
    judged.push((client(None, &[&TLS13], &[b"h2"]), false, "no certificate"));
    judged.push((client(None, &[&TLS12], &[b"h2"]), false, "no certificate over TLS 1.2"));
    judged.push((client(Some(&mine), &[&TLS12], &[b"h2"]), true, "TLS 1.2"));
    judged.push((client(Some(&mine), &[&TLS13], &[]), true, "no ALPN"));
    judged.push((client(Some(&mine), &[&TLS13], &[b"http/1.1"]), false, "another protocol"));
    let stolen = Some((mine.chain.clone(), known(ours).key()));
    for version in [&TLS12, &TLS13] {
        let thief = Client::new(
            ours,
            stolen.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key())),
            &[version],
            &[b"h2"],
        );
        judged.push((thief, false, "the certificate of another key"));
    }
    for (client, served, what) in &judged {
        assert_eq!(client.is_served(replica.grpc).await, *served, "{what}");
    }

    let mut plain = TcpStream::connect(replica.grpc).await.unwrap();
    assert!(!speaks_http2(&mut plain).await, "no TLS");
    for version in [0x0301, 0x0302] {
        assert!(is_refused(replica.grpc, version).await, "version {version:x}");
    }

    // A client that was served, and could resume its session, comes again when its authority is
    // known no more. Those of its connections that are open end as well.
    let again = Client::of(ours, &mine);
    assert!(again.is_served(replica.grpc).await && again.is_served(replica.grpc).await);
    let reloads = "patgate_tls_reloads_total{listener=\"grpc\",result=\"ok\"}";
    let mut leaving = again.open(replica.grpc).await;
    files.trust(&format!("{}{}", ours.pem(), others.pem()));
    eventually("two authorities", async || replica.metric(reloads).await == 1).await;
    // It is asked to end. As long as it does not answer the ping that follows, it stays.
    while leaving.next().await.expect("GOAWAY") != GOAWAY {}
    let open = again.open(replica.grpc).await;
    files.trust(&others.pem());
    let refused = async || !again.is_served(replica.grpc).await;
    eventually("the authority to be forgotten", refused).await;
    // It is not asked any more: it would have the time for further calls.
    assert!(!open.rest().await.contains(&GOAWAY), "it was asked to end");
    leaving.rest().await;
    assert!(Client::of(ours, &known(&others)).is_served(replica.grpc).await);
    let failed = "patgate_tls_handshakes_total{listener=\"grpc\",result=\"failed\"}";
    assert!(replica.metric(failed).await >= 20);
}

/// Whether the server has a fatal alert for a client that knows no later version than this.
async fn is_refused(at: SocketAddr, version: u16) -> bool {
    let [major, minor] = version.to_be_bytes();
    let mut hello = vec![major, minor];
    hello.extend([7; 32]);
    // No session; TLS_RSA_WITH_AES_128_CBC_SHA and ECDHE with it; no compression; no extensions.
    hello.extend([0, 0, 4, 0, 0x2f, 0xc0, 0x13, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    read.unwrap();
    let alert = [21, 3, 3, 0, 2, 2];
    answer.len() == alert.len() + 1 && answer.starts_with(&alert)
}

/// Probes and Prometheus, over TLS without certificates of their own.
pub(crate) async fn over_http(suite: Arc<Suite>) {
    let world = suite.world().await;
    let files = Files::new(&world);
    let settings = [
        format!("http.tls.certificate_file={}", files.path("server.crt")),
        format!("http.tls.private_key_file={}", files.path("server.key")),
    ];
    let replica = world.serve(&borrowed(&settings)).await;
    let client = Client::new(&files.authority, None, &[&TLS13, &TLS12], &[b"http/1.1"]);
    let stream = TcpStream::connect(replica.http).await.unwrap();
    let name = ServerName::try_from(SERVER).unwrap();
    let mut stream = TlsConnector::from(client.config).connect(name, stream).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let done = "patgate_tls_handshakes_total{listener=\"http\",result=\"done\"} 1";
    assert!(answer.contains(done), "{answer}");
    let mut plain = TcpStream::connect(replica.http).await.unwrap();
    plain.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The connection may be reset, because not all was read that was sent.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
}
