//! Roles, their operations and their members.

use serde_json::json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    AuditAction, Committed, Error, ObjectKind, PendingChange, RoleName, Store, UserRef, domains,
    new_id, sql, sql_as, sql_scalar, users,
};
use crate::{
    domain::{DomainId, DomainRef},
    operation::Operation,
    principal::UserId,
};

/// Adds operations ($2) to a role ($1).
const INSERT_OPERATIONS: &str = "INSERT INTO patgate.role_operations (role_id, operation)
     SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING";
/// Takes operations ($2) from a role ($1).
const DELETE_OPERATIONS: &str =
    "DELETE FROM patgate.role_operations WHERE role_id = $1 AND operation = ANY($2)";

/// A role of a domain.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Role {
    /// Unique in its domain.
    pub name: String,
    /// The operations that it permits, in order.
    pub operations: Vec<String>,
    /// The addresses of its members, in order.
    pub members: Vec<String>,
}

impl Store {
    /// Creates a role.
    ///
    /// # Errors
    ///
    /// If the domain does not exist, or it has a role of that name.
    pub(crate) async fn create_role(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        operations: &[Operation],
    ) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        let domain = domains::find(&mut change.tx, domain).await?;
        let id = insert(&mut change.tx, DomainId(domain.id), name.as_str(), operations).await?;
        let details =
            json!({ "domain": domain.slug, "role": name.as_str(), "operations": operations });
        change.finish(AuditAction::RoleCreate, id, details, ()).await
    }

    /// Lists the roles of a domain, by name.
    ///
    /// # Errors
    ///
    /// If the domain does not exist.
    pub(crate) async fn roles(&self, domain: &DomainRef) -> Result<Vec<Role>, Error> {
        let mut tx = self.read().await?;
        let domain = domains::find(&mut tx, domain).await?;
        let roles = list(&mut tx, DomainId(domain.id)).await?;
        tx.commit().await?;
        Ok(roles)
    }

    /// Returns a role with its members.
    ///
    /// # Errors
    ///
    /// If the domain or the role does not exist.
    pub(crate) async fn role(&self, domain: &DomainRef, name: &RoleName) -> Result<Role, Error> {
        let mut tx = self.read().await?;
        let domain = domains::find(&mut tx, domain).await?;
        let roles = list(&mut tx, DomainId(domain.id)).await?;
        tx.commit().await?;
        let role = roles.into_iter().find(|role| role.name == name.as_str());
        role.ok_or_else(|| Error::not_found(ObjectKind::Role, format!("{}/{name}", domain.slug)))
    }

    /// Deletes a role. Its members lose the operations that only this role permitted.
    ///
    /// # Errors
    ///
    /// If the role does not exist.
    pub(crate) async fn delete_role(
        &self,
        domain: &DomainRef,
        name: &RoleName,
    ) -> Result<Committed<()>, Error> {
        let (mut change, slug, role) = self.changing_role(domain, name).await?;
        change.outdate_role(role).await?;
        sql("DELETE FROM patgate.roles WHERE id = $1").bind(role).execute(&mut *change.tx).await?;
        let details = json!({ "domain": slug, "role": name.as_str() });
        change.finish(AuditAction::RoleDelete, role, details, ()).await
    }

    /// Adds operations to a role.
    ///
    /// # Errors
    ///
    /// If the role does not exist.
    pub(crate) async fn grant_operations(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        operations: &[Operation],
    ) -> Result<Committed<()>, Error> {
        self.change_operations(domain, name, operations, INSERT_OPERATIONS, AuditAction::RoleGrant)
            .await
    }

    /// Takes operations from a role.
    ///
    /// # Errors
    ///
    /// If the role does not exist.
    pub(crate) async fn revoke_operations(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        operations: &[Operation],
    ) -> Result<Committed<()>, Error> {
        self.change_operations(domain, name, operations, DELETE_OPERATIONS, AuditAction::RoleRevoke)
            .await
    }

    /// Changes the operations of a role with `statement`, whose parameters are the role's id and the
    /// operations.
    async fn change_operations(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        operations: &[Operation],
        statement: &'static str,
        action: AuditAction,
    ) -> Result<Committed<()>, Error> {
        let (mut change, slug, role) = self.changing_role(domain, name).await?;
        change.outdate_role(role).await?;
        sql(statement).bind(role).bind(words(operations)).execute(&mut *change.tx).await?;
        let details = json!({ "domain": slug, "role": name.as_str(), "operations": operations });
        change.finish(action, role, details, ()).await
    }

    /// Gives a role to a user.
    ///
    /// # Errors
    ///
    /// If the role or the user does not exist.
    pub(crate) async fn add_member(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        user: &UserRef,
    ) -> Result<Committed<()>, Error> {
        let (mut change, slug, role) = self.changing_role(domain, name).await?;
        let user = users::lock(&mut change.tx, user).await?;
        sql("INSERT INTO patgate.role_members (role_id, user_id) VALUES ($1, $2)
             ON CONFLICT DO NOTHING")
        .bind(role)
        .bind(user.id)
        .execute(&mut *change.tx)
        .await?;
        change.outdate_user(UserId(user.id)).await?;
        let details = json!({ "domain": slug, "role": name.as_str(), "email": user.email });
        change.finish(AuditAction::RoleAddMember, role, details, ()).await
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    ///
    /// If the role or the user does not exist, or the user does not have it.
    pub(crate) async fn remove_member(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        user: &UserRef,
    ) -> Result<Committed<()>, Error> {
        let (mut change, slug, role) = self.changing_role(domain, name).await?;
        let user = users::lock(&mut change.tx, user).await?;
        let deleted = sql("DELETE FROM patgate.role_members WHERE role_id = $1 AND user_id = $2")
            .bind(role)
            .bind(user.id)
            .execute(&mut *change.tx)
            .await?;
        if deleted.rows_affected() == 0 {
            return Err(Error::not_found(ObjectKind::Member, user.email));
        }
        change.outdate_user(UserId(user.id)).await?;
        let details = json!({ "domain": slug, "role": name.as_str(), "email": user.email });
        change.finish(AuditAction::RoleRemoveMember, role, details, ()).await
    }

    /// Begins a change of a role, and returns it with the domain's slug and the role's id. The role's
    /// row is locked until the end of the change.
    async fn changing_role(
        &self,
        domain: &DomainRef,
        name: &RoleName,
    ) -> Result<(PendingChange<'_>, String, Uuid), Error> {
        let mut change = self.change().await?;
        let domain = domains::find(&mut change.tx, domain).await?;
        let role = sql_scalar(
            "SELECT id FROM patgate.roles WHERE domain_id = $1 AND name = $2 FOR UPDATE",
        )
        .bind(domain.id)
        .bind(name.as_str())
        .fetch_optional(&mut *change.tx)
        .await?
        .ok_or_else(|| Error::not_found(ObjectKind::Role, format!("{}/{name}", domain.slug)))?;
        Ok((change, domain.slug, role))
    }
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    domain: DomainId,
    name: &str,
    operations: &[Operation],
) -> Result<Uuid, Error> {
    let id = new_id();
    sql("INSERT INTO patgate.roles (id, domain_id, name) VALUES ($1, $2, $3)")
        .bind(id)
        .bind(domain.0)
        .bind(name)
        .execute(&mut *tx)
        .await
        .map_err(|error| Error::exists(error, ObjectKind::Role, name))?;
    sql(INSERT_OPERATIONS).bind(id).bind(words(operations)).execute(&mut *tx).await?;
    Ok(id)
}

pub(super) async fn list(tx: &mut PgConnection, domain: DomainId) -> Result<Vec<Role>, Error> {
    let roles = sql_as(
        "SELECT r.name,
                ARRAY(SELECT operation FROM patgate.role_operations WHERE role_id = r.id
                      ORDER BY operation) AS operations,
                ARRAY(SELECT u.email FROM patgate.role_members m
                      JOIN patgate.users u ON u.id = m.user_id WHERE m.role_id = r.id
                      ORDER BY u.email) AS members
         FROM patgate.roles r WHERE r.domain_id = $1 ORDER BY r.name",
    )
    .bind(domain.0);
    Ok(roles.fetch_all(&mut *tx).await?)
}

fn words(operations: &[Operation]) -> Vec<&'static str> {
    operations.iter().map(|operation| operation.as_str()).collect()
}
