//! Changes of many tokens at once, while the same tokens are changed one by one.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use patgate::{
    admin::{Admin, Error, Rotation, StoreError, TokenGroup},
    domain::DomainRef,
    token::TokenId,
};
use sqlx::postgres::PgPoolOptions;

use crate::support::{Suite, World, tokens::reader};

/// Whatever runs concurrently, a change fails only for a reason of its own.
pub(crate) async fn revocations_and_rotations_do_not_deadlock(suite: Arc<Suite>) {
    const ROUNDS: usize = 15;
    const TOKENS: usize = 12;
    let world = suite.world().await;
    let url = world.url("administrator", world.port);
    let pool = PgPoolOptions::new().max_connections(20).connect(&url).await.unwrap();
    let admin = world.admin(pool).await;
    let user = TokenGroup::of_user("ann@example.com".parse().unwrap());
    let domain = TokenGroup::of_domain(DomainRef::parse("acme").unwrap());
    let mut rotated = 0;
    let mut revoked = 0;
    for round in 0..ROUNDS {
        let tokens = join_all((0..TOKENS).map(|_| reader(&world))).await;
        let change = async |index: usize| {
            let id = tokens[index].id;
            match index % 3 {
                0 => {
                    let scope = "acme:models:other:llm_read".parse().unwrap();
                    admin.add_scopes(id, &[scope]).await.map(|_| 0)
                }
                _ => rotate(&admin, &world, id).await,
            }
        };
        let changes = join_all((0..TOKENS).map(change));
        let all = async {
            let by_user = admin.revoke_tokens(&user).await.unwrap();
            by_user.value.len()
        };
        let all_in_domain = async {
            let by_domain = admin.revoke_tokens(&domain).await.unwrap();
            by_domain.value.len()
        };
        let (changes, by_user, by_domain) = tokio::join!(changes, all, all_in_domain);
        for change in changes {
            match change {
                Ok(count) => rotated += count,
                Err(Error::Store(StoreError::Refused(reason))) => {
                    assert!(reason.contains("is revoked"), "{reason}")
                }
                Err(error) => panic!("round {round}: {error}"),
            }
        }
        revoked += by_user + by_domain;
        // This also revokes tokens that were created after the last of them.
        let _ = admin.revoke_tokens(&user).await.unwrap();
    }
    println!("{rotated} rotated, {revoked} revoked meanwhile");
    assert!(rotated > 0 && revoked > 0, "{rotated} rotated, {revoked} revoked");
}

async fn rotate(admin: &Admin, world: &World<'_>, id: TokenId) -> Result<usize, Error> {
    let rotation = Rotation { expiry: None, grace: Duration::ZERO };
    let shown = admin.rotate_token(id, &rotation).await?.value;
    world.suite.minted.lock().unwrap().push(shown.plain.expose().to_owned());
    Ok(1)
}
