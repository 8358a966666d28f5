//! Revokes a token that was found, and many tokens at once.

use std::sync::Arc;

use patgate::token::TokenId;
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Suite, Token, World, cli::Cli, value};

async fn revoked(world: &World<'_>, token: &Token) -> bool {
    let sql = format!("SELECT revoked_at IS NOT NULL FROM patgate.pats WHERE id = '{}'", token.id);
    value(world, &sql).await
}

fn ids(revoked: &Value) -> Vec<String> {
    let mut ids: Vec<String> = revoked
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort_unstable();
    ids
}

/// The text of the token is enough, but only its whole text.
pub(crate) async fn a_leaked_token_is_revoked_by_its_text(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = world.token(&[]).await;
    let mint = |id| world.unknown(id).text;
    let foreign = suite.world().await.token(&[]).await.text;
    let swapped = |at: usize| {
        let mut bytes = token.text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
        String::from_utf8(bytes).unwrap()
    };
    for (name, text) in [
        ("nothing", String::new()),
        ("its id", token.id.to_string()),
        ("another secret for its id", mint(token.id)),
        ("a token that was never stored", mint(TokenId(Uuid::now_v7()))),
        ("another installation's", foreign),
        ("a changed id", swapped(10)),
        ("a changed secret", swapped(40)),
        ("a changed tag", swapped(76)),
        ("without its end", token.text[..76].to_owned()),
        ("broken over two lines", format!("{}\n{}", &token.text[..50], &token.text[50..])),
    ] {
        let ran = cli.feed("token revoke --stdin", &text);
        assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{name}: {ran:?}");
        assert!(!revoked(&world, &token).await, "{name}");
    }
    // With the white space of a clipboard or a file.
    let ran = cli.feed("token revoke --stdin --output json", &format!("  {}\r\n", token.text));
    assert_eq!(ran.code, 0, "{ran:?}");
    let shown: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(ids(&shown), [token.id.to_string()]);
    assert!(revoked(&world, &token).await);

    // Again: it stays revoked, and its time of revocation does not change.
    let again = cli.json(&format!("token revoke {}", token.id));
    assert_eq!(again, shown);
    let ran = cli.feed("token revoke --stdin --output json", &token.text);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap(), shown);
}

/// What a person has in hand is a log, or what a scanner found.
pub(crate) async fn leaked_tokens_are_found_in_any_text(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world).with("token.prefixes", "pat,acme_pat");
    let (first, second, third) =
        (world.token(&[]).await, world.token(&[]).await, world.token(&[]).await);
    let renamed = cli.with("token.prefixes", "acme_pat");
    let created = renamed.json("token create other --user ann@example.com --expires-in 1h");
    let other = created["token"].as_str().unwrap();
    let unknown = world.unknown(TokenId(Uuid::now_v7()));
    let foreign = suite.world().await.token(&[]).await.text;
    let text = format!(
        "GET /v1/models HTTP/1.1 authorization: {} 200\r\n\
         {{\"Secret\":\"{}\",\"Match\":\"token={}\\n\",\"Line\":3}}\n\
         https://example.com/?key={other}x&more=1\n{}\n{foreign}\nseen: {}…\n",
        first.bearer(),
        second.text,
        second.text,
        unknown.text,
        &third.text[..40],
    );
    let ran = cli.feed("token revoke --wait --stdin --output json", &text);
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut expected =
        vec![first.id.to_string(), second.id.to_string(), created["id"].as_str().unwrap().into()];
    expected.sort_unstable();
    assert_eq!(ids(&serde_json::from_str(&ran.stdout).unwrap()), expected);
    let named = |id: TokenId, what: &str| {
        let line = ran.stderr.lines().find(|line| line.contains(&id.to_string()));
        assert!(line.is_some_and(|line| line.contains(what)), "{what}: {ran:?}");
    };
    named(unknown.id, "there is no such token");
    named(third.id, "only its beginning");
    assert!(ran.stderr.contains("replica"), "it waits: {ran:?}");
    assert!(!ran.stderr.contains("Secret") && !ran.stderr.contains(&third.text[..30]), "{ran:?}");
    assert!(!revoked(&world, &third).await);
    assert!(revoked(&world, &first).await && revoked(&world, &second).await);

    // None is whole.
    let ran = cli.feed("token revoke --stdin", &third.text[..60]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{ran:?}");
    assert!(ran.stderr.contains(&third.id.to_string()), "{ran:?}");
    // Bytes that are no text change nothing; a text that is too long is refused as a whole.
    let long = format!("{} {}", third.text, "x".repeat(16 << 20));
    assert_eq!(cli.feed("token revoke --stdin", &long).code, 1);
    assert!(!revoked(&world, &third).await, "of a text that is too long, nothing is revoked");
    let ran = cli.feed("token revoke --stdin", &format!("\u{0}caf\u{e9} {}", third.text));
    assert_eq!(ran.code, 0, "{ran:?}");
}

pub(crate) async fn tokens_are_revoked_in_bulk(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let acme = ("acme", "models", "*", "llm_read");
    let beta = ("beta", "models", "*", "llm_read");
    let in_acme = world.token(&[acme]).await;
    let in_both = world.token_for("bob", "1 hour", &[acme, beta]).await;
    let in_beta = world.token_for("bob", "1 hour", &[beta]).await;
    let in_none = world.token(&[]).await;
    let expired = world.token_for("bob", "-1 hour", &[acme]).await;
    let sorted = |tokens: &[&Token]| {
        let mut ids: Vec<String> = tokens.iter().map(|token| token.id.to_string()).collect();
        ids.sort_unstable();
        ids
    };

    // Without --yes, the command says how many it would revoke, and revokes none.
    cli.refused("token revoke --domain acme", 2, "revokes 2 live tokens");
    cli.refused("token revoke --user ann@example.com", 2, "revokes 2 live tokens");
    for token in [&in_acme, &in_both, &in_beta, &in_none, &expired] {
        assert!(!revoked(&world, token).await);
    }

    let domain = cli.json("token revoke --domain acme --yes");
    assert_eq!(ids(&domain), sorted(&[&in_acme, &in_both]));
    assert!(!revoked(&world, &in_beta).await && !revoked(&world, &in_none).await);
    let bob = world.id("bob");
    assert_eq!(ids(&cli.json(&format!("token revoke --user {bob} --yes"))), sorted(&[&in_beta]));
    assert_eq!(ids(&cli.json("token revoke --user bob@example.com --yes")), [""; 0]);
    assert!(!revoked(&world, &in_none).await, "Ann's");
    assert!(!revoked(&world, &expired).await, "it is over as it is");
}
