//! `patgate audit …`

use jiff::Timestamp;

use super::{session::Session, token::time};
use crate::admin::{AuditActionFilter, AuditFilter};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Lists changes, the latest first
    List {
        /// Only changes by exactly this actor
        #[arg(long = "by", value_name = "ACTOR")]
        by: Option<String>,
        /// Only changes that exactly this login of the database wrote
        #[arg(long)]
        login: Option<String>,
        /// Only changes at this time or later, such as `2030-01-31T00:00:00Z`
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<Timestamp>,
        /// Only changes of this kind, such as `token` or `token.revoke`; an unknown kind prints the list
        #[arg(long)]
        action: Option<AuditActionFilter>,
        /// Only changes of the token, user or domain with this id, or of this backend
        #[arg(long, value_name = "ID")]
        object: Option<String>,
        /// The maximum number of changes
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let admin = session.admin().await?;
    let Command::List { by, login, since, action, object, limit } = command;
    let filter = AuditFilter { actor: by, login, since, action, object, limit };
    session.out.list(
        &admin.audit_log(&filter).await?,
        &[
            ("AT", |entry| entry.at.clone()),
            ("ACTOR", |entry| entry.actor.clone()),
            ("LOGIN", |entry| entry.login.clone().unwrap_or_else(|| "-".to_owned())),
            ("ACTION", |entry| entry.action.clone()),
            ("OBJECT", |entry| entry.object.clone()),
            ("DETAILS", |entry| entry.details.to_string()),
        ],
    )
}
