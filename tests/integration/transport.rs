//! Who may connect to patgate: TLS with certificates of clients, the secret of a call, the socket.

mod handshakes;
mod reloading;
mod secret;

pub(crate) use handshakes::{of_strangers_fail, over_http};
pub(crate) use reloading::{drops_nothing, keeps_what_is_good};
pub(crate) use secret::{is_needed_for_all_but_health, passes_envoy};

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

use rustix::process::{getegid, geteuid};
use serde_json::{Value, json};

use crate::support::{
    Suite, World,
    authority::{Authority, Identity},
    cli::Cli,
};

/// The names that the tests let in.
const SPIFFE: &str = "spiffe://cluster.local/ns/gateway/sa/envoy";
const DNS: &str = "envoy.gateway.svc";
/// The name of patgate's own certificate.
const SERVER: &str = "patgate";

/// The files of a replica's TLS, in a folder of their own.
struct Files {
    dir: PathBuf,
    /// Has signed what is in them.
    authority: Authority,
}

impl Files {
    fn new(world: &World<'_>) -> Self {
        let dir = world.suite.dir.path().join(format!("{}.tls", world.database));
        fs::create_dir(&dir).unwrap();
        let files = Self { dir, authority: Authority::new() };
        files.write(&files.authority);
        files
    }

    /// Certificates of this authority, for both ends.
    fn write(&self, authority: &Authority) {
        authority.certify(&[SERVER]).write(&self.dir, "server");
        authority.certify(&[SPIFFE]).write(&self.dir, "client");
        self.trust(&authority.pem());
    }

    /// These authorities of clients, from now on.
    fn trust(&self, pem: &str) {
        fs::write(self.path("ca.crt"), pem).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// The settings of a replica with mutual TLS.
    fn settings(&self) -> Vec<String> {
        vec![
            format!("grpc.tls.certificate_file={}", self.path("server.crt")),
            format!("grpc.tls.private_key_file={}", self.path("server.key")),
            format!("grpc.tls.client_ca_file={}", self.path("ca.crt")),
            format!("grpc.tls.client_names={SPIFFE},{DNS}"),
        ]
    }

    /// How Envoy connects to it. Envoy reads these files once.
    fn transport_socket(&self) -> Value {
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": SERVER,
                "common_tls_context": {
                    "tls_certificates": [{
                        "certificate_chain": { "filename": self.path("client.crt") },
                        "private_key": { "filename": self.path("client.key") },
                    }],
                    "validation_context": {
                        "trusted_ca": { "filename": self.path("ca.crt") },
                        "match_typed_subject_alt_names": [
                            { "san_type": "DNS", "matcher": { "exact": SERVER } },
                        ],
                    },
                },
            },
        })
    }
}

fn borrowed(settings: &[String]) -> Vec<&str> {
    settings.iter().map(String::as_str).collect()
}

/// Whoever it is.
fn known(authority: &Authority) -> Identity {
    authority.certify(&[SPIFFE])
}

pub(crate) async fn a_socket_has_an_owner_and_a_mode(suite: Arc<Suite>) {
    let world = suite.world().await;
    let path = suite.dir.path().join("owned.sock");
    // Only root may give a file away.
    let (user, group) = match geteuid().is_root() {
        true => (12_345, 12_346),
        false => (geteuid().as_raw(), getegid().as_raw()),
    };
    let settings = [
        format!("listen.uds={}", path.display()),
        format!("listen.uds_owner={user}:{group}"),
        "listen.uds_mode=0620".to_owned(),
    ];
    let _replica = world.serve(&borrowed(&settings)).await;
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (user, group, 0o620));
}

/// As Envoy does. The socket speaks no TLS.
pub(crate) async fn check_asks_a_replica_over_tls(suite: Arc<Suite>) {
    let world = suite.world().await;
    let files = Files::new(&world);
    let socket = suite.dir.path().join("tls.sock");
    let mut settings = files.settings();
    settings.push(format!("listen.uds={}", socket.display()));
    let replica = world.serve(&borrowed(&settings)).await;
    Authority::new().certify(&[SPIFFE]).write(&files.dir, "stranger");
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let cli = Cli::of(&world);
    let ask = |server: &str, options: &str| {
        let options = options.replace("DIR", &files.dir.display().to_string());
        let request = "check --method GET --path /proxy/acme/v1/models";
        cli.feed(&format!("{request} --server {server} {options}"), &token.text)
    };
    let tcp = replica.grpc.to_string();
    let socket = format!("unix:{}", socket.display());
    let trusting = "--server-ca-file DIR/ca.crt --server-name patgate";
    let identity = |name: &str| {
        format!("--client-certificate-file DIR/{name}.crt --client-key-file DIR/{name}.key")
    };
    let known = format!("{trusting} {}", identity("client"));
    for (server, options) in [(&tcp, &*known), (&socket, "")] {
        let ran = ask(server, options);
        assert!(ran.code == 0 && ran.stdout.contains("replica: 200 ok, the same"), "{ran:#?}");
    }
    for (options, said) in [
        ("", "the replica (--server)"),
        (trusting, "the replica (--server)"),
        (&format!("{trusting} {}", identity("stranger")), "the replica (--server)"),
        (
            &format!(
                "--server-ca-file DIR/stranger.crt --server-name patgate {}",
                identity("client")
            ),
            "UnknownIssuer",
        ),
        (
            &format!("--server-ca-file DIR/ca.crt --server-name other {}", identity("client")),
            "not valid for name",
        ),
        (
            &format!(
                "{trusting} --client-certificate-file DIR/client.crt --client-key-file DIR/server.key"
            ),
            "--client-certificate-file",
        ),
        (
            &format!(
                "{trusting} --client-certificate-file DIR/client.crt --client-key-file DIR/ca.crt"
            ),
            "expected a private key in PEM",
        ),
    ] {
        let ran = ask(&tcp, options);
        assert!(ran.code == 1 && ran.stderr.contains(said), "{options}: {ran:#?}");
        assert!(!ran.stderr.contains("PRIVATE KEY"), "{ran:#?}");
    }
    let ran = ask(&socket, &known);
    assert!(ran.code == 1 && ran.stderr.contains("a socket speaks no TLS"), "{ran:#?}");
    // Without the option that the others rest on.
    for options in ["--server-name patgate", &identity("client")] {
        assert_eq!(ask(&tcp, options).code, 2, "{options}");
    }
}
