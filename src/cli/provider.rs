//! `patgate provider …`

use super::{output::Output, session::Session, unconfirmed};
use crate::admin::{Issuer, Provider, ProviderDetails, Subject, UserRef};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Adds a provider, whose users may then sign in
    Add {
        /// The provider's issuer, exactly as in the claim `iss` of its tokens
        issuer: Issuer,
        /// Lets a verified e-mail address find the user at the first sign-in
        ///
        /// Only for a provider that gives an address to nobody else. It never finds a platform admin.
        #[arg(long)]
        trusts_email: bool,
    },
    /// Lists all providers
    List,
    /// Shows a provider with the users that its subjects are linked to
    Show {
        /// The provider's issuer
        issuer: Issuer,
    },
    /// Lets the users of a provider sign in again
    Enable {
        /// The provider's issuer
        issuer: Issuer,
    },
    /// Lets the users of a provider sign in no more, and ends their sessions by it for good
    Disable {
        /// The provider's issuer
        issuer: Issuer,
    },
    /// Sets whether a verified e-mail address finds the user at the first sign-in
    SetTrustsEmail {
        /// The provider's issuer
        issuer: Issuer,
        /// `true` or `false`
        #[arg(action = clap::ArgAction::Set)]
        trusts_email: bool,
    },
    /// Removes a provider with all its links, and ends the sessions by it
    Remove {
        /// The provider's issuer
        issuer: Issuer,
        /// Confirms the removal
        #[arg(long)]
        yes: bool,
    },
    /// Links a subject of a provider to a user, who may then sign in by it
    Link {
        /// The provider's issuer
        issuer: Issuer,
        /// The claim `sub` of the user's tokens
        subject: Subject,
        /// E-mail address or id
        user: UserRef,
    },
    /// Removes the link of a subject, and ends the sessions by it for good
    Unlink {
        /// The provider's issuer
        issuer: Issuer,
        /// The claim `sub` of the user's tokens
        subject: Subject,
        /// E-mail address or id
        user: UserRef,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let admin = session.admin().await?;
    let out = session.out;
    match command {
        Command::Add { issuer, trusts_email } => {
            let added = session.accept(admin.add_provider(&issuer, trusts_email).await?);
            out.one(&added, properties(&added))
        }
        Command::List => out.list(
            &admin.providers().await?,
            &[
                ("ISSUER", |provider| provider.issuer.clone()),
                ("ENABLED", |provider| provider.enabled.to_string()),
                ("TRUSTS EMAIL", |provider| provider.trusts_email.to_string()),
                ("USERS", |provider| provider.users.to_string()),
            ],
        ),
        Command::Show { issuer } => show(out, &admin.provider(&issuer).await?),
        Command::Enable { issuer } => {
            let outcome = admin.set_provider_enabled(&issuer, true).await?;
            let done = format!("enabled provider {issuer}");
            show(out, &session.changed(outcome, &done, admin.provider(&issuer)).await?)
        }
        Command::Disable { issuer } => {
            let outcome = admin.set_provider_enabled(&issuer, false).await?;
            let done = format!("disabled provider {issuer}; its sessions have ended");
            show(out, &session.changed(outcome, &done, admin.provider(&issuer)).await?)
        }
        Command::SetTrustsEmail { issuer, trusts_email } => {
            let outcome = admin.trust_email(&issuer, trusts_email).await?;
            let finds = if trusts_email { "find" } else { "do not find" };
            let done = format!("addresses of provider {issuer} {finds} users at the first sign-in");
            show(out, &session.changed(outcome, &done, admin.provider(&issuer)).await?)
        }
        Command::Remove { issuer, yes } => {
            if !yes {
                let users = admin.provider(&issuer).await?.provider.users;
                let what =
                    format!("this removes provider {issuer}, and the links of {users} users");
                return Err(unconfirmed(&what));
            }
            let outcome = admin.remove_provider(&issuer).await?;
            session.report(outcome, &format!("removed provider {issuer}; its sessions have ended"))
        }
        Command::Link { issuer, subject, user } => {
            let outcome = admin.link_identity(&issuer, &subject, &user).await?;
            let done = format!("user {} may sign in by provider {issuer}", outcome.value);
            show(out, &session.changed(outcome, &done, admin.provider(&issuer)).await?)
        }
        Command::Unlink { issuer, subject, user } => {
            let outcome = admin.unlink_identity(&issuer, &subject, &user).await?;
            let done = format!(
                "user {} may no longer sign in by provider {issuer}; their sessions by it have \
                 ended",
                outcome.value
            );
            show(out, &session.changed(outcome, &done, admin.provider(&issuer)).await?)
        }
    }
}

fn properties(provider: &Provider) -> Vec<(&'static str, String)> {
    vec![
        ("issuer", provider.issuer.clone()),
        ("enabled", provider.enabled.to_string()),
        ("trusts email", provider.trusts_email.to_string()),
    ]
}

fn show(out: Output, details: &ProviderDetails) -> anyhow::Result<()> {
    let links = details.identities.iter().map(|link| format!("{} ({})", link.user, link.subject));
    let links = links.collect::<Vec<_>>().join(", ");
    let users = vec![("users", links)];
    out.one(details, [properties(&details.provider), users].concat())
}
