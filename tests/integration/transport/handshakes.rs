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
use tokio_rustls::TlsConnector;

use super::{borrowed, known};
use crate::support::{
    Suite,
    authority::{Authority, Identity, params},
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
        let stream = TcpStream::connect(at).await.unwrap();
        let name = ServerName::try_from(SERVER).unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connected = timeout(PATIENCE, connector.connect(name, stream)).await.unwrap();
        let Ok(stream) = connected else { return false };
        speaks_http2(stream).await
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
async fn speaks_http2(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    let exchange = async {
        stream.write_all(PREFACE).await?;
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head[3] == 4)
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

    let plain = TcpStream::connect(replica.grpc).await.unwrap();
    assert!(!speaks_http2(plain).await, "no TLS");
    for version in [0x0301, 0x0302] {
        assert!(is_refused(replica.grpc, version).await, "version {version:x}");
    }

    // A client that was served, and could resume its session, comes again when its authority is
    // known no more.
    let again = Client::of(ours, &mine);
    assert!(again.is_served(replica.grpc).await && again.is_served(replica.grpc).await);
    files.trust(&others.pem());
    let refused = async || !again.is_served(replica.grpc).await;
    eventually("the authority to be forgotten", refused).await;
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
