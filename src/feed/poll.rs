//! One poll: the statement that reads the changes a snapshot did not see.

use std::mem::{Discriminant, discriminant};

use sqlx::{Row, postgres::PgRow, types::Uuid};

use super::recording;
use crate::{
    clock::Moment,
    domain::DomainId,
    freshness::{Change, Dependency, Poll, Stamp, TriggersOff},
    postgres::{AskError, Postgres, select},
    principal::UserId,
    snapshot::{Snapshot, Xid},
    token::TokenId,
};

/// Up to this many changes are read one by one. If a statement changed more at once, reading them
/// could take longer than the time limit of a poll, of each poll, and the feed would be lost.
const MAX_CHANGES: usize = 20_000;

/// A poll, and Postgres's time at which it was made.
pub(crate) struct Polled {
    pub(super) poll: Poll,
    pub(super) verified: Moment,
}

/// Why there is no poll that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The poll would not bring every change.
    #[error(transparent)]
    Unrecorded(#[from] TriggersOff),
}

/// The kind of an error, so that each kind is logged once.
pub(super) type ErrorKind = (Discriminant<PollError>, Option<Discriminant<AskError>>);

impl PollError {
    pub(super) fn kind(&self) -> ErrorKind {
        let ask = match self {
            Self::Ask(error) => Some(discriminant(error)),
            Self::Unrecorded(_) => None,
        };
        (discriminant(self), ask)
    }
}

impl From<sqlx::Error> for PollError {
    fn from(error: sqlx::Error) -> Self {
        Self::Ask(error.into())
    }
}

/// Asks for the changes that `after` does not see; for all that are retained if it is `None`.
pub(super) async fn ask(postgres: &Postgres, after: Option<Snapshot>) -> Result<Polled, PollError> {
    let unseen = match &after {
        None => "true".to_owned(),
        Some(after) => format!(
            "c.xid >= '{}'::xid8 AND NOT pg_visible_in_snapshot(c.xid, '{after}'::pg_snapshot)",
            after.xmin().0
        ),
    };
    let sql = format!("{CHANGES} {unseen} LIMIT {}", MAX_CHANGES + 1);
    let reply = postgres.ask(sql).await?;
    let sent = reply.as_of;
    let stamp = Stamp::clone(&reply.stamp);
    let horizon: &str = reply.rows[0].try_get("horizon")?;
    let horizon = horizon.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let triggers = recording::triggers(&reply.rows[0])??;
    let poll = if reply.rows.len() > MAX_CHANGES {
        // The record begins again here, as if everything before were pruned: all entries are read
        // again.
        let horizon = stamp.snapshot.clone();
        Poll { sent, stamp, triggers, horizon, after: None, changes: Vec::new() }
    } else {
        let changes = reply.rows.iter().filter_map(|row| change(row).transpose());
        let changes = changes.collect::<Result<_, _>>()?;
        Poll { sent, stamp, triggers, horizon, after, changes }
    };
    Ok(Polled { poll, verified: reply.verified })
}

const CHANGES: &str = select!(
    "
       (SELECT h.snapshot::text FROM patgate.change_horizon h) AS horizon,
       recording.*, c.xid::text AS xid, c.kind, c.key
FROM patgate.recording() AS recording
LEFT JOIN patgate.changes c ON"
);

fn change(row: &PgRow) -> Result<Option<(Xid, Change)>, sqlx::Error> {
    let Some(xid) = row.try_get::<Option<&str>, _>("xid")? else { return Ok(None) };
    let xid = xid.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let kind = row.try_get("kind")?;
    let key = row.try_get("key")?;
    // A change that this release cannot read may be about anything.
    let change = dependency(kind, key).map_or(Change::Everything, Change::To);
    Ok(Some((Xid(xid), change)))
}

fn dependency(kind: &str, key: &str) -> Option<Dependency> {
    let id = |text: &str| Uuid::try_parse(text).ok();
    Some(match kind {
        "token" => Dependency::Token(TokenId(id(key)?)),
        "user" => Dependency::User(UserId(id(key)?)),
        "domain" => Dependency::Domain(DomainId(id(key)?)),
        "slug" => Dependency::Slug(key.parse().ok()?),
        "backend" => Dependency::Backend(key.into()),
        "membership" => {
            let (user, domain) = key.split_once('/')?;
            Dependency::Membership(UserId(id(user)?), DomainId(id(domain)?))
        }
        _ => return None,
    })
}
