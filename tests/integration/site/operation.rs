//! What operators see of `patgate admin`: its probes, its end, and how it follows its login.

use std::{fs, path::Path, sync::Arc, time::Instant};

use futures_util::future::join_all;
use patgate_testing::{
    eventually, http,
    proxy::{Mode, Proxy},
};
use serde_json::json;

use super::{AdminSite, process::AdminProcess};
use crate::{
    passwords::{demand, set_password},
    support::{Suite, World, value},
};

/// Names another host, as probes do.
async fn probe(site: &AdminSite<'_, '_>, path: &str) -> (u16, String) {
    let port = site.address.port();
    let reply = http::send_to("10.0.0.1:9193", port, "GET", path, &[], "").await;
    (reply.status, reply.body)
}

async fn becomes(site: &AdminSite<'_, '_>, status: u16, says: &str) {
    eventually(&format!("/readyz to say {says}"), async || {
        probe(site, "/readyz").await == (status, format!("{says}\n"))
    })
    .await;
    assert_eq!(probe(site, "/livez").await, (200, "ok\n".to_owned()), "while {says}");
}

/// The reason is for a reader who may be anyone: it names the setting, and no host, login or error.
pub(crate) async fn it_is_ready_while_its_database_answers(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(world.port).await;
    let through = format!("web.postgres.url={}", world.url("web", proxy.port));
    let site = AdminSite::with(&world, &[&through]).await;
    becomes(&site, 200, "ok").await;
    let silent = "web.postgres.url: Postgres does not answer";
    for mode in [Mode::BlackHole, Mode::Refuse] {
        proxy.set(mode);
        proxy.cut();
        becomes(&site, 503, silent).await;
        proxy.set(Mode::Pass);
        becomes(&site, 200, "ok").await;
    }
    let version = "UPDATE patgate.schema_version SET version = version";
    world.sql(&format!("{version} + 2")).await;
    let newer = "web.postgres.url: the schema is newer than this release knows; upgrade patgate";
    becomes(&site, 503, newer).await;
    world.sql(&format!("{version} - 2")).await;
    becomes(&site, 200, "ok").await;
    let older =
        "web.postgres.url: the schema is older than this release needs; run `patgate migrate`";
    for (breaks, mends) in [
        (format!("{version} - 1"), format!("{version} + 1")),
        (migration(28, -28), migration(-28, 28)),
    ] {
        world.sql(&breaks).await;
        becomes(&site, 503, older).await;
        world.sql(&mends).await;
        becomes(&site, 200, "ok").await;
    }
}

/// Gives a migration another number.
fn migration(from: i64, to: i64) -> String {
    format!("UPDATE patgate.migrations SET version = {to} WHERE version = {from}")
}

/// However many probe, the database is asked once a second at most, and not at all for `/livez`.
pub(crate) async fn probes_are_no_load_for_the_database(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let asked = || {
        let log = fs::read_to_string(&suite.postgres.log).unwrap();
        let of_this = |line: &&str| line.starts_with(&format!("{}|", world.database));
        log.lines().filter(of_this).filter(|line| line.contains("web_status()")).count()
    };
    let before = asked();
    let began = Instant::now();
    for _ in 0..10 {
        let ready = join_all((0..20).map(|_| probe(&site, "/readyz"))).await;
        assert!(ready.iter().all(|(status, _)| *status == 200), "{ready:?}");
        let alive = join_all((0..20).map(|_| probe(&site, "/livez"))).await;
        assert!(alive.iter().all(|(status, _)| *status == 200), "{alive:?}");
    }
    let seconds = began.elapsed().as_secs();
    let times = asked() - before;
    assert!((1..=seconds as usize + 2).contains(&times), "{times} times in {seconds} s");
}

/// It goes on while callers learn that it ends.
pub(crate) async fn it_reports_not_ready_before_it_ends(suite: Arc<Suite>) {
    let world = suite.world().await;
    let process = AdminProcess::start(&world, &["drain.delay=3s"]);
    // Read every second, so it has nothing to read again; it must not end.
    suite.stack.signal(&process.server, "HUP");
    assert_eq!(process.send("GET", "/readyz", &[], "").await.status, 200);
    suite.stack.signal(&process.server, "TERM");
    eventually("it to drain", async || {
        let reply = process.send("GET", "/readyz", &[], "").await;
        (reply.status, &*reply.body) == (503, "draining\n")
    })
    .await;
    assert_eq!(process.send("GET", "/api/session", &[], "").await.status, 401);
    assert_eq!(suite.stack.exit_code(&process.server).await, 0);
}

/// A connection that has died is replaced before a request uses it.
pub(crate) async fn dead_connections_fail_no_request(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let client = site.client("ann").await;
    let session = async || client.get("/api/session").await.status;
    for round in 0..3 {
        let all = join_all((0..8).map(|_| session())).await;
        assert!(all.iter().all(|status| *status == 200), "{round}: {all:?}");
        // Waits until they have ended.
        let ended: i64 = value(
            &world,
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
             WHERE usename LIKE 'web%' AND datname = current_database()",
        )
        .await;
        assert!(ended > 1, "{ended}");
        for request in 0..10 {
            assert_eq!(session().await, 200, "{round}: request {request}");
        }
    }
}

/// Ends the sessions of the process's logins, so that it has to log in again.
async fn log_out(world: &World<'_>) {
    world
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE usename LIKE 'web%' AND datname = current_database()",
        )
        .await;
}

/// Waits until requests are answered on connections that were made after this.
async fn goes_on(world: &World<'_>, session: impl AsyncFn() -> u16, what: &str) {
    log_out(world).await;
    eventually(what, async || session().await == 200).await;
    // All of them, also at the same time.
    let all = join_all((0..8).map(|_| session())).await;
    assert!(all.iter().all(|status| *status == 200), "{what}: {all:?}");
}

fn write(path: &Path, text: &str) {
    fs::write(path, format!("{text}\n")).unwrap();
}

/// In the file first or in Postgres first, without a restart.
pub(crate) async fn its_password_is_replaced(suite: Arc<Suite>) {
    let (postgres, world) = suite.spare(json!({})).await;
    let refusals = || {
        let log = fs::read_to_string(&postgres.log).unwrap();
        log.matches("password authentication failed for user \"web\"").count()
    };
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("password");
    let first = suite.provider_key();
    set_password(&world, "web", &first).await;
    write(&file, &first);
    let setting = format!("web.postgres.password_file={}", file.display());
    let site = AdminSite::with(&world, &[&setting]).await;
    // After the logins of the harness itself.
    let client = site.client("ann").await;
    let session = async || client.get("/api/session").await.status;
    demand(&world, "host all web 127.0.0.1/32 scram-sha-256").await;
    goes_on(&world, session, "the first password").await;
    for postgres_first in [true, false] {
        let next = suite.provider_key();
        if postgres_first {
            set_password(&world, "web", &next).await;
            // Connections that are open bridge the time.
            assert_eq!(session().await, 200);
            write(&file, &next);
        } else {
            let before = refusals();
            write(&file, &next);
            // Until Postgres knows it, the previous one is used.
            eventually("the next one to be tried", async || refusals() > before).await;
            goes_on(&world, session, "the previous password").await;
            set_password(&world, "web", &next).await;
        }
        goes_on(&world, session, "the next password").await;
        becomes(&site, 200, "ok").await;
    }
}

/// A login that may do more than the process should is not used, also if it is read later.
pub(crate) async fn another_login_is_checked_before_it_is_used(suite: Arc<Suite>) {
    let world = suite.world().await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("url");
    let url = |user: &str| world.url(user, world.port);
    write(&file, &url("web"));
    let setting = format!("web.postgres.url_file={}", file.display());
    let process = AdminProcess::start(&world, &[&setting]);
    let ann = crate::web::Site::of(&world).await.signed_in("ann").await;
    let bearer = format!("Bearer {}", &*ann.session.expose());
    let authorization = [("authorization", &*bearer)];
    let session = async || process.send("GET", "/api/session", &authorization, "").await.status;
    // Nothing else uses one of these logins here at the same time.
    let uses = async |user: &str| {
        let before = value::<String>(&world, "SELECT clock_timestamp()::text").await;
        assert_eq!(session().await, 200);
        let found = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE usename = '{user}' AND datname = current_database()
               AND query_start > '{before}'"
        );
        value::<i64>(&world, &found).await > 0
    };
    goes_on(&world, session, "the first login").await;
    assert!(uses("web").await);
    for unfit in ["administrator", "server"] {
        write(&file, &url(unfit));
        let refused = format!("the login {unfit} may do more than patgate_web");
        eventually("the login to be refused", async || {
            fs::read_to_string(&process.server.log).unwrap().contains(&refused)
        })
        .await;
        goes_on(&world, session, unfit).await;
        assert!(uses("web").await && !uses(unfit).await, "{unfit}");
    }
    let second = format!("web_{}", world.database);
    world.sql(&format!("CREATE ROLE {second} LOGIN IN ROLE patgate_web")).await;
    write(&file, &url(&second));
    eventually("the other login to be used", async || uses(&second).await).await;
}
