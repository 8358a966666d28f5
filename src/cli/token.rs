//! `patgate token …`

use std::{
    ffi::OsStr,
    io::{self, Read as _},
    time::Duration,
};

use anyhow::Context as _;
use clap::{builder::TypedValueParser, error::ErrorKind};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Usage, domain_ref,
    output::{Output, complain, write_all},
    session::{Admin, Session},
};
use crate::{
    clock::Tick,
    domain::DomainRef,
    store::{
        Changed, Description, Expiry, NewScope, NewToken, Revoked, Rotation, Scope, Shown, Token,
        TokenDetails, TokenFilter, TokenName, UserRef,
    },
    token::TokenId,
};

/// More than any token; what is longer was not meant to be one.
const MAX_INPUT: u64 = 4096;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Creates a token and prints it once, alone on standard output
    #[command(group = clap::ArgGroup::new("expiry").required(true))]
    Create {
        /// The token's name, unique per owner
        name: TokenName,
        /// The owner: e-mail address or id
        #[arg(long)]
        user: UserRef,
        /// How long it is valid, such as `90d` or `12h`
        #[arg(long, group = "expiry", value_name = "DURATION", value_parser = duration)]
        expires_in: Option<Duration>,
        /// When it expires, such as `2030-01-31T00:00:00Z`
        #[arg(long, group = "expiry", value_name = "TIME", value_parser = time)]
        expires_at: Option<Timestamp>,
        /// What it permits: `DOMAIN:ENTITY_TYPE:ENTITY_ID:OPERATION[,…]`; repeatable
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<NewScope>,
        /// Its purpose
        #[arg(long, default_value = "")]
        description: Description,
    },
    /// Lists tokens
    List {
        /// Only tokens of this user
        #[arg(long)]
        user: Option<UserRef>,
        /// Only tokens with a scope in this domain
        #[arg(long, value_parser = domain_ref)]
        domain: Option<DomainRef>,
        /// Only tokens that are neither expired nor revoked
        #[arg(long)]
        live: bool,
    },
    /// Shows a token with its scopes
    Show {
        /// The token's id
        #[arg(value_name = "TOKEN_ID", value_parser = TokenIdParser)]
        id: Uuid,
    },
    /// Manages the scopes of a token
    #[command(subcommand)]
    Scope(ScopeCommand),
    /// Revokes tokens permanently
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Revoke {
        /// The token's id
        #[arg(value_name = "TOKEN_ID", group = "which", value_parser = TokenIdParser)]
        id: Option<Uuid>,
        /// The token whose plaintext is on standard input
        #[arg(long, group = "which")]
        stdin: bool,
        /// All live tokens of a user
        #[arg(long, group = "which")]
        user: Option<UserRef>,
        /// All live tokens with a scope in a domain, whatever other scopes they have
        #[arg(long, group = "which", value_parser = domain_ref)]
        domain: Option<DomainRef>,
        /// Confirms the revocation; needed with --user and --domain
        #[arg(long)]
        yes: bool,
        /// Waits until every replica has applied it, and reports how many and how fast
        #[arg(long)]
        wait: bool,
    },
    /// Replaces a token with a new one with the same owner, name, description and scopes
    ///
    /// The new token has its own id and is printed once, alone on standard output. The
    /// old one is renamed after its id; it is revoked at once, or expires after --grace.
    Rotate {
        /// The old token's id
        #[arg(value_name = "TOKEN_ID", value_parser = TokenIdParser)]
        id: Uuid,
        /// How long the old token remains valid, such as `24h`
        #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = duration)]
        grace: Duration,
        /// How long the new token is valid [default: the original duration of the old one]
        #[arg(long, value_name = "DURATION", conflicts_with = "expires_at", value_parser = duration)]
        expires_in: Option<Duration>,
        /// When the new token expires
        #[arg(long, value_name = "TIME", value_parser = time)]
        expires_at: Option<Timestamp>,
    },
    /// Deletes a token; prefer to revoke it, so that its id still shows its owner
    Delete {
        /// The token's id
        #[arg(value_name = "TOKEN_ID", value_parser = TokenIdParser)]
        id: Uuid,
    },
}

#[derive(clap::Subcommand)]
pub(super) enum ScopeCommand {
    /// Adds scopes to a token
    Add {
        /// The token's id
        #[arg(value_name = "TOKEN_ID", value_parser = TokenIdParser)]
        id: Uuid,
        /// `DOMAIN:ENTITY_TYPE:ENTITY_ID:OPERATION[,…]`
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<NewScope>,
    },
    /// Removes scopes from a token
    Remove {
        /// The token's id
        #[arg(value_name = "TOKEN_ID", value_parser = TokenIdParser)]
        id: Uuid,
        /// `DOMAIN:ENTITY_TYPE:ENTITY_ID:OPERATION[,…]`
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<NewScope>,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let admin = session.admin().await?;
    let (store, out) = (&admin.store, session.out);
    match command {
        Command::Create { name, user, expires_in, expires_at, scopes, description } => {
            let expiry = expiry(expires_in, expires_at)
                .ok_or_else(|| Usage("--expires-in or --expires-at is needed".to_owned()))?;
            let new = NewToken { name, owner: user, description, expiry, scopes };
            let created = store.create_token(&admin.tokens()?, &new).await?;
            hand_over(out, admin.settle(created).await)
        }
        Command::List { user, domain, live } => {
            list(out, &store.tokens(&TokenFilter { owner: user, domain, live }).await?)
        }
        Command::Show { id } => show(out, &store.token(TokenId(id)).await?),
        Command::Scope(ScopeCommand::Add { id, scopes }) => {
            let now = admin.settle(store.add_scopes(TokenId(id), &scopes).await?).await;
            list_scopes(out, &now)
        }
        Command::Scope(ScopeCommand::Remove { id, scopes }) => {
            let now = admin.settle(store.remove_scopes(TokenId(id), &scopes).await?).await;
            list_scopes(out, &now)
        }
        Command::Revoke { id, stdin: _, user, domain, yes, wait } => {
            let one = |changed: Changed<Revoked>| changed.map(|revoked| vec![revoked]);
            let changed = match (id, user, domain) {
                (Some(id), _, _) => one(store.revoke_token(TokenId(id)).await?),
                (_, Some(user), _) => {
                    let filter = TokenFilter { owner: Some(user.clone()), ..live_tokens() };
                    confirm(&admin, &filter, yes).await?;
                    store.revoke_tokens_of_user(&user).await?
                }
                (_, _, Some(domain)) => {
                    let filter = TokenFilter { domain: Some(domain.clone()), ..live_tokens() };
                    confirm(&admin, &filter, yes).await?;
                    store.revoke_tokens_of_domain(&domain).await?
                }
                _ => {
                    let plain = plain_from_standard_input()?;
                    one(store.revoke_plain(&admin.tokens()?, &plain).await?)
                }
            };
            let (committed, xid) = (Tick::now(), changed.xid.clone());
            let revoked = admin.settle(changed).await;
            list_revoked(out, &revoked)?;
            if !wait {
                return Ok(());
            }
            let waited = wait_for_replicas(&admin, committed, xid.as_deref()).await;
            waited.context("revoked; which replicas have applied it cannot be told")
        }
        Command::Rotate { id, grace, expires_in, expires_at } => {
            let rotation = Rotation { expiry: expiry(expires_in, expires_at), grace };
            let rotated = store.rotate_token(&admin.tokens()?, TokenId(id), &rotation).await?;
            hand_over(out, admin.settle(rotated).await)
        }
        Command::Delete { id } => {
            admin.settle(store.delete_token(TokenId(id)).await?).await;
            out.message(&format!("deleted token {id}"))
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a duration such as `90d` or `12h`".to_owned())
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "expected a time such as `2030-01-31T00:00:00Z`".to_owned())
}

/// Reads a token's id. Unlike clap's own, its error does not repeat what was given: that may be a
/// token, put where its id belongs, and standard error is often kept.
#[derive(Clone)]
pub(super) struct TokenIdParser;

impl TypedValueParser for TokenIdParser {
    type Value = Uuid;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Uuid, clap::Error> {
        const EXPECTED: &str = "expected a token's id; a token itself goes to standard input, as \
                                in `patgate token revoke --stdin`\n";
        value
            .to_str()
            .and_then(|text| Uuid::try_parse(text).ok())
            .ok_or_else(|| clap::Error::raw(ErrorKind::ValueValidation, EXPECTED).with_cmd(command))
    }
}

fn expiry(after: Option<Duration>, at: Option<Timestamp>) -> Option<Expiry> {
    after.map(Expiry::In).or(at.map(Expiry::At))
}

fn live_tokens() -> TokenFilter {
    TokenFilter { live: true, ..TokenFilter::default() }
}

/// Waits until each replica has read the change, or its knowledge must have expired.
async fn wait_for_replicas(
    admin: &Admin,
    committed: Tick,
    xid: Option<&str>,
) -> anyhow::Result<()> {
    let mut told = false;
    loop {
        let waited = Tick::now().since(committed);
        let replicas = admin.store.replicas(xid, waited).await?;
        let behind: Vec<_> = replicas.iter().filter(|replica| !replica.applied).collect();
        if replicas.is_empty() {
            complain("no replica is known to serve from this database: there is none to wait for");
            return Ok(());
        }
        if behind.is_empty() {
            let (count, s) = (replicas.len(), if replicas.len() == 1 { "" } else { "s" });
            complain(&format!("applied by {count} replica{s} after {waited:.1?}"));
            return Ok(());
        }
        // By now a replica that reads the feed would have.
        if !told && waited > Duration::from_secs(2) {
            told = true;
            for replica in behind {
                complain(&format!(
                    "waiting for {}, which has read the feed up to {}; what it knows expires at {}",
                    replica.name, replica.watermark, replica.expires_at
                ));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says how many tokens would be revoked, unless that is confirmed.
async fn confirm(admin: &Admin, filter: &TokenFilter, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    let count = admin.store.tokens(filter).await?.len();
    Err(Usage(format!("this revokes {count} live tokens for good; add --yes")).into())
}

pub(super) fn plain_from_standard_input() -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text).context("standard input")?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Prints the plaintext, the one time that it is seen, and says about it what matters now.
fn hand_over(out: Output, shown: Shown) -> anyhow::Result<()> {
    let TokenDetails { token, scopes } = &shown.token;
    for scope in scopes.iter().filter(|scope| !scope.permitted) {
        complain(&format!(
            "warning: scope {scope} grants nothing until a role of {} permits {}",
            token.owner, scope.operation
        ));
    }
    if scopes.is_empty() {
        complain("warning: without a scope, this token can do nothing");
    }
    let text = if out.is_json() {
        let mut object = json!(shown.token);
        object["token"] = json!(shown.plain.expose());
        Zeroizing::new(format!("{object:#}\n"))
    } else {
        complain(&format!(
            "created token {} of {}, expires {}",
            token.id, token.owner, token.expires_at
        ));
        Zeroizing::new(format!("{}\n", shown.plain.expose()))
    };
    write_all(&text).with_context(|| {
        format!(
            "standard output; the token exists but nobody has seen it: revoke it with \
             `patgate token revoke {}`",
            token.id
        )
    })
}

fn list(out: Output, tokens: &[Token]) -> anyhow::Result<()> {
    out.list(
        tokens,
        &[
            ("ID", |token| token.id.to_string()),
            ("OWNER", |token| token.owner.clone()),
            ("NAME", |token| token.name.clone()),
            ("STATUS", |token| token.status.clone()),
            ("EXPIRES AT", |token| token.expires_at.clone()),
            ("LAST USED AT", |token| or_dash(&token.last_used_at)),
        ],
    )
}

fn show(out: Output, shown: &TokenDetails) -> anyhow::Result<()> {
    let token = &shown.token;
    let mut properties = vec![
        ("id", token.id.to_string()),
        ("name", token.name.clone()),
        ("description", token.description.clone()),
        ("owner", token.owner.clone()),
        ("status", token.status.clone()),
        ("key", token.key_id.clone()),
        ("issued at", token.issued_at.clone()),
        ("expires at", token.expires_at.clone()),
        ("revoked at", or_dash(&token.revoked_at)),
        ("last used at", or_dash(&token.last_used_at)),
    ];
    properties.extend(shown.scopes.iter().map(|scope| {
        let note = if scope.permitted { "" } else { "  (not permitted to the owner)" };
        ("scope", format!("{scope}{note}"))
    }));
    out.one(shown, properties)
}

fn list_scopes(out: Output, scopes: &[Scope]) -> anyhow::Result<()> {
    out.list(
        scopes,
        &[
            ("SCOPE", ToString::to_string),
            ("PERMITTED TO OWNER", |scope| scope.permitted.to_string()),
        ],
    )
}

fn list_revoked(out: Output, revoked: &[Revoked]) -> anyhow::Result<()> {
    out.list(
        revoked,
        &[
            ("ID", |token| token.id.to_string()),
            ("OWNER", |token| token.owner.clone()),
            ("NAME", |token| token.name.clone()),
            ("REVOKED AT", |token| token.revoked_at.clone()),
        ],
    )
}

fn or_dash(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".to_owned())
}
