//! Makes and revokes tokens.

use std::process::Output;

use tokio::process::Command;

use crate::support::{Token, World};

pub(crate) async fn reader(world: &World<'_>) -> Token {
    world.token(&[("acme", "models", "*", "llm_read")]).await
}

pub(crate) async fn revoke(world: &World<'_>, token: &Token) {
    let revoke = format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", token.id);
    world.sql(&revoke).await;
}

pub(crate) async fn revoke_and_wait(world: &World<'_>, token: &Token) -> Output {
    Command::new(env!("CARGO_BIN_EXE_patgate"))
        .args(["token", "revoke", "--wait", &token.id.to_string()])
        .env("PATGATE_POSTGRES_URL", world.suite.postgres_url("administrator", &world.database))
        // The caller may stop waiting for it.
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}
