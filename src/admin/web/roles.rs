//! The roles of domains and their members, and the audit log.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Caller, Error, SelfService,
    call::{call_by, change_by},
};
use crate::{
    admin::{Outcome, RoleName, UserRef},
    domain::DomainRef,
    operation::Operation,
};

/// A role of a domain.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct RoleEntry {
    /// Unique in its domain.
    pub name: String,
    /// The operations that it permits, in order.
    pub operations: Vec<String>,
    /// The addresses of its members, in order; `None` if the caller may not see them.
    pub members: Option<Vec<String>>,
}

/// Which lines of the audit log to read. An absent field does not restrict.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// All lines, for a platform administrator. Otherwise those about the caller, and about the tokens
    /// that the caller has; or those about a domain.
    pub everything: bool,
    /// Those about this domain, its roles, and the tokens that have a scope in it, for its auditors:
    /// those with `audit_log_read` there. `everything` is of no account then.
    pub domain: Option<DomainRef>,
    /// By exactly this actor.
    pub actor: Option<String>,
    /// With this action, or with actions on this kind of object.
    pub action: Option<String>,
    /// About exactly this object.
    pub object: Option<String>,
    /// Before this line.
    pub before: Option<i64>,
    /// At most this many; 1,000 at most.
    pub limit: u32,
}

/// A line of the audit log.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the columns")]
pub struct HistoryEntry {
    pub id: i64,
    #[schema(format = DateTime)]
    pub at: String,
    pub actor: String,
    pub action: String,
    pub object: String,
    pub details: Value,
    /// As the process stated it.
    pub address: Option<String>,
    /// As the process stated it.
    pub request_id: Option<String>,
    /// How the actor had signed in.
    pub method: Option<String>,
    pub session: Option<Uuid>,
    /// The database login, for a platform administrator.
    pub login: Option<String>,
}

impl SelfService {
    /// Lists the roles of a domain, by name.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the domain does not exist or the caller may do nothing in it;
    /// [`Error::NotPermitted`] if they may do nothing with roles there.
    pub async fn roles(
        &self,
        caller: &Caller,
        domain: &DomainRef,
    ) -> Result<Vec<RoleEntry>, Error> {
        self.ask(|| call_by(caller, "SELECT patgate.web_roles($1, $2)").bind(domain.to_string()))
            .await
    }

    /// Creates a role. It may have only operations that the caller has in the domain.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] without `manage_role`, or for an operation that the caller lacks.
    pub async fn create_role(
        &self,
        caller: &Caller,
        domain: &DomainRef,
        role: &RoleName,
        operations: &[Operation],
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(caller, "SELECT patgate.web_create_role($1, $2::text::inet, $3, $4, $5, $6)")
                .bind(domain.to_string())
                .bind(role.as_str().to_owned())
                .bind(words(operations))
        })
        .await
    }

    /// Deletes a role, if it does not go beyond what the caller may do.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] without `manage_role`, or if the role has an operation that the caller
    /// lacks.
    pub async fn delete_role(
        &self,
        caller: &Caller,
        domain: &DomainRef,
        role: &RoleName,
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(caller, "SELECT patgate.web_delete_role($1, $2::text::inet, $3, $4, $5)")
                .bind(domain.to_string())
                .bind(role.as_str().to_owned())
        })
        .await
    }

    /// Adds operations to a role, and takes others from it.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] without `manage_role`, or if the role has or would have an operation
    /// that the caller lacks.
    pub async fn change_role(
        &self,
        caller: &Caller,
        domain: &DomainRef,
        role: &RoleName,
        added: &[Operation],
        taken: &[Operation],
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(
                caller,
                "SELECT patgate.web_change_role($1, $2::text::inet, $3, $4, $5, $6, $7)",
            )
            .bind(domain.to_string())
            .bind(role.as_str().to_owned())
            .bind(words(added))
            .bind(words(taken))
        })
        .await
    }

    /// Gives a role to a user.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] without `add_role_users`, or if the role has an operation that the
    /// caller lacks; [`Error::NotFound`] if the role or the user does not exist.
    pub async fn add_member(
        &self,
        caller: &Caller,
        domain: &DomainRef,
        role: &RoleName,
        member: &UserRef,
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(caller, "SELECT patgate.web_add_member($1, $2::text::inet, $3, $4, $5, $6)")
                .bind(domain.to_string())
                .bind(role.as_str().to_owned())
                .bind(member.to_string())
        })
        .await
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] without `remove_role_users`, or if the role has an operation that the
    /// caller lacks; [`Error::NotFound`] if the user does not have the role.
    pub async fn remove_member(
        &self,
        caller: &Caller,
        domain: &DomainRef,
        role: &RoleName,
        member: &UserRef,
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            change_by(
                caller,
                "SELECT patgate.web_remove_member($1, $2::text::inet, $3, $4, $5, $6)",
            )
            .bind(domain.to_string())
            .bind(role.as_str().to_owned())
            .bind(member.to_string())
        })
        .await
    }

    /// Reads the audit log, the latest line first.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsElevation`] and [`Error::NotPermitted`] for all lines. For those about a domain,
    /// [`Error::NotFound`] if it does not exist or the caller may do nothing in it, and
    /// [`Error::NotPermitted`] without `audit_log_read`.
    pub async fn history(
        &self,
        caller: &Caller,
        history: &History,
    ) -> Result<Vec<HistoryEntry>, Error> {
        self.ask(|| {
            let call = match &history.domain {
                Some(domain) => {
                    let function =
                        "SELECT patgate.web_domain_audit_log($1, $2, $3, $4, $5, $6, $7)";
                    call_by(caller, function).bind(domain.to_string())
                }
                None => call_by(caller, "SELECT patgate.web_audit_log($1, $2, $3, $4, $5, $6, $7)")
                    .bind(history.everything),
            };
            call.bind(history.actor.clone())
                .bind(history.action.clone())
                .bind(history.object.clone())
                .bind(history.before)
                .bind(i64::from(history.limit))
        })
        .await
    }
}

fn words(operations: &[Operation]) -> Vec<&'static str> {
    operations.iter().map(|operation| operation.as_str()).collect()
}
