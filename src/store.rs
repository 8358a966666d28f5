//! The administrator's side of the database: users, domains, backends, roles, tokens, audit.
//!
//! Every change is one transaction that also writes its line of the audit log, and reports what it
//! outdates in caches. When it has committed, replicas that listen are notified. Nothing here needs state of a session, so a connection pooler may sit in
//! between; that is why each statement goes through `sql`, `sql_as` or `sql_scalar`.

mod audit;
mod backends;
mod credentials;
mod domains;
mod error;
mod installation;
mod names;
mod notice;
mod replicas;
mod revocation;
mod roles;
mod rotation;
mod scopes;
mod tokens;
mod users;
mod waiting;

use serde_json::Value;
use sqlx::{
    AssertSqlSafe, FromRow, PgPool, Postgres, Transaction,
    postgres::{PgArguments, PgRow},
    query::{Query, QueryAs, QueryScalar},
};
use uuid::Uuid;

use self::waiting::{View, Watch};
pub use self::{
    audit::{AuditAction, AuditActionError, AuditEntry, AuditFilter},
    backends::{Backend, BackendChanges, CredentialNote},
    credentials::BackendCredential,
    domains::{Domain, DomainChanges, DomainDetails, DomainModel, NewModels},
    error::Error,
    installation::Renewed,
    names::{
        Actor, BackendKind, BackendName, BackendUrl, Description, Email, EntityId, Malformed,
        Model, Name, RoleName, TokenName, UserRef,
    },
    replicas::Replica,
    revocation::Revoked,
    roles::Role,
    rotation::Rotation,
    scopes::{NewScope, Scope, ScopeError},
    tokens::{Expiry, KeyUse, NewToken, Shown, Token, TokenDetails, TokenFilter},
    users::{NewUser, User, UserDetails, UserRole},
};
use crate::{
    domain::{DomainId, DomainRef, Slug},
    principal::UserId,
    token::TokenId,
};

/// Owns the canaries of replicas; see `0004_revocation_canary.sql`. Lists do not show them.
const CANARY_KEEPER: Uuid = Uuid::from_u128(0xca4a_4700_0000_8000_8000_0000_0000_0000);

/// A moment as RFC 3339 text in UTC, to the second.
macro_rules! utc {
    ($moment:literal) => {
        concat!("to_char(", $moment, " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
    };
}
use utc;

/// Everything whose cached copies a change outdates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Tokens that resolve to something else now.
    pub tokens: Vec<TokenId>,
    /// Domains by every reference that they had or have.
    pub domains: Vec<DomainRef>,
    /// Backends that have another credential now, or are new or gone.
    pub backends: Vec<BackendName>,
}

/// A change that is committed.
#[derive(Debug)]
pub struct Changed<T> {
    /// What came of it.
    pub value: T,
    /// What it outdates.
    pub touched: Touched,
    /// The id of the transaction that made it, by which replicas can be asked whether they have
    /// read it; nothing where nothing was changed.
    pub xid: Option<String>,
}

impl<T> Changed<T> {
    /// The same change, of which something else came.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Changed<U> {
        Changed { value: with(self.value), touched: self.touched, xid: self.xid }
    }
}

/// Reads and changes, in the name of one administrator.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    actor: Actor,
}

impl Store {
    /// Changes are recorded as `actor`'s.
    pub fn new(pool: PgPool, actor: Actor) -> Self {
        Self { pool, actor }
    }

    /// A view of one moment. It is to be committed: a connection given back amid a transaction costs
    /// a round trip here, and a pooler its connection to the server.
    async fn read(&self) -> Result<View, Error> {
        const BEGIN: &str = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let (tx, watch) = self.begin(BEGIN, "read").await?;
        Ok(View::new(tx, watch))
    }

    async fn change(&self) -> Result<Change<'_>, Error> {
        let (tx, watch) = self.begin("BEGIN", "change").await?;
        let (pool, actor) = (&self.pool, &self.actor);
        Ok(Change { tx, pool, actor, touched: Touched::default(), _watch: watch })
    }

    /// A transaction has a name of its own in Postgres, by which it is found while it waits.
    async fn begin(
        &self,
        begin: &str,
        what: &str,
    ) -> Result<(Transaction<'static, Postgres>, Watch), Error> {
        let name = format!("patgate {what} {}", Uuid::new_v4().simple());
        let begin = format!(
            "{begin};
             SET LOCAL statement_timeout = '30s';
             SET LOCAL lock_timeout = '10s';
             SET LOCAL application_name = '{name}'"
        );
        let watch = Watch::over(self.pool.clone(), name);
        Ok((self.pool.begin_with(AssertSqlSafe(begin)).await?, watch))
    }

    /// One that may concern every token there is: the feed records each of them, so it takes the
    /// longer the more there are, and must not fail for that.
    async fn bulk_change(&self) -> Result<Change<'_>, Error> {
        let mut change = self.change().await?;
        sqlx::raw_sql("SET LOCAL statement_timeout = '30min'").execute(&mut *change.tx).await?;
        Ok(change)
    }
}

/// A change on its way. Dropped unfinished, it never happened.
struct Change<'a> {
    tx: Transaction<'static, Postgres>,
    pool: &'a PgPool,
    actor: &'a Actor,
    touched: Touched,
    /// Says whom it waits for.
    _watch: Watch,
}

/// A line of the audit log. `details` holds no secret and no digest.
struct Entry {
    action: &'static str,
    object: String,
    details: Value,
}

impl Change<'_> {
    /// Records and commits.
    async fn finish<T>(
        self,
        action: &'static str,
        object: impl ToString,
        details: Value,
        value: T,
    ) -> Result<Changed<T>, Error> {
        self.finish_all([Entry { action, object: object.to_string(), details }], value).await
    }

    /// Records several lines and commits.
    async fn finish_all<T>(
        mut self,
        entries: impl IntoIterator<Item = Entry>,
        value: T,
    ) -> Result<Changed<T>, Error> {
        let (mut actions, mut objects, mut details) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            debug_assert!(audit::ACTIONS.contains(&entry.action), "{}", entry.action);
            actions.push(entry.action);
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
        notice::send(self.pool).await;
        Ok(Changed { value, touched: self.touched, xid })
    }

    /// All tokens of a user.
    async fn touch_user(&mut self, user: UserId) -> Result<(), Error> {
        self.touch_tokens(sql_scalar("SELECT id FROM patgate.pats WHERE user_id = $1").bind(user.0))
            .await
    }

    /// All tokens of the members of a role.
    async fn touch_role(&mut self, role: Uuid) -> Result<(), Error> {
        self.touch_tokens(
            sql_scalar(
                "SELECT p.id FROM patgate.pats p
                 JOIN patgate.role_members m ON m.user_id = p.user_id WHERE m.role_id = $1",
            )
            .bind(role),
        )
        .await
    }

    /// A domain under its references, and the tokens with a scope in it.
    async fn touch_domain(&mut self, id: DomainId, slug: &Slug) -> Result<(), Error> {
        self.touched.domains.extend([DomainRef::Id(id), DomainRef::Slug(slug.clone())]);
        self.touch_tokens(
            sql_scalar("SELECT DISTINCT pat_id FROM patgate.pat_scopes WHERE domain_id = $1")
                .bind(id.0),
        )
        .await
    }

    async fn touch_tokens(
        &mut self,
        ids: QueryScalar<'static, Postgres, Uuid, PgArguments>,
    ) -> Result<(), Error> {
        let ids = ids.fetch_all(&mut *self.tx).await?;
        self.touched.tokens.extend(ids.into_iter().map(TokenId));
        Ok(())
    }
}

/// A statement without a name. See [`crate::schema::connect`].
fn sql(text: &'static str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(text).persistent(false)
}

/// A statement without a name whose rows are `T`s.
fn sql_as<T: for<'r> FromRow<'r, PgRow>>(
    text: &'static str,
) -> QueryAs<'static, Postgres, T, PgArguments> {
    sqlx::query_as(text).persistent(false)
}

/// A statement without a name whose rows hold one value.
fn sql_scalar<T>(text: &'static str) -> QueryScalar<'static, Postgres, T, PgArguments>
where
    (T,): for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_scalar(text).persistent(false)
}

/// An id whose order is that of creation, which keeps indexes compact.
fn new_id() -> Uuid {
    Uuid::now_v7()
}
