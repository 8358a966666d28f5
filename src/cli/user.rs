//! `patgate user …`

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    output::{Output, complain, write_all},
    session::Session,
    unconfirmed,
};
use crate::{
    admin::{
        DisplayName, Email, Invitation, NewUser, UserDetails, UserRef, web::LONGEST_INVITATION,
    },
    config::{Config, SiteUrl},
};

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
    /// Invites a user to set a password for self-service, and prints the link and the code once
    ///
    /// patgate sends no mail: send both to the user. The code works once, and replaces earlier ones. It
    /// is not part of the link, because links are logged.
    Invite {
        /// E-mail address or id
        user: UserRef,
        /// How long the code works, such as `12h`; 7 days at most
        #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = invitation_life)]
        expires_in: Duration,
        /// The URL of self-service, such as `https://tokens.example.org` [default: web.url, or that of web.listen if only this machine reaches it]
        #[arg(long)]
        url: Option<SiteUrl>,
    },
    /// Lists the sessions of a user in self-service
    Sessions {
        /// E-mail address or id
        user: UserRef,
    },
    /// Ends all sessions of a user in self-service; the user may sign in again
    SignOut {
        /// E-mail address or id
        user: UserRef,
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
            let done = format!("enabled user {user}");
            show(out, &session.changed(outcome, &done, admin.user(&user)).await?)
        }
        Command::Disable { user } => {
            let outcome = admin.set_user_enabled(&user, false).await?;
            let done = format!("disabled user {user}");
            show(out, &session.changed(outcome, &done, admin.user(&user)).await?)
        }
        Command::SetPlatformAdmin { user, platform_admin } => {
            let outcome = admin.set_platform_admin(&user, platform_admin).await?;
            let is = if platform_admin { "is" } else { "is not" };
            let done = format!("user {user} {is} a platform admin");
            show(out, &session.changed(outcome, &done, admin.user(&user)).await?)
        }
        Command::Invite { user, expires_in, url } => {
            // First: an invitation replaces earlier ones.
            let url = match url {
                Some(url) => url,
                None => Config::site_url(&session.sources)
                    .context("where self-service is: set web.url, or give --url")?,
            };
            let invitation = session.accept(admin.invite_user(&user, expires_in).await?);
            hand_over(out, &invitation, &url)
        }
        Command::Sessions { user } => out.list(
            &admin.user_sessions(&user).await?,
            &[
                ("ID", |session| session.id.to_string()),
                ("METHOD", |session| session.method.clone()),
                ("ELEVATED", |session| session.elevated.to_string()),
                ("ADDRESS", |session| session.address.clone().unwrap_or_default()),
                ("BEGUN AT", |session| session.begun_at.clone()),
                ("LAST USED AT", |session| session.last_used_at.clone()),
                ("ENDS AT", |session| session.ends_at.clone()),
            ],
        ),
        Command::SignOut { user } => {
            let outcome = admin.sign_out_user(&user).await?;
            let done = format!("signed out user {user}; sessions ended: {}", outcome.value);
            session.report(outcome, &done)
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

fn invitation_life(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|life| (Duration::from_secs(1)..=LONGEST_INVITATION).contains(life))
        .ok_or_else(|| "expected a duration from `1s` to `7d`, such as `12h`".to_owned())
}

/// Prints where the user sets the password, and the code for it, which cannot be read again.
fn hand_over(out: Output, invitation: &Invitation, url: &SiteUrl) -> anyhow::Result<()> {
    let Invitation { secret, email, expires_at } = invitation;
    let link = format!("{}/invitation", url.origin());
    let code = secret.expose();
    let text = if out.is_json() {
        let shown = json!({
            "email": email, "expires_at": expires_at, "link": link, "code": code.as_str(),
        });
        Zeroizing::new(format!("{shown:#}\n"))
    } else {
        complain(&format!(
            "send the link and the code to {email} yourself: patgate sends no mail. The code works once, \
             until {expires_at}"
        ));
        if !url.is_secure() {
            complain("the link works on this machine only: set web.url, or give --url, for others");
        }
        Zeroizing::new(format!("{link}\n{}\n", code.as_str()))
    };
    write_all(&text).with_context(|| {
        format!("standard output; the code was not shown: `patgate user invite {email}` again")
    })
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
