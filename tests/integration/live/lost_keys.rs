//! The procedures for a ring that was lost and for a key that was stolen, step by step as
//! docs/operations.md has them.

use std::{fs, sync::Arc};

use futures_util::future::join_all;
use patgate_testing::eventually;

use super::{REFUSES, RELOADED, RingFile};
use crate::support::{
    Suite, Token, World,
    cli::{Cli, found},
    credentials::{authorization, give, turns},
    fleet::{Fleet, MODELS},
    settings::PATIENT,
};

const SCOPE: &str = "--expires-in 90d --scope acme:models:*:llm_read";

/// Two replicas with one file, tokens and a credential.
struct Site<'s> {
    fleet: Fleet,
    ring: RingFile,
    cli: Cli<'s>,
    server: Cli<'s>,
    tokens: [Token; 2],
    credential: String,
}

impl<'s> Site<'s> {
    async fn of(world: &World<'s>) -> Self {
        let ring = RingFile::of(world);
        let setting = ring.setting();
        let fleet = Fleet::of(world, 2, &[&setting, PATIENT[0], PATIENT[1]]).await;
        let file = ring.path.display().to_string();
        let cli = Cli::of(world).with("keyring_file", &file);
        let server = cli.login(world, "server");
        let credential = give(&cli, world.suite, "model-acme");
        let tokens = ["one", "two"]
            .map(|name| cli.mint(&format!("token create {name} --user ann@example.com {SCOPE}")));
        for token in &tokens {
            turns(&fleet, token, MODELS, Ok(Some(&credential))).await;
        }
        Self { fleet, ring, cli, server, tokens, credential }
    }

    async fn on_all(&self, what: &str, metric: &str, value: u64) {
        join_all(self.fleet.0.iter().map(async |replica| {
            eventually(what, async || replica.metric(metric).await == value).await;
        }))
        .await;
    }

    fn lists(&self, key: &str) -> usize {
        let list = self.cli.json(&format!("token list --live --key {key}"));
        list.as_array().unwrap().len()
    }
}

pub(crate) async fn a_lost_ring_is_replaced_as_documented(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let Site { fleet, ring, cli, server, tokens: [one, two], credential } = &site;

    fs::remove_file(&ring.path).unwrap();
    site.on_all("the loss to be noticed", REFUSES, 1).await;
    turns(fleet, one, MODELS, Ok(Some(credential))).await;
    let new = cli.ok("keyring new --id k9");
    ring.write(&[new.trim()]);
    let first = cli.mint(&format!("token create first --user ann@example.com {SCOPE}"));
    site.on_all("the new ring to be taken up", REFUSES, 0).await;
    for token in [one, two] {
        fleet.all_answer(token, MODELS, 401).await;
    }
    for replica in &fleet.0 {
        assert_eq!(authorization(replica, &first, MODELS).await, Err(503), "the credential");
    }

    let uses = cli.json("keyring list --count");
    assert_eq!((&uses[1]["id"], &uses[1]["in_file"]), (&"k1".into(), &false.into()), "{uses:#}");
    assert_eq!((&uses[1]["live_tokens"], &uses[1]["credentials"]), (&2.into(), &1.into()));
    cli.refused("token revoke --key k1", 2, "revokes 2 live tokens");
    let revoked = cli.ok("token revoke --key k1 --yes --wait");
    for token in [one, two] {
        assert!(revoked.contains(&token.id.to_string()), "{revoked}");
    }
    let again = give(cli, &suite, "model-acme");
    turns(fleet, &first, MODELS, Ok(Some(&again))).await;
    assert_eq!(cli.json("keyring list --count").as_array().unwrap().len(), 1);
    let (_, outcome, detail) = found(server, "keyring_file");
    assert_eq!((outcome.as_str(), detail.as_str()), ("ok", "has the keys of all live tokens"));
}

pub(crate) async fn a_stolen_key_is_removed_as_documented(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let Site { fleet, cli, server, tokens: [one, two], credential, .. } = &site;

    cli.ok("keyring add --id k2");
    site.on_all("the new key", RELOADED, 1).await;
    cli.ok("keyring promote k2");
    site.on_all("the new order", RELOADED, 2).await;
    assert_eq!(site.lists("k1"), 2);
    let replaced = cli.mint(&format!("token rotate {}", one.id));
    cli.refused("token revoke --key k1", 2, "revokes 1 live tokens");
    let ran = cli.run("token revoke --key k1 --yes --wait");
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.stderr.contains("applied by 2 replicas"), "{ran:#?}");
    assert_eq!(site.lists("k1"), 0);
    cli.ok("backend credential reseal");
    cli.ok("keyring drop k1");
    site.on_all("the key to leave", RELOADED, 3).await;
    for token in [one, two] {
        fleet.all_answer(token, MODELS, 401).await;
    }
    turns(fleet, &replaced, MODELS, Ok(Some(credential))).await;
    // By bare SQL, they would be live again. But their key has left.
    world.sql("UPDATE patgate.pats SET revoked_at = NULL WHERE key_id = 'k1'").await;
    for token in [one, two] {
        fleet.all_answer(token, MODELS, 401).await;
    }
    let (_, outcome, detail) = found(server, "keyring_file");
    assert_eq!(outcome, "warning", "{detail}");
    assert!(detail.ends_with(": k1 (2)"), "{detail}");
}
