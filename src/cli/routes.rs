//! `patgate export` and `patgate sync`

use std::path::PathBuf;

use patgate_routes::{Gateway, Plan, Refused, Target};

use super::{
    UsageError,
    output::{complain, write},
    session::Session,
};
use crate::{
    app::{self, RouteSync},
    config::{Config, ConfigPurpose, RouteSettings},
    postgres,
    routes::{BackendReader, Folder},
};

#[derive(clap::Args)]
pub(super) struct Export {
    /// The gateway
    #[arg(long = "for", value_enum, value_name = "GATEWAY")]
    gateway: Chosen,
    /// Writes a file into this folder by renaming, in place of standard output: `clusters.yaml`,
    /// `envoy-gateway.yaml` or `istio.yaml`
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Exits with 4 if a backend is left out
    #[arg(long)]
    strict: bool,
    /// Writes the file even if no backend is left in it
    #[arg(long, requires = "dir")]
    allow_empty: bool,
    /// Replaces the file of another installation, or one that names none
    #[arg(long, requires = "dir")]
    adopt: bool,
}

#[derive(clap::Args)]
pub(super) struct Sync {
    /// The gateway
    #[arg(long = "for", value_enum, value_name = "GATEWAY")]
    gateway: Chosen,
    /// Keeps a file in this folder, in place of objects in Kubernetes. Required for `envoy`
    #[arg(long, value_name = "FOLDER", required_if_eq("gateway", "envoy"))]
    dir: Option<PathBuf>,
    /// Removes the routes of the last backend too
    #[arg(long)]
    allow_empty: bool,
    /// Ends after one round, with an error if it failed
    #[arg(long)]
    once: bool,
    /// Takes over the file or the objects of another installation, such as that from whose dump the
    /// database was restored: they are changed or deleted as if they were its own
    #[arg(long, requires = "once")]
    adopt: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Chosen {
    /// A plain Envoy: clusters, for routes with `cluster_header`
    Envoy,
    /// Envoy Gateway: Backend, HTTPRoute and BackendTrafficPolicy
    EnvoyGateway,
    /// Istio: ServiceEntry, DestinationRule and VirtualService
    Istio,
}

/// With `--strict`: some backends were left out. They have been printed.
#[derive(Debug, thiserror::Error)]
#[error("some backends get no route")]
pub(super) struct SomeRefused;

impl Chosen {
    const fn gateway(self) -> Gateway {
        match self {
            Self::Envoy => Gateway::Envoy,
            Self::EnvoyGateway => Gateway::EnvoyGateway,
            Self::Istio => Gateway::Istio,
        }
    }
}

fn target(gateway: Gateway, settings: &RouteSettings) -> Target {
    let usual = match gateway {
        Gateway::Envoy | Gateway::EnvoyGateway => "gateway",
        Gateway::Istio => "patgate",
    };
    Target {
        gateway,
        namespace: settings.namespace.clone().unwrap_or_default(),
        gateway_name: settings.gateway.clone().unwrap_or_else(|| usual.to_owned()),
        listeners: settings.listeners.clone(),
        instance: settings.instance.clone(),
        // The database says it.
        installation: String::new(),
        authorities: settings.authorities.clone(),
    }
}

/// Objects in a file need a namespace; in a cluster, there is a current one.
fn named_namespace(target: &Target) -> Result<(), UsageError> {
    if target.gateway != Gateway::Envoy && target.namespace.is_empty() {
        let told = "routes.namespace: expected the namespace of the Gateway, for objects in a file";
        return Err(UsageError(told.to_owned()));
    }
    Ok(())
}

pub(super) async fn export(session: &Session, arguments: &Export) -> anyhow::Result<()> {
    let config = session.config(ConfigPurpose::Admin)?;
    let mut target = target(arguments.gateway.gateway(), &config.routes);
    named_namespace(&target)?;
    let pool = postgres::connect(&config.postgres).await?;
    let checked = postgres::check(&pool).await;
    pool.close().await;
    checked?;
    let mut reader = BackendReader::new(config.postgres.clone());
    let read = reader.read().await;
    reader.close().await;
    let (described, installation) = read?;
    target.installation = installation.to_string();
    let plan = Plan::of(&described, &config.routes.rules);
    for Refused { name, reason } in plan.refused() {
        let name = name.escape_debug();
        complain(&format!("warning: backend `{name}` gets no route: {reason}"));
    }
    match &arguments.dir {
        Some(folder) => {
            let mut folder = Folder::new(folder, target, arguments.allow_empty, arguments.adopt);
            if !folder.leads()? {
                return Err(app::Error::NotLeading.into());
            }
            folder.keep(&plan, installation)?;
        }
        None => write(&plan.file(&target))?,
    }
    if arguments.strict && !plan.refused().is_empty() {
        return Err(SomeRefused.into());
    }
    Ok(())
}

impl Sync {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let target = target(self.gateway.gateway(), &config.routes);
        if self.dir.is_some() {
            named_namespace(&target)?;
        }
        let Self { dir: folder, allow_empty, once, adopt, .. } = self;
        Ok(app::sync_routes(config, RouteSync { target, folder, allow_empty, once, adopt }).await?)
    }
}
