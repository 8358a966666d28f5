//! Every change writes its entry in the audit log, and only changes do.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::support::{Suite, Token, World, cli::Cli, value};

/// Every command that changes something, with the actions that it records. `{0}` and so on are live
/// tokens of Ann's.
pub(crate) const CHANGES: &[(&str, &[&str])] = &[
    ("backend create vllm --url http://127.0.0.1:1 --kind vllm", &["backend.create"]),
    ("backend update vllm --kind openai", &["backend.update"]),
    ("backend credential set vllm", &["backend.set_credential"]),
    ("backend credential remove vllm", &["backend.remove_credential"]),
    ("domain create shop --name Shop --upstream vllm --all-models", &["domain.create"]),
    ("domain update shop --mode shadow --enforced-share 30%", &["domain.update"]),
    ("domain disable shop", &["domain.disable"]),
    ("domain enable shop", &["domain.enable"]),
    ("domain set-upstream shop model-acme", &["domain.set_upstream"]),
    ("domain model set shop org/m:7b --upstream model-beta", &["domain.set_model"]),
    ("domain model unset shop org/m:7b", &["domain.unset_model"]),
    ("domain rename shop store", &["domain.rename"]),
    ("backend delete vllm", &["backend.delete"]),
    ("user create ada@example.com --name Ada", &["user.create"]),
    ("user disable ada@example.com", &["user.disable"]),
    ("user enable ada@example.com", &["user.enable"]),
    ("user set-platform-admin ada@example.com true", &["user.set_platform_admin"]),
    ("user invite ada@example.com", &["account.invite"]),
    ("user sign-out ada@example.com", &["session.end_all"]),
    ("policy set --token-default 7d", &["policy.set"]),
    ("provider add https://id.example.com", &["provider.add"]),
    ("provider set-trusts-email https://id.example.com true", &["provider.trust_email"]),
    ("provider link https://id.example.com s-ada ada@example.com", &["identity.link"]),
    ("provider unlink https://id.example.com s-ada ada@example.com", &["identity.unlink"]),
    ("provider disable https://id.example.com", &["provider.disable"]),
    ("provider enable https://id.example.com", &["provider.enable"]),
    ("provider remove https://id.example.com --yes", &["provider.remove"]),
    ("role create store helper --operation read", &["role.create"]),
    ("role grant store helper update,delete", &["role.grant"]),
    ("role revoke store helper delete", &["role.revoke"]),
    ("role revoke store helper all", &["role.revoke"]),
    ("role grant store helper all", &["role.grant"]),
    ("role member add store helper ada@example.com", &["role.add_member"]),
    ("role member remove store helper ada@example.com", &["role.remove_member"]),
    ("role delete store helper", &["role.delete"]),
    (
        "token create t --user ada@example.com --expires-in 1h --scope store:domains:*:read",
        &["token.create"],
    ),
    ("token scope add {0} store:domains:*:read", &["token.add_scope"]),
    ("token scope remove {0} store:domains:*:read", &["token.remove_scope"]),
    ("token revoke {0}", &["token.revoke"]),
    ("token rotate {1}", &["token.rotate", "token.create"]),
    ("token delete {2}", &["token.delete"]),
    // One entry per live token: the third, and the one that replaced {1}.
    ("token revoke --user ann@example.com --yes", &["token.revoke", "token.revoke"]),
    ("token revoke --domain acme --yes", &["token.revoke"]),
    ("domain delete store --yes", &["domain.delete"]),
    ("user delete ada@example.com --yes", &["user.delete"]),
    ("installation renew", &["installation.renew"]),
];

/// Commands that change nothing.
const LOOKS: &[&str] = &[
    "user list",
    "user show ann@example.com",
    "domain list",
    "domain show acme",
    "backend list",
    "backend show model-acme",
    "role list acme",
    "role show acme admin",
    "token list --live",
    "token show {0}",
    "audit list",
    "installation show",
    "keyring list --count",
    "policy show",
    "provider list",
    "user sessions ann@example.com",
];

async fn lines(world: &World<'_>) -> i64 {
    value(world, "SELECT count(*) FROM patgate.audit_log").await
}

pub(crate) async fn each_change_is_recorded_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    everything_is_recorded(&world, &cli, &cli.login(&world, "server")).await;
}

/// Makes every change: first with a login that has no privilege for it, then as an administrator.
pub(crate) async fn everything_is_recorded(world: &World<'_>, cli: &Cli<'_>, server: &Cli<'_>) {
    let mut tokens: Vec<Token> = Vec::new();
    for owner in ["ann", "ann", "ann", "ann", "bob"] {
        tokens.push(world.token_for(owner, "1 hour", &[("acme", "models", "*", "llm_read")]).await);
    }
    let fill = |command: &str| {
        tokens.iter().enumerate().fold(command.to_owned(), |command, (at, token)| {
            command.replace(&format!("{{{at}}}"), &token.id.to_string())
        })
    };
    for (command, actions) in CHANGES {
        let command = fill(command);
        let before = lines(world).await;
        let credential = world.suite.provider_key();
        let ran = server.feed(&command, &credential);
        assert_eq!(ran.code, 4, "{command}: {ran:#?}");
        assert!(ran.stderr.contains("grant it patgate_admin"), "{command}: {ran:#?}");
        assert_eq!(lines(world).await, before, "denied, and yet recorded: {command}");

        let ran = cli.feed(&format!("{command} --actor chief"), &credential);
        assert_eq!(ran.code, 0, "{command}: {ran:#?}");
        let count = lines(world).await - before;
        let written = cli.json(&format!("audit list --limit {}", count.max(1)));
        let written: Vec<&Value> = written.as_array().unwrap().iter().rev().collect();
        let recorded: Vec<&str> = written.iter().map(|l| l["action"].as_str().unwrap()).collect();
        assert_eq!((count, recorded.as_slice()), (actions.len() as i64, *actions), "{command}");
        for action in *actions {
            let told = cli.json(&format!("audit list --limit 1 --action {action}"));
            assert_eq!(told[0]["action"], *action, "{command}");
        }
        for line in written {
            assert_eq!(line["actor"], "chief", "{command}");
            assert_ne!(line["object"], "", "{command}");
        }
        holds_no_secret(world).await;
    }
    let before = lines(world).await;
    for command in LOOKS {
        cli.ok(&fill(command));
    }
    assert_eq!(lines(world).await, before, "looking is no change");
}

/// The audit log has neither the text of a token or credential, nor a token's digest.
async fn holds_no_secret(world: &World<'_>) {
    let log: String =
        value(world, "SELECT coalesce(string_agg(a::text, ' '), '') FROM patgate.audit_log a")
            .await;
    let digests: Vec<Vec<u8>> =
        value(world, "SELECT coalesce(array_agg(digest), '{}') FROM patgate.pats").await;
    for digest in digests {
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!log.contains(&hex) && !log.contains(&BASE64_STANDARD.encode(&digest)), "{log}");
    }
    for token in world.suite.minted.lock().unwrap().iter() {
        assert!(!log.contains(&token[token.len() - 50..]), "{log}");
    }
    for credential in world.suite.credentials.lock().unwrap().iter() {
        assert!(!log.contains(credential), "{log}");
    }
}

pub(crate) async fn the_record_can_be_searched(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = world.token(&[]).await;
    cli.ok("user disable bob@example.com");
    cli.ok(&format!("token revoke {} --actor alice", token.id));
    cli.ok(&format!("token delete {} --actor alice", token.id));
    let bob = world.id("bob").to_string();
    let id = token.id.to_string();
    for (filter, expected) in [
        (String::new(), vec!["token.delete", "token.revoke", "user.disable"]),
        ("--limit 1".to_owned(), vec!["token.delete"]),
        ("--by alice".to_owned(), vec!["token.delete", "token.revoke"]),
        ("--by ali".to_owned(), vec![]),
        ("--login administrator --limit 2".to_owned(), vec!["token.delete", "token.revoke"]),
        ("--login postgres".to_owned(), vec![]),
        (
            "--since 2020-01-01T00:00:00Z".to_owned(),
            vec!["token.delete", "token.revoke", "user.disable"],
        ),
        ("--since 2120-01-01T00:00:00Z".to_owned(), vec![]),
        ("--action token".to_owned(), vec!["token.delete", "token.revoke"]),
        ("--action token.revoke".to_owned(), vec!["token.revoke"]),
        ("--action role".to_owned(), vec![]),
        (format!("--object {id}"), vec!["token.delete", "token.revoke"]),
        (format!("--object {bob} --action user"), vec!["user.disable"]),
        (format!("--object {bob} --by alice"), vec![]),
    ] {
        let found = cli.json(&format!("audit list {filter}"));
        let found: Vec<&str> =
            found.as_array().unwrap().iter().map(|line| line["action"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{filter}");
    }
    let disabled = &cli.json("audit list --action user")[0];
    let actor = disabled["actor"].as_str().unwrap();
    assert!(actor.strip_prefix("cli:").is_some_and(|user| !user.is_empty()), "{actor}");
    assert_eq!(disabled["details"], json!({ "email": "bob@example.com" }));
    assert_eq!(disabled["object"], json!(bob));
}
