//! `patgate domain …`

use super::{
    domain_ref,
    output::{Output, complain},
    role,
    session::Session,
    unconfirmed,
};
use crate::{
    admin::{
        BackendName, DisplayName, DomainChanges, DomainDetails, DomainSummary, ListedModel,
        NewDomain, NewModels, TokenGroup,
    },
    domain::{DomainRef, Slug},
    rollout::{DomainMode, Rollout, Share},
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Creates a domain, with a role `admin` that has every operation
    #[command(group = clap::ArgGroup::new("sees").required(true))]
    Create {
        /// The domain's name in paths
        slug: Slug,
        /// The display name
        #[arg(long)]
        name: DisplayName,
        /// The backend that serves it
        #[arg(long, value_name = "BACKEND")]
        upstream: BackendName,
        /// The domain sees every model that its backend serves
        #[arg(long, group = "sees")]
        all_models: bool,
        /// The domain sees this model, and others only if listed; repeatable. One `*` stands
        /// for letters, digits and `. _ - :`
        #[arg(long = "model", group = "sees", value_name = "MODEL")]
        models: Vec<ListedModel>,
        /// The domain sees no model until `patgate domain model set` lists one
        #[arg(long, group = "sees")]
        no_models: bool,
        /// `enforce`, or `shadow`: denials are recorded and not enforced. Used if patgate
        /// serves with mode `per-domain`, as is the share
        #[arg(long, default_value = "enforce")]
        mode: DomainMode,
        /// Share of its tokens for which it is enforced; for the others, a 403 or 404, or a refusal
        /// for a body or for several different credentials, is only recorded
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
    /// Sets the rollout mode and the enforced share, which are used if patgate serves with mode
    /// `per-domain`; or lets a domain see all models. Prints the domain as `show` does
    #[command(group = clap::ArgGroup::new("changes").required(true).multiple(true))]
    Update {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// `enforce`, or `shadow`: denials are recorded and not enforced. Either leaves the share as it is
        #[arg(long, group = "changes")]
        mode: Option<DomainMode>,
        /// Share of its tokens for which it is enforced; for the others, a 403 or 404, or a refusal
        /// for a body or for several different credentials, is only recorded
        #[arg(long, group = "changes", value_name = "PERCENT")]
        enforced_share: Option<Share>,
        /// The domain sees every model that its backend serves; its list of models is deleted
        #[arg(long, group = "changes")]
        all_models: bool,
    },
    /// Permits requests to a domain again
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
    /// Sets the backend that serves a domain, except for models with a backend of their own
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
        /// Confirms the deletion
        #[arg(long)]
        yes: bool,
    },
    /// Manages the list of models that a domain sees, unless it sees all models
    #[command(subcommand)]
    Model(ModelCommand),
}

#[derive(clap::Subcommand)]
pub(super) enum ModelCommand {
    /// Lets a domain see a model, served by a backend; a domain that saw all models then sees only
    /// the listed ones
    Set {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The name in requests; one `*` stands for letters, digits and `. _ - :`
        model: ListedModel,
        /// The backend that serves it
        #[arg(long, value_name = "BACKEND")]
        upstream: BackendName,
    },
    /// Removes a model from a domain's list; with an empty list, the domain sees no model
    Unset {
        /// Slug or id
        #[arg(value_parser = domain_ref)]
        domain: DomainRef,
        /// The name or pattern on the list
        model: ListedModel,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let admin = session.admin().await?;
    let out = session.out;
    match command {
        Command::Create {
            slug,
            name,
            upstream,
            all_models,
            models,
            no_models: _,
            mode,
            enforced_share: share,
        } => {
            let models = if all_models { NewModels::All } else { NewModels::Listed(models) };
            let rollout = Rollout { mode, share };
            let new = NewDomain { slug, name, upstream, rollout, models };
            let domain = session.accept(admin.create_domain(&new).await?);
            out.one(&domain, vec![("id", domain.id.to_string()), ("slug", domain.slug.clone())])
        }
        Command::List => out.list(
            &admin.domains().await?,
            &[
                ("SLUG", |domain| domain.slug.clone()),
                ("NAME", |domain| domain.name.clone()),
                ("ENABLED", |domain| domain.enabled.to_string()),
                ("MODE", mode),
                ("MODELS", |domain| if domain.all_models { "all" } else { "listed" }.to_owned()),
                ("UPSTREAM", |domain| domain.upstream.clone()),
                ("ID", |domain| domain.id.to_string()),
            ],
        ),
        Command::Show { domain } => show(out, &admin.domain(&domain).await?),
        Command::Update { domain, mode, enforced_share: share, all_models } => {
            let changes = DomainChanges { mode, share, all_models };
            let outcome = admin.update_domain(&domain, changes).await?;
            let done = match outcome.value.len() {
                _ if !all_models => format!("updated domain {domain}"),
                0 => format!("domain {domain} sees all models"),
                count => format!("domain {domain} sees all models; its list of {count} is deleted"),
            };
            let details = session.changed(outcome, &done, admin.domain(&domain)).await?;
            if let Some(note) = enforcement(&details.domain, &changes) {
                complain(&note);
            }
            show(out, &details)
        }
        Command::Enable { domain } => {
            let outcome = admin.set_domain_enabled(&domain, true).await?;
            let done = format!("enabled domain {domain}");
            show(out, &session.changed(outcome, &done, admin.domain(&domain)).await?)
        }
        Command::Disable { domain } => {
            let outcome = admin.set_domain_enabled(&domain, false).await?;
            let done = format!("disabled domain {domain}");
            show(out, &session.changed(outcome, &done, admin.domain(&domain)).await?)
        }
        Command::SetUpstream { domain, upstream } => {
            let outcome = admin.set_domain_upstream(&domain, &upstream).await?;
            let done = format!("domain {domain} is served by {upstream}");
            show(out, &session.changed(outcome, &done, admin.domain(&domain)).await?)
        }
        Command::Rename { domain, slug } => {
            let outcome = admin.rename_domain(&domain, &slug).await?;
            let done = format!("domain {domain} is now {slug}");
            let renamed = DomainRef::Slug(slug);
            show(out, &session.changed(outcome, &done, admin.domain(&renamed)).await?)
        }
        Command::Delete { domain, yes } => {
            if !yes {
                let tokens =
                    admin.count_live_tokens(&TokenGroup::of_domain(domain.clone())).await?;
                return Err(unconfirmed(&format!(
                    "this deletes domain {domain} for good, with its roles and with scopes of \
                     {tokens} live tokens"
                )));
            }
            let outcome = admin.delete_domain(&domain).await?;
            session.report(outcome, &format!("deleted domain {domain}"))
        }
        Command::Model(ModelCommand::Set { domain, model, upstream }) => {
            let outcome = admin.set_domain_model(&domain, &model, &upstream).await?;
            let saw_all = outcome.value;
            let only = if saw_all {
                "; it saw all models before, and sees only listed ones now"
            } else {
                ""
            };
            let done = format!("domain {domain} sees model {model}, served by {upstream}{only}");
            show(out, &session.changed(outcome, &done, admin.domain(&domain)).await?)
        }
        Command::Model(ModelCommand::Unset { domain, model }) => {
            let outcome = admin.unset_domain_model(&domain, &model).await?;
            let done = format!("domain {domain} no longer lists model {model}");
            show(out, &session.changed(outcome, &done, admin.domain(&domain)).await?)
        }
    }
}

fn show(out: Output, details: &DomainDetails) -> anyhow::Result<()> {
    let domain = &details.domain;
    let mut properties = vec![
        ("id", domain.id.to_string()),
        ("slug", domain.slug.clone()),
        ("name", domain.name.clone()),
        ("enabled", domain.enabled.to_string()),
        ("mode", mode(domain)),
        ("upstream", domain.upstream.clone()),
        ("created at", domain.created_at.clone()),
        ("models", models(details)),
    ];
    properties.extend(details.roles.iter().map(|role| {
        let operations = role::summary(role);
        let members = role.members.join(" ");
        ("role", format!("{} (operations: {operations}; members: {members})", role.name))
    }));
    out.one(details, properties)
}

fn models(details: &DomainDetails) -> String {
    let listed: Vec<String> = details
        .models
        .iter()
        .map(|listed| format!("{} ({})", listed.model, listed.upstream))
        .collect();
    if !listed.is_empty() {
        listed.join(", ")
    } else if details.domain.all_models {
        "all".to_owned()
    } else {
        "none".to_owned()
    }
}

/// Says for how many tokens a domain is enforced after a change of that. Its share is kept while it is
/// in shadow, so that of before holds again.
fn enforcement(domain: &DomainSummary, changes: &DomainChanges) -> Option<String> {
    let (slug, share) = (&domain.slug, domain.enforced_share);
    if share == 100 || changes.mode.is_none() && changes.share.is_none() {
        return None;
    }
    if domain.mode == DomainMode::Shadow.as_str() {
        return Some(format!(
            "domain {slug} is not enforced. Its share is {share}%, which holds again from \
             `--mode enforce` on"
        ));
    }
    let as_before = if changes.share.is_none() { ", as before" } else { "" };
    Some(format!(
        "domain {slug} is enforced for {share}% of its tokens{as_before}. For all of them: \
         `patgate domain update {slug} --enforced-share 100%`"
    ))
}

/// The mode, with the enforced share if that is less than 100%.
fn mode(domain: &DomainSummary) -> String {
    match domain.enforced_share {
        100 => domain.mode.clone(),
        share => format!("{} {share}%", domain.mode),
    }
}
