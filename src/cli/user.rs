//! `patgate user …`

use super::{Usage, session::Session};
use crate::store::{Email, Name, NewUser, UserRef};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Creates a user
    Create {
        /// The user's e-mail address
        email: Email,
        /// The user's display name
        #[arg(long)]
        name: Name,
        /// Permits the user everything in every domain
        #[arg(long)]
        platform_admin: bool,
    },
    /// Lists all users
    List,
    /// Shows a user with their roles
    Show {
        /// E-mail address or id
        user: UserRef,
    },
    /// Accepts a user's tokens again
    Enable {
        /// E-mail address or id
        user: UserRef,
    },
    /// Refuses all tokens of a user until the user is enabled again
    Disable {
        /// E-mail address or id
        user: UserRef,
    },
    /// Sets whether a user is a platform admin, who may do everything in every domain
    SetPlatformAdmin {
        /// E-mail address or id
        user: UserRef,
        /// `true` or `false`
        #[arg(action = clap::ArgAction::Set)]
        platform_admin: bool,
    },
    /// Deletes a user with all their tokens
    Delete {
        /// E-mail address or id
        user: UserRef,
        /// Confirms the deletion
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let admin = session.admin().await?;
    let (store, out) = (&admin.store, session.out);
    match command {
        Command::Create { email, name, platform_admin } => {
            let new = NewUser { email, name, platform_admin };
            let user = admin.settle(store.create_user(&new).await?).await;
            out.one(&user, vec![("id", user.id.to_string()), ("email", user.email.clone())])
        }
        Command::List => out.list(
            &store.users().await?,
            &[
                ("EMAIL", |user| user.email.clone()),
                ("NAME", |user| user.name.clone()),
                ("ENABLED", |user| user.enabled.to_string()),
                ("PLATFORM ADMIN", |user| user.platform_admin.to_string()),
                ("ID", |user| user.id.to_string()),
            ],
        ),
        Command::Show { user } => {
            let shown = store.user(&user).await?;
            let roles: Vec<String> =
                shown.roles.iter().map(|role| format!("{}/{}", role.domain, role.role)).collect();
            out.one(
                &shown,
                vec![
                    ("id", shown.user.id.to_string()),
                    ("email", shown.user.email.clone()),
                    ("name", shown.user.name.clone()),
                    ("enabled", shown.user.enabled.to_string()),
                    ("platform admin", shown.user.platform_admin.to_string()),
                    ("created at", shown.user.created_at.clone()),
                    ("live tokens", shown.live_tokens.to_string()),
                    ("roles", roles.join(" ")),
                ],
            )
        }
        Command::Enable { user } => {
            admin.settle(store.set_user_enabled(&user, true).await?).await;
            out.message(&format!("enabled user {user}"))
        }
        Command::Disable { user } => {
            admin.settle(store.set_user_enabled(&user, false).await?).await;
            out.message(&format!("disabled user {user}"))
        }
        Command::SetPlatformAdmin { user, platform_admin } => {
            admin.settle(store.set_platform_admin(&user, platform_admin).await?).await;
            let is = if platform_admin { "is" } else { "is not" };
            out.message(&format!("user {user} {is} a platform admin"))
        }
        Command::Delete { user, yes } => {
            if !yes {
                let tokens = store.user(&user).await?.live_tokens;
                let warning = format!(
                    "this deletes user {user} for good, with {tokens} live tokens; add --yes"
                );
                return Err(Usage(warning).into());
            }
            admin.settle(store.delete_user(&user).await?).await;
            out.message(&format!("deleted user {user}"))
        }
    }
}
