//! Certificates that are replaced while patgate serves.

use std::{collections::BTreeMap, fs, sync::Arc};

use patgate_testing::{
    eventually,
    shipped::{find, shipped},
};
use serde_json::Value;

use super::borrowed;
use crate::support::{
    Replica, Suite, World,
    authority::Authority,
    envoy::{Gateway, envoy_patch, patient},
    load::{LASTING, Load, WELL},
    tls_files::{Files, SERVER},
};

const RELOADED: &str = "patgate_tls_reloads_total{listener=\"grpc\",result=\"ok\"}";
const REFUSED: &str = "patgate_tls_reloads_total{listener=\"grpc\",result=\"refused\"}";

/// Envoy, with certificates of its own.
fn gateway(suite: &Suite, replica: &Replica, files: &Files) -> Gateway {
    let mut config = shipped();
    let cluster = find(&mut config["static_resources"]["clusters"], "patgate");
    cluster["transport_socket"] = files.transport_socket();
    let listener = config["static_resources"]["listeners"][0].clone();
    let listeners: BTreeMap<String, Value> = [("tls".to_owned(), listener)].into();
    let patch = envoy_patch(suite, &[replica.grpc], patient("10s", "10s"));
    Gateway::start(suite, config, listeners, patch)
}

async fn serve(world: &World<'_>, files: &Files) -> Replica {
    let settings = files.settings();
    let settings = [&borrowed(&settings)[..], &["deadline=3s"]].concat();
    world.serve(&settings).await
}

/// A new certificate of the same authority, and then another authority beside it, under load.
pub(crate) async fn drops_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let files = Files::new(&world);
    let replica = serve(&world, &files).await;
    let gateway = gateway(&suite, &replica, &files);
    let load = Load::lasting(LASTING, &world, gateway.port("tls")).await;
    let next = Authority::new();
    for (round, trusted) in [
        (1, files.authority.pem()),
        (2, format!("{}{}", next.pem(), files.authority.pem())),
        (3, files.authority.pem()),
    ] {
        files.authority.certify(&[SERVER]).write(&files.dir, "server");
        files.trust(&trusted);
        let reloaded = async || replica.metric(RELOADED).await >= round;
        load.bear(eventually("the certificates to be reloaded", reloaded)).await;
        load.more(WELL, 20).await;
    }
    let handshakes = "patgate_tls_handshakes_total{listener=\"grpc\",result=\"done\"}";
    assert!(replica.metric(handshakes).await >= 4, "connections of the old certificates end");
    load.end("certificates are replaced").await;
}

/// Files with an error are not taken up, and what was good stays.
pub(crate) async fn keeps_what_is_good(suite: Arc<Suite>) {
    let world = suite.world().await;
    let files = Files::new(&world);
    let replica = serve(&world, &files).await;
    let gateway = gateway(&suite, &replica, &files);
    let bearer = world.token(&[("acme", "models", "*", "llm_read")]).await.bearer();
    let headers = [("authorization", &*bearer)];
    let works = async || gateway.get("tls", &headers).await.status == 200;
    eventually("Envoy to connect", works).await;
    let good = |name: &str| fs::read(files.path(name)).unwrap();
    let broken: [(&str, Vec<u8>); 5] = [
        ("server.key", good("client.key")),
        ("server.key", b"no key".to_vec()),
        ("server.crt", Vec::new()),
        ("ca.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
        ("ca.crt", good("client.key")),
    ];
    for (refused, (name, content)) in (1..).zip(broken) {
        let before = good(name);
        fs::write(files.path(name), content).unwrap();
        let seen = async || replica.metric(REFUSED).await >= refused;
        eventually(&format!("{name} to be refused"), seen).await;
        assert!(works().await, "{name}");
        fs::write(files.path(name), before).unwrap();
        let again = async || replica.metric(RELOADED).await >= refused;
        eventually("the good files to be taken up", again).await;
        eventually("Envoy to connect again", works).await;
    }
}
