//! TLS to Postgres: private authorities, and certificates of clients. The Postgres of the other
//! tests is built without TLS, so these need Debian's.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use patgate_testing::{eventually, ports::free_port, stack::Server};
use rcgen::DnType;
use sqlx::{Connection as _, PgConnection};

use crate::{
    passwords::{REFUSED, demand},
    schema::process::ServerDirectory,
    support::{
        Suite, World,
        authority::{Authority, Identity, params},
        cli::{Cli, found},
        fleet::{Fleet, MODELS},
        settings::PATIENT,
        standby::scalar,
        tokens::reader,
    },
};

/// Where Debian installs Postgres, in one directory per version.
const INSTALLED: &str = "/usr/lib/postgresql";

/// A Postgres with TLS, and the files of its clients.
struct Secured<'s> {
    world: World<'s>,
    authority: Authority,
    home: ServerDirectory,
    server: Server,
    port: u16,
    clients: PathBuf,
}

impl<'s> Secured<'s> {
    /// Returns `None` if this machine has no Postgres with TLS.
    async fn start(suite: &'s Suite) -> Option<Self> {
        let versions = fs::read_dir(INSTALLED).into_iter().flatten();
        let mut versions = versions.map(|entry| entry.unwrap().path().join("bin"));
        let Some(bin) = versions.find(|bin| bin.join("postgres").is_file()) else {
            let skipped = format!("skipped: no Postgres with TLS in {INSTALLED}");
            assert_ne!(env::var("CI").as_deref(), Ok("true"), "{skipped}");
            println!("{skipped}");
            return None;
        };
        let home = ServerDirectory::new();
        let authority = Authority::new();
        let keep = |name: &str, identity: &Identity| {
            let clients = tempfile::tempdir().unwrap();
            identity.write(clients.path(), name);
            for end in ["crt", "key"] {
                let name = format!("{name}.{end}");
                let text = fs::read_to_string(clients.path().join(&name)).unwrap();
                let path = home.write(&name, &text);
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            }
        };
        keep("server", &authority.certify(&["localhost"]));
        home.write("ca.crt", &authority.pem());
        let port = free_port();
        let server = postgres(suite, &home, &bin, port);
        let root = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        eventually("Postgres to be up", async || PgConnection::connect(&root).await.is_ok()).await;
        let world = suite.world_at(port).await;
        let clients = suite.dir.path().join(format!("{}.postgres", world.database));
        fs::create_dir(&clients).unwrap();
        fs::write(clients.join("ca.crt"), authority.pem()).unwrap();
        fs::write(clients.join("other.crt"), Authority::new().pem()).unwrap();
        Some(Self { world, authority, home, server, port, clients })
    }

    /// The URL of a login, with parameters.
    fn url(&self, user: &str, host: &str, parameters: &str) -> String {
        let url = self.world.url(user, self.port).replace("127.0.0.1", host);
        format!("{url}?{parameters}")
    }

    fn path(&self, name: &str) -> String {
        self.clients.join(name).display().to_string()
    }

    /// A certificate for a login, whose name Postgres reads there.
    fn write_client(&self, authority: &Authority, user: &str) {
        let mut params = params(&["client"]);
        params.distinguished_name.push(DnType::CommonName, user);
        authority.sign(params).write(&self.clients, "client");
    }

    fn with_certificate(&self, user: &str) -> String {
        let [ca, certificate, key] = ["ca.crt", "client.crt", "client.key"].map(|n| self.path(n));
        let parameters =
            format!("sslmode=verify-full&sslrootcert={ca}&sslcert={certificate}&sslkey={key}");
        self.url(user, "localhost", &parameters)
    }

    async fn log_out(&self) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'server'";
        self.world.sql(sql).await;
    }

    /// Postgres's own fast shutdown, which returns its shared memory.
    fn end(self) {
        self.world.suite.stack.signal(&self.server, "INT");
        self.world.suite.stack.stop(&self.server);
    }
}

fn postgres(suite: &Suite, home: &ServerDirectory, bin: &Path, port: u16) -> Server {
    let tls = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", home.path("server.crt")),
        format!("ssl_key_file={}", home.path("server.key")),
        format!("ssl_ca_file={}", home.path("ca.crt")),
    ];
    home.postgres(suite, bin, port, &tls)
}

/// `sslrootcert` in the URL, or `SSL_CERT_FILE` in the environment.
pub(crate) async fn a_private_authority_is_trusted(suite: Arc<Suite>) {
    let Some(secured) = Secured::start(&suite).await else { return };
    let world = &secured.world;
    demand(world, "hostssl all server 127.0.0.1/32 trust").await;
    let [ca, other] = ["ca.crt", "other.crt"].map(|name| secured.path(name));
    let cli = Cli::of(world);
    let check = |host: &str, parameters: &str, trusted: Option<&str>| {
        let url = secured.url("server", host, parameters);
        let cli = cli.with("postgres.url", &url);
        let cli = match trusted {
            Some(path) => cli.with_variable("SSL_CERT_FILE", path),
            None => cli,
        };
        found(&cli, "postgres.url")
    };
    let by_url = |mode: &str, file: &str| format!("sslmode={mode}&sslrootcert={file}");
    for (host, parameters, trusted, wrong) in [
        ("localhost", by_url("verify-full", &ca), None, ""),
        ("localhost", by_url("verify-full", &other), None, "UnknownIssuer"),
        // The certificate has no such name.
        ("127.0.0.1", by_url("verify-full", &ca), None, "certificate not valid for name"),
        ("127.0.0.1", by_url("verify-ca", &ca), None, ""),
        ("localhost", "sslmode=verify-full".to_owned(), None, "UnknownIssuer"),
        ("localhost", "sslmode=verify-full".to_owned(), Some(ca.as_str()), ""),
        ("localhost", "sslmode=verify-full".to_owned(), Some(other.as_str()), "UnknownIssuer"),
    ] {
        let (_, outcome, detail) = check(host, &parameters, trusted);
        match wrong {
            "" => assert_eq!(outcome, "ok", "{host} {parameters} {trusted:?}: {detail}"),
            wrong => assert!(
                outcome == "failed" && detail.contains(wrong),
                "{host} {parameters} {trusted:?}: {detail}"
            ),
        }
    }
    for (file, wrong) in [
        ("missing.crt", "a readable file in sslrootcert"),
        ("empty.crt", "a certificate in PEM in sslrootcert"),
    ] {
        fs::write(secured.clients.join("empty.crt"), "").unwrap();
        let url = secured.url("server", "localhost", &by_url("verify-full", &secured.path(file)));
        cli.with("postgres.url", &url).refused("config check", 2, wrong);
    }
    // Several servers, each with its own name.
    let port = secured.port;
    let url = secured.url("server", "localhost", &by_url("verify-full", &ca));
    let several =
        url.replace(&format!("localhost:{port}"), &format!("localhost:1,localhost:{port}"));
    let (_, outcome, detail) = found(&cli.with("postgres.url", &several), "postgres.url");
    assert_eq!(outcome, "ok", "{detail}");
    secured.end();
}

/// The login is a certificate, which is renewed in its files; a bad file keeps what works.
pub(crate) async fn the_certificate_of_a_login_is_renewed(suite: Arc<Suite>) {
    let Some(secured) = Secured::start(&suite).await else { return };
    let world = &secured.world;
    demand(world, "hostssl all server 127.0.0.1/32 cert").await;
    secured.write_client(&secured.authority, "server");
    let setting = format!("postgres.url={}", secured.with_certificate("server"));
    let fleet = Fleet::of(world, 1, &[&setting, PATIENT[0]]).await;
    let replica = &fleet.0[0];
    let works = async || {
        let token = reader(world).await;
        fleet.all_answer(&token, MODELS, 200).await;
    };
    works().await;
    let serials =
        "SELECT string_agg(DISTINCT client_serial::text, ',' ORDER BY client_serial::text)
                   FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'server'";
    let first = scalar(&world.postgres, serials).await;
    secured.write_client(&secured.authority, "server");
    // Open sessions stay; new ones have the new certificate.
    works().await;
    let renewed = async || {
        secured.log_out().await;
        works().await;
        let now = scalar(&world.postgres, serials).await;
        now != first && !now.contains(',')
    };
    eventually("sessions with the new certificate", renewed).await;
    let shown = async |value| {
        eventually("the gauge", async || replica.metric(REFUSED).await == value).await;
    };
    shown(0).await;
    // The key of another certificate; a certificate of another user; one of a strange authority.
    let key = fs::read(secured.clients.join("client.key")).unwrap();
    let certificate = fs::read(secured.clients.join("client.crt")).unwrap();
    let restore = || {
        fs::write(secured.clients.join("client.key"), &key).unwrap();
        fs::write(secured.clients.join("client.crt"), &certificate).unwrap();
    };
    fs::copy(secured.home.path("server.key"), secured.clients.join("client.key")).unwrap();
    shown(1).await;
    secured.log_out().await;
    works().await;
    restore();
    shown(0).await;
    secured.write_client(&secured.authority, "administrator");
    let refused = async || {
        secured.log_out().await;
        works().await;
        replica.metric(REFUSED).await == 1
    };
    eventually("another user's certificate to be refused", refused).await;
    restore();
    shown(0).await;
    works().await;
    secured.end();
}
