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
