//! TLS with a private authority, and with certificates of clients.

use std::{fs, path::PathBuf, sync::Arc};

use patgate_testing::eventually;

use crate::support::{
    Suite, World,
    authority::Authority,
    cli::{Cli, found},
    fleet::status,
    process::{program, serve_by},
    replica::lookups,
    tls_front::{TlsFront, server},
    tokens::reader,
};

/// The files of patgate.
struct Files(PathBuf);

impl Files {
    fn new(world: &World<'_>) -> Self {
        let dir = world.suite.dir.path().join(format!("{}.redis-tls", world.database));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn settings(&self) -> [String; 3] {
        [
            format!("redis.tls.ca_file={}", self.path("ca.crt")),
            format!("redis.tls.certificate_file={}", self.path("client.crt")),
            format!("redis.tls.private_key_file={}", self.path("client.key")),
        ]
    }
}

const HOST: &str = "127.0.0.1";

pub(crate) async fn a_private_authority_is_trusted_and_a_client_shows_its_certificate(
    suite: Arc<Suite>,
) {
    let world = suite.world().await;
    let files = Files::new(&world);
    let [servers, clients] = [Authority::new(), Authority::new()];
    fs::write(files.path("ca.crt"), servers.pem()).unwrap();
    clients.certify(&["patgate"]).write(&files.0, "client");
    Authority::new().certify(&["patgate"]).write(&files.0, "stranger");
    let front = TlsFront::to(suite.valkey.port, server(&servers.certify(&[HOST]), &clients)).await;
    let url = world.redis_url.replace("redis://", "rediss://");
    let url = url.replace(&suite.valkey.port.to_string(), &front.port.to_string());
    let url = format!("redis.url={url}");
    let settings = files.settings();
    let settings = settings.each_ref().map(String::as_str);
    let cli = Cli::of(&world).login(&world, "server").with_all(&[&url]);
    let all = cli.with_all(&settings);
    let system = all.with("redis.tls.ca_file", "");
    let by_variable = system.with_variable("SSL_CERT_FILE", &files.path("ca.crt"));
    for trusts in [&all, &by_variable] {
        let (code, outcome, detail) = found(trusts, "redis.url");
        assert_eq!((code, &*outcome), (0, "ok"), "{detail}");
    }
    let certificate = format!("redis.tls.certificate_file={}", files.path("stranger.crt"));
    let key = format!("redis.tls.private_key_file={}", files.path("stranger.key"));
    for (refused, reason) in [
        (system, "redis.tls.ca_file"),
        (cli.with_all(&settings[..1]), "ertificate"),
        (all.with_all(&[&certificate, &key]), "UnknownCA"),
        // Errors of files, before anything is sent.
        (all.with_all(&[&key]), "does not belong to the private key"),
        (all.with_all(&[&format!("redis.tls.ca_file={}", files.path("client.key"))]), "found none"),
        (all.with_all(&[&format!("redis.tls.ca_file={}", files.path("none"))]), "No such file"),
    ] {
        let (code, _, detail) = found(&refused, "redis.url");
        assert!(code == 1 && detail.contains(reason), "no `{reason}` in {detail}");
        assert!(!detail.contains("PRIVATE KEY"), "{detail}");
    }
    // A good certificate, but another server's.
    front.replace(server(&servers.certify(&["redis.example"]), &clients));
    let (code, _, detail) = found(&all, "redis.url");
    assert!(code == 1 && detail.contains("must be for the host in redis.url"), "{detail}");
    front.replace(server(&servers.certify(&[HOST]), &clients));

    // A process that trusts what the variable names.
    let argv = ["env", &format!("SSL_CERT_FILE={}", files.path("ca.crt")), &program(), "serve"]
        .map(str::to_owned);
    let argv = argv.each_ref().map(String::as_str);
    let process = serve_by(&world, &argv, &[&[&*url], &settings[1..]].concat()).await;
    eventually("Redis to be used", async || {
        assert_eq!(status(&process.replica, &reader(&world).await).await, 200);
        lookups(&process.replica, "principal", "redis", "miss").await > 0
    })
    .await;
    suite.stack.signal(&process.server, "KILL");
}

/// The authority of the servers and that of the clients are replaced while patgate serves. No lookup
/// fails, except those that the end of a connection interrupts.
pub(crate) async fn certificates_for_redis_are_replaced(suite: Arc<Suite>) {
    let world = suite.world().await;
    let files = Files::new(&world);
    let [servers, clients] = [Authority::new(), Authority::new()];
    fs::write(files.path("ca.crt"), servers.pem()).unwrap();
    clients.certify(&["patgate"]).write(&files.0, "client");
    let front = TlsFront::to(suite.valkey.port, server(&servers.certify(&[HOST]), &clients)).await;
    let url = world.redis_url.replace("redis://", "rediss://");
    let url = url.replace(&suite.valkey.port.to_string(), &front.port.to_string());
    let settings = files.settings();
    let settings = settings.each_ref().map(String::as_str);
    let replica = world.serve(&[&[&*format!("redis.url={url}")], &settings[..]].concat()).await;
    let misses = async || lookups(&replica, "principal", "redis", "miss").await;
    let used = async |what: &str| {
        let before = misses().await;
        eventually(what, async || {
            assert_eq!(status(&replica, &reader(&world).await).await, 200);
            misses().await > before
        })
        .await;
    };
    used("Redis to be used").await;
    let loaded = "patgate_store_credential_reloads_total{store=\"redis\",result=\"ok\"}";
    let refused = "patgate_store_credentials_refused{store=\"redis\"}";

    // Files with an error keep those of before.
    fs::write(files.path("ca.crt"), "no certificate").unwrap();
    eventually("the file to be refused", async || replica.metric(refused).await == 1).await;
    front.cut();
    used("Redis to be used with the certificates of before").await;

    let next = [Authority::new(), Authority::new()];
    fs::write(files.path("ca.crt"), next[0].pem()).unwrap();
    next[1].certify(&["patgate"]).write(&files.0, "client");
    front.replace(server(&next[0].certify(&[HOST]), &next[1]));
    eventually("the files to be taken up", async || {
        replica.metric(refused).await == 0 && replica.metric(loaded).await > 0
    })
    .await;
    used("Redis to be used with the next certificates").await;
    // The authority of before is not trusted any more.
    front.replace(server(&servers.certify(&[HOST]), &next[1]));
    let before = misses().await;
    for _ in 0..10 {
        assert_eq!(status(&replica, &reader(&world).await).await, 200);
    }
    assert_eq!(misses().await, before);
}
