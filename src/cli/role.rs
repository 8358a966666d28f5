//! `patgate role …`

use std::str::FromStr;

use super::{domain_ref, output::Output, session::Session};
use crate::{
    admin::{Role, RoleName, UserRef},
    domain::DomainRef,
    operation::{Operation, OperationSet},
};

/// Every operation of the vocabulary.
const ALL: &str = "all";

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Creates a role
    Create {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The role's name
        role: RoleName,
        /// The operations that it permits, such as `llm_read,llm_chat_completions`; or `all`
        #[arg(long = "operation", value_name = "OPERATION", value_delimiter = ',')]
        operations: Vec<Operations>,
    },
    /// Lists the roles of a domain
    List {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
    },
    /// Shows a role with its members
    Show {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The role's name
        role: RoleName,
    },
    /// Deletes a role; its members lose the operations that only this role permitted
    Delete {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The role's name
        role: RoleName,
    },
    /// Adds operations to a role
    Grant {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The role's name
        role: RoleName,
        /// The operations to add; or `all`
        #[arg(required = true, value_name = "OPERATION", value_delimiter = ',')]
        operations: Vec<Operations>,
    },
    /// Removes operations from a role
    Revoke {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The role's name
        role: RoleName,
        /// The operations to remove; or `all`
        #[arg(required = true, value_name = "OPERATION", value_delimiter = ',')]
        operations: Vec<Operations>,
    },
    /// Manages the members of a role
    #[command(subcommand)]
    Member(MemberCommand),
}

#[derive(clap::Subcommand)]
pub(super) enum MemberCommand {
    /// Adds a user to a role
    Add {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The role's name
        role: RoleName,
        /// E-mail address or id
        user: UserRef,
    },
    /// Removes a user from a role
    Remove {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The role's name
        role: RoleName,
        /// E-mail address or id
        user: UserRef,
    },
}

/// An operation, or `all`, as `patgate role list` prints a role that has every operation.
#[derive(Clone)]
pub(super) enum Operations {
    All,
    One(Operation),
}

impl FromStr for Operations {
    type Err = <Operation as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ALL { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

fn each(named: &[Operations]) -> Vec<Operation> {
    let wanted: OperationSet = named
        .iter()
        .flat_map(|named| match named {
            Operations::All => Operation::ALL,
            Operations::One(operation) => std::slice::from_ref(operation),
        })
        .copied()
        .collect();
    wanted.iter().collect()
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let admin = session.admin().await?;
    let out = session.out;
    match command {
        Command::Create { domain, role, operations } => {
            let outcome = admin.create_role(&domain, &role, &each(&operations)).await?;
            session.report(outcome, &format!("created role {role} in domain {domain}"))
        }
        Command::List { domain } => out.list(
            &admin.roles(&domain).await?,
            &[
                ("ROLE", |role| role.name.clone()),
                ("OPERATIONS", summary),
                ("MEMBERS", |role| role.members.join(" ")),
            ],
        ),
        Command::Show { domain, role } => show(out, &admin.role(&domain, &role).await?),
        Command::Delete { domain, role } => {
            let outcome = admin.delete_role(&domain, &role).await?;
            session.report(outcome, &format!("deleted role {role} of domain {domain}"))
        }
        Command::Grant { domain, role, operations } => {
            let operations = each(&operations);
            let outcome = admin.grant_operations(&domain, &role, &operations).await?;
            let words = words(&operations);
            let done = format!("role {role} of domain {domain} permits {words}");
            show(out, &session.changed(outcome, &done, admin.role(&domain, &role)).await?)
        }
        Command::Revoke { domain, role, operations } => {
            let operations = each(&operations);
            let outcome = admin.revoke_operations(&domain, &role, &operations).await?;
            let words = words(&operations);
            let done = format!("role {role} of domain {domain} no longer permits {words}");
            show(out, &session.changed(outcome, &done, admin.role(&domain, &role)).await?)
        }
        Command::Member(MemberCommand::Add { domain, role, user }) => {
            let outcome = admin.add_member(&domain, &role, &user).await?;
            let done = format!("user {user} has role {role} in domain {domain}");
            show(out, &session.changed(outcome, &done, admin.role(&domain, &role)).await?)
        }
        Command::Member(MemberCommand::Remove { domain, role, user }) => {
            let outcome = admin.remove_member(&domain, &role, &user).await?;
            let done = format!("user {user} no longer has role {role} in domain {domain}");
            show(out, &session.changed(outcome, &done, admin.role(&domain, &role)).await?)
        }
    }
}

fn show(out: Output, role: &Role) -> anyhow::Result<()> {
    let properties = vec![
        ("role", role.name.clone()),
        ("operations", summary(role)),
        ("members", role.members.join(" ")),
    ];
    out.one(role, properties)
}

/// The operations of a role, for a table.
pub(super) fn summary(role: &Role) -> String {
    match role.operations.len() {
        0 => "none".to_owned(),
        all if all == Operation::ALL.len() => ALL.to_owned(),
        _ => role.operations.join(" "),
    }
}

fn words(operations: &[Operation]) -> String {
    if operations.len() == Operation::ALL.len() {
        return ALL.to_owned();
    }
    operations.iter().map(|operation| operation.as_str()).collect::<Vec<_>>().join(" ")
}
