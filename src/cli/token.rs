//! `patgate token …`

mod revoke;

use std::{ffi::OsStr, time::Duration};

use anyhow::Context as _;
use clap::{builder::TypedValueParser, error::ErrorKind};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

use self::revoke::revoke;
use super::{
    domain_ref,
    output::{Output, complain, write_all},
    secret_input::secret_from_standard_input,
    session::Session,
};
use crate::{
    admin::{
        CreatedToken, Description, Expiry, NewScope, NewToken, Rotation, Token, TokenDetails,
        TokenFilter, TokenName, UserRef,
    },
    domain::DomainRef,
    keyring::KeyId,
    token::TokenId,
};

/// The maximum length of the input, in bytes. No token is that long.
const MAX_INPUT_LEN: usize = 4096;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Creates a token and prints it once, alone on standard output
    ///
    /// Without --expires-in and --expires-at, it expires after token_default of `patgate policy show`.
    #[command(group = clap::ArgGroup::new("expiry"))]
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
        /// Only tokens that this key signed, whether or not it is still in the key ring
        #[arg(long, value_name = "KEY_ID")]
        key: Option<KeyId>,
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
    Revoke(revoke::Arguments),
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
        /// How long the new token is valid [default: the original duration of the
        /// old one, or token_longest of `patgate policy show` if that is shorter]
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
    let out = session.out;
    match command {
        Command::Create { name, user, expires_in, expires_at, scopes, description } => {
            let expiry = expiry(expires_in, expires_at);
            let new = NewToken { name, owner: user, description, expiry, scopes };
            let outcome = session.with_keys(admin)?.create_token(&new).await?;
            hand_over(out, &session.accept(outcome))
        }
        Command::List { user, domain, key, live } => {
            list(out, &admin.tokens(&TokenFilter { owner: user, domain, key, live }).await?)
        }
        Command::Show { id } => show(out, &admin.token(TokenId(id)).await?),
        Command::Scope(ScopeCommand::Add { id, scopes }) => {
            let outcome = admin.add_scopes(TokenId(id), &scopes).await?;
            let done = format!("added scopes to token {id}");
            show(out, &session.changed(outcome, &done, admin.token(TokenId(id))).await?)
        }
        Command::Scope(ScopeCommand::Remove { id, scopes }) => {
            let outcome = admin.remove_scopes(TokenId(id), &scopes).await?;
            let done = format!("removed scopes from token {id}");
            show(out, &session.changed(outcome, &done, admin.token(TokenId(id))).await?)
        }
        Command::Revoke(arguments) => revoke(session, admin, arguments).await,
        Command::Rotate { id, grace, expires_in, expires_at } => {
            let rotation = Rotation { expiry: expiry(expires_in, expires_at), grace };
            let outcome = session.with_keys(admin)?.rotate_token(TokenId(id), &rotation).await?;
            hand_over(out, &session.accept(outcome))
        }
        Command::Delete { id } => {
            let outcome = admin.delete_token(TokenId(id)).await?;
            session.report(outcome, &format!("deleted token {id}"))
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a duration such as `90d` or `12h`".to_owned())
}

pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "expected a time such as `2030-01-31T00:00:00Z`".to_owned())
}

/// Parses a token's id. Unlike clap's own error, this one does not repeat the argument: it may be a
/// token in place of its id, and standard error is often kept.
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

pub(super) fn plain_from_standard_input() -> anyhow::Result<Zeroizing<String>> {
    let text = secret_from_standard_input(MAX_INPUT_LEN)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Prints the plaintext of a new token, which cannot be read again.
fn hand_over(out: Output, created: &CreatedToken) -> anyhow::Result<()> {
    let token = &created.token.token;
    let text = if out.is_json() {
        let mut object = json!(created.token);
        object["token"] = json!(created.plain.expose());
        Zeroizing::new(format!("{object:#}\n"))
    } else {
        complain(&format!(
            "created token {} of {}, expires {}",
            token.id, token.owner, token.expires_at
        ));
        Zeroizing::new(format!("{}\n", created.plain.expose()))
    };
    write_all(&text).with_context(|| {
        format!(
            "standard output; the token exists but was not shown: revoke it with \
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
            ("STATUS", |token| token.status.to_string()),
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
        ("status", token.status.to_string()),
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

fn or_dash(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".to_owned())
}
