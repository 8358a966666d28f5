//! `patgate backend …`

mod credential;

use super::{UsageError, output::Output, session::Session};
use crate::{
    admin::{BackendChanges, BackendKind, BackendName, BackendSummary, BackendUrl},
    config::ConfigPurpose,
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Creates a backend
    Create {
        /// The name of its Envoy cluster
        name: BackendName,
        /// Its address. With `patgate sync`, the gateway sends requests there; otherwise it is a note for people
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
        /// Its address. With `patgate sync`, the gateway sends requests there; otherwise it is a note for people
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
    let out = session.out;
    match command {
        Command::Create { name, url, kind } => {
            let reserved = session.config(ConfigPurpose::Admin)?.routes.rules.reserved;
            reserved.admit(&name).map_err(|error| UsageError(error.to_string()))?;
            let outcome = admin.create_backend(&name, &url, kind).await?;
            session.report(outcome, &format!("created backend {name}"))
        }
        Command::List => out.list(
            &admin.backends().await?,
            &[
                ("NAME", |backend| backend.name.clone()),
                ("KIND", |backend| backend.kind.clone()),
                ("URL", |backend| backend.url.clone()),
                ("CREDENTIAL", credential::note),
                ("DOMAINS", |backend| backend.domains.join(" ")),
            ],
        ),
        Command::Show { name } => show(out, &admin.backend(&name).await?),
        Command::Update { name, url, kind } => {
            let outcome = admin.update_backend(&name, &BackendChanges { url, kind }).await?;
            let done = format!("updated backend {name}");
            show(out, &session.changed(outcome, &done, admin.backend(&name)).await?)
        }
        Command::Delete { name } => {
            let outcome = admin.delete_backend(&name).await?;
            session.report(outcome, &format!("deleted backend {name}"))
        }
        Command::Credential(command) => credential::run(session, admin, command).await,
    }
}

fn show(out: Output, backend: &BackendSummary) -> anyhow::Result<()> {
    let BackendSummary { name, url, kind, domains, .. } = backend;
    let properties = vec![
        ("name", name.clone()),
        ("kind", kind.clone()),
        ("url", url.clone()),
        ("credential", credential::note(backend)),
        ("domains", domains.join(" ")),
    ];
    out.one(backend, properties)
}
