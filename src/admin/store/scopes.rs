//! The scopes of tokens.

use std::{fmt, str::FromStr};

use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};

use super::{
    AuditAction, Committed, EntityId, Error, ObjectKind, Store, domains, new_id, sql, sql_as,
    tokens,
};
use crate::{
    domain::DomainRef,
    operation::{EntityType, Operation},
    token::TokenId,
};

/// The entity id of a scope on every entity of a type.
const ANY: &str = "*";

/// A scope to add, for one or more operations: `DOMAIN:ENTITY_TYPE:ENTITY_ID:OPERATION[,…]`.
///
/// An entity id may contain colons, so the operations are the part after the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewScope {
    domain: DomainRef,
    entity_type: EntityType,
    entity_id: EntityId,
    operations: Vec<Operation>,
}

/// A scope that a token has.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Scope {
    /// The slug of the domain.
    pub domain: String,
    /// The type of the entity.
    pub entity_type: String,
    /// One entity, or `*` for all of the type.
    pub entity_id: String,
    /// The operation that it is for.
    pub operation: String,
    /// Whether a role of the owner permits the operation. Otherwise, the scope grants nothing.
    pub permitted: bool,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.domain, self.entity_type, self.entity_id, self.operation)
    }
}

/// A text that is not a scope.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0}; a scope is `DOMAIN:ENTITY_TYPE:ENTITY_ID:OPERATION[,OPERATION…]`, such as `acme:models:*:llm_read`"
)]
pub struct ScopeError(String);

impl FromStr for NewScope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let error = |reason: &dyn fmt::Display| ScopeError(reason.to_string());
        let parts = text.split_once(':').and_then(|(domain, rest)| {
            let (entity_type, rest) = rest.split_once(':')?;
            let (entity_id, operations) = rest.rsplit_once(':')?;
            Some((domain, entity_type, entity_id, operations))
        });
        let Some((domain, entity_type, entity_id, operations)) = parts else {
            return Err(error(&"not four parts separated by colons"));
        };
        let domain = DomainRef::parse(domain)
            .ok_or_else(|| error(&format_args!("`{domain}` is neither a slug nor an id")))?;
        let entity_type: EntityType = entity_type.parse().map_err(|unknown| error(&unknown))?;
        let entity_id: EntityId = entity_id.parse().map_err(|malformed| error(&malformed))?;
        let operations = operations
            .split(',')
            .map(|word| word.parse().map_err(|unknown| error(&unknown)))
            .collect::<Result<Vec<Operation>, _>>()?;
        let valid = entity_type.operations();
        if let Some(odd) = operations.iter().find(|operation| !valid.contains(**operation)) {
            return Err(error(&format_args!("`{odd}` is not an operation on `{entity_type}`")));
        }
        Ok(Self { domain, entity_type, entity_id, operations })
    }
}

impl fmt::Display for NewScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:", self.domain, self.entity_type, self.entity_id)?;
        for (index, operation) in self.operations.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{operation}")?;
        }
        Ok(())
    }
}

impl NewScope {
    /// The form in which the functions of the database for self-service take a scope.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "domain": self.domain.to_string(), "entity_type": self.entity_type.as_str(),
            "entity_id": self.entity_id.as_str(), "operations": self.operations,
        })
    }
}

impl Store {
    /// Adds scopes to a token, and returns all that it has then.
    ///
    /// # Errors
    ///
    /// If the token or the domain does not exist.
    pub(crate) async fn add_scopes(
        &self,
        token: TokenId,
        scopes: &[NewScope],
    ) -> Result<Committed<Vec<Scope>>, Error> {
        let mut change = self.change().await?;
        // Lock the domains before the token, in the order of a revocation of all tokens of a
        // domain.
        domains::hold(&mut change.tx, scopes.iter().map(|scope| &scope.domain)).await?;
        tokens::lock(&mut change.tx, token).await?;
        insert(&mut change.tx, token, scopes).await?;
        let now = list(&mut change.tx, token).await?;
        change.outdated.tokens.push(token);
        change
            .finish(AuditAction::TokenAddScope, token, json!({ "scopes": texts(scopes) }), now)
            .await
    }

    /// Removes scopes from a token, and returns those that are left.
    ///
    /// # Errors
    ///
    /// If the token or the domain does not exist, or the token lacks one of the scopes.
    pub(crate) async fn remove_scopes(
        &self,
        token: TokenId,
        scopes: &[NewScope],
    ) -> Result<Committed<Vec<Scope>>, Error> {
        let mut change = self.change().await?;
        tokens::lock(&mut change.tx, token).await?;
        for scope in scopes {
            let domain = domains::find(&mut change.tx, &scope.domain).await?;
            for operation in &scope.operations {
                let deleted = sql("DELETE FROM patgate.pat_scopes
                     WHERE pat_id = $1 AND domain_id = $2 AND entity_type = $3
                       AND entity_id = $4 AND operation = $5")
                .bind(token.0)
                .bind(domain.id)
                .bind(scope.entity_type.as_str())
                .bind(scope.entity_id.as_str())
                .bind(operation.as_str())
                .execute(&mut *change.tx)
                .await?;
                if deleted.rows_affected() == 0 {
                    return Err(Error::not_found(ObjectKind::Scope, scope));
                }
            }
        }
        let now = list(&mut change.tx, token).await?;
        change.outdated.tokens.push(token);
        change
            .finish(AuditAction::TokenRemoveScope, token, json!({ "scopes": texts(scopes) }), now)
            .await
    }
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    token: TokenId,
    scopes: &[NewScope],
) -> Result<(), Error> {
    for scope in scopes {
        let domain = domains::find(tx, &scope.domain).await?;
        let entity_id = scope.entity_id.as_str();
        let is_whole_domain = entity_id == ANY || entity_id == domain.id.to_string();
        if scope.entity_type == EntityType::Domains && !is_whole_domain {
            return Err(Error::Refused(format!(
                "scope `{scope}`: on `domains`, the entity is `*` or the domain's own id, {}",
                domain.id
            )));
        }
        for operation in &scope.operations {
            sql("INSERT INTO patgate.pat_scopes
                     (id, pat_id, domain_id, entity_type, entity_id, operation)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING")
            .bind(new_id())
            .bind(token.0)
            .bind(domain.id)
            .bind(scope.entity_type.as_str())
            .bind(entity_id)
            .bind(operation.as_str())
            .execute(&mut *tx)
            .await?;
        }
    }
    Ok(())
}

/// Gives the token `to` the scopes of `from`.
pub(super) async fn copy(tx: &mut PgConnection, from: TokenId, to: TokenId) -> Result<(), Error> {
    sql("INSERT INTO patgate.pat_scopes (id, pat_id, domain_id, entity_type, entity_id, operation)
         SELECT gen_random_uuid(), $2, domain_id, entity_type, entity_id, operation
         FROM patgate.pat_scopes WHERE pat_id = $1")
    .bind(from.0)
    .bind(to.0)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

pub(super) async fn list(tx: &mut PgConnection, token: TokenId) -> Result<Vec<Scope>, Error> {
    let scopes = sql_as(
        "SELECT d.slug AS domain, s.entity_type, s.entity_id, s.operation,
                u.platform_admin OR EXISTS (
                    SELECT FROM patgate.role_members m
                    JOIN patgate.roles r ON r.id = m.role_id
                    JOIN patgate.role_operations o ON o.role_id = r.id
                    WHERE m.user_id = u.id AND r.domain_id = s.domain_id
                      AND o.operation = s.operation) AS permitted
         FROM patgate.pat_scopes s
         JOIN patgate.domains d ON d.id = s.domain_id
         JOIN patgate.pats p ON p.id = s.pat_id
         JOIN patgate.users u ON u.id = p.user_id
         WHERE s.pat_id = $1
         ORDER BY d.slug, s.entity_type, s.entity_id, s.operation",
    )
    .bind(token.0);
    Ok(scopes.fetch_all(&mut *tx).await?)
}

pub(super) fn texts(scopes: &[NewScope]) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_as_they_print() {
        for text in [
            "acme:models:*:llm_read",
            "acme:models:qwen2.5:7b:llm_read",
            "acme:models:org/model:v1:beta:llm_chat_completions,llm_completions",
            "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee:domains:*:read,update",
        ] {
            assert_eq!(text.parse::<NewScope>().unwrap().to_string(), text);
        }
        let scope: NewScope = "acme:models:qwen2.5:7b:llm_read".parse().unwrap();
        assert_eq!(scope.entity_id.as_str(), "qwen2.5:7b");
    }

    #[test]
    fn what_means_nothing_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "four parts"),
            ("acme:models:llm_read", "four parts"),
            ("acme:models::llm_read", "expected `*` or an entity's id"),
            ("Acme:models:*:llm_read", "neither a slug nor an id"),
            (":models:*:llm_read", "neither a slug nor an id"),
            ("*:models:*:llm_read", "neither a slug nor an id"),
            ("acme:*:*:llm_read", "unknown entity type `*`"),
            ("acme:models:*:*", "unknown operation `*`"),
            ("acme:models:*:", "unknown operation ``"),
            ("acme:models:*:llm_read,", "unknown operation ``"),
            ("acme:models:*:read", "`read` is not an operation on `models`"),
            ("acme:models:*:llm_read,delete", "`delete` is not an operation on `models`"),
        ] {
            let error = text.parse::<NewScope>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
