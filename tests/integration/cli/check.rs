//! `patgate check`: what it says beside the decision. That the decision is the service's is shown by
//! the table in `cases.rs`.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::Cli;
use crate::harness::{Scope, Suite, World};

const CHAT: &str = "POST /proxy/acme/v1/chat/completions";
const DENIED: i32 = 4;

/// A token of `owner`'s with these scopes, a request, and what is said of it.
struct Miss<'a> {
    owner: &'a str,
    scopes: &'a [Scope<'a>],
    request: &'a str,
    step: &'a str,
    nearest: &'a str,
}

async fn check(world: &World<'_>, cli: &Cli<'_>, miss: &Miss<'_>) {
    let Miss { owner, scopes, request, step, nearest } = *miss;
    let token = world.token_for(owner, "1 hour", scopes).await;
    let (method, path) = request.split_once(' ').unwrap();
    let command = format!("check --method {method} --path {path}");
    let ran = cli.feed(&format!("{command} --output json"), &token.text);
    let allowed = step.is_empty();
    assert_eq!(ran.code, if allowed { 0 } else { DENIED }, "{request}: {ran:#?}");
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    let last = told["steps"].as_array().unwrap().last().unwrap();
    if !allowed {
        assert_eq!(last["step"], step, "{request}: {told:#}");
    }
    assert_eq!(told["nearest"].as_str().unwrap_or_default(), nearest, "{request}: {told:#}");
    let text = cli.feed(&command, &token.text).stdout;
    assert!(text.contains("answer: ") && text.contains(nearest), "{text}");
    assert_eq!(text.contains("REFUSED"), !allowed, "{text}");
}

pub(crate) async fn the_nearest_miss_is_named(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let miss =
        |owner, scopes, request, step, nearest| Miss { owner, scopes, request, step, nearest };
    let chat = "llm_chat_completions";
    let (embeds, chats) =
        ([("acme", "models", "*", "llm_embeddings")], [("acme", "models", "*", chat)]);
    let one = [("acme", "models", "x", chat)];
    let picky = [("picky", "models", "*", chat)];
    let audits = [("acme", "domains", "*", "audit_log_read")];
    let datasets = [("acme", "datasets", "*", "read")];
    let with = |request: &str, model: &str| format!("{request} --model {model}");
    let picky_chat = "POST /proxy/picky/v1/chat/completions";
    for case in [
        miss("ann", &chats, CHAT, "", ""),
        miss("ann", &embeds, CHAT, "scope", "has llm_embeddings here, lacks llm_chat_completions"),
        miss("ann", &datasets, CHAT, "scope", "has read here, lacks llm_chat_completions"),
        miss("ann", &audits, CHAT, "scope", "has audit_log_read here, lacks llm_chat_completions"),
        miss(
            "reader",
            &chats,
            CHAT,
            "permission",
            "has the scope, but the owner's roles in acme lack llm_chat_completions",
        ),
        miss(
            "reader",
            &embeds,
            CHAT,
            "permission",
            "no scope covers it either: has llm_embeddings here, lacks llm_chat_completions",
        ),
        miss(
            "ann",
            &one,
            &with(CHAT, "y"),
            "scope",
            "the scope is for model `x`, the request is about model `y`",
        ),
        miss("ann", &one, &with(CHAT, "x"), "", ""),
        miss(
            "ann",
            &one,
            CHAT,
            "model",
            "it would depend on the model that the body names: give it with --model",
        ),
        miss("ann", &picky, &with(picky_chat, "other"), "", ""),
        miss(
            "ann",
            &picky,
            &with(picky_chat, "m"),
            "model",
            "the domain picky lists its models, and not `m`",
        ),
        miss(
            "ann",
            &chats,
            "GET /proxy/acme/v1/chat/completions",
            "rule",
            "a rule exists for POST on this path",
        ),
        miss("ann", &chats, "GET /proxy/acme/v2", "rule", "no method has a rule on this path"),
        miss(
            "ann",
            &chats,
            "GET /elsewhere",
            "rule",
            "the APIs are cube-ai; where each is, its table says",
        ),
        miss("ann", &chats, "GET /proxy/beta/v1/models", "domain", "the token's scopes name acme"),
        miss("ann", &chats, "GET /proxy/none/v1/models", "domain", "the token's scopes name acme"),
        miss("ann", &[], CHAT, "domain", "the token has no scopes at all"),
        miss("ann", &chats, "GET /proxy/acme/", "path", ""),
    ] {
        check(&world, &cli, &case).await;
    }
}

pub(crate) async fn nothing_is_told_of_a_token_that_is_not_there(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let command = "check --method GET --path /proxy/acme/v1/models?key=a-secret";
    let id = Uuid::now_v7();
    cli.refused(&format!("{command} --pat-id {id}"), 3, &id.to_string());
    cli.refused(command, 2, "standard input");
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    // Neither is repeated.
    cli.refused(&format!("{command} --pat-id {}", token.text), 2, "a token's id");
    for way in [String::new(), format!(" --pat-id {}", token.id)] {
        let ran = cli.feed(&format!("{command}{way}"), &token.text);
        assert_eq!(ran.code, 0, "{ran:#?}");
        assert!(!ran.stdout.contains(&token.text) && !ran.stdout.contains("a-secret"), "{ran:#?}");
        assert_eq!(ran.stdout.contains("taken as proven"), !way.is_empty(), "{ran:#?}");
    }
    // A token that was deleted: told as the service does, with the exit code for it.
    world.sql(&format!("DELETE FROM patgate.pats WHERE id = '{}'", token.id)).await;
    let ran = cli.feed(command, &token.text);
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.stdout.contains("answer: 401 invalid_token"), "{ran:#?}");
    // A key ring is needed only where there is a token to verify.
    let bare = cli.with("keyring_file", "");
    bare.refused(&format!("{command} --pat-id {id}"), 3, &id.to_string());
    assert_eq!(bare.feed(command, &token.text).code, 2);
}
