//! Who may connect to patgate: TLS with certificates of clients, the secret of a call, the socket.

mod handshakes;
mod reloading;
mod secret;

pub(crate) use handshakes::{of_strangers_fail, over_http};
pub(crate) use reloading::{drops_nothing, keeps_what_is_good};
pub(crate) use secret::{is_needed_for_all_but_health, passes_envoy};

use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

use rustix::process::{getegid, geteuid};

use crate::support::{
    Suite,
    authority::{Authority, Identity},
    cli::Cli,
    tls_files::{Files, SPIFFE},
};

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
