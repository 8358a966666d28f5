//! A Redis that refuses the login, or permits too little: no request is refused because of it, and
//! the log, once, and the commands report the reason. Passwords and certificates that are replaced.

mod permissions;
mod rotation;
mod tls;

pub(crate) use self::{permissions::*, rotation::*, tls::*};

use std::{fs, sync::Arc};

use patgate_testing::{eventually, stack::Server};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    Suite, World,
    cli::{Cli, found, found_by},
    fleet::status,
    process, redis_at,
    tokens::reader,
};

const PASSWORD: &str = "correct-horse-battery";
/// The commands that check the settings of a replica, and of an operator.
const SERVING: &str = "config check --connect";
const ADMINISTERING: &str = "config check --admin --connect";
/// The commands that the documents list.
const ALL: &str = "+mget +psetex +del";

/// With a password, few databases, restricted users, and TLS by a CA that no client trusts.
struct GuardedRedis {
    valkey: Server,
    tls_port: u16,
}

impl GuardedRedis {
    async fn start(suite: &Suite) -> Self {
        let args = ["--requirepass", PASSWORD, "--databases", "4"];
        let valkey = suite.stack.start("valkey", json!({ "args": args }));
        let tls_port = behind_tls(valkey.port).await;
        let guarded = Self { valkey, tls_port };
        guarded.allow("reads", "+mget").await;
        guarded.allow("writes", "+psetex").await;
        guarded.allow("sees-others", &format!("{ALL} resetkeys ~others:*")).await;
        guarded.allow("all", ALL).await;
        guarded
    }

    fn url(&self, login: &str, rest: &str) -> String {
        format!("redis://{login}@127.0.0.1:{}{rest}", self.valkey.port)
    }

    /// Permits a user of that name these commands on patgate's keys.
    async fn allow(&self, user: &str, commands: &str) {
        let mut connection = redis_at(&self.url(&format!(":{PASSWORD}"), "/0")).await;
        let rules = format!("reset on >{PASSWORD} ~patgate:* {commands}");
        let mut set = redis::cmd("ACL");
        set.arg("SETUSER").arg(user).arg(rules.split(' ').collect::<Vec<_>>());
        set.exec_async(&mut connection).await.unwrap();
    }
}

/// Terminates TLS in front of a server without TLS support: the Valkey of the tests.
async fn behind_tls(port: u16) -> u16 {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls_port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await?;
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    tls_port
}

/// Returns the messages of a log about Redis, with their reasons.
fn complaints(log: &str) -> Vec<(String, String)> {
    let lines = fs::read_to_string(log).unwrap();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |line: &Value, member: &str| line[member].as_str().unwrap_or_default().to_owned();
    lines
        .map(|line| (text(&line, "message"), text(&line, "why")))
        .filter(|(message, _)| message.starts_with("Redis "))
        .collect()
}

/// Uses ten new tokens, each of which causes a read and a write in Redis.
async fn served(world: &World<'_>, process: &process::Process) {
    for _ in 0..10 {
        assert_eq!(status(&process.replica, &reader(world).await).await, 200);
    }
}

pub(crate) async fn a_fault_is_said_with_its_reason_and_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let guarded = GuardedRedis::start(&suite).await;
    let user = |name: &str| guarded.url(&format!("{name}:{PASSWORD}"), "/0");
    let login = format!(":{PASSWORD}");
    let tls = guarded.tls_port;
    let cut = "the results of lookups are not shared";
    let past = "lookups go to Postgres";
    for (url, consequence, reason) in [
        (guarded.url(":wrong", "/0"), past, "refuses the user name or the password in redis.url"),
        (user("nobody"), past, "refuses the user name or the password in redis.url"),
        (
            format!("redis://127.0.0.1:{}/0", guarded.valkey.port),
            past,
            "requires a password, and redis.url has none",
        ),
        (guarded.url(&login, "/99"), past, "refuses the database that the path of redis.url names"),
        (format!("rediss://{login}@127.0.0.1:{tls}/0"), past, "SSL_CERT_FILE"),
        (
            user("writes"),
            past,
            "its ACL refuses what patgate needs: User writes has no permissions",
        ),
        (user("sees-others"), past, "its ACL refuses what patgate needs: No permissions to access"),
        (user("reads"), cut, "its ACL refuses what patgate needs: User reads has no permissions"),
    ] {
        let process = process::serve(&world, &[&format!("redis.url={url}")]).await;
        eventually("a complaint", async || {
            served(&world, &process).await;
            !complaints(&process.server.log).is_empty()
        })
        .await;
        served(&world, &process).await;
        let told = complaints(&process.server.log);
        let (message, why) = &told[0];
        assert!(message.contains(consequence) && why.contains(reason), "{url}: {told:?}");
        let other = told.iter().filter(|(_, of)| of != why).collect::<Vec<_>>();
        let writes_too = told.len() == 2 && other.iter().all(|(text, _)| text.contains(cut));
        assert!(told.len() == 1 || writes_too, "{url}: {told:?}");
        let log = fs::read_to_string(&process.server.log).unwrap();
        assert!(!log.contains(PASSWORD) && !log.contains("wrong@"), "{log}");
        suite.stack.signal(&process.server, "KILL");

        let cli = Cli::of(&world).with("redis.url", &url);
        let (code, outcome, detail) = found(&cli.login(&world, "server"), "redis.url");
        assert_eq!((code, &*outcome), (1, "failed"), "{url}: {detail}");
        assert!(detail.contains(reason), "{url}: no `{reason}` in {detail}");
        assert!(!detail.contains(PASSWORD), "{detail}");
        if consequence == past {
            let checked = cli.feed(
                "check --method GET --path /proxy/acme/v1/models",
                &reader(&world).await.text,
            );
            assert_eq!(checked.code, 0, "{checked:#?}");
            assert!(!checked.stderr.contains("Redis"), "{checked:#?}");
            let line = format!("redis, token: Redis cannot be used: {detail}");
            assert!(checked.stdout.contains(&line), "{url}: no `{line}` in {checked:#?}");
        }
    }
    // What the documents list is enough.
    let cli = Cli::of(&world).with("redis.url", &user("all"));
    for (cli, command) in [(&cli.login(&world, "server"), SERVING), (&cli, ADMINISTERING)] {
        let (code, outcome, detail) = found_by(cli, command, "redis.url");
        assert_eq!((code, &*outcome), (0, "ok"), "{detail}");
    }
    let relayed = cli.login(&world, "server").with("feed.relay", "redis");
    let relayed = relayed.with("feed.url", &suite.postgres_url("server", &world.database));
    assert_eq!(found(&relayed, "redis.url").0, 1);
    guarded.allow("all", &format!("{ALL} +xadd +xread +hset +hgetall +hdel")).await;
    let (code, outcome, detail) = found(&relayed, "redis.url");
    assert_eq!((code, &*outcome), (0, "ok"), "{detail}");
}

/// A user that lacks one command, for each use of Redis.
pub(crate) async fn each_command_that_is_missing_is_named(suite: Arc<Suite>) {
    const LOOKUPS: &[&str] = &["mget", "psetex"];
    const RELAY: &[&str] = &["mget", "psetex", "xadd", "xread", "hset", "hgetall", "hdel", "del"];
    const COMMANDS: &[&str] = &["mget", "del"];
    let world = suite.world().await;
    let guarded = GuardedRedis::start(&suite).await;
    let url = guarded.url(&format!("narrow:{PASSWORD}"), "/0");
    let operator = Cli::of(&world).with("redis.url", &url);
    let server = operator.login(&world, "server");
    let feed = suite.postgres_url("server", &world.database);
    let relayed = server.with("feed.url", &feed).with("feed.relay", "redis");
    for (cli, command, needed) in [
        (&server, SERVING, LOOKUPS),
        (&relayed, SERVING, RELAY),
        (&operator, ADMINISTERING, COMMANDS),
    ] {
        for missing in needed {
            let others = needed.iter().filter(|other| *other != missing);
            let others: Vec<String> = others.map(|name| format!("+{name}")).collect();
            guarded.allow("narrow", &others.join(" ")).await;
            let (code, outcome, detail) = found_by(cli, command, "redis.url");
            assert_eq!((code, &*outcome), (1, "failed"), "{missing}: {detail}");
            assert!(detail.contains(&format!("'{missing}'")), "{missing}: {detail}");
        }
        let all: Vec<String> = needed.iter().map(|name| format!("+{name}")).collect();
        guarded.allow("narrow", &all.join(" ")).await;
        let (code, outcome, detail) = found_by(cli, command, "redis.url");
        assert_eq!((code, &*outcome), (0, "ok"), "{detail}");
    }
}

/// If the fault is fixed while the replica runs, Redis is used again, and the log says so.
pub(crate) async fn a_fault_that_is_mended_is_over(suite: Arc<Suite>) {
    let world = suite.world().await;
    let guarded = GuardedRedis::start(&suite).await;
    guarded.allow("all", "+mget").await;
    let url = format!("redis.url={}", guarded.url(&format!("all:{PASSWORD}"), "/0"));
    let process = process::serve(&world, &[&url]).await;
    let begins = |with: &'static str| {
        let log = process.server.log.clone();
        move || complaints(&log).iter().any(|(message, _)| message.starts_with(with))
    };
    let broken = begins("Redis cannot be used");
    let mended = begins("Redis can be used again");
    eventually("a complaint", async || {
        served(&world, &process).await;
        broken()
    })
    .await;
    assert!(!mended());
    guarded.allow("all", ALL).await;
    eventually("it to be over", async || {
        served(&world, &process).await;
        mended()
    })
    .await;
}
