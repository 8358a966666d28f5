//! From nothing to a token that works, the way the documentation walks.

use std::sync::Arc;

use super::{Cli, answer, ask};
use crate::harness::{Suite, Token, World};

pub(crate) async fn the_demo(suite: Arc<Suite>) {
    let world = suite.world().await;
    walk_through(&world, &Cli::of(&world), &[]).await;
}

/// Makes a backend, a domain, a user and a token with the administrator's commands, and uses it
/// at a replica with these settings.
pub(crate) async fn walk_through(world: &World<'_>, cli: &Cli<'_>, settings: &[&str]) {
    cli.ok("backend create vllm --url http://127.0.0.1:8000 --kind vllm");
    let domain = cli.json("domain create shop --name Shop --upstream vllm --all-models");
    let id = domain["id"].as_str().unwrap();
    cli.ok("user create Ada@Example.com --name Ada");
    cli.ok("role member add shop admin ada@example.com");
    let scope = "shop:models:*:llm_read,llm_chat_completions";
    let ran = cli.run(&format!(
        "token create laptop --user ada@example.com --expires-in 90d --scope {scope}"
    ));

    assert_eq!(ran.code, 0, "{ran:#?}");
    let text = ran.stdout.strip_suffix('\n').unwrap();
    assert!(!text.contains('\n'), "more than the token: {ran:#?}");
    let token = Token { id: world.tokens.verify(text).unwrap().id, text: text.to_owned() };
    assert!(ran.stderr.contains(&token.id.to_string()), "{ran:#?}");
    assert!(!ran.stderr.contains("warning"), "{ran:#?}");

    let replica = world.serve(settings).await;
    assert_eq!(ask(&replica, &token, "shop").await, answer(200, "ok"));
    assert_eq!(ask(&replica, &token, id).await, answer(200, "ok"));
    assert_eq!(ask(&replica, &token, "acme").await, answer(403, "permission_denied"));

    cli.ok(&format!("token revoke {}", token.id));
    let next = world.serve(settings).await;
    assert_eq!(ask(&next, &token, "shop").await, answer(401, "token_revoked"));
}
