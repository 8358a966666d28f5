//! A command that changes something prints the state that it led to, as `show` prints it.

use std::sync::Arc;

use serde_json::Value;

use super::audit::CHANGES;
use crate::support::{Suite, cli::Cli};

/// Changes of something that exists, and the command that shows it afterwards. In the end, everything
/// is as before. `{token}` is a token of Ann's.
const UPDATES: &[(&str, &str)] = &[
    ("user disable ann@example.com", "user show ann@example.com"),
    ("user enable ann@example.com", "user show ann@example.com"),
    ("user set-platform-admin ann@example.com true", "user show ann@example.com"),
    ("user set-platform-admin ann@example.com false", "user show ann@example.com"),
    ("domain update picky --mode shadow --enforced-share 30%", "domain show picky"),
    ("domain update picky --mode enforce", "domain show picky"),
    ("domain update picky --enforced-share 100%", "domain show picky"),
    ("domain disable picky", "domain show picky"),
    ("domain enable picky", "domain show picky"),
    ("domain set-upstream picky model-beta", "domain show picky"),
    ("domain set-upstream picky model-acme", "domain show picky"),
    ("domain model set picky m --upstream model-beta", "domain show picky"),
    ("domain model unset picky m", "domain show picky"),
    ("domain rename picky choosy", "domain show choosy"),
    ("domain rename choosy picky", "domain show picky"),
    ("backend update model-beta --kind openai", "backend show model-beta"),
    ("backend update model-beta --kind ollama", "backend show model-beta"),
    ("backend credential set model-beta", "backend show model-beta"),
    ("backend credential remove model-beta", "backend show model-beta"),
    ("role revoke acme admin llm_read", "role show acme admin"),
    ("role grant acme admin llm_read", "role show acme admin"),
    ("role member add acme admin bob@example.com", "role show acme admin"),
    ("role member remove acme admin bob@example.com", "role show acme admin"),
    ("token scope add {token} acme:models:m:llm_read", "token show {token}"),
    ("token scope remove {token} acme:models:m:llm_read", "token show {token}"),
    ("policy set --tokens-per-user 9", "policy show"),
    ("policy set --tokens-per-user 8", "policy show"),
    ("provider disable https://id.example.com", "provider show https://id.example.com"),
    ("provider enable https://id.example.com", "provider show https://id.example.com"),
    (
        "provider set-trusts-email https://id.example.com true",
        "provider show https://id.example.com",
    ),
    (
        "provider set-trusts-email https://id.example.com false",
        "provider show https://id.example.com",
    ),
    (
        "provider link https://id.example.com s-ann ann@example.com",
        "provider show https://id.example.com",
    ),
    (
        "provider unlink https://id.example.com s-ann ann@example.com",
        "provider show https://id.example.com",
    ),
];

/// Changes that make or remove something, or that print something else: a secret, or what has ended.
const OTHERS: &[&str] = &[
    "backend create",
    "backend delete",
    "domain create",
    "domain delete",
    "installation renew",
    "provider add",
    "provider remove",
    "role create",
    "role delete",
    "token create",
    "token delete",
    "token revoke",
    "token rotate",
    "user create",
    "user delete",
    "user invite",
    "user sign-out",
];

pub(crate) async fn each_prints_what_show_prints(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await.id.to_string();
    cli.ok("provider add https://id.example.com");
    for json in [false, true] {
        let format = if json { "json" } else { "table" };
        for (command, show) in UPDATES {
            let filled =
                |command: &str| format!("{} --output {format}", command.replace("{token}", &token));
            let (command, show) = (filled(command), filled(show));
            let before = cli.run(&show).stdout;
            let ran = cli.feed(&command, &suite.provider_key());
            assert_eq!(ran.code, 0, "{command}: {ran:#?}");
            assert_eq!(ran.stdout, cli.ok(&show), "{command}");
            assert_ne!(ran.stdout, before, "{command} changes nothing");
            if json {
                let printed: Value = serde_json::from_str(&ran.stdout).unwrap();
                assert!(printed.is_object() && printed.get("message").is_none(), "{command}");
            }
        }
    }
}

/// A new command that changes something belongs in one of the lists.
pub(crate) async fn every_change_is_known(_: Arc<Suite>) {
    for (change, _) in CHANGES {
        let begins = |with: &str| {
            change.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        // Of an update, the words before the first argument: those that both tables share.
        let is_update = UPDATES.iter().any(|(update, _)| {
            let shared = update.split(' ').zip(change.split(' '));
            let shared = shared.take_while(|(update, change)| update == change).count();
            let below = |group: &&str| change.contains(&format!(" {group} "));
            let nested = ["model", "member", "credential", "scope"].iter().any(below);
            shared >= if nested { 3 } else { 2 }
        });
        let is_other = OTHERS.iter().any(|other| begins(other));
        assert!(is_update != is_other, "{change}");
    }
}
