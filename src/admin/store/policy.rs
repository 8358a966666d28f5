//! The limits that operators set, for self-service and for new tokens.

use std::time::Duration;

use serde_json::json;
use sqlx::FromRow;

use super::{AuditAction, Committed, Error, Store, sql, sql_as, tokens::micros};

/// The limits that hold, as stored. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct Policy {
    /// The longest time until a new token expires, however it is made; `None` if there is no limit.
    pub token_longest_seconds: Option<i64>,
    /// The time until a token expires that does not say when.
    pub token_default_seconds: i64,
    /// Tokens that a user may have in self-service.
    pub tokens_per_user: i32,
    /// The time without a request after which a session ends.
    pub session_idle_seconds: i64,
    /// The time after which a session ends in any case.
    pub session_longest_seconds: i64,
    /// How long the rights of a platform administrator last after the password was proven again.
    pub elevation_seconds: i64,
    /// Failed attempts to sign in after which an account is locked.
    pub failed_attempts: i32,
    /// The time in which these attempts are counted.
    pub failed_within_seconds: i64,
    /// Attempts to sign in per minute, for all accounts together.
    pub attempts_per_minute: i32,
    /// Sessions that one database login may begin per minute on the word of providers.
    pub oidc_per_minute: i32,
    /// Such sessions that one database login may have.
    pub oidc_sessions: i32,
}

/// The longest life of new tokens, as a policy states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenLongest {
    /// This long.
    Limited(Duration),
    /// There is no limit.
    Unlimited,
}

/// What to change about the limits. An absent field does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of `Policy`")]
pub struct PolicyChanges {
    pub token_longest: Option<TokenLongest>,
    pub token_default: Option<Duration>,
    pub tokens_per_user: Option<i32>,
    pub session_idle: Option<Duration>,
    pub session_longest: Option<Duration>,
    pub elevation: Option<Duration>,
    pub failed_attempts: Option<i32>,
    pub failed_within: Option<Duration>,
    pub attempts_per_minute: Option<i32>,
    pub oidc_per_minute: Option<i32>,
    pub oidc_sessions: Option<i32>,
}

/// The object of the audit log's entries about the policy.
const OBJECT: &str = "policy";

const SELECT: &str = "
    SELECT extract(epoch FROM token_longest)::bigint AS token_longest_seconds,
           extract(epoch FROM token_default)::bigint AS token_default_seconds,
           tokens_per_user,
           extract(epoch FROM session_idle)::bigint AS session_idle_seconds,
           extract(epoch FROM session_longest)::bigint AS session_longest_seconds,
           extract(epoch FROM elevation)::bigint AS elevation_seconds,
           failed_attempts,
           extract(epoch FROM failed_within)::bigint AS failed_within_seconds,
           attempts_per_minute, oidc_per_minute, oidc_sessions
    FROM patgate.policy";

impl Store {
    /// Returns the limits that hold.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn policy(&self) -> Result<Policy, Error> {
        let mut tx = self.read().await?;
        let policy = sql_as(SELECT).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(policy)
    }

    /// Changes limits, and returns those that hold then.
    ///
    /// # Errors
    ///
    /// If tokens would live longer by default than they may.
    pub(crate) async fn set_policy(
        &self,
        changes: &PolicyChanges,
    ) -> Result<Committed<Policy>, Error> {
        let time = |time: Option<Duration>| time.map(micros).transpose();
        let longest = match changes.token_longest {
            Some(TokenLongest::Limited(longest)) => Some(longest),
            Some(TokenLongest::Unlimited) | None => None,
        };
        let mut change = self.change().await?;
        sql("SELECT FROM patgate.policy FOR UPDATE").execute(&mut *change.tx).await?;
        let before: Policy = sql_as(SELECT).fetch_one(&mut *change.tx).await?;
        refuse_longer_default(&before, changes)?;
        // Days in place of hours, as people write them.
        sql("UPDATE patgate.policy SET
                token_longest = CASE WHEN $1 THEN justify_hours($2 * interval '1 microsecond')
                    ELSE token_longest END,
                token_default = coalesce(
                    justify_hours($3 * interval '1 microsecond'), token_default),
                tokens_per_user = coalesce($4, tokens_per_user),
                session_idle = coalesce(justify_hours($5 * interval '1 microsecond'), session_idle),
                session_longest = coalesce(
                    justify_hours($6 * interval '1 microsecond'), session_longest),
                elevation = coalesce(justify_hours($7 * interval '1 microsecond'), elevation),
                failed_attempts = coalesce($8, failed_attempts),
                failed_within = coalesce(
                    justify_hours($9 * interval '1 microsecond'), failed_within),
                attempts_per_minute = coalesce($10, attempts_per_minute),
                oidc_per_minute = coalesce($11, oidc_per_minute),
                oidc_sessions = coalesce($12, oidc_sessions)")
        .bind(changes.token_longest.is_some())
        .bind(time(longest)?)
        .bind(time(changes.token_default)?)
        .bind(changes.tokens_per_user)
        .bind(time(changes.session_idle)?)
        .bind(time(changes.session_longest)?)
        .bind(time(changes.elevation)?)
        .bind(changes.failed_attempts)
        .bind(time(changes.failed_within)?)
        .bind(changes.attempts_per_minute)
        .bind(changes.oidc_per_minute)
        .bind(changes.oidc_sessions)
        .execute(&mut *change.tx)
        .await
        .map_err(refused)?;
        let policy: Policy = sql_as(SELECT).fetch_one(&mut *change.tx).await?;
        let details = json!(policy);
        change.finish(AuditAction::PolicySet, OBJECT, details, policy).await
    }
}

/// A time of the policy in words that commands accept, such as `90d`. Days, because months have no one
/// length.
pub(crate) fn words(seconds: i64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds.unsigned_abs();
    let mut words = Vec::new();
    for (length, unit) in UNITS {
        if left >= length {
            words.push(format!("{}{unit}", left / length));
            left %= length;
        }
    }
    words.join(" ")
}

/// Names the values that do not go together, which Postgres does not.
fn refuse_longer_default(before: &Policy, changes: &PolicyChanges) -> Result<(), Error> {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let longest = match changes.token_longest {
        Some(TokenLongest::Limited(longest)) => Some(seconds(longest)),
        Some(TokenLongest::Unlimited) => None,
        None => before.token_longest_seconds,
    };
    let default = changes.token_default.map_or(before.token_default_seconds, seconds);
    match longest {
        Some(longest) if default > longest => Err(Error::Refused(format!(
            "token_default {} is longer than token_longest {}; set both, as in `patgate policy set \
             --token-longest 7d --token-default 7d`",
            words(default),
            words(longest),
        ))),
        _ => Ok(()),
    }
}

fn refused(error: sqlx::Error) -> Error {
    match error.as_database_error() {
        Some(refusal) if refusal.is_check_violation() => Error::Refused(
            "a limit is zero, or token_default is longer than token_longest; see `patgate policy show`"
                .to_owned(),
        ),
        _ => error.into(),
    }
}
