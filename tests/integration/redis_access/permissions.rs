//! The users that docs/redis.md defines: what they permit is enough, and no more is needed.

use std::{fs, sync::Arc};

use patgate_testing::stack::project;
use serde_json::json;

use crate::support::{
    Suite,
    cli::{Cli, found_by},
    fleet::status,
    redis_groups::{RedisCluster, ask, tell},
    relay::{fleet, obeys, relayed},
    tokens::reader,
};

/// The definitions of users in the documents, as lists of words.
fn documented() -> Vec<Vec<String>> {
    let text = fs::read_to_string(project("docs/redis.md")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("ACL SETUSER patgate-"));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    let users: Vec<Vec<String>> = lines.map(words).collect();
    assert_eq!(users.len(), 4, "serve, relay, admin, web");
    users
}

async fn define(url: &str, words: &[String]) {
    tell(url, &words.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// The commands that were refused, as the server remembers them.
async fn refused(url: &str) -> Vec<String> {
    let entries: Vec<Vec<redis::Value>> = ask(url, &["ACL", "LOG"]).await.unwrap();
    let text = |value: &redis::Value| -> String { redis::from_redis_value_ref(value).unwrap() };
    let named = |entry: &Vec<redis::Value>, name: &str| {
        let at = entry.iter().position(|value| *value == redis::Value::BulkString(name.into()));
        text(&entry[at.unwrap() + 1])
    };
    entries.iter().map(|entry| named(entry, "object")).collect()
}

/// As a replica would connect.
const CHECK: &str = "config check --connect";
/// What the library says about itself; patgate does not need it to be heard.
const NOT_NEEDED: &str = "client|setinfo";

pub(crate) async fn the_documented_users_are_enough_and_no_more_is_needed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let valkey = suite.stack.start("valkey", json!({}));
    let url = |user: &str| format!("redis.url=redis://{user}:PASSWORD@127.0.0.1:{}", valkey.port);
    for user in documented() {
        define(&valkey.url, &user).await;
    }
    let relay = fleet(&world, 3, &[&url("patgate-relay")]).await;
    obeys(&relay, &world, "revoked over the relay").await;
    let replica = world.serve(&[&url("patgate-serve")]).await;
    assert_eq!(status(&replica, &reader(&world).await).await, 200);
    let cli = Cli::of(&world).with_all(&[&url("patgate-admin")]);
    let token = reader(&world).await;
    assert_eq!(status(&replica, &token).await, 200);
    let ran = cli.run(&format!("token revoke {}", token.id));
    assert!(ran.code == 0 && !ran.stderr.contains("warning"), "{ran:#?}");
    drop(relay);
    let refused = refused(&valkey.url).await;
    assert!(refused.iter().all(|command| command == NOT_NEEDED), "{refused:?}");

    // Each permission is needed.
    let relay = relayed(&world);
    let relay = relay.each_ref().map(String::as_str);
    let server = cli.login(&world, "server");
    let site = cli.with("web.postgres.url", &world.url("web", world.port));
    for words in documented() {
        let user = words[2].clone();
        let (asks, command) = match &*user {
            "patgate-admin" => (cli.clone(), "config check --admin --connect"),
            "patgate-web" => {
                (site.with_all(&[&url(&user)]), "config check --self-service --connect")
            }
            "patgate-relay" => (server.with_all(&[&url(&user)]).with_all(&relay), CHECK),
            _ => (server.with_all(&[&url(&user)]), CHECK),
        };
        let found = || found_by(&asks, command, "redis.url");
        let (code, outcome, detail) = found();
        assert_eq!((code, &*outcome), (0, "ok"), "{user}: {detail}");
        for permission in words.iter().filter(|word| word.starts_with('+')) {
            let without = permission.replace('+', "-");
            tell(&valkey.url, &["ACL", "SETUSER", &user, &without]).await;
            let (code, _, detail) = found();
            assert!(code == 1 && detail.contains("its ACL refuses"), "{user} {without}: {detail}");
            define(&valkey.url, &words).await;
        }
    }
}

/// In a cluster, the users need what the documents add.
pub(crate) async fn in_a_cluster_a_few_more_permissions_are_enough(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cluster = RedisCluster::start(&suite, &[], false).await;
    let text = fs::read_to_string(project("docs/redis.md")).unwrap();
    let more = "`+ping +cluster|slots +asking`";
    assert!(text.contains(more), "{more} in docs/redis.md");
    for mut user in documented() {
        user.extend(more.trim_matches('`').split(' ').map(str::to_owned));
        for node in &cluster.masters {
            define(&node.url, &user).await;
        }
    }
    let settings = cluster.settings("patgate-relay:PASSWORD@");
    let settings = settings.iter().map(String::as_str).collect::<Vec<_>>();
    let fleet = fleet(&world, 2, &settings).await;
    obeys(&fleet, &world, "revoked over a cluster with users").await;
    for slot in 0..100 {
        cluster.move_slot(slot, 0, 1).await;
        assert_eq!(status(&fleet.0[0], &reader(&world).await).await, 200);
    }
    for node in &cluster.masters {
        let refused = refused(&node.url).await;
        assert!(refused.iter().all(|command| command == NOT_NEEDED), "{refused:?}");
    }
}
