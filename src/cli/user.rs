//! `patgate user …`

use super::{output::Output, session::Session, unconfirmed};
use crate::admin::{DisplayName, Email, NewUser, UserDetails, UserRef};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Creates a user
    Create {
        /// The user's e-mail address
        email: Email,
        /// The user's display name
        #[arg(long)]
        name: DisplayName,
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
    let out = session.out;
    match command {
        Command::Create { email, name, platform_admin } => {
            let new = NewUser { email, name, platform_admin };
            let user = session.accept(admin.create_user(&new).await?);
            out.one(&user, vec![("id", user.id.to_string()), ("email", user.email.clone())])
        }
        Command::List => out.list(
            &admin.users().await?,
            &[
                ("EMAIL", |user| user.email.clone()),
                ("NAME", |user| user.name.clone()),
                ("ENABLED", |user| user.enabled.to_string()),
                ("PLATFORM ADMIN", |user| user.platform_admin.to_string()),
                ("ID", |user| user.id.to_string()),
            ],
        ),
        Command::Show { user } => show(out, &admin.user(&user).await?),
        Command::Enable { user } => {
            let outcome = admin.set_user_enabled(&user, true).await?;
            session.report(outcome, &format!("enabled user {user}"))
        }
        Command::Disable { user } => {
            let outcome = admin.set_user_enabled(&user, false).await?;
            session.report(outcome, &format!("disabled user {user}"))
        }
        Command::SetPlatformAdmin { user, platform_admin } => {
            let outcome = admin.set_platform_admin(&user, platform_admin).await?;
            let is = if platform_admin { "is" } else { "is not" };
            session.report(outcome, &format!("user {user} {is} a platform admin"))
        }
        Command::Delete { user, yes } => {
            if !yes {
                let tokens = admin.user(&user).await?.live_tokens;
                let what = format!("this deletes user {user} for good, with {tokens} live tokens");
                return Err(unconfirmed(&what));
            }
            let outcome = admin.delete_user(&user).await?;
            session.report(outcome, &format!("deleted user {user}"))
        }
    }
}

fn show(out: Output, details: &UserDetails) -> anyhow::Result<()> {
    let user = &details.user;
    let roles: Vec<String> =
        details.roles.iter().map(|role| format!("{}/{}", role.domain, role.role)).collect();
    let properties = vec![
        ("id", user.id.to_string()),
        ("email", user.email.clone()),
        ("name", user.name.clone()),
        ("enabled", user.enabled.to_string()),
        ("platform admin", user.platform_admin.to_string()),
        ("created at", user.created_at.clone()),
        ("live tokens", details.live_tokens.to_string()),
        ("roles", roles.join(" ")),
    ];
    out.one(details, properties)
}
