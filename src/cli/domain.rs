//! `patgate domain …`

use super::{Usage, domain_ref, role, session::Session};
use crate::{
    domain::{DomainRef, Slug},
    mode::{DomainMode, Rollout, Share},
    store::{BackendName, Domain, Model, Name, RolloutChanges, TokenFilter},
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Creates a domain, with a role `admin` that holds every operation
    Create {
        /// Its name in paths
        slug: Slug,
        /// What people call it
        #[arg(long)]
        name: Name,
        /// The backend that serves it
        #[arg(long, value_name = "BACKEND")]
        upstream: BackendName,
        /// `enforce`, or `shadow`: denials are recorded and not carried out. Counts where patgate
        /// serves with mode `per-domain`, as does the share
        #[arg(long, default_value = "enforce")]
        mode: DomainMode,
        /// Of its tokens, where it is enforced: for the others, a 403 is only recorded
        #[arg(long, default_value = "100%", value_name = "PERCENT")]
        enforced_share: Share,
    },
    /// Lists all domains
    List,
    /// Shows a domain with its models and roles
    Show {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
    },
    /// Sets the rollout mode and the enforced share, which count where patgate serves with mode
    /// `per-domain`
    #[command(group = clap::ArgGroup::new("changes").required(true).multiple(true))]
    Update {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// `enforce`, or `shadow`: denials are recorded and not carried out
        #[arg(long, group = "changes")]
        mode: Option<DomainMode>,
        /// Of its tokens, where it is enforced: for the others, a 403 is only recorded
        #[arg(long, group = "changes", value_name = "PERCENT")]
        enforced_share: Option<Share>,
    },
    /// Lets requests into a domain again
    Enable {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
    },
    /// Refuses all requests to a domain until it is enabled again
    Disable {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
    },
    /// Sets the backend that serves a domain unless a model has its own
    SetUpstream {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The backend
        #[arg(value_name = "BACKEND")]
        upstream: BackendName,
    },
    /// Gives a domain another slug; the old one stops working at once
    Rename {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The new slug
        slug: Slug,
    },
    /// Deletes a domain with its models, roles and every scope in it
    Delete {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// Confirms it
        #[arg(long)]
        yes: bool,
    },
    /// The models that a domain may see; without any, it sees all
    #[command(subcommand)]
    Model(ModelCommand),
}

#[derive(clap::Subcommand)]
pub(super) enum ModelCommand {
    /// Lets a domain see a model, served by a backend
    Set {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// As requests name it; one `*` stands for letters, digits and `. _ - :`
        model: Model,
        /// The backend that serves it
        #[arg(long, value_name = "BACKEND")]
        upstream: BackendName,
    },
    /// Takes a model off a domain's list
    Unset {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// As it was listed
        model: Model,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let admin = session.admin().await?;
    let (store, out) = (&admin.store, session.out);
    match command {
        Command::Create { slug, name, upstream, mode, enforced_share: share } => {
            let rollout = Rollout { mode, share };
            let created = store.create_domain(&slug, &name, &upstream, rollout).await?;
            let domain = admin.settle(created).await;
            out.one(&domain, vec![("id", domain.id.to_string()), ("slug", domain.slug.clone())])
        }
        Command::List => out.list(
            &store.domains().await?,
            &[
                ("SLUG", |domain| domain.slug.clone()),
                ("NAME", |domain| domain.name.clone()),
                ("ENABLED", |domain| domain.enabled.to_string()),
                ("MODE", mode),
                ("UPSTREAM", |domain| domain.upstream.clone()),
                ("ID", |domain| domain.id.to_string()),
            ],
        ),
        Command::Show { domain } => {
            let shown = store.domain(&domain).await?;
            let models: Vec<String> = shown
                .models
                .iter()
                .map(|model| format!("{} ({})", model.model, model.upstream))
                .collect();
            let mut properties = vec![
                ("id", shown.domain.id.to_string()),
                ("slug", shown.domain.slug.clone()),
                ("name", shown.domain.name.clone()),
                ("enabled", shown.domain.enabled.to_string()),
                ("mode", mode(&shown.domain)),
                ("upstream", shown.domain.upstream.clone()),
                ("created at", shown.domain.created_at.clone()),
                ("models", if models.is_empty() { "all".to_owned() } else { models.join(", ") }),
            ];
            properties.extend(shown.roles.iter().map(|role| {
                let operations = role::summary(role);
                let members = role.members.join(" ");
                ("role", format!("{} (operations: {operations}; members: {members})", role.name))
            }));
            out.one(&shown, properties)
        }
        Command::Update { domain, mode, enforced_share: share } => {
            admin.settle(store.update_domain(&domain, RolloutChanges { mode, share }).await?).await;
            out.message(&format!("updated domain {domain}"))
        }
        Command::Enable { domain } => {
            admin.settle(store.set_domain_enabled(&domain, true).await?).await;
            out.message(&format!("enabled domain {domain}"))
        }
        Command::Disable { domain } => {
            admin.settle(store.set_domain_enabled(&domain, false).await?).await;
            out.message(&format!("disabled domain {domain}"))
        }
        Command::SetUpstream { domain, upstream } => {
            admin.settle(store.set_domain_upstream(&domain, &upstream).await?).await;
            out.message(&format!("domain {domain} is served by {upstream}"))
        }
        Command::Rename { domain, slug } => {
            admin.settle(store.rename_domain(&domain, &slug).await?).await;
            out.message(&format!("domain {domain} is now {slug}"))
        }
        Command::Delete { domain, yes } => {
            if !yes {
                let filter =
                    TokenFilter { domain: Some(domain.clone()), live: true, ..Default::default() };
                let tokens = store.tokens(&filter).await?.len();
                let warning = format!(
                    "this deletes domain {domain} for good, with its roles and with scopes of \
                     {tokens} live tokens; add --yes"
                );
                return Err(Usage(warning).into());
            }
            admin.settle(store.delete_domain(&domain).await?).await;
            out.message(&format!("deleted domain {domain}"))
        }
        Command::Model(ModelCommand::Set { domain, model, upstream }) => {
            admin.settle(store.set_domain_model(&domain, &model, &upstream).await?).await;
            out.message(&format!("domain {domain} sees model {model}, served by {upstream}"))
        }
        Command::Model(ModelCommand::Unset { domain, model }) => {
            admin.settle(store.unset_domain_model(&domain, &model).await?).await;
            out.message(&format!("domain {domain} no longer lists model {model}"))
        }
    }
}

/// The share along with it, where it is not all.
fn mode(domain: &Domain) -> String {
    match domain.enforced_share {
        100 => domain.mode.clone(),
        share => format!("{} {share}%", domain.mode),
    }
}
