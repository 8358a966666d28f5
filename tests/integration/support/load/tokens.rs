//! Mints tokens in bulk.

use patgate::{
    keyring::{self, KeyRing},
    token::{Prefixes, TokenId, Tokens},
};
use uuid::Uuid;

use crate::support::{Suite, Token, World, tokens::revoke};

/// Per kind, except cold ones and the one that the test revokes.
pub(super) const TOKENS: usize = 8;
/// How many tokens one statement mints.
const BATCH: usize = 4000;

/// Tokens for a load, not yet in use.
pub(crate) struct LoadTokens {
    pub(super) hot: Vec<Token>,
    /// In the order of their use.
    pub(super) cold: Vec<Token>,
    pub(super) revoked: Vec<Token>,
    pub(super) turning: Token,
}

impl LoadTokens {
    pub(super) async fn mint(world: &World<'_>, colds: usize) -> Self {
        let mut cold = Vec::new();
        while cold.len() < colds {
            cold.extend(many(world, BATCH.min(colds - cold.len())).await);
        }
        let hot = many(world, TOKENS).await;
        let revoked = many(world, TOKENS).await;
        for token in &revoked {
            revoke(world, token).await;
        }
        Self { hot, revoked, turning: many(world, 1).await.remove(0), cold }
    }
}

/// Signed by another key ring.
pub(super) fn forged(suite: &Suite) -> Vec<Token> {
    let line = keyring::new_line(&"k1".parse().unwrap()).unwrap();
    let stranger = Tokens::new(Prefixes::default(), KeyRing::parse(&line).unwrap());
    (0..TOKENS).map(|_| mint(suite, &stranger).0).collect()
}

fn mint(suite: &Suite, tokens: &Tokens) -> (Token, String) {
    suite.mint(tokens, TokenId(Uuid::now_v7()))
}

/// Makes tokens of Ann's that may read models in `acme`, by two statements that are not logged,
/// because other tests count in that log.
async fn many(world: &World<'_>, count: usize) -> Vec<Token> {
    let (tokens, digests): (Vec<_>, Vec<_>) =
        (0..count).map(|_| mint(world.suite, &world.tokens)).unzip();
    let (ids, hex): (Vec<_>, Vec<_>) =
        tokens.iter().zip(&digests).map(|(t, d)| (t.id.to_string(), d.as_str())).unzip();
    let ids = ids.join(",");
    let hex = hex.join(",");
    let user = world.id("ann");
    let domain = world.id("acme");
    let sql = format!(
        "BEGIN;
         INSERT INTO patgate.pats (id, user_id, name, digest, key_id, issued_at, expires_at)
             SELECT id, '{user}', id, decode(digest, 'hex'), 'k1',
                    now() - interval '1 year', now() + interval '1 day'
             FROM unnest('{{{ids}}}'::uuid[], '{{{hex}}}'::text[]) AS t (id, digest);
         INSERT INTO patgate.pat_scopes
             SELECT gen_random_uuid(), id, '{domain}', 'models', '*', 'llm_read'
             FROM unnest('{{{ids}}}'::uuid[]) AS t (id);
         COMMIT"
    );
    let mut connection = world.postgres.acquire().await.unwrap();
    for sql in ["SET log_statement = 'none'", &sql, "RESET log_statement"] {
        let run = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection);
        run.await.unwrap_or_else(|error| panic!("{error}"));
    }
    tokens
}
