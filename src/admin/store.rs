//! What [`admin`](crate::admin) reads and writes in the database: users, domains, backends, roles, tokens, audit.
//!
//! Every change is one transaction that also writes its entries of the audit log, and reports which
//! cached copies it outdates. After the commit, the replicas that listen are notified.
//!
//! No statement needs state of a session, so a connection pooler may stand in between. That is why
//! each one goes through `sql`, `sql_as` or `sql_scalar`.

mod audit;
mod backends;
mod credentials;
mod domain_models;
mod domains;
mod error;
mod installation;
mod invitations;
mod lock_watch;
mod names;
pub(crate) mod notify;
pub(super) mod policy;
mod providers;
mod replicas;
mod revocation;
mod roles;
mod rotation;
mod scopes;
mod sessions;
mod subjects;
mod tokens;
mod users;

use serde_json::Value;
use sqlx::{
    AssertSqlSafe, FromRow, PgPool, Postgres, Transaction,
    postgres::{PgArguments, PgRow},
    query::{Query, QueryAs, QueryScalar},
};
use uuid::Uuid;

use self::lock_watch::{LockWatch, ReadTransaction};
pub use self::{
    audit::{AuditAction, AuditActionFilter, AuditActionFilterError, AuditEntry, AuditFilter},
    backends::{BackendChanges, BackendSummary, CredentialNote},
    domain_models::DomainModel,
    domains::{DomainChanges, DomainDetails, DomainSummary, NewDomain, NewModels},
    error::{Error, ObjectKind},
    installation::RenewedInstallation,
    names::{
        Actor, BackendKind, BackendName, BackendUrl, Description, DisplayName, Email, EntityId,
        InvalidText, Issuer, ListedModel, RoleName, Subject, TokenName, UserRef,
    },
    policy::{Policy, PolicyChanges, TokenLongest},
    providers::{Identity, Provider, ProviderDetails},
    replicas::Replica,
    revocation::{LeakedTokens, RevokedToken, TokenGroup},
    roles::Role,
    rotation::Rotation,
    scopes::{NewScope, Scope, ScopeError},
    sessions::UserSession,
    tokens::{
        CreatedToken, Expiry, KeyUse, NewToken, Token, TokenDetails, TokenFilter, TokenStatus,
    },
    users::{NewUser, User, UserDetails, UserRole},
};
use crate::{
    domain::{DomainId, DomainRef, Slug},
    principal::UserId,
    token::TokenId,
};

/// The user that owns the canaries of replicas; see `0004_revocation_canary.sql`. Lists do not show them.
const CANARY_KEEPER: Uuid = Uuid::from_u128(0xca4a_4700_0000_8000_8000_0000_0000_0000);

/// A moment as RFC 3339 text in UTC, to the second.
macro_rules! utc {
    ($moment:literal) => {
        concat!("to_char(", $moment, " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
    };
}
use utc;

/// Everything whose cached copies a change has made outdated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutdatedCopies {
    /// Tokens that now resolve to something else.
    pub(crate) tokens: Vec<TokenId>,
    /// Domains, under every reference that they had or have.
    pub(crate) domains: Vec<DomainRef>,
    /// Backends that were created or deleted, or whose credential was changed.
    pub(crate) backends: Vec<BackendName>,
}

/// A change that is committed.
#[derive(Debug)]
pub(crate) struct Committed<T> {
    /// What the change is for, such as the id of what it created; `()` if there is nothing to return.
    pub(crate) value: T,
    /// The cached copies that it has made outdated.
    pub(crate) outdated: OutdatedCopies,
    /// The id of its transaction, by which replicas are asked whether they have read it; `None` if
    /// nothing was changed.
    pub(crate) xid: Option<String>,
}

/// Reads and changes the database on behalf of one actor.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: PgPool,
    actor: Actor,
}

impl Store {
    /// The audit log names `actor` as the author of every change.
    pub(crate) fn new(pool: PgPool, actor: Actor) -> Self {
        Self { pool, actor }
    }

    /// The same store on behalf of another actor.
    pub(crate) fn on_behalf_of(&self, actor: Actor) -> Self {
        Self { pool: self.pool.clone(), actor }
    }

    /// Begins a transaction that sees the database as of one moment. The caller must commit it: a
    /// connection that is returned inside a transaction costs a round trip, and a pooler its
    /// connection to the server.
    async fn read(&self) -> Result<ReadTransaction, Error> {
        const BEGIN: &str = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let (tx, watch) = self.begin(BEGIN, "read").await?;
        Ok(ReadTransaction::new(tx, watch))
    }

    async fn change(&self) -> Result<PendingChange<'_>, Error> {
        let (tx, watch) = self.begin("BEGIN", "change").await?;
        let pool = &self.pool;
        let actor = &self.actor;
        Ok(PendingChange { tx, pool, actor, outdated: OutdatedCopies::default(), _watch: watch })
    }

    /// Each transaction has a name of its own in Postgres, by which it is found while it waits.
    async fn begin(
        &self,
        begin: &str,
        what: &str,
    ) -> Result<(Transaction<'static, Postgres>, LockWatch), Error> {
        let name = format!("patgate {what} {}", Uuid::new_v4().simple());
        let begin = format!(
            "{begin};
             SET LOCAL statement_timeout = '30s';
             SET LOCAL lock_timeout = '10s';
             SET LOCAL application_name = '{name}'"
        );
        let watch = LockWatch::over(self.pool.clone(), name);
        Ok((self.pool.begin_with(AssertSqlSafe(begin)).await?, watch))
    }

    /// Begins a change that may concern every token. The feed records each of them, so the change
    /// takes longer the more there are, and must not fail for that.
    async fn bulk_change(&self) -> Result<PendingChange<'_>, Error> {
        let mut change = self.change().await?;
        sqlx::raw_sql("SET LOCAL statement_timeout = '30min'").execute(&mut *change.tx).await?;
        Ok(change)
    }
}

/// A transaction that changes something. If it is dropped unfinished, nothing was changed.
struct PendingChange<'a> {
    tx: Transaction<'static, Postgres>,
    pool: &'a PgPool,
    actor: &'a Actor,
    outdated: OutdatedCopies,
    /// Reports the sessions that it waits for.
    _watch: LockWatch,
}

/// An entry of the audit log to write. `details` must hold no secret and no digest.
struct NewAuditEntry {
    action: AuditAction,
    object: String,
    details: Value,
}

impl PendingChange<'_> {
    /// Writes one entry of the audit log and commits.
    async fn finish<T>(
        self,
        action: AuditAction,
        object: impl ToString,
        details: Value,
        value: T,
    ) -> Result<Committed<T>, Error> {
        self.finish_all([NewAuditEntry { action, object: object.to_string(), details }], value)
            .await
    }

    /// Writes several entries of the audit log and commits.
    async fn finish_all<T>(
        mut self,
        entries: impl IntoIterator<Item = NewAuditEntry>,
        value: T,
    ) -> Result<Committed<T>, Error> {
        let mut actions = Vec::new();
        let mut objects = Vec::new();
        let mut details = Vec::new();
        for entry in entries {
            actions.push(entry.action.as_str());
            objects.push(entry.object);
            details.push(entry.details);
        }
        let xid: Option<String> = sql_scalar(
            "INSERT INTO patgate.audit_log (actor, action, object, details)
             SELECT $1, * FROM unnest($2::text[], $3::text[], $4::jsonb[])
             RETURNING pg_current_xact_id()::text",
        )
        .bind(self.actor.as_str())
        .bind(actions)
        .bind(objects)
        .bind(details)
        .fetch_optional(&mut *self.tx)
        .await?;
        self.tx.commit().await?;
        notify::send(self.pool).await;
        Ok(Committed { value, outdated: self.outdated, xid })
    }

    /// Marks all tokens of a user as outdated.
    async fn outdate_user(&mut self, user: UserId) -> Result<(), Error> {
        self.outdate_tokens(
            sql_scalar("SELECT id FROM patgate.pats WHERE user_id = $1").bind(user.0),
        )
        .await
    }

    /// Marks all tokens of the members of a role as outdated.
    async fn outdate_role(&mut self, role: Uuid) -> Result<(), Error> {
        self.outdate_tokens(
            sql_scalar(
                "SELECT p.id FROM patgate.pats p
                 JOIN patgate.role_members m ON m.user_id = p.user_id WHERE m.role_id = $1",
            )
            .bind(role),
        )
        .await
    }

    /// Marks a domain, and the tokens with a scope in it, as outdated.
    async fn outdate_domain(&mut self, id: DomainId, slug: &Slug) -> Result<(), Error> {
        self.outdated.domains.extend([DomainRef::Id(id), DomainRef::Slug(slug.clone())]);
        self.outdate_tokens(
            sql_scalar("SELECT DISTINCT pat_id FROM patgate.pat_scopes WHERE domain_id = $1")
                .bind(id.0),
        )
        .await
    }

    async fn outdate_tokens(
        &mut self,
        ids: QueryScalar<'static, Postgres, Uuid, PgArguments>,
    ) -> Result<(), Error> {
        let ids = ids.fetch_all(&mut *self.tx).await?;
        self.outdated.tokens.extend(ids.into_iter().map(TokenId));
        Ok(())
    }
}

/// Makes a statement without a name. See [`crate::postgres::connect`].
fn sql(text: &'static str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(text).persistent(false)
}

/// Makes a statement without a name whose rows are `T`s.
fn sql_as<T: for<'r> FromRow<'r, PgRow>>(
    text: &'static str,
) -> QueryAs<'static, Postgres, T, PgArguments> {
    sqlx::query_as(text).persistent(false)
}

/// Makes a statement without a name whose rows hold one value.
fn sql_scalar<T>(text: &'static str) -> QueryScalar<'static, Postgres, T, PgArguments>
where
    (T,): for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_scalar(text).persistent(false)
}

/// Makes an id that sorts by time of creation, which keeps indexes compact.
pub(crate) fn new_id() -> Uuid {
    Uuid::now_v7()
}
