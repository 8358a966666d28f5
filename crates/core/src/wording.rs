//! What a refusal says to the client: its status, its challenge, and the text for people. The same
//! text is in error bodies of every style, and in what `patgate check` prints.

mod challenge;
mod error_body;
mod no_model;
mod not_found;
mod other_entity;
mod status;

pub(crate) use self::{challenge::challenge, error_body::ErrorBody};
pub use self::{error_body::message_of, no_model::no_model, status::ErrorStatus};
use crate::{
    api::{Apis, ErrorStyle, MatchedRule},
    domain::{Domain, DomainRef},
    legible::holds_a_secret,
    operation::{EntityType, Operation},
    principal::Principal,
    refusal::{Denial, MalformedPart, NotAToken, Refusal},
    request::without_query,
};

/// What the message of a denial may say about its request. It takes no part in the decision. It is
/// borrowed, because only denials have a message, and most requests are allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageContext<'a> {
    /// The API tables by which the request was decided.
    pub apis: Option<&'a Apis>,
    /// The method, as the client sent it.
    pub method: &'a str,
    /// The host, perhaps with a port.
    pub authority: &'a str,
    /// Path and query, as the client sent them.
    pub target: &'a str,
    /// The length in bytes of the part of the body that patgate was shown.
    pub shown: usize,
    /// The token, if its possession was proven.
    pub principal: Option<&'a Principal>,
    /// The domain on which the denial is based.
    pub domain: Option<&'a Domain>,
    /// The rule for the request.
    pub rule: Option<&'a MatchedRule<'a>>,
    /// The model that the body names, if it was read.
    pub model: Option<&'a str>,
}

impl MessageContext<'_> {
    /// Returns the form of errors in the API that was called. Looked up only for an answer that
    /// needs it.
    pub(crate) fn error_style(&self) -> ErrorStyle {
        let path = without_query(self.target);
        self.apis.map_or(ErrorStyle::Openai, |apis| apis.error_style(self.authority, path))
    }
}

/// Returns the text for the person who reads the client's error: what happened and what to do.
pub fn message(denial: &Denial, context: &MessageContext<'_>) -> String {
    match (denial.refusal, denial.operation) {
        (Refusal::BadRequest(MalformedPart::Path), _) => {
            "The request path is not in canonical form: send it without empty, `.` or `..` \
             segments, percent-encoding, `;`, `\\`, `#` or a trailing slash, in visible ASCII \
             characters, and at most 4096 of them."
        }
        (Refusal::BadRequest(MalformedPart::Authorization), _) => {
            "The Authorization header has more than one value. Send exactly one."
        }
        (Refusal::BadRequest(MalformedPart::Credentials), _) => {
            "The request carries several credentials that differ. Send the access token once, or \
             the same one everywhere."
        }
        (Refusal::BadRequest(MalformedPart::TokenInQuery), _) => {
            "The query of the URL holds an access token. URLs are written to logs and histories, \
             so it is not accepted there. Send the token in a header, and replace it by a new one: \
             others may have read it."
        }
        (Refusal::BadRequest(MalformedPart::Connection), _) => {
            "The Connection header of an upgrade names more than `Upgrade` and `keep-alive`. Send \
             only these two."
        }
        (Refusal::BadRequest(MalformedPart::Authority), _) => {
            "The Host header has more than one value. Send exactly one."
        }
        (Refusal::BadRequest(MalformedPart::Message), _) => "The request could not be read.",
        (Refusal::MissingCredential, _) => {
            "No access token was sent. Send it as `Authorization: Bearer <token>`."
        }
        (Refusal::NotAToken(what), _) => not_a_token(what),
        (Refusal::InvalidToken, _) => {
            "The access token is not valid. Check that it was copied completely and still exists."
        }
        (Refusal::TokenNotYetIssued, _) => {
            "The access token says that it was issued in the future. Ask an administrator."
        }
        (Refusal::TokenExpired, _) => "The access token has expired. Create a new one.",
        (Refusal::TokenRevoked, _) => "The access token was revoked. Create a new one.",
        (Refusal::OwnerDisabled, _) => {
            "The owner of the access token is disabled. Ask an administrator."
        }
        (Refusal::PermissionDenied, Some(operation)) => return not_permitted(operation, context),
        (Refusal::PermissionDenied, None) => "The access token does not permit this.",
        (Refusal::OtherEntity(limit), _) => return other_entity::message(denial, limit, context),
        (Refusal::NotFound, _) => return not_found::message(context),
        (Refusal::NoModel(why), _) => {
            return format!(
                "It must be known here which model this call is for. {}",
                no_model(why, context.shown)
            );
        }
        (Refusal::RateLimited, _) => {
            "The access token was refused too often lately. Wait a second, and find out why its \
             requests are refused before you repeat them."
        }
        (Refusal::TooManyBodies, _) => {
            "Too many requests with a body are under way with this access token. Send fewer at a \
             time, or shorter ones, and retry."
        }
        (Refusal::Unavailable, _) => {
            "Authorization is temporarily unavailable. Nothing is wrong with the request: retry."
        }
    }
    .to_owned()
}

/// Names the operation, and the domain as the request or the API's table names it, whether or not that
/// domain exists.
fn not_permitted(operation: Operation, context: &MessageContext<'_>) -> String {
    let named = context.rule.map(|rule| &*rule.domain);
    let could_be_one = |name: &&str| DomainRef::parse(name).is_some() && !holds_a_secret(name);
    match named.filter(could_be_one) {
        Some(domain) => format!(
            "The access token does not permit `{operation}` in the domain `{domain}`: it needs a \
             scope for it in this domain, and its owner a role with it."
        ),
        None => format!(
            "The access token does not permit `{operation}` here: it needs a scope for it in this \
             domain, and its owner a role with it."
        ),
    }
}

/// What was sent in place of a token.
fn not_a_token(what: NotAToken) -> &'static str {
    match what {
        NotAToken::NoScheme => {
            "The Authorization header has no scheme. Send `Authorization: Bearer <token>`."
        }
        NotAToken::OtherScheme => {
            "The Authorization header has a scheme that is not accepted here. Send `Authorization: \
             Bearer <token>`."
        }
        NotAToken::Blank => {
            "The access token is empty or has blanks in it. Send it whole, behind exactly one space."
        }
        NotAToken::ForeignKey => {
            "This is the key of another vendor. Send an access token of this gateway."
        }
        NotAToken::Jwt => {
            "This is a token of a sign-in (a JWT), which is not accepted here. Create a Personal \
             Access Token, and send that."
        }
        NotAToken::Variable => {
            "This is the name of a variable, not an access token: the client did not replace it."
        }
        NotAToken::Quoted => {
            "The access token has quotation marks around it, or a part of them. Send it without."
        }
        NotAToken::Beginning => {
            "This is only the beginning of an access token, by which it is recognized in a list. \
             Send the whole token, as it was shown when it was created; if you no longer have it, \
             create a new one."
        }
        NotAToken::OtherPrefix => "The access token has a prefix that is not used here.",
    }
}

/// Returns whether a denial is about the model of the request.
pub(crate) fn is_about_model(denial: &Denial, context: &MessageContext<'_>) -> bool {
    let of_models = || context.rule.is_none_or(|rule| rule.entity_type == EntityType::Models);
    match denial.refusal {
        Refusal::NoModel(why) => !why.kind().is_temporary(),
        Refusal::OtherEntity(_) => of_models(),
        _ => false,
    }
}
