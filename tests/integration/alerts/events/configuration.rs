//! Key rings, tables, modes and outputs that are not as they should be.

use std::{fs, path::Path};

use patgate::keyring;
use patgate_testing::{http, stack::project};
use serde_json::json;

use super::{super::stage::Stage, Story};
use crate::support::{
    Replica, World,
    authority::{Authority, valid},
    decision_log::{ALL, logging},
    fleet::{MODELS, status},
    outcome,
    process::program,
    request,
    tls_files::Files,
    tokens::reader,
};

/// It has signed none of the live tokens.
pub(super) async fn another_ring(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    reader(&world).await;
    let ring = stage.suite.dir.path().join(format!("{}.alerts.keys", world.database));
    fs::write(&ring, keyring::new_line(&"k2".parse().unwrap()).unwrap().as_bytes()).unwrap();
    stage.prepared().await;
    let replica = world.serve(&[&format!("keyring_file={}", ring.display())]).await;
    stage.scrape(story, &[&replica]);
    stage.until_fired(story, async || {}).await;
}

/// A file of the shipped table, and the setting that names it.
fn table(world: &World<'_>) -> (std::path::PathBuf, String) {
    let file = world.suite.dir.path().join(format!("{}.alerts.yaml", world.database));
    fs::copy(project("deploy/apis/cube-ai.yaml"), &file).unwrap();
    let setting = format!("apis={}", file.display());
    (file, setting)
}

fn break_it(file: &Path) {
    fs::write(file, "name: [").unwrap();
}

pub(super) async fn a_table_is_broken(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let (file, setting) = table(&world);
    let replica = world.serve(&[&setting]).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    break_it(&file);
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn a_certificate_is_broken(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let dir = stage.suite.dir.path().join(format!("{}.alerts.tls", world.database));
    fs::create_dir(&dir).unwrap();
    let authority = Authority::new();
    authority.certify(&["patgate"]).write(&dir, "server");
    let file = |name: &str| dir.join(name).display().to_string();
    let replica = world
        .serve(&[
            &format!("grpc.tls.certificate_file={}", file("server.crt")),
            &format!("grpc.tls.private_key_file={}", file("server.key")),
        ])
        .await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    // The private key of another certificate.
    authority.certify(&["patgate"]).write(&dir, "other");
    fs::copy(dir.join("other.key"), dir.join("server.key")).unwrap();
    stage.until_fired(story, async || {}).await;
}

/// A certificate of a year, of which a day is left.
pub(super) async fn a_certificate_is_not_renewed(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let files = Files::new(&world);
    let settings = files.settings();
    let replica = world.serve(&[&settings[0], &settings[1]]).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    files.authority.sign(valid(&["patgate"], -364, 1)).write(&files.dir, "server");
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn a_password_file_is_emptied(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let file = stage.suite.dir.path().join(format!("{}.alerts.password", world.database));
    fs::write(&file, "password").unwrap();
    let replica = world.serve(&[&format!("redis.password_file={}", file.display())]).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    fs::write(&file, "").unwrap();
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn a_ring_is_broken(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let ring = world.suite.dir.path().join(format!("{}.broken.keys", world.database));
    fs::copy(&world.keyring_file, &ring).unwrap();
    let replica = world.serve(&[&format!("keyring_file={}", ring.display())]).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    fs::write(&ring, "").unwrap();
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn settings_are_broken(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let file = world.suite.dir.path().join(format!("{}.broken.secret", world.database));
    fs::write(&file, "a".repeat(32)).unwrap();
    let replica = world.serve(&[&format!("grpc.secret_file={}", file.display())]).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    fs::write(&file, "short").unwrap();
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn a_login_is_broken(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let file = stage.suite.dir.path().join(format!("{}.alerts.url", world.database));
    fs::write(&file, world.url("server", world.port)).unwrap();
    let replica = world.serve(&[&format!("postgres.url_file={}", file.display())]).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    fs::write(&file, "no url").unwrap();
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn nothing_is_enforced(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    stage.prepared().await;
    let replica = world.serve(&["mode=shadow"]).await;
    stage.scrape(story, &[&replica]);
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn decisions_go_to_a_full_disk(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let replica = logging(&world, Path::new("/dev/full"), &ALL).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    let token = reader(&world).await;
    let act = async || assert_eq!(status(&replica, &token).await, 200);
    stage.until_fired(story, act).await;
}

/// A line that is logged late enough: what is lost before the first scrape, no alert can see.
pub(super) async fn the_log_goes_to_a_full_disk(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let (file, setting) = table(&world);
    let ports = [stage.suite.stack.free_port(), stage.suite.stack.free_port()];
    let [grpc, http] = ports.map(|port| std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let listen = [format!("listen.grpc={grpc}"), format!("listen.http={http}")];
    let env = world.environment(&[&setting, &listen[0], &listen[1], "decision_log.to=none"]);
    let server = stage.suite.stack.start(
        "process",
        json!({
            "argv": ["sh", "-c", "exec \"$0\" serve 2>/dev/full", program()],
            "name": "patgate",
            "env": env,
            "ready": format!("http://{http}/readyz"),
        }),
    );
    let replica = Replica::at(grpc, http);
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    break_it(&file);
    stage.until_fired(story, async || {}).await;
    assert_eq!(http::send(http.port(), "GET", "/livez", &[], "").await.status, 200);
    stage.suite.stack.stop(&server);
}

pub(super) async fn the_receiver_of_traces_is_down(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let nobody = stage.suite.stack.free_port();
    let endpoint = format!("telemetry.otlp.endpoint=http://127.0.0.1:{nobody}");
    let replica = world.serve(&[&endpoint]).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    let bearer = reader(&world).await.bearer();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let act = async || {
        let request = request("GET", MODELS, &[("authorization", &bearer)]);
        let answer = replica.raw_with(&[("traceparent", traceparent)], request).await;
        assert_eq!(outcome(&answer).0, 200);
    };
    stage.until_fired(story, act).await;
}
