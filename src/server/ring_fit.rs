//! Whether a key ring has signed the live tokens.

use sqlx::{AssertSqlSafe, PgPool, Row, postgres::PgRow};

use crate::{
    keyring::KeyRing,
    postgres::{AskError, Postgres, identity_column},
};

/// Returns the query for the keys that have signed live tokens, except those of canaries and of
/// disabled owners: keys of this ring, and others. The query steps from key to key in their index,
/// however many tokens there are.
fn live_keys(ring: &KeyRing) -> String {
    // A subquery, not a join, because a join could read all tokens.
    const LIVE: &str = "(
        SELECT true FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id
        WHERE p.key_id = k.id AND p.revoked_at IS NULL AND p.expires_at > now() AND u.enabled
            AND p.user_id <> 'ca4a4700-0000-8000-8000-000000000000'
        LIMIT 1)";
    let own: Vec<_> = ring.ids().map(|id| format!("'{}'", id.as_str())).collect();
    let own = own.join(", ");
    format!(
        concat!(
            "WITH RECURSIVE keys (id) AS (
                (SELECT min(key_id) FROM patgate.pats)
                UNION ALL
                (SELECT (SELECT min(p.key_id) FROM patgate.pats p WHERE p.key_id > keys.id)
                 FROM keys WHERE keys.id IS NOT NULL))
            SELECT ",
            identity_column!(),
            ", ARRAY(SELECT k.id FROM unnest(ARRAY[{own}]) AS k (id) WHERE {live}) AS own,
             ARRAY(SELECT k.id FROM keys k WHERE k.id NOT IN ({own}) AND {live} LIMIT 100) AS others"
        ),
        own = own,
        live = LIVE
    )
}

/// What the keys of live tokens say about a key ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RingFit {
    /// No token is live.
    NoLiveToken,
    /// The ring has signed a live token; these other keys have also signed some.
    Fits { others: Vec<String> },
    /// The ring has signed no live token; these keys have.
    Alien { signed_by: Vec<String> },
}

impl RingFit {
    /// Compares a ring with the live tokens, at the address that the replica reads.
    pub(crate) async fn read(postgres: &Postgres, ring: &KeyRing) -> Result<Self, AskError> {
        Ok(Self::of(&postgres.fetch_here(live_keys(ring)).await?)?)
    }

    /// The same for a caller that has its own connections.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or its schema is another one.
    pub(crate) async fn read_with(pool: &PgPool, ring: &KeyRing) -> Result<Self, sqlx::Error> {
        // The text holds ids of keys only, whose characters need no quoting.
        let row = sqlx::raw_sql(AssertSqlSafe(live_keys(ring))).fetch_one(pool).await?;
        Self::of(&row)
    }

    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let own: Vec<String> = row.try_get("own")?;
        let others: Vec<String> = row.try_get("others")?;
        Ok(match (own.is_empty(), others.is_empty()) {
            (true, true) => Self::NoLiveToken,
            (true, false) => Self::Alien { signed_by: others },
            (false, _) => Self::Fits { others },
        })
    }

    /// Returns why a replica with this ring must not serve.
    pub(crate) fn objection(&self) -> Option<&'static str> {
        matches!(self, Self::Alien { .. }).then_some(
            "the key ring has signed none of the live tokens, so all of them would be refused; give \
             this replica the key ring of the installation. Only if that ring was stolen or is lost \
             for good, create the first token with this one",
        )
    }
}
