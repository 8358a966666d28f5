//! `patgate backend …`

use super::session::Session;
use crate::store::{BackendChanges, BackendKind, BackendName, BackendUrl};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Creates a backend
    Create {
        /// The name of its Envoy cluster
        name: BackendName,
        /// Where it answers
        #[arg(long)]
        url: BackendUrl,
        /// What it speaks: `vllm`, `ollama` or `openai`
        #[arg(long)]
        kind: BackendKind,
    },
    /// Lists all backends with the domains that use them
    List,
    /// Changes a backend in place
    #[command(group = clap::ArgGroup::new("changes").required(true).multiple(true))]
    Update {
        /// The name of its Envoy cluster
        name: BackendName,
        /// Where it answers
        #[arg(long, group = "changes")]
        url: Option<BackendUrl>,
        /// What it speaks: `vllm`, `ollama` or `openai`
        #[arg(long, group = "changes")]
        kind: Option<BackendKind>,
    },
    /// Deletes a backend that no domain uses
    Delete {
        /// The name of its Envoy cluster
        name: BackendName,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let admin = session.admin().await?;
    let (store, out) = (&admin.store, session.out);
    match command {
        Command::Create { name, url, kind } => {
            admin.settle(store.create_backend(&name, &url, kind).await?).await;
            out.message(&format!("created backend {name}"))
        }
        Command::List => out.list(
            &store.backends().await?,
            &[
                ("NAME", |backend| backend.name.clone()),
                ("KIND", |backend| backend.kind.clone()),
                ("URL", |backend| backend.url.clone()),
                ("DOMAINS", |backend| backend.domains.join(" ")),
            ],
        ),
        Command::Update { name, url, kind } => {
            let changes = BackendChanges { url, kind };
            admin.settle(store.update_backend(&name, &changes).await?).await;
            out.message(&format!("updated backend {name}"))
        }
        Command::Delete { name } => {
            admin.settle(store.delete_backend(&name).await?).await;
            out.message(&format!("deleted backend {name}"))
        }
    }
}
