//! `patgate config check --connect`: its report about each service and its faults. Its report about
//! logins is tested in `startup.rs`, about Redis in `redis_access.rs`, about poolers in
//! `schema/pooler.rs`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    sync::Arc,
};

use patgate::keyring;
use patgate_testing::ports::free_port;

use crate::support::{
    Suite,
    cli::{Cli, found, found_by, server},
    credentials::give,
};

pub(crate) async fn postgres_and_feed_are_tried(suite: Arc<Suite>) {
    const PASSWORD: &str = "correct-horse-battery";
    let world = suite.world().await;
    let other = suite.world().await;
    let here = server(&world);
    let direct = suite.postgres_url("server", &world.database);
    let fed = here.with("feed.url", &direct);
    let (code, outcome, detail) = found(&fed, "postgres.url");
    assert_eq!((code, &*outcome), (0, "ok"), "{detail}");
    assert!(detail.starts_with("installation "), "{detail}");
    assert_eq!(found(&fed, "feed.url"), (0, "ok".into(), detail));
    let table = fed.ok("config check --connect");
    assert!(table.lines().any(|line| line.starts_with("feed.url ") && line.contains(" ok ")));
    let (code, outcome, _) = found(&here, "feed.url");
    assert_eq!((code, &*outcome), (0, "off"));

    let elsewhere = suite.postgres_url("server", &other.database);
    let port = free_port();
    let nobody = format!("postgres://server:{PASSWORD}@127.0.0.1:{port}/{}", world.database);
    let empty = suite.postgres_url("postgres", "postgres");
    for (key, url, reason) in [
        ("postgres.url", &nobody, format!("127.0.0.1, port {port}")),
        ("postgres.url", &empty, "`patgate migrate` creates it".to_owned()),
        ("feed.url", &nobody, format!("127.0.0.1, port {port}")),
        ("feed.url", &empty, "run `patgate migrate`".to_owned()),
        ("feed.url", &elsewhere, "point both at the same database".to_owned()),
    ] {
        let broken = fed.with(key, url);
        let (code, outcome, detail) = found(&broken, key);
        assert_eq!((code, &*outcome), (1, "failed"), "{key}: {detail}");
        assert!(detail.contains(&reason), "{key}: no `{reason}` in {detail}");
        let ran = broken.run("config check --connect");
        assert!(ran.stderr.contains(&format!("cannot be used as configured: {key}")), "{ran:#?}");
        assert!(!format!("{ran:?}").contains(PASSWORD), "{ran:#?}");
    }
    // Errors in the settings come first.
    here.with("max_staleness", "soon").refused("config check --connect", 2, "found `soon`");
}

/// A server that is frozen, or a network that swallows everything.
pub(crate) async fn a_silent_service_is_waited_for_with_a_word(suite: Arc<Suite>) {
    let world = suite.world().await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("postgres://server@127.0.0.1:{port}/{}", world.database);
    let mut child = server(&world).with("postgres.url", &url).spawn("config check --connect");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("still trying")), "it says nothing");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A key that was dropped, or never given to the replicas: their calls to that backend would be
/// answered with 503.
pub(crate) async fn a_credential_that_the_ring_cannot_open_is_named(suite: Arc<Suite>) {
    let world = suite.world().await;
    let ring = fs::read_to_string(&world.keyring_file).unwrap();
    let other = suite.dir.path().join(format!("{}.other", world.database));
    let line = keyring::new_line(&"k2".parse().unwrap()).unwrap();
    // The other ring has the key that signs tokens, and seals with its own.
    fs::write(&other, format!("{}\n{ring}", &*line)).unwrap();
    let operator = Cli::of(&world);
    let sealing = operator.with("keyring_file", other.to_str().unwrap());
    let judged = |cli: &Cli<'_>| found(&cli.login(&world, "server"), "keyring_file");
    give(&operator, &suite, "model-acme");
    assert_eq!(judged(&operator).1, "ok");
    give(&sealing, &suite, "model-beta");
    assert_eq!(judged(&sealing).1, "ok");
    let (code, outcome, detail) = judged(&operator);
    assert_eq!((code, &*outcome), (1, "failed"), "{detail}");
    assert!(detail.contains("answered with 503: model-beta (key k2)."), "{detail}");
}

/// With the login of self-service, whatever else the settings name.
pub(crate) async fn what_self_service_needs_is_tried(suite: Arc<Suite>) {
    const CHECK: &str = "config check --self-service";
    const CONNECT: &str = "config check --self-service --connect";
    const PASSWORD: &str = "correct-horse-battery";
    const KEY: &str = "web.postgres.url";
    let world = suite.world().await;
    let operator = Cli::of(&world);
    operator.refused(CHECK, 2, "web.postgres.url");
    // It needs none of what `patgate serve` needs.
    let bare = operator.with("postgres.url", "").with(KEY, &world.url("web", world.port));
    bare.refused("config check", 2, "postgres.url");
    assert!(bare.ok(CHECK).contains("web.listen"));
    bare.with("web.url", "http://tokens.example.org").refused(CHECK, 2, "web.url");
    bare.with("web.listen", "0.0.0.0:9193").refused(CHECK, 2, "web.url");
    bare.with("keyring_file", "").refused(CHECK, 2, "keyring_file");
    bare.with("apis", "/nonexistent/own.yaml").refused(CHECK, 2, "apis: /nonexistent/own.yaml");
    bare.refused("config check --self-service --admin", 2, "cannot be used with");

    let key_of = |key| found_by(&bare, CONNECT, key);
    let (code, outcome, detail) = key_of(KEY);
    assert_eq!((code, &*outcome), (0, "ok"), "{detail}");
    assert!(detail.starts_with("installation "), "{detail}");
    assert_eq!(key_of("redis.url").1, "ok");
    assert_eq!(key_of("keyring_file").2, "new tokens are signed with key k1");
    let port = free_port();
    let nobody = format!("postgres://web:{PASSWORD}@127.0.0.1:{port}/{}", world.database);
    let empty = suite.postgres_url("web", "postgres");
    for (url, reason) in [
        (&nobody, format!("127.0.0.1, port {port}")),
        (&empty, "may not use self-service".to_owned()),
        (&world.url("administrator", world.port), "may do more than patgate_web".to_owned()),
        (&world.url("server", world.port), "may do more than patgate_web".to_owned()),
    ] {
        let broken = bare.with(KEY, url);
        let (code, outcome, detail) = found_by(&broken, CONNECT, KEY);
        assert_eq!((code, &*outcome), (1, "failed"), "{detail}");
        assert!(detail.contains(&reason), "no `{reason}` in {detail}");
        let ran = broken.run(CONNECT);
        assert!(ran.stderr.contains("cannot be used as configured: web.postgres.url"), "{ran:#?}");
        assert!(!format!("{ran:?}").contains(PASSWORD), "{ran:#?}");
    }
}
