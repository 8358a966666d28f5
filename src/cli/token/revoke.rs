//! `patgate token revoke`

use std::{pin::pin, time::Duration};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use uuid::Uuid;

use super::{
    super::{
        domain_ref, output::complain, secret_input::text_from_standard_input, session::Session,
        unconfirmed, warnings::show_warnings,
    },
    TokenIdParser,
};
use crate::{
    admin::{
        self, Admin, ChangeProgress, CommittedChange, LeakedTokens, Outcome, ReplicaStates,
        RevokedToken, TokenGroup, UserRef,
    },
    domain::DomainRef,
    keyring::KeyId,
    token::TokenId,
};

/// By then, a replica that reads the feed of changes has applied the change. The others are named.
const NAMED_AFTER: Duration = Duration::from_secs(2);

/// The longest text in which tokens are looked for, in bytes.
const MAX_TEXT_LEN: usize = 16 << 20;
/// Of the tokens in a text that were not revoked, so many are named.
const MAX_NAMED: usize = 20;

/// --user, --domain and --key select together: the tokens to which all of them apply.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub(in crate::cli) struct Arguments {
    /// The token's id
    #[arg(
        value_name = "TOKEN_ID", group = "which", value_parser = TokenIdParser,
        conflicts_with_all = ["stdin", "user", "domain", "key"]
    )]
    id: Option<Uuid>,
    /// All tokens of this installation in the text on standard input, such as a line of a log
    #[arg(long, group = "which", conflicts_with_all = ["user", "domain", "key"])]
    stdin: bool,
    /// All live tokens of a user
    #[arg(long, group = "which")]
    user: Option<UserRef>,
    /// All live tokens with a scope in a domain, whatever other scopes they have
    #[arg(long, group = "which", value_parser = domain_ref)]
    domain: Option<DomainRef>,
    /// All live tokens that a key signed, whether or not it is still in the key ring
    #[arg(long, group = "which", value_name = "KEY_ID")]
    key: Option<KeyId>,
    /// Confirms the revocation; needed with --user, --domain and --key
    #[arg(long)]
    yes: bool,
    /// Waits until every replica has applied it, and reports how many and how fast
    #[arg(long)]
    wait: bool,
}

pub(super) async fn revoke(
    session: &Session,
    admin: Admin,
    arguments: Arguments,
) -> anyhow::Result<()> {
    let Arguments { id, stdin: _, user, domain, key, yes, wait } = arguments;
    let outcome = if let Some(group) = TokenGroup::of(user, domain, key) {
        // A revocation needs no key ring: one that is there warns of its current key, and one that
        // cannot be read prevents nothing.
        let with_keys = group.key().and_then(|_| session.with_keys(admin.clone()).ok());
        let admin = with_keys.unwrap_or_else(|| admin.clone());
        if !yes {
            let count = admin.count_live_tokens(&group).await?;
            show_warnings(admin.warning_about(&group).as_slice());
            return Err(unconfirmed(&format!("this revokes {count} live tokens for good")));
        }
        admin.revoke_tokens(&group).await?
    } else {
        let outcome = match id {
            Some(id) => admin.revoke_token(TokenId(id)).await?,
            None => return revoke_found(session, admin, wait).await,
        };
        outcome.map(|revoked| vec![revoked])
    };
    finish(session, &admin, outcome, wait).await
}

/// Revokes what is in the text on standard input, and reports what else was there by its id. Nothing
/// of the text is repeated.
async fn revoke_found(session: &Session, admin: Admin, wait: bool) -> anyhow::Result<()> {
    let text = text_from_standard_input(MAX_TEXT_LEN)?;
    let outcome = session.with_keys(admin.clone())?.revoke_tokens_in(&text).await?;
    let LeakedTokens { absent, unsigned, cut_short, .. } = &outcome.value;
    for (ids, what) in [
        (
            absent,
            "this key ring signed it, but there is no such token: it was deleted, or another \
                  installation with this key ring made it",
        ),
        (
            unsigned,
            "it has the form of a token, and no key of this key ring signed it, so it was not \
                  revoked: the key ring may lack its key. If `patgate token list` has this id, run \
                  `patgate token revoke TOKEN_ID`",
        ),
        (
            cut_short,
            "only its beginning is in the text, so it was not revoked; if it is in use, run \
                     `patgate token revoke TOKEN_ID` with this id",
        ),
    ] {
        for id in ids.iter().take(MAX_NAMED) {
            complain(&format!("token {id}: {what}"));
        }
        if let Some(more @ 1..) = ids.len().checked_sub(MAX_NAMED) {
            complain(&format!("and {more} more like this"));
        }
    }
    if outcome.value.revoked.is_empty() {
        return Err(admin::Error::NoneFound.into());
    }
    finish(session, &admin, outcome.map(|found| found.revoked), wait).await
}

async fn finish(
    session: &Session,
    admin: &Admin,
    outcome: Outcome<Vec<RevokedToken>>,
    wait: bool,
) -> anyhow::Result<()> {
    let change = outcome.committed.clone();
    list(session, outcome)?;
    if !wait {
        return Ok(());
    }
    let waited = wait_for_replicas(admin, change).await;
    waited.context("revoked; it is unknown which replicas have applied it")
}

fn list(session: &Session, outcome: Outcome<Vec<RevokedToken>>) -> anyhow::Result<()> {
    session.out.list(
        &session.accept(outcome),
        &[
            ("ID", |token| token.id.to_string()),
            ("OWNER", |token| token.owner.clone()),
            ("NAME", |token| token.name.clone()),
            ("REVOKED AT", |token| token.revoked_at.clone()),
        ],
    )
}

/// Shows how far a change has come, until every replica has applied it.
async fn wait_for_replicas(admin: &Admin, change: CommittedChange) -> anyhow::Result<()> {
    let mut progress = pin!(admin.progress(change));
    let mut named = false;
    while let Some(event) = progress.next().await {
        match event? {
            ChangeProgress::Waiting(states) => {
                if !named && states.elapsed > NAMED_AFTER {
                    named = true;
                    name_missing(&states);
                }
            }
            ChangeProgress::Done(states) => complain(&result(&states)),
        }
    }
    Ok(())
}

fn name_missing(states: &ReplicaStates) {
    for replica in &states.missing {
        complain(&format!(
            "waiting for {}, which has read the feed up to {}; its cached data expires at {}",
            replica.name, replica.watermark, replica.expires_at
        ));
    }
}

fn result(states: &ReplicaStates) -> String {
    let after = states.elapsed;
    match states.applied.len() {
        0 => "no replica is known to serve from this database, so there is none to wait for"
            .to_owned(),
        1 => format!("applied by 1 replica after {after:.1?}"),
        count => format!("applied by {count} replicas after {after:.1?}"),
    }
}
