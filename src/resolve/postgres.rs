//! The truth: one query for principals, one for domains, each for a batch of keys.
//!
//! Both are sent by the simple query protocol, with their keys as literals: one round trip and no
//! state on the connection, so a pooler in transaction mode may sit in between. The keys are
//! uuids and slugs by type, whose alphabets hold no quote.
//!
//! A statement on its own is its own transaction, whose `now()` was taken before its snapshot and
//! after we sent it. So `now()` is a moment at which the answer was true, and it bounds
//! Postgres's clock (`clock.rs`).

use std::{collections::HashMap, fmt::Display, future::Future, sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, Executor, PgPool, Row,
    postgres::PgRow,
    types::{Json, Uuid},
};
use tokio::{sync::Semaphore, time::timeout};

use super::{Domains, Found, Kind, Principals, Unavailable, batch::Batcher};
use crate::{
    clock::{Clock, Moment, Tick},
    config,
    domain::{Domain, DomainId, DomainRef},
    operation::{Operation, OperationSet},
    principal::{DomainGrants, Principal, UserId},
    telemetry::Metrics,
    token::{TokenDigest, TokenId},
};

/// Look-ups of one kind.
pub(crate) struct Lookup<K: Kind> {
    batches: Batcher<K::Key, Found<K::Value>>,
}

impl<K: Kind> Lookup<K> {
    pub(super) async fn get(&self, key: K::Key) -> Result<Found<K::Value>, Unavailable> {
        self.batches.get(key).await
    }
}

/// A pool, how long a query may take, and how many may run.
#[derive(Clone)]
pub(crate) struct Postgres {
    pool: PgPool,
    query_timeout: Duration,
    limit: Arc<Semaphore>,
    clock: Arc<Clock>,
    metrics: Metrics,
}

/// The answer to one statement.
struct Reply {
    rows: Vec<PgRow>,
    as_of: Tick,
    verified: Moment,
}

impl Postgres {
    /// As many look-ups run at once as there are connections, but for one that is left to the
    /// trips that keep the clock.
    pub(crate) fn new(
        pool: PgPool,
        config: &config::Postgres,
        clock: Arc<Clock>,
        metrics: Metrics,
    ) -> Self {
        let at_once = config.max_connections.saturating_sub(1).max(1);
        let limit = Arc::new(Semaphore::new(at_once as usize));
        Self { pool, query_timeout: config.query_timeout, limit, clock, metrics }
    }

    pub(crate) fn principals(&self) -> Lookup<Principals> {
        self.lookup(|postgres, ids| async move { postgres.read_principals(&ids).await })
    }

    pub(crate) fn domains(&self) -> Lookup<Domains> {
        self.lookup(|postgres, references| async move { postgres.read_domains(&references).await })
    }

    fn lookup<K: Kind, R>(&self, read: fn(Self, Vec<K::Key>) -> R) -> Lookup<K>
    where
        R: Future<Output = Result<Vec<Found<K::Value>>, sqlx::Error>> + Send + 'static,
    {
        let postgres = self.clone();
        let run = move |keys| {
            let reading = read(postgres.clone(), keys);
            async move {
                reading.await.map_err(|error| {
                    tracing::warn!(kind = K::NAME, %error, "Postgres did not answer a look-up");
                    Unavailable
                })
            }
        };
        Lookup { batches: Batcher::spawn(Arc::clone(&self.limit), run) }
    }

    /// A round trip that tells Postgres's time.
    pub(crate) async fn trip(&self) -> Result<(), sqlx::Error> {
        self.ask(format!("SELECT {HEAD}")).await.map(drop)
    }

    /// Sends one statement that selects [`HEAD`] first, and waits a bounded time for its answer.
    ///
    /// A connection that failed is closed. After a restart of Postgres every pooled connection
    /// is dead, so an error of the connection, not of the statement, is tried on the next one.
    async fn ask(&self, sql: String) -> Result<Reply, sqlx::Error> {
        let attempts = async {
            for _ in 0..self.pool.size() {
                match self.attempt(sql.clone()).await {
                    Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => {}
                    outcome => return outcome,
                }
            }
            self.attempt(sql).await
        };
        let outcome = timeout(self.query_timeout, attempts).await;
        outcome.unwrap_or(Err(sqlx::Error::PoolTimedOut)).inspect_err(|_| {
            self.metrics.failure("postgres");
        })
    }

    async fn attempt(&self, sql: String) -> Result<Reply, sqlx::Error> {
        let mut connection = Lease(Some(self.pool.acquire().await?));
        let Some(link) = &mut connection.0 else { return Err(sqlx::Error::WorkerCrashed) };
        self.metrics.command("postgres");
        let sent = Tick::now();
        let rows = link.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let verified = Moment(first.try_get("now")?);
        let standby: bool = first.try_get("standby")?;
        connection.keep();
        if standby {
            // It may lag behind by any time, whatever its clock says.
            return Err(sqlx::Error::Configuration("the server is a standby".into()));
        }
        self.clock.observe(sent, verified);
        Ok(Reply { rows, as_of: sent, verified })
    }

    async fn read_principals(self, ids: &[TokenId]) -> Result<Vec<Found<Principal>>, sqlx::Error> {
        let reply = self.ask(format!("{PRINCIPALS} p.id = ANY ({})", array(ids, "uuid"))).await?;
        let mut found = HashMap::new();
        for row in &reply.rows {
            if let Some(principal) = principal(row)? {
                found.insert(principal.token, Arc::new(principal));
            }
        }
        Ok(ids.iter().map(|id| reply.found(found.get(id))).collect())
    }

    async fn read_domains(
        self,
        references: &[DomainRef],
    ) -> Result<Vec<Found<Domain>>, sqlx::Error> {
        let (ids, slugs): (Vec<_>, Vec<_>) =
            references.iter().partition(|reference| matches!(reference, DomainRef::Id(_)));
        let (ids, slugs) = (array(&ids, "uuid"), array(&slugs, "text"));
        let sql = format!("{DOMAINS} d.id = ANY ({ids}) OR d.slug = ANY ({slugs})");
        let reply = self.ask(sql).await?;
        let mut found = HashMap::new();
        for row in &reply.rows {
            if let Some(domain) = domain(row)? {
                let domain = Arc::new(domain);
                found.insert(DomainRef::Slug(domain.slug.clone()), Arc::clone(&domain));
                found.insert(DomainRef::Id(domain.id), domain);
            }
        }
        Ok(references.iter().map(|reference| reply.found(found.get(reference))).collect())
    }
}

impl Reply {
    fn found<V>(&self, value: Option<&Arc<V>>) -> Found<V> {
        Found { value: value.cloned(), as_of: self.as_of, verified: self.verified }
    }
}

/// A connection that goes back to the pool only when told so: one whose statement was cut short,
/// by an error or because nobody waits any longer, may still deliver the rest of an old answer.
struct Lease(Option<sqlx::pool::PoolConnection<sqlx::Postgres>>);

impl Lease {
    fn keep(&mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// An array literal. The keys are uuids and slugs: no quote, comma or brace in their alphabets.
fn array(keys: &[impl Display], of: &str) -> String {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    format!("'{{{}}}'::{of}[]", keys.join(","))
}

/// What every statement tells besides its result: Postgres's time in microseconds, and whether
/// the server is a standby.
const HEAD: &str = "(extract(epoch FROM now()) * 1000000)::int8 AS now, \
                    pg_is_in_recovery() AS standby";

/// At least one row, so that the head always arrives. The owner's operations are read for the
/// domains that the token's scopes name, and for no other.
const PRINCIPALS: &str = "
SELECT (extract(epoch FROM now()) * 1000000)::int8 AS now, pg_is_in_recovery() AS standby,
       p.id, p.digest, p.user_id,
       (extract(epoch FROM p.expires_at) * 1000000)::int8 AS expires_at,
       p.revoked_at IS NOT NULL AS revoked,
       coalesce(u.enabled, false) AS owner_enabled,
       coalesce(u.platform_admin, false) AS platform_admin,
       g.grants
FROM (SELECT) AS always
LEFT JOIN (patgate.pats p LEFT JOIN patgate.users u ON u.id = p.user_id
    LEFT JOIN LATERAL (
        SELECT json_agg(json_build_object(
            'domain', d.id, 'slug', d.slug, 'scopes', s.scopes,
            'permitted', ARRAY(
                SELECT DISTINCT o.operation
                FROM patgate.roles r
                JOIN patgate.role_members m ON m.role_id = r.id AND m.user_id = p.user_id
                JOIN patgate.role_operations o ON o.role_id = r.id
                WHERE r.domain_id = d.id))) AS grants
        FROM (SELECT domain_id,
                     json_agg(json_build_array(entity_type, entity_id, operation)) AS scopes
              FROM patgate.pat_scopes WHERE pat_id = p.id GROUP BY domain_id) s
        JOIN patgate.domains d ON d.id = s.domain_id
    ) g ON true
) ON";

const DOMAINS: &str = "
SELECT (extract(epoch FROM now()) * 1000000)::int8 AS now, pg_is_in_recovery() AS standby,
       d.id, d.slug, d.enabled, d.upstream,
       (SELECT json_agg(json_build_array(m.model, m.upstream))
        FROM patgate.domain_models m WHERE m.domain_id = d.id) AS models
FROM (SELECT) AS always
LEFT JOIN patgate.domains d ON";

/// The scopes of a token in one domain, as the query builds them. Words are read leniently: what
/// the vocabulary of this release does not know grants nothing.
#[derive(serde::Deserialize)]
struct GrantsRow {
    domain: Uuid,
    slug: String,
    permitted: Vec<String>,
    scopes: Vec<(Option<String>, Option<String>, Option<String>)>,
}

fn principal(row: &PgRow) -> Result<Option<Principal>, sqlx::Error> {
    let Some(id) = row.try_get::<Option<Uuid>, _>("id")? else { return Ok(None) };
    let platform_admin: bool = row.try_get("platform_admin")?;
    let grants: Option<Json<Vec<GrantsRow>>> = row.try_get("grants")?;
    let grants = grants.map_or_else(Vec::new, |Json(grants)| grants);
    let grants = grants.into_iter().filter_map(|row| row.grants(platform_admin)).collect();
    Ok(Some(Principal::new(
        TokenId(id),
        TokenDigest::from_bytes(row.try_get::<[u8; 32], _>("digest")?),
        Moment(row.try_get("expires_at")?),
        row.try_get("revoked")?,
        UserId(row.try_get("user_id")?),
        row.try_get("owner_enabled")?,
        grants,
    )))
}

impl GrantsRow {
    fn grants(self, platform_admin: bool) -> Option<DomainGrants> {
        let permitted: OperationSet = if platform_admin {
            Operation::ALL.iter().copied().collect()
        } else {
            self.permitted.iter().filter_map(|word| word.parse().ok()).collect()
        };
        let mut grants =
            DomainGrants::new(DomainId(self.domain), self.slug.parse().ok()?, permitted);
        for (entity_type, entity, operation) in self.scopes {
            if let (Some(Ok(entity_type)), Some(entity), Some(Ok(operation))) =
                (entity_type.map(|word| word.parse()), entity, operation.map(|word| word.parse()))
            {
                grants.add_scope(entity_type, &entity, operation);
            }
        }
        Some(grants)
    }
}

fn domain(row: &PgRow) -> Result<Option<Domain>, sqlx::Error> {
    let Some(id) = row.try_get::<Option<Uuid>, _>("id")? else { return Ok(None) };
    // A row that our constraints would not let in is no domain.
    let Ok(slug) = row.try_get::<String, _>("slug")?.parse() else { return Ok(None) };
    let models = row.try_get::<Option<Json<_>>, _>("models")?;
    let models = models.map_or_else(Vec::new, |Json(models)| models);
    let upstream: String = row.try_get("upstream")?;
    Ok(Some(Domain::new(DomainId(id), slug, row.try_get("enabled")?, upstream.into(), models)))
}
