//! A password that is replaced while patgate serves.

use std::{fs, sync::Arc, time::Instant};

use patgate_testing::eventually;
use serde_json::json;

use crate::support::{
    Replica, Suite,
    fleet::{HEALED, status},
    front::Front,
    load::{LASTING_LONG, WELL},
    redis_groups::tell,
    replica::lookups,
    settings::PATIENT,
    tokens::reader,
};

const REFUSED: &str = "patgate_store_credentials_refused{store=\"redis\"}";
const LOADED: &str = "patgate_store_credential_reloads_total{store=\"redis\",result=\"ok\"}";

async fn answered(replica: &Replica) -> u64 {
    lookups(replica, "principal", "redis", "miss").await
}

/// The password is replaced first in the file, then first in Redis; the latter ends all connections
/// with the old one. No request fails.
pub(crate) async fn a_password_is_replaced_under_load(suite: Arc<Suite>) {
    let world = suite.world().await;
    let valkey = suite.stack.start("valkey", json!({}));
    let file = suite.dir.path().join(format!("{}.password", world.database));
    let write = |password: &str| fs::write(&file, password).unwrap();
    let user = async |rules: &[&str]| {
        tell(&valkey.url, &[&["ACL", "SETUSER", "patgate"], rules].concat()).await;
    };
    user(&["on", ">first", "~patgate:*", "+mget", "+psetex"]).await;
    write("first\n");
    let settings = [
        format!("redis.url=redis://patgate@127.0.0.1:{}/0", valkey.port),
        format!("redis.password_file={}", file.display()),
    ];
    let settings = [&settings.each_ref().map(String::as_str)[..], &PATIENT].concat();
    let front = Front::of(&world, &settings).await;
    let load = front.lasting(LASTING_LONG, &world).await;
    let used = async |what: &str| {
        let since = Instant::now();
        for replica in &front.fleet.0 {
            let before = answered(replica).await;
            load.bear(eventually(what, async || answered(replica).await > before + 5)).await;
        }
        assert!(since.elapsed() < HEALED, "{what}: {:?}", since.elapsed());
    };
    used("Redis to be used").await;

    // In an order that is never refused.
    user(&[">second"]).await;
    write("second\n");
    let loaded = async |times: u64| {
        let mut all = true;
        for replica in &front.fleet.0 {
            all &= replica.metric(LOADED).await >= times && replica.metric(REFUSED).await == 0;
        }
        all
    };
    load.bear(eventually("the second password to be taken up", async || loaded(1).await)).await;
    user(&["<first"]).await;
    tell(&valkey.url, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    used("Redis to be used with the second password").await;

    // Redis first: until the file is written, no login is accepted.
    user(&["resetpass", ">third"]).await;
    tell(&valkey.url, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    load.bear(load.more(WELL, 20)).await;
    write("third");
    used("Redis to be used with the third password").await;
    load.bear(eventually("the third password to be reported", async || loaded(2).await)).await;

    // The file first, long before Redis: the connections and the login of before stay in use.
    write("fourth");
    let refused = async || {
        let mut all = true;
        for replica in &front.fleet.0 {
            all &= replica.metric(REFUSED).await == 1;
        }
        all
    };
    load.bear(eventually("the fourth password to be refused", refused)).await;
    tell(&valkey.url, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    used("Redis to be used with the third password still").await;
    user(&["resetpass", ">fourth"]).await;
    load.bear(eventually("the fourth password to be taken up", async || loaded(3).await)).await;
    used("Redis to be used with the fourth password").await;
    load.bear(load.more(WELL, 20)).await;
    load.end("the password of Redis is replaced").await;
}

/// A file that holds no password is not taken up, and the alert's metric says so.
pub(crate) async fn a_bad_password_file_keeps_the_old_password(suite: Arc<Suite>) {
    let world = suite.world().await;
    let valkey = suite.stack.start("valkey", json!({ "args": ["--requirepass", "good"] }));
    let file = suite.dir.path().join(format!("{}.password", world.database));
    fs::write(&file, "good").unwrap();
    let settings = [
        format!("redis.url=redis://127.0.0.1:{}/0", valkey.port),
        format!("redis.password_file={}", file.display()),
    ];
    let replica = world.serve(&settings.each_ref().map(String::as_str)).await;
    let admin = format!("redis://:good@127.0.0.1:{}", valkey.port);
    let refused = async || replica.metric(REFUSED).await == 1;
    for (what, content) in [
        ("empty", Some("")),
        ("two lines", Some("good\nbad\n")),
        ("gone", None),
        ("another password", Some("bad")),
    ] {
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        eventually(what, refused).await;
        tell(&admin, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        let before = answered(&replica).await;
        eventually("Redis to be used all the same", async || {
            assert_eq!(status(&replica, &reader(&world).await).await, 200);
            answered(&replica).await > before
        })
        .await;
        fs::write(&file, "good").unwrap();
        eventually("it to be over", async || !refused().await).await;
    }
}
