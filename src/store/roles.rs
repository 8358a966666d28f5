//! Roles: what users may do in a domain.

use serde_json::json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    Change, Changed, Error, RoleName, Store, UserRef, domains, new_id, sql, sql_as, sql_scalar,
    users,
};
use crate::{
    domain::{DomainId, DomainRef},
    operation::Operation,
    principal::UserId,
};

/// A role of a domain.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Role {
    /// Unique in the domain.
    pub name: String,
    /// What it permits, in order.
    pub operations: Vec<String>,
    /// The addresses of who has it, in order.
    pub members: Vec<String>,
}

impl Store {
    /// Creates a role.
    ///
    /// # Errors
    ///
    /// When there is no such domain, or it has a role of that name.
    pub async fn create_role(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        operations: &[Operation],
    ) -> Result<Changed<()>, Error> {
        let mut change = self.change().await?;
        let domain = domains::find(&mut change.tx, domain).await?;
        let id = insert(&mut change.tx, DomainId(domain.id), name.as_str(), operations).await?;
        let details =
            json!({ "domain": domain.slug, "role": name.as_str(), "operations": operations });
        change.finish("role.create", id, details, ()).await
    }

    /// The roles of a domain, by name.
    ///
    /// # Errors
    ///
    /// When there is no such domain.
    pub async fn roles(&self, domain: &DomainRef) -> Result<Vec<Role>, Error> {
        let mut tx = self.read().await?;
        let domain = domains::find(&mut tx, domain).await?;
        let roles = list(&mut tx, DomainId(domain.id)).await?;
        tx.commit().await?;
        Ok(roles)
    }

    /// Deletes a role; its members lose what only it permitted.
    ///
    /// # Errors
    ///
    /// When there is no such role.
    pub async fn delete_role(
        &self,
        domain: &DomainRef,
        name: &RoleName,
    ) -> Result<Changed<()>, Error> {
        let (mut change, slug, role) = self.changing_role(domain, name).await?;
        change.touch_role(role).await?;
        sql("DELETE FROM patgate.roles WHERE id = $1").bind(role).execute(&mut *change.tx).await?;
        let details = json!({ "domain": slug, "role": name.as_str() });
        change.finish("role.delete", role, details, ()).await
    }

    /// Adds operations to a role.
    ///
    /// # Errors
    ///
    /// When there is no such role.
    pub async fn grant(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        operations: &[Operation],
    ) -> Result<Changed<()>, Error> {
        let (mut change, slug, role) = self.changing_role(domain, name).await?;
        change.touch_role(role).await?;
        insert_operations(&mut change.tx, role, operations).await?;
        let details = json!({
            "domain": slug, "role": name.as_str(), "operations": operations,
        });
        change.finish("role.grant", role, details, ()).await
    }

    /// Takes operations from a role.
    ///
    /// # Errors
    ///
    /// When there is no such role.
    pub async fn revoke(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        operations: &[Operation],
    ) -> Result<Changed<()>, Error> {
        let (mut change, slug, role) = self.changing_role(domain, name).await?;
        change.touch_role(role).await?;
        sql("DELETE FROM patgate.role_operations WHERE role_id = $1 AND operation = ANY($2)")
            .bind(role)
            .bind(words(operations))
            .execute(&mut *change.tx)
            .await?;
        let details = json!({
            "domain": slug, "role": name.as_str(), "operations": operations,
        });
        change.finish("role.revoke", role, details, ()).await
    }

    /// Gives a role to a user.
    ///
    /// # Errors
    ///
    /// When there is no such role or user.
    pub async fn add_member(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        user: &UserRef,
    ) -> Result<Changed<()>, Error> {
        let (mut change, slug, role) = self.changing_role(domain, name).await?;
        let user = users::lock(&mut change.tx, user).await?;
        sql("INSERT INTO patgate.role_members (role_id, user_id) VALUES ($1, $2)
             ON CONFLICT DO NOTHING")
        .bind(role)
        .bind(user.id)
        .execute(&mut *change.tx)
        .await?;
        change.touch_user(UserId(user.id)).await?;
        let details = json!({ "domain": slug, "role": name.as_str(), "email": user.email });
        change.finish("role.add_member", role, details, ()).await
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    ///
    /// When there is no such role or user, or the user does not have it.
    pub async fn remove_member(
        &self,
        domain: &DomainRef,
        name: &RoleName,
        user: &UserRef,
    ) -> Result<Changed<()>, Error> {
        let (mut change, slug, role) = self.changing_role(domain, name).await?;
        let user = users::lock(&mut change.tx, user).await?;
        let deleted = sql("DELETE FROM patgate.role_members WHERE role_id = $1 AND user_id = $2")
            .bind(role)
            .bind(user.id)
            .execute(&mut *change.tx)
            .await?;
        if deleted.rows_affected() == 0 {
            return Err(Error::not_found("member", user.email));
        }
        change.touch_user(UserId(user.id)).await?;
        let details = json!({ "domain": slug, "role": name.as_str(), "email": user.email });
        change.finish("role.remove_member", role, details, ()).await
    }

    async fn changing_role(
        &self,
        domain: &DomainRef,
        name: &RoleName,
    ) -> Result<(Change<'_>, String, Uuid), Error> {
        let mut change = self.change().await?;
        let domain = domains::find(&mut change.tx, domain).await?;
        let role = sql_scalar(
            "SELECT id FROM patgate.roles WHERE domain_id = $1 AND name = $2 FOR UPDATE",
        )
        .bind(domain.id)
        .bind(name.as_str())
        .fetch_optional(&mut *change.tx)
        .await?
        .ok_or_else(|| Error::not_found("role", format!("{}/{name}", domain.slug)))?;
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
        .map_err(|error| Error::exists(error, "role", name))?;
    insert_operations(tx, id, operations).await?;
    Ok(id)
}

async fn insert_operations(
    tx: &mut PgConnection,
    role: Uuid,
    operations: &[Operation],
) -> Result<(), Error> {
    sql("INSERT INTO patgate.role_operations (role_id, operation) SELECT $1, unnest($2::text[])
         ON CONFLICT DO NOTHING")
    .bind(role)
    .bind(words(operations))
    .execute(&mut *tx)
    .await?;
    Ok(())
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
