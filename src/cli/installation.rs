//! `patgate installation …`

use serde_json::json;

use super::{UsageError, session::Session};
use crate::admin::{Error, ServingReplicas};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Shows the identity of this database, and the prefix of its keys in Redis
    Show,
    /// Gives this database a new identity; needed for a copy of a cluster's files
    ///
    /// A database that was restored from a dump is another installation than its original already.
    /// A copy of the files of a whole cluster (pg_basebackup, a snapshot of a disk) is the same one,
    /// until you run this command on it, before its first replica starts. Running replicas stop using
    /// the database and must be restarted.
    Renew {
        /// Renews even if replicas serve from this database; until they restart, they obey no change,
        /// and `token revoke --wait` does not know of them
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let admin = session.admin().await?;
    let out = session.out;
    match command {
        Command::Show => {
            let installation = admin.installation();
            let redis_prefix = installation.redis_prefix();
            let shown = json!({
                "id": installation.id(),
                "identity": installation.to_string(),
                "redis_prefix": redis_prefix,
            });
            let properties = vec![
                ("id", installation.id().to_string()),
                ("identity", installation.to_string()),
                ("redis prefix", redis_prefix),
            ];
            out.one(&shown, properties)
        }
        Command::Renew { yes } => {
            let serving =
                if yes { ServingReplicas::MayServe } else { ServingReplicas::MustHaveStopped };
            let renewed = match admin.renew_installation(serving).await {
                Err(error @ Error::ReplicasServe { .. }) => {
                    return Err(UsageError(format!("{error}, or add --yes")).into());
                }
                renewed => session.accept(renewed?),
            };
            if out.is_json() {
                return out.json(&renewed);
            }
            out.message(&format!(
                "the id of this installation is now {}, and no longer {}; restart the replicas \
                 that use it",
                renewed.new_id, renewed.old_id
            ))
        }
    }
}
