//! The key ring: commands create, rotate and protect it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::support::{
    Suite,
    cli::{Cli, answer, ask},
};

const CREATE: &str =
    "token create {name} --user ann@example.com --expires-in 1h --scope acme:models:*:llm_read";

fn create(name: &str) -> String {
    CREATE.replace("{name}", name)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Returns the key ids in their order, from the file itself.
fn ids(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split_once(':').unwrap().0.to_owned()).collect()
}

/// Rotates the key without making a token stop working early.
pub(crate) async fn keys_rotate(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let old = cli.mint(&create("old"));

    cli.ok("keyring add --id k2");
    assert_eq!(ids(&world.keyring_file), ["k1", "k2"]);
    let still_old = cli.mint(&create("still-old"));
    assert_eq!(cli.json(&format!("token show {}", still_old.id))["key_id"], "k1");
    let before = world.serve(&[]).await;

    cli.ok("keyring promote k2");
    assert_eq!(ids(&world.keyring_file), ["k2", "k1"]);
    let new = cli.mint(&create("new"));
    assert_eq!(cli.json(&format!("token show {}", new.id))["key_id"], "k2");
    let after = world.serve(&[]).await;
    for replica in [&before, &after] {
        for token in [&old, &still_old, &new] {
            assert_eq!(ask(replica, token, "acme").await, answer(200, "ok"));
        }
    }
    assert_eq!(
        cli.json("keyring list --count"),
        json!([
            { "id": "k2", "in_file": true, "mints": true, "live_tokens": 1, "credentials": 0 },
            { "id": "k1", "in_file": true, "mints": false, "live_tokens": 2, "credentials": 0 },
        ])
    );

    for token in [&old, &still_old] {
        cli.refused("keyring drop k1", 1, "has signed");
        cli.ok(&format!("token revoke {}", token.id));
    }
    cli.ok("keyring drop k1");
    assert_eq!(ids(&world.keyring_file), ["k2"]);
    let last = world.serve(&[]).await;
    assert_eq!(ask(&last, &new, "acme").await, answer(200, "ok"));
    assert_eq!(ask(&last, &old, "acme").await, answer(401, "invalid_token"));
}

pub(crate) async fn a_key_in_use_is_not_dropped(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    world.token(&[]).await;
    world.token_for("ann", "-1 hour", &[]).await;
    cli.ok("keyring add --id k2");
    cli.ok("keyring promote k2");
    cli.refused("keyring drop k1", 1, "key `k1` has signed 1 live tokens");
    assert_eq!(ids(&world.keyring_file), ["k2", "k1"], "the file is as it was");
    // A command that cannot determine whether a key is needed does not drop it.
    cli.with("postgres.url", "postgres://a@127.0.0.1:1/b").refused(
        "keyring drop k1",
        1,
        "Postgres",
    );
    cli.with("postgres.url", "").refused("keyring drop k1", 2, "postgres.url");
    assert_eq!(ids(&world.keyring_file), ["k2", "k1"]);
    world.sql("UPDATE patgate.pats SET expires_at = now() WHERE issued_at < now()").await;
    cli.ok("keyring drop k1");
}

/// A file that only commands made: no other user can read it, and if another user can write to it,
/// that is an error.
pub(crate) async fn a_ring_that_others_may_write_is_not_used(suite: Arc<Suite>) {
    let world = suite.world().await;
    let path = world.keyring_file.with_extension("made");
    let cli = Cli::of(&world).with("keyring_file", &path.display().to_string());
    // Needs neither a configuration nor a database.
    let bare = cli.with("postgres.url", "").with("redis.url", "");

    let line = bare.ok("keyring new --id mine");
    let encoded = line.strip_prefix("mine:").unwrap().strip_suffix('\n').unwrap();
    assert_eq!(BASE64_STANDARD.decode(encoded).unwrap().len(), 32);
    assert_ne!(bare.ok("keyring new --id mine"), line);
    let named = bare.ok("keyring new");
    assert!(named.starts_with('k') && named.lines().count() == 1, "{named}");

    assert!(!path.exists());
    let added = bare.feed("keyring add --stdin", &line);
    assert_eq!(added.code, 0, "{added:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), line);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(
        bare.json("keyring list"),
        json!([{ "id": "mine", "in_file": true, "mints": true }])
    );
    let table = bare.ok("keyring list");
    assert!(table.contains("mine") && !table.contains(encoded), "{table}");

    for text in ["", "mine", "mine:AAAA", "other:nonsense", &format!("{line}{line}")] {
        let ran = bare.feed("keyring add --stdin", text);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{text:?}: {ran:?}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), line);

    set_mode(&path, 0o640);
    bare.ok("keyring add --id next");
    bare.ok("keyring promote next");
    assert_eq!(mode(&path), 0o640, "who could read it still can");
    assert_eq!(ids(&path), ["next", "mine"]);
    cli.ok("keyring drop mine");
    assert_eq!((mode(&path), ids(&path)), (0o640, vec!["next".to_owned()]));

    for open in [0o620, 0o602, 0o666] {
        set_mode(&path, open);
        let text = fs::read_to_string(&path).unwrap();
        for command in [
            "keyring list",
            "keyring add --id third",
            "keyring promote next",
            &create("t"),
            "config check",
            "serve",
        ] {
            cli.refused(command, 2, "chmod go-w");
        }
        assert_eq!((fs::read_to_string(&path).unwrap(), mode(&path)), (text, open));
    }
    set_mode(&path, 0o644);
    let ran = cli.run("keyring list --output json");
    assert!(ran.code == 0 && ran.stderr.contains("everyone can read"), "{ran:?}");
    let shown: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(shown[0]["id"], "next");
}
