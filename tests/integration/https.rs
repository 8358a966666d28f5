//! The listener `https` of the shipped configurations: what it shares with the plain one, and its
//! certificate.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use patgate_testing::{
    eventually, http,
    shipped::{HTTPS, find, whole},
    stack::{Server, project},
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring::default_provider,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{Suite, authority::Authority, envoy::envoy_patch, envoy::patient};

const SHIPPED: [&str; 4] =
    ["envoy.yaml", "rate-limits.yaml", "single-step.yaml", "other-authentication.yaml"];
const NAME: &str = "gateway.example.com";
const PATIENCE: Duration = Duration::from_secs(20);
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n";

/// Everything except the address and TLS itself.
pub(crate) async fn has_what_the_plain_listener_has(_: Arc<Suite>) {
    for file in SHIPPED {
        let mut config = whole(file);
        let listeners = &mut config["static_resources"]["listeners"];
        assert_eq!(listeners.as_array().unwrap().len(), 2, "{file}");
        let mut https = find(listeners, HTTPS).take();
        let chain = https["filter_chains"][0].as_object_mut().unwrap();
        for only_here in ["transport_socket", "transport_socket_connect_timeout"] {
            assert!(chain.remove(only_here).is_some(), "{file}: {only_here}");
        }
        for own in ["name", "address"] {
            assert_ne!(https[own], listeners[0][own], "{file}: {own}");
            https[own] = listeners[0][own].clone();
        }
        assert!(https == listeners[0], "{file}: the listeners differ");
        // One in all files.
        let socket = |file| {
            let mut config = whole(file);
            let https = find(&mut config["static_resources"]["listeners"], HTTPS);
            https["filter_chains"][0]["transport_socket"].take()
        };
        assert_eq!(socket(file), socket(SHIPPED[0]), "{file}");
    }
}

/// A folder with what `envoy -c envoy/<file>` finds in a checkout, on other ports.
fn checkout(suite: &Suite, file: &str) -> (PathBuf, [u16; 3]) {
    let root = suite.dir.path().join(format!("checkout of {file}"));
    // With the folder of certificates, as in the repository.
    fs::create_dir_all(root.join("envoy/tls")).unwrap();
    let read = |name: &str| fs::read_to_string(project(&format!("envoy/{name}"))).unwrap();
    let mut text = read(file);
    let ports = [8080, 8443, 9901].map(|shipped| {
        let port = suite.stack.free_port();
        let [from, to] = [shipped, port].map(|port| format!("port_value: {port} }}"));
        assert_eq!(text.matches(&from).count(), 1, "{file}: {from}");
        text = text.replace(&from, &to);
        port
    });
    fs::write(root.join("envoy").join(file), text).unwrap();
    fs::write(root.join("envoy/certificate.yaml"), read("certificate.yaml")).unwrap();
    (root, ports)
}

fn start(suite: &Suite, root: &Path, file: &str, admin: u16) -> Server {
    let argv = [
        project(".venv/bin/envoy"),
        "-c".to_owned(),
        format!("envoy/{file}"),
        "--disable-hot-restart".to_owned(),
        "--log-level".to_owned(),
        "warning".to_owned(),
    ];
    let ready = format!("http://127.0.0.1:{admin}/ready");
    let start = json!({ "argv": argv, "name": "envoy", "cwd": root, "ready": ready });
    suite.stack.start("process", start)
}

/// As after `git clone`: the plain listener serves, and the other one closes connections, until
/// there is a certificate.
pub(crate) async fn envoy_starts_without_certificates(suite: Arc<Suite>) {
    for file in SHIPPED {
        let (root, [plain, https, admin]) = checkout(&suite, file);
        let envoy = start(&suite, &root, file, admin);
        assert_eq!(http::send(plain, "GET", "/healthz", &[], "").await.status, 200, "{file}");
        let authority = Authority::new();
        let refused = Client::new(&authority, &[&TLS13], &[]).connect(https).await;
        assert!(refused.is_err(), "{file}");

        // The files that the configuration names.
        let beside = root.join("made");
        fs::create_dir(&beside).unwrap();
        authority.certify(&[NAME]).write(&beside, "tls");
        move_in(&beside, &root.join("envoy/tls"));
        let client = Client::new(&authority, &[&TLS13], &[]);
        let served = async || client.connect(https).await.is_ok();
        eventually("the certificate to be taken up", served).await;
        let mut stream = client.connect(https).await.unwrap();
        assert_eq!(health(&mut stream).await, "HTTP/1.1 200 OK", "{file}");
        suite.stack.stop(&envoy);
    }
}

/// As `mv` does, and all that replace certificates.
fn move_in(from: &Path, to: &Path) {
    for file in ["tls.crt", "tls.key"] {
        fs::rename(from.join(file), to.join(file)).unwrap();
    }
}

/// A client that trusts one authority.
struct Client(Arc<ClientConfig>);

impl Client {
    fn new(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    async fn connect(&self, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        let name = ServerName::try_from(NAME).unwrap();
        let connecting = TlsConnector::from(Arc::clone(&self.0)).connect(name, stream);
        timeout(PATIENCE, connecting).await.expect("an end of the handshake")
    }
}

/// Asks for the health of the gateway over HTTP/1.1, and returns the first line of the answer.
async fn health(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(HEALTH).await.unwrap();
    let mut answer = Vec::new();
    let end = b"\r\n\r\n";
    while !answer.ends_with(end) {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("an answer").unwrap();
        answer.push(byte);
    }
    String::from_utf8(answer).unwrap().lines().next().unwrap().to_owned()
}

/// The shipped Envoy with a certificate of its own, and the folder of the certificate.
fn gateway(suite: &Suite, name: &str, authority: &Authority) -> (Server, PathBuf) {
    let shipped = fs::read_to_string(project("envoy/envoy.yaml")).unwrap();
    gateway_of(suite, name, authority, &shipped)
}

fn gateway_of(suite: &Suite, name: &str, authority: &Authority, text: &str) -> (Server, PathBuf) {
    let folder = suite.dir.path().join(name);
    fs::create_dir(&folder).unwrap();
    authority.certify(&[NAME]).write(&folder, "tls");
    let nobody = format!("unix:{}", suite.dir.path().join("nobody.sock").display());
    let mut patch = envoy_patch(suite, &[nobody], patient("10s", "10s"));
    patch["tls"] = json!({ "certificate": folder.join("tls.crt"), "key": folder.join("tls.key") });
    (suite.stack.start("envoy", json!({ "config_yaml": text, "patch": patch })), folder)
}

pub(crate) async fn a_handshake_that_does_not_end_is_ended(suite: Arc<Suite>) {
    let shipped = fs::read_to_string(project("envoy/envoy.yaml")).unwrap();
    let limit = "transport_socket_connect_timeout: 10s";
    assert_eq!(shipped.matches(limit).count(), 1);
    let shorter = shipped.replace(limit, "transport_socket_connect_timeout: 1s");
    let (envoy, _) = gateway_of(&suite, "https-handshake", &Authority::new(), &shorter);
    let port = http::tls_port(envoy.port);
    for beginning in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream =
            TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        let end = timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("an end");
        // Closed, or reset.
        assert!(end.map_or(true, |read| read == 0), "an answer to half a handshake");
    }
}

pub(crate) async fn the_client_chooses_the_protocol(suite: Arc<Suite>) {
    let authority = Authority::new();
    let (envoy, _) = gateway(&suite, "https-protocols", &authority);
    let port = http::tls_port(envoy.port);
    for version in [&TLS12, &TLS13] {
        for (offered, chosen) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1", "h2"], Some("h2")),
            (&["http/1.1"], Some("http/1.1")),
            (&[], None),
        ] {
            let client = Client::new(&authority, &[version], offered);
            let mut stream = client.connect(port).await.unwrap();
            let found = stream.get_ref().1.alpn_protocol();
            assert_eq!(found, chosen.map(str::as_bytes), "{version:?} {offered:?}");
            if chosen != Some("h2") {
                assert_eq!(health(&mut stream).await, "HTTP/1.1 200 OK", "{version:?}");
            }
        }
    }

    // Of TLS 1.1, which no client library of these tests speaks: the beginning of a handshake that
    // offers nothing newer. The answer is the alert `protocol_version`.
    const HELLO: &[u8] = &[0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    const SUITES: &[u8] = &[0, 0, 2, 0xc0, 0x13, 1, 0];
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    let hello = [HELLO, &[7; 32], SUITES].concat();
    assert_eq!(hello.len(), 5 + 45);
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end").unwrap();
    assert_eq!((answer[0], &answer[5..]), (0x15, &[2, 70][..]), "{answer:?}");
}

/// Open connections stay, and no client is refused meanwhile.
pub(crate) async fn a_renewed_certificate_is_taken_up(suite: Arc<Suite>) {
    let [first, second] = [(); 2].map(|()| Authority::new());
    let (envoy, folder) = gateway(&suite, "https-renewed", &first);
    let port = http::tls_port(envoy.port);
    let of = |authority| Client::new(authority, &[&TLS13], &["http/1.1"]);
    let (old, new) = (of(&first), of(&second));
    let mut open = old.connect(port).await.unwrap();
    assert!(new.connect(port).await.is_err(), "trusted by the authority of no certificate");

    let beside = folder.join("next");
    fs::create_dir(&beside).unwrap();
    second.certify(&[NAME]).write(&beside, "tls");
    move_in(&beside, &folder);
    let served = async || new.connect(port).await.is_ok();
    eventually("the new certificate to be served", served).await;
    assert!(old.connect(port).await.is_err(), "the old certificate is still served");
    assert_eq!(health(&mut open).await, "HTTP/1.1 200 OK");

    // A key that does not belong to the certificate.
    let refused = async || stat(&envoy, "sds.gateway.key_rotation_failed").await;
    let before = refused().await;
    first.certify(&[NAME]).write(&beside, "tls");
    fs::rename(beside.join("tls.key"), folder.join("tls.key")).unwrap();
    eventually("the key to be refused", async || refused().await > before).await;
    assert!(served().await);
}

/// Returns a counter of Envoy's.
async fn stat(envoy: &Server, name: &str) -> u64 {
    let target = format!("/stats?filter={name}");
    let page = http::send(envoy.admin_port, "GET", &target, &[], "").await.body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{page}"))
}

/// Keys are made where they are needed.
pub(crate) async fn no_private_key_is_in_the_repository(_: Arc<Suite>) {
    let kept = project("envoy/tls");
    let ignored = fs::read_to_string(format!("{kept}/.gitignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "*"), "{ignored}");
    let mut folders = vec![PathBuf::from(project(""))];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let made = ["target", "node_modules"].contains(&&*name) || path == Path::new(&kept);
            if name.starts_with('.') || made || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let content = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&content);
            let is_key =
                |line: &str| line.starts_with("-----BEGIN") && line.contains("PRIVATE KEY");
            assert!(!text.lines().any(is_key), "{} holds a private key", path.display());
        }
    }
    assert!(files > 300, "{files} files: the repository is elsewhere");
}
