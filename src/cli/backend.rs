//! `patgate backend …`

mod credential;

use super::session::Session;
use crate::store::{Backend, BackendChanges, BackendKind, BackendName, BackendUrl};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Creates a backend
    Create {
        /// The name of its Envoy cluster
        name: BackendName,
        /// Its address, as a note for people; its Envoy cluster decides where requests go
        #[arg(long)]
        url: BackendUrl,
        /// Its API: `vllm`, `ollama` or `openai`
        #[arg(long)]
        kind: BackendKind,
    },
    /// Lists all backends with the domains that use them
    List,
    /// Shows a backend
    Show {
        /// The name of its Envoy cluster
        name: BackendName,
    },
    /// Changes a backend in place
    #[command(group = clap::ArgGroup::new("changes").required(true).multiple(true))]
    Update {
        /// The name of its Envoy cluster
        name: BackendName,
        /// Its address, as a note for people; its Envoy cluster decides where requests go
        #[arg(long, group = "changes")]
        url: Option<BackendUrl>,
        /// Its API: `vllm`, `ollama` or `openai`
        #[arg(long, group = "changes")]
        kind: Option<BackendKind>,
    },
    /// Deletes a backend that no domain uses
    Delete {
        /// The name of its Envoy cluster
        name: BackendName,
    },
    /// Manages the credential that a backend gets in place of the client's token
    #[command(subcommand)]
    Credential(credential::Command),
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
                ("CREDENTIAL", credential::note),
                ("DOMAINS", |backend| backend.domains.join(" ")),
            ],
        ),
        Command::Show { name } => {
            let backend = store.backend(&name).await?;
            let Backend { name, url, kind, domains, .. } = &backend;
            let properties = vec![
                ("name", name.clone()),
                ("kind", kind.clone()),
                ("url", url.clone()),
                ("credential", credential::note(&backend)),
                ("domains", domains.join(" ")),
            ];
            out.one(&backend, properties)
        }
        Command::Update { name, url, kind } => {
            let changes = BackendChanges { url, kind };
            admin.settle(store.update_backend(&name, &changes).await?).await;
            out.message(&format!("updated backend {name}"))
        }
        Command::Delete { name } => {
            admin.settle(store.delete_backend(&name).await?).await;
            out.message(&format!("deleted backend {name}"))
        }
        Command::Credential(command) => credential::run(&admin, out, command).await,
    }
}
