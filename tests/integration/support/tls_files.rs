//! The files of a replica's TLS, and of the Envoy in front of it.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::{World, authority::Authority};

/// The names that the tests let in.
pub(crate) const SPIFFE: &str = "spiffe://cluster.local/ns/gateway/sa/envoy";
pub(crate) const DNS: &str = "envoy.gateway.svc";
/// The name of patgate's own certificate.
pub(crate) const SERVER: &str = "patgate";

/// The files of a replica's TLS, in a folder of their own.
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
    /// Has signed what is in them.
    pub(crate) authority: Authority,
}

impl Files {
    pub(crate) fn new(world: &World<'_>) -> Self {
        let dir = world.suite.dir.path().join(format!("{}.tls", world.database));
        fs::create_dir(&dir).unwrap();
        let files = Self { dir, authority: Authority::new() };
        files.write(&files.authority);
        files
    }

    /// Certificates of this authority, for both ends.
    pub(crate) fn write(&self, authority: &Authority) {
        authority.certify(&[SERVER]).write(&self.dir, "server");
        authority.certify(&[SPIFFE]).write(&self.dir, "client");
        self.trust(&authority.pem());
    }

    /// These authorities of clients, from now on.
    pub(crate) fn trust(&self, pem: &str) {
        fs::write(self.path("ca.crt"), pem).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// The settings of a replica with mutual TLS.
    pub(crate) fn settings(&self) -> Vec<String> {
        vec![
            format!("grpc.tls.certificate_file={}", self.path("server.crt")),
            format!("grpc.tls.private_key_file={}", self.path("server.key")),
            format!("grpc.tls.client_ca_file={}", self.path("ca.crt")),
            format!("grpc.tls.client_names={SPIFFE},{DNS}"),
        ]
    }

    /// How Envoy connects to it. Envoy reads these files once.
    pub(crate) fn transport_socket(&self) -> Value {
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
