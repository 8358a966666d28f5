//! Tokens by the key that signed them, also if the key is no longer in the ring.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{
    Suite, Token, World,
    cli::{Cli, found},
};

const CREATE: &str = "--user ann@example.com --expires-in 1h --scope acme:models:*:llm_read";

fn ids(list: &Value) -> Vec<String> {
    let ids = list.as_array().unwrap().iter().map(|token| token["id"].as_str().unwrap().to_owned());
    let mut ids: Vec<String> = ids.collect();
    ids.sort_unstable();
    ids
}

fn sorted(tokens: &[&Token]) -> Vec<String> {
    let mut ids: Vec<String> = tokens.iter().map(|token| token.id.to_string()).collect();
    ids.sort_unstable();
    ids
}

/// A ring with the keys `k2`, which is the current one, and `k1`, and tokens of both.
struct Signed<'s> {
    cli: Cli<'s>,
    old: Token,
    of_bob: Token,
    revoked: Token,
    new: Token,
}

impl<'s> Signed<'s> {
    async fn in_world(world: &World<'s>) -> Self {
        let cli = Cli::of(world);
        let old = cli.mint(&format!("token create old {CREATE}"));
        let of_bob = world.token_for("bob", "1 hour", &[("beta", "models", "*", "llm_read")]).await;
        let revoked = cli.mint(&format!("token create revoked {CREATE}"));
        cli.ok(&format!("token revoke {}", revoked.id));
        cli.ok("keyring add --id k2");
        cli.ok("keyring promote k2");
        let new = cli.mint(&format!("token create new {CREATE}"));
        Self { cli, old, of_bob, revoked, new }
    }
}

pub(crate) async fn tokens_are_found_and_revoked_by_their_key(suite: Arc<Suite>) {
    let world = suite.world().await;
    let Signed { cli, old, of_bob, revoked, new } = Signed::in_world(&world).await;
    let listed = |filters: &str| ids(&cli.json(&format!("token list {filters}")));
    assert_eq!(listed("--key k1"), sorted(&[&old, &of_bob, &revoked]));
    assert_eq!(listed("--key k1 --live"), sorted(&[&old, &of_bob]));
    assert_eq!(listed("--key k1 --live --user ann@example.com"), sorted(&[&old]));
    assert_eq!(listed("--key k1 --domain beta"), sorted(&[&of_bob]));
    assert_eq!(listed("--key k2"), sorted(&[&new]));

    // The name is exact: a typing error is an error, and not "no token".
    for command in ["token list --key k3", "token revoke --key k3 --yes"] {
        cli.refused(command, 3, "signed by key `k3` does not exist");
    }
    cli.refused("token revoke --key K1 --yes", 2, "a key id is 1 to 32 characters");
    cli.refused(&format!("token revoke {} --key k1", old.id), 2, "cannot be used with");
    cli.refused("token revoke", 2, "required");

    // The current key: it would sign the next token as well.
    cli.refused("token revoke --key k2", 2, "warning: key k2 is the current key");
    cli.refused("token revoke --key k2", 2, "revokes 1 live tokens");
    assert!(!cli.run("token revoke --key k1").stderr.contains("warning"));

    let some = cli.json("token revoke --key k1 --user bob@example.com --yes");
    assert_eq!(ids(&some), sorted(&[&of_bob]));
    cli.ok("keyring promote k1");
    cli.ok("keyring promote k2");
    // Neither the key nor a ring is needed.
    let bare = cli.with("keyring_file", "");
    let ran = bare.run("token revoke --key k1 --yes --wait --output json");
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.stderr.contains("there is none to wait for"), "{ran:#?}");
    let rest: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(ids(&rest), sorted(&[&old]));
    assert_eq!(rest[0]["owner"], "ann@example.com");
    assert_eq!(ids(&bare.json("token revoke --key k1 --yes")), [""; 0], "again");
    assert_eq!(listed("--live"), sorted(&[&new]));
    let lines = cli.json(&format!("audit list --object {}", old.id));
    assert_eq!(lines[0]["details"]["reason"], "all tokens of key k1");
    let lines = cli.json(&format!("audit list --object {}", of_bob.id));
    assert_eq!(lines[0]["details"]["reason"], "all tokens of the user and of key k1");

    let ran = cli.run("token revoke --key k2 --yes");
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.stderr.contains("warning: key k2 is the current key"), "{ran:#?}");
    assert!(ran.stdout.contains(&new.id.to_string()), "{ran:#?}");
}

/// After a ring was lost, the new one has none of the keys that count.
pub(crate) async fn keys_that_a_ring_lacks_are_counted(suite: Arc<Suite>) {
    let world = suite.world().await;
    let Signed { cli, .. } = Signed::in_world(&world).await;
    let fresh = world.keyring_file.with_extension("fresh");
    std::fs::write(&fresh, cli.ok("keyring new --id k9")).unwrap();
    let cli = cli.with("keyring_file", &fresh.display().to_string());
    assert_eq!(
        cli.json("keyring list --count"),
        json!([
            { "id": "k9", "in_file": true, "mints": true, "live_tokens": 0, "credentials": 0 },
            { "id": "k1", "in_file": false, "mints": false, "live_tokens": 2, "credentials": 0 },
            { "id": "k2", "in_file": false, "mints": false, "live_tokens": 1, "credentials": 0 },
        ])
    );
    assert!(cli.ok("keyring list --count").contains("not in the file"));
    let server = cli.login(&world, "server");
    let (_, outcome, detail) = found(&server, "keyring_file");
    assert_eq!(outcome, "failed", "{detail}");
    assert!(detail.ends_with("They were signed by: k1 (2), k2 (1)"), "{detail}");
    cli.mint(&format!("token create first {CREATE}"));
    let (_, outcome, detail) = found(&server, "keyring_file");
    assert_eq!(outcome, "warning", "{detail}");
    assert!(detail.ends_with("refused: k1 (2), k2 (1)"), "{detail}");
    for key in ["k1", "k2"] {
        cli.ok(&format!("token revoke --key {key} --yes"));
    }
    assert_eq!(cli.json("keyring list --count").as_array().unwrap().len(), 1);
    let (_, outcome, detail) = found(&server, "keyring_file");
    assert_eq!((outcome.as_str(), detail.as_str()), ("ok", "has the keys of all live tokens"));
}
