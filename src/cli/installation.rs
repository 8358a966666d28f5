//! `patgate installation …`

use serde_json::json;

use super::{Usage, session::Session};

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
    let (store, out) = (&admin.store, session.out);
    match command {
        Command::Show => {
            let (identity, redis) = (admin.installation, admin.installation.redis_prefix());
            let shown = json!({
                "id": identity.id(),
                "identity": identity.to_string(),
                "redis_prefix": redis,
            });
            let properties = vec![
                ("id", identity.id().to_string()),
                ("identity", identity.to_string()),
                ("redis prefix", redis),
            ];
            out.one(&shown, properties)
        }
        Command::Renew { yes } => {
            let serving = store.serving().await?;
            if !yes && !serving.is_empty() {
                let why = format!(
                    "replicas serve from this database ({}), or did when it was copied: is it the \
                     copy? They would obey no change any more, and answer from what they know for \
                     max_staleness, then 503, until they are restarted. Stop them and wait until \
                     they are forgotten, for twice their max_staleness, or add --yes",
                    serving.join(", ")
                );
                return Err(Usage(why).into());
            }
            let renewed = admin.settle(store.renew_installation().await?).await;
            if out.is_json() {
                return out.json(&renewed);
            }
            out.message(&format!(
                "this installation is {} now, no longer {}; restart the replicas that use it",
                renewed.new_id, renewed.old_id
            ))
        }
    }
}
