//! The Postgres tier: one query each for principals, domains and backends, for a batch of keys.

use std::{
    collections::HashMap,
    fmt::Display,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    Backends, Domains, Found, Load, LookupKind, Principals, Renewal, Unavailable,
    batch::{Batcher, Unanswered},
    lanes::Lane,
};
use crate::{
    backend::{Backend, BackendName},
    clock::{self, Moment},
    credential::Sealed,
    domain::{Domain, DomainId, DomainRef, Models, SlugError},
    freshness::CheckedVersion,
    operation::{Operation, OperationSet},
    postgres::{AskError, Postgres, Reply, select},
    principal::{DomainGrants, Principal, UserId},
    process::tasks::Tasks,
    rollout::{DomainMode, Rollout, Share},
    telemetry::{LookupTrace, MetricResult as _, Store, StoreQuestion},
    throttle::Throttle,
    token::{TokenDigest, TokenId},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sqlx::{
    Row,
    postgres::PgRow,
    types::{Json, Uuid},
};

/// Looks up values of one kind in Postgres, in batches.
pub(crate) struct PostgresTier<K: LookupKind> {
    batches: Batcher<K::Key, Option<Found<K::Value>>>,
}

/// One answer per key; `None` if it cannot be determined.
type FoundByKey<K> = Vec<Option<Found<<K as LookupKind>::Value>>>;

/// How often an outage is logged.
const WARN_EVERY: Duration = Duration::from_secs(1);

impl<K: LookupKind> PostgresTier<K> {
    pub(super) async fn get(
        &self,
        key: K::Key,
        lane: Lane,
        trace: &LookupTrace,
    ) -> Result<Found<K::Value>, Unanswered> {
        let question = StoreQuestion { store: Store::Postgres, kind: K::NAME, table: K::TABLE };
        let asked = clock::now();
        match self.batches.get(key, lane).await {
            Ok((found, trip)) => {
                trace.answered(question, trip);
                found.ok_or(Unanswered::Failed)
            }
            Err(unanswered) => {
                if unanswered == Unanswered::Failed {
                    trace.unanswered(question, asked, unanswered.result().as_str());
                }
                Err(unanswered)
            }
        }
    }

    fn new<R>(
        postgres: &Postgres,
        load: &Arc<Load>,
        tasks: &Tasks,
        read: fn(Postgres, Vec<K::Key>) -> R,
    ) -> Self
    where
        R: Future<Output = Result<FoundByKey<K>, AskError>> + Send + 'static,
    {
        let postgres = postgres.clone();
        let warnings = Arc::new(Throttle::default());
        let run = move |keys| {
            let reading = read(postgres.clone(), keys);
            let warnings = Arc::clone(&warnings);
            async move {
                reading.await.map_err(|error| {
                    // During an outage, each lookup fails; the outage is logged at intervals.
                    if warnings.passes(clock::now(), WARN_EVERY) {
                        tracing::warn!(kind = K::NAME, %error, "Postgres did not answer a lookup");
                    }
                    Unavailable
                })
            }
        };
        Self { batches: Batcher::spawn(tasks, Arc::clone(load), run) }
    }
}

/// The lookups of all kinds, which share one store.
pub(crate) fn lookups(
    postgres: &Postgres,
    load: &Arc<Load>,
    tasks: &Tasks,
) -> (PostgresTier<Principals>, PostgresTier<Domains>, PostgresTier<Backends>) {
    (
        PostgresTier::new(postgres, load, tasks, read_principals),
        PostgresTier::new(postgres, load, tasks, read_domains),
        PostgresTier::new(postgres, load, tasks, read_backends),
    )
}

pub(crate) async fn read_principals(
    postgres: Postgres,
    ids: Vec<TokenId>,
) -> Result<FoundByKey<Principals>, AskError> {
    let reply = postgres.ask(format!("{PRINCIPALS} p.id = ANY ({})", array(&ids, "uuid"))).await?;
    let mut found = HashMap::new();
    for row in &reply.rows {
        if let Some(id) = row.try_get("id")? {
            let principal = principal(id, row).map(Arc::new);
            found.insert(
                TokenId(id),
                principal.inspect_err(|error| unreadable("token", id, error)).ok(),
            );
        }
    }
    Ok(ids.iter().map(|id| reply.answer(found.get(id))).collect())
}

pub(crate) async fn read_domains(
    postgres: Postgres,
    references: Vec<DomainRef>,
) -> Result<FoundByKey<Domains>, AskError> {
    let (ids, slugs): (Vec<_>, Vec<_>) =
        references.iter().partition(|reference| matches!(reference, DomainRef::Id(_)));
    let ids = array(&ids, "uuid");
    let slugs = array(&slugs, "text");
    let sql = format!("{DOMAINS} d.id = ANY ({ids}) OR d.slug = ANY ({slugs})");
    let reply = postgres.ask(sql).await?;
    let mut found = HashMap::new();
    for row in &reply.rows {
        if let Some(id) = row.try_get("id")? {
            let domain = domain(id, row).map(Arc::new);
            let domain = domain.inspect_err(|error| unreadable("domain", id, error)).ok();
            // Also if the row cannot be read: then no reference to it means that it does not exist.
            let slug: Option<String> = row.try_get("slug")?;
            if let Some(slug) = slug.and_then(|slug| slug.parse().ok()) {
                found.insert(DomainRef::Slug(slug), domain.clone());
            }
            found.insert(DomainRef::Id(DomainId(id)), domain);
        }
    }
    Ok(references.iter().map(|reference| reply.answer(found.get(reference))).collect())
}

pub(crate) async fn read_backends(
    postgres: Postgres,
    names: Vec<BackendName>,
) -> Result<FoundByKey<Backends>, AskError> {
    let reply =
        postgres.ask(format!("{BACKENDS} b.name = ANY ({})", array(&names, "text"))).await?;
    let mut found = HashMap::new();
    for row in &reply.rows {
        if let Some(name) = row.try_get::<Option<String>, _>("name")? {
            let backend = backend(&name, row).map(Arc::new);
            let backend = backend.inspect_err(|error| unreadable("backend", &name, error)).ok();
            found.insert(name, backend);
        }
    }
    Ok(names.iter().map(|name| reply.answer(found.get(name.as_str()))).collect())
}

/// Logs a row that violates the constraints of the schema. It must not make its batch fail.
fn unreadable(kind: &str, id: impl Display, error: &sqlx::Error) {
    tracing::error!(kind, %id, %error, "a row cannot be read; its lookups are answered with 503");
}

impl Reply {
    /// `row` is the result for a key: no row, one that cannot be read, or a value.
    fn answer<V>(&self, row: Option<&Option<Arc<V>>>) -> Option<Found<V>> {
        let value = match row {
            None => None,
            Some(None) => return None,
            Some(Some(value)) => Some(Arc::clone(value)),
        };
        Some(Found {
            value,
            as_of: self.as_of,
            verified: self.verified,
            stamp: Arc::clone(&self.stamp),
            seal: None,
            opened: OnceLock::new(),
            checked: CheckedVersion::default(),
            use_notes: Throttle::default(),
            renewal: Renewal::default(),
        })
    }
}

/// Makes an array literal. The keys are uuids, slugs and names of backends: their alphabets have no
/// quote or backslash. Inside quotes, `null` is a text like any other.
fn array<K: Display>(keys: &[K], of: &str) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
    format!("'{{{}}}'::{of}[]", keys.join(","))
}

/// Returns at least one row, so that the common columns always arrive. The owner's operations are
/// read only for the domains that the token's scopes name.
const PRINCIPALS: &str = select!(
    "
       p.id, p.digest, p.user_id,
       (least(greatest(extract(epoch FROM p.issued_at), -9e12), 9e12) * 1000000)::int8 AS issued_at,
       (least(extract(epoch FROM p.expires_at), 9e12) * 1000000)::int8 AS expires_at,
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
) ON"
);

const DOMAINS: &str = select!(
    "
       d.id, d.slug, d.enabled, d.mode, d.enforced_share, d.upstream, d.all_models,
       (SELECT json_agg(json_build_array(m.model, m.upstream))
        FROM patgate.domain_models m
        WHERE m.domain_id = d.id AND m.model <> '(none) *') AS models,
       (SELECT json_agg(json_build_array(
            b.name, b.credential_key_id,
            translate(encode(b.credential, 'base64'), E'\\n', '')))
        FROM patgate.backends b
        WHERE b.credential IS NOT NULL
          AND (b.name = d.upstream OR b.name IN (
              SELECT m.upstream FROM patgate.domain_models m WHERE m.domain_id = d.id))
       ) AS credentials
FROM (SELECT) AS always
LEFT JOIN patgate.domains d ON"
);

const BACKENDS: &str = select!(
    "
       b.name, b.credential_key_id,
       translate(encode(b.credential, 'base64'), E'\\n', '') AS credential
FROM (SELECT) AS always
LEFT JOIN patgate.backends b ON"
);

/// The scopes of a token in one domain, as the query builds them. Words are read leniently: a word
/// that this release does not know grants nothing.
#[derive(serde::Deserialize)]
pub(crate) struct GrantsRow {
    domain: Uuid,
    slug: String,
    permitted: Vec<String>,
    scopes: Vec<(Option<String>, Option<String>, Option<String>)>,
}

fn principal(id: Uuid, row: &PgRow) -> Result<Principal, sqlx::Error> {
    let platform_admin: bool = row.try_get("platform_admin")?;
    let grants: Option<Json<Vec<GrantsRow>>> = row.try_get("grants")?;
    let grants = grants.map_or_else(Vec::new, |Json(grants)| grants);
    let grants = grants.into_iter().filter_map(|row| row.grants(platform_admin)).collect();
    Ok(Principal::new(
        TokenId(id),
        TokenDigest::from_bytes(row.try_get::<[u8; 32], _>("digest")?),
        Moment(row.try_get("issued_at")?)..Moment(row.try_get("expires_at")?),
        row.try_get("revoked")?,
        UserId(row.try_get("user_id")?),
        row.try_get("owner_enabled")?,
        grants,
    ))
}

impl GrantsRow {
    /// Returns what the token may do there; `None` if the slug is none.
    pub(crate) fn grants(self, platform_admin: bool) -> Option<DomainGrants> {
        let permitted: OperationSet = if platform_admin {
            Operation::ALL.iter().copied().collect()
        } else {
            self.permitted.iter().filter_map(|word| word.parse().ok()).collect()
        };
        let mut grants =
            DomainGrants::new(DomainId(self.domain), self.slug.parse().ok()?, permitted);
        for (entity_type, entity, operation) in self.scopes {
            if let Some(Ok(entity_type)) = entity_type.map(|word| word.parse())
                && let Some(entity) = entity
                && let Some(Ok(operation)) = operation.map(|word| word.parse())
            {
                grants.add_scope(entity_type, &entity, operation);
            }
        }
        Some(grants)
    }
}

fn domain(id: Uuid, row: &PgRow) -> Result<Domain, sqlx::Error> {
    let slug = row.try_get::<&str, _>("slug")?.parse();
    let slug = slug.map_err(|error: SlugError| sqlx::Error::Decode(Box::new(error)))?;
    let models = match row.try_get::<Option<Json<_>>, _>("models")? {
        Some(Json(listed)) => Models::Listed(listed),
        // A list that became empty is still a list.
        None if row.try_get("all_models")? => Models::All,
        None => Models::Listed(Vec::new()),
    };
    let upstream: String = row.try_get("upstream")?;
    let domain = Domain::new(DomainId(id), slug, row.try_get("enabled")?, upstream.into(), models);
    let credentials = row.try_get::<Option<Json<Vec<CredentialRow>>>, _>("credentials")?;
    let credentials = credentials.map_or_else(Vec::new, |Json(credentials)| credentials);
    let credentials: Result<_, _> = credentials.into_iter().map(credential).collect();
    // A value that violates the constraints of the schema must not weaken enforcement.
    let share = u8::try_from(row.try_get::<i16, _>("enforced_share")?).ok().and_then(Share::new);
    let rollout = Rollout {
        mode: row.try_get::<&str, _>("mode")?.parse().unwrap_or(DomainMode::Enforce),
        share: share.unwrap_or(Share::ALL),
    };
    Ok(domain.with_credentials(credentials?).with_rollout(rollout))
}

fn backend(name: &str, row: &PgRow) -> Result<Backend, sqlx::Error> {
    let sealed = match row.try_get::<Option<String>, _>("credential")? {
        None => None,
        Some(bytes) => {
            let key_id: String = row.try_get("credential_key_id")?;
            Some(credential((name.into(), key_id.into(), bytes))?.1)
        }
    };
    Ok(Backend::new(name.into(), sealed))
}

/// A backend's name, the id of the key that opens its credential, and the sealed credential in
/// base64.
type CredentialRow = (Box<str>, Box<str>, String);

fn credential((backend, key_id, bytes): CredentialRow) -> Result<(Box<str>, Sealed), sqlx::Error> {
    let bytes = BASE64_STANDARD.decode(bytes);
    let bytes = bytes.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok((backend, Sealed { key_id, bytes: bytes.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `null` is a valid slug and backend name. Without quotes, it would be the SQL NULL.
    #[test]
    fn every_key_of_an_array_is_a_text() {
        let names = ["null", "a.b-c_d"].map(|name| name.parse::<BackendName>().unwrap());
        assert_eq!(array(&names, "text"), r#"'{"null","a.b-c_d"}'::text[]"#);
        assert_eq!(array::<BackendName>(&[], "text"), "'{}'::text[]");
    }
}
