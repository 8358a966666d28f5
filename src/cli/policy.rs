//! `patgate policy …`

use std::{str::FromStr, time::Duration};

use super::{UsageError, output::Output, session::Session};
use crate::admin::{Policy, PolicyChanges, TokenLongest, policy_words as words};

/// No limit needs more, and later ones could not be added to the present time.
const LONGEST: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Shows the limits that hold
    Show,
    /// Changes limits, which hold from the next use on
    Set(Box<Changes>),
}

#[derive(clap::Args)]
pub(super) struct Changes {
    /// The longest time until a new token expires, however it is made, such as `90d`; or `none`
    #[arg(long, value_name = "DURATION|none")]
    token_longest: Option<Longest>,
    /// The time until a token expires that does not say when
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    token_default: Option<Duration>,
    /// Tokens that a user may have in self-service, revoked and expired ones included
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    tokens_per_user: Option<i32>,
    /// The time without a request after which a session ends
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    session_idle: Option<Duration>,
    /// The time after which a session ends in any case
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    session_longest: Option<Duration>,
    /// How long the rights of a platform admin last after the password was given again
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    elevation: Option<Duration>,
    /// Failed attempts to sign in after which an account is locked
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    failed_attempts: Option<i32>,
    /// The time in which these attempts are counted
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    failed_within: Option<Duration>,
    /// Attempts to sign in per minute, for all accounts together
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    attempts_per_minute: Option<i32>,
    /// Sessions that a database login may begin per minute on the word of providers; may be 0
    #[arg(long, value_name = "N", value_parser = at_least_zero())]
    oidc_per_minute: Option<i32>,
    /// Such sessions that a database login may have; may be 0
    #[arg(long, value_name = "N", value_parser = at_least_zero())]
    oidc_sessions: Option<i32>,
}

#[derive(Clone, Copy)]
struct Longest(TokenLongest);

impl FromStr for Longest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(TokenLongest::Unlimited)),
            _ => some_time(text)
                .map(|longest| Self(TokenLongest::Limited(longest)))
                .map_err(|expected| format!("{expected}; or `none`")),
        }
    }
}

fn some_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| {
            (Duration::from_secs(1)..=LONGEST).contains(time) && time.subsec_nanos() == 0
        })
        .ok_or_else(|| {
            "expected a duration of whole seconds, from `1s` to `36500d`, such as `90d`".to_owned()
        })
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(1..)
}

fn at_least_zero() -> clap::builder::RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(0..)
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let policy = match command {
        Command::Show => session.admin().await?.policy().await?,
        Command::Set(changes) => {
            let changes = changes.parsed();
            if changes == PolicyChanges::default() {
                let what = "give at least one limit; see `patgate policy set --help`";
                return Err(UsageError(what.to_owned()).into());
            }
            session.accept(session.admin().await?.set_policy(&changes).await?)
        }
    };
    show(session.out, &policy)
}

impl Changes {
    fn parsed(&self) -> PolicyChanges {
        PolicyChanges {
            token_longest: self.token_longest.map(|longest| longest.0),
            token_default: self.token_default,
            tokens_per_user: self.tokens_per_user,
            session_idle: self.session_idle,
            session_longest: self.session_longest,
            elevation: self.elevation,
            failed_attempts: self.failed_attempts,
            failed_within: self.failed_within,
            attempts_per_minute: self.attempts_per_minute,
            oidc_per_minute: self.oidc_per_minute,
            oidc_sessions: self.oidc_sessions,
        }
    }
}

fn show(out: Output, policy: &Policy) -> anyhow::Result<()> {
    let properties = vec![
        ("token-longest", policy.token_longest_seconds.map_or("none".to_owned(), words)),
        ("token-default", words(policy.token_default_seconds)),
        ("tokens-per-user", policy.tokens_per_user.to_string()),
        ("session-idle", words(policy.session_idle_seconds)),
        ("session-longest", words(policy.session_longest_seconds)),
        ("elevation", words(policy.elevation_seconds)),
        ("failed-attempts", policy.failed_attempts.to_string()),
        ("failed-within", words(policy.failed_within_seconds)),
        ("attempts-per-minute", policy.attempts_per_minute.to_string()),
        ("oidc-per-minute", policy.oidc_per_minute.to_string()),
        ("oidc-sessions", policy.oidc_sessions.to_string()),
    ];
    out.one(policy, properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_entered() {
        for (seconds, shown) in
            [(1, "1s"), (1800, "30m"), (90 * 86_400, "90d"), (90_061, "1d 1h 1m 1s")]
        {
            assert_eq!(words(seconds), shown);
            assert_eq!(some_time(shown).unwrap().as_secs(), seconds.unsigned_abs());
        }
        for text in ["0s", "90", "1500ms", "36501d", "none"] {
            assert!(some_time(text).is_err(), "{text}");
        }
        assert!(matches!("none".parse(), Ok(Longest(TokenLongest::Unlimited))));
    }
}
