//! The reasons for which patgate refuses a request, and the code of each.

use crate::{operation::Operation, principal::UserId, token::TokenId};

/// A refusal, with what is known of the request for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Denial {
    /// The reason for the denial.
    pub refusal: Refusal,
    /// The token and its owner, if possession of the token was proven.
    pub subject: Option<(TokenId, UserId)>,
    /// The operation of the request, if a rule names it.
    pub operation: Option<Operation>,
}

/// The reason for which a request is refused, by the stage that refuses, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request does not have exactly one meaning.
    BadRequest(MalformedPart),
    /// The request has no credential.
    MissingCredential,
    /// The credential is not a token of this gateway, as its form alone shows.
    NotAToken(NotAToken),
    /// The credential is not a genuine token. The answer is the same for every reason.
    InvalidToken,
    /// The store says that the token was issued in the future.
    TokenNotYetIssued,
    /// The token has expired.
    TokenExpired,
    /// The token was revoked.
    TokenRevoked,
    /// The owner of the token is disabled.
    OwnerDisabled,
    /// No rule names the request.
    NotFound,
    /// A scope or a permission is missing, or the domain does not exist for this token.
    PermissionDenied,
    /// The operation is permitted in this domain, on entities other than this one.
    OtherEntity(LimitedBy),
    /// The decision depends on the model, and the body does not name exactly one.
    NoModel(NoModel),
    /// Too many requests with this token were denied lately.
    RateLimited,
    /// patgate already awaits as many bodies with this token as it permits at a time.
    TooManyBodies,
    /// What the decision depends on cannot be known in time.
    Unavailable,
}

/// What limits the permitted entities, and does not include the entity of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// The scopes of the token.
    Scopes,
    /// The domain's list of models.
    Domain,
}

/// The part of a request because of which it does not have exactly one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedPart {
    /// The path is not in its canonical spelling.
    Path,
    /// `Authorization` has more than one value.
    Authorization,
    /// The request has several credentials that differ.
    Credentials,
    /// The query contains a token.
    TokenInQuery,
    /// The `Connection` header of an upgrade names headers.
    Connection,
    /// The host has more than one value.
    Authority,
    /// The message of the gateway cannot be decoded, or has no HTTP request.
    Message,
}

/// What a credential is, if its form alone shows that it is not a token of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAToken {
    /// `Authorization` has one word, without a scheme before it.
    NoScheme,
    /// `Authorization` has a scheme that this API does not accept.
    OtherScheme,
    /// The credential is empty, or contains blanks.
    Blank,
    /// The credential is a key of another vendor.
    ForeignKey,
    /// The credential is a JWT, such as an identity provider issues at a sign-in.
    Jwt,
    /// The credential is the name of a variable that the client did not replace.
    Variable,
    /// The credential has a quotation mark at its beginning or its end.
    Quoted,
    /// The credential is what a token begins with, as self-service shows it, without its secret.
    Beginning,
    /// The credential has the form of a token, with a prefix that this gateway does not use.
    OtherPrefix,
}

/// What a request has more of than patgate reads to find the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Nested objects and arrays.
    Depth,
    /// Members of a JSON object.
    Members,
    /// Parts of a form.
    Parts,
    /// Parameters of a query.
    Parameters,
}

/// Why a compressed body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionFault {
    /// The body is not exactly one member of gzip or one frame of zstd, or it is damaged.
    Malformed,
    /// The body has an optional field, a dictionary, or a window that is too large.
    Optional,
    /// The decoded body is longer than any body that patgate reads.
    TooLong,
    /// The decoded body is too many times as long as the compressed body.
    TooDense,
    /// The body has too many blocks for its length.
    TooManyBlocks,
}

/// Why a body does not name exactly one model, the same for every reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoModel {
    /// The gateway showed no body.
    NotShown,
    /// The gateway showed only the beginning of the body.
    Cut,
    /// The body has an encoding that patgate does not read, or more than one.
    Encoded,
    /// The body is a compressed form.
    CompressedForm,
    /// The body is compressed, and cannot be read for this reason.
    Compressed(CompressionFault),
    /// patgate already awaits or decodes too much for the token.
    TooMuchAtOnce,
    /// There is not enough memory or time to decode the body.
    NotInTime,
    /// `Content-Type` does not say that the body is JSON.
    NotJson,
    /// `Content-Type` does not say that the body is a form, with its boundary.
    NotForm,
    /// The body is not one well-formed JSON object in UTF-8.
    MalformedJson {
        /// The number of bytes before the first error.
        at: usize,
    },
    /// The body is the beginning of a JSON object, which does not end.
    UnfinishedJson {
        /// The number of bytes of the body.
        at: usize,
    },
    /// The body or the query has more of something than patgate reads.
    Excessive(Excess),
    /// The body is not a form that every reader reads in the same way.
    MalformedForm {
        /// The number of the part, from 1; 0 for what is before the first part.
        part: usize,
    },
    /// The body names no model.
    Absent,
    /// The body names several models, or uses a spelling of `model` that only some readers accept.
    Repeated,
    /// The value of `model` cannot be the name of a model.
    NotAName,
    /// This member may make the backend use another model.
    Rival(&'static str),
    /// The query may name another model.
    InQuery,
    /// The body has no length, so it may continue after what the gateway showed.
    Endless,
    /// This call names its model in a place that patgate does not read.
    Elsewhere,
}

impl NoModel {
    /// Returns the kind of the reason, which decides the code and the status.
    pub fn kind(self) -> NoModelKind {
        match self {
            Self::Cut
            | Self::Compressed(
                CompressionFault::TooLong
                | CompressionFault::TooDense
                | CompressionFault::TooManyBlocks,
            ) => NoModelKind::TooLong,
            Self::Encoded
            | Self::CompressedForm
            | Self::Compressed(CompressionFault::Optional)
            | Self::NotJson
            | Self::NotForm => NoModelKind::Unsupported,
            Self::InQuery | Self::Excessive(Excess::Parameters) => NoModelKind::Query,
            Self::Elsewhere => NoModelKind::Permission,
            Self::TooMuchAtOnce => NoModelKind::Rate,
            Self::NotInTime => NoModelKind::Time,
            _ => NoModelKind::Body,
        }
    }
}

/// The kinds of reasons because of which no model can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoModelKind {
    /// The contents of the body are wrong.
    Body,
    /// The contents of the query are wrong.
    Query,
    /// The body is too long.
    TooLong,
    /// patgate does not read the encoding or the type of the body.
    Unsupported,
    /// The request is well-formed, but the token or the domain is limited to some models.
    Permission,
    /// The request is well-formed, but patgate already reads too much for the token.
    Rate,
    /// The request is well-formed, but cannot be read in time.
    Time,
}

impl NoModelKind {
    /// Returns whether the same request may succeed a moment later.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Rate | Self::Time)
    }
}

impl Refusal {
    /// Every code, by the stage that refuses, in their order.
    pub const CODES: [&str; 15] = [
        "bad_request",
        "missing_credential",
        "invalid_token",
        "token_not_yet_issued",
        "token_expired",
        "token_revoked",
        "owner_disabled",
        "not_found",
        "permission_denied",
        "invalid_body",
        "invalid_query",
        "body_too_large",
        "unsupported_media_type",
        "rate_limited",
        "unavailable",
    ];

    /// Returns the code of the refusal in error bodies, metrics, logs and metadata.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::MissingCredential => "missing_credential",
            Self::NotAToken(_) | Self::InvalidToken => "invalid_token",
            Self::TokenNotYetIssued => "token_not_yet_issued",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::OwnerDisabled => "owner_disabled",
            Self::NotFound => "not_found",
            Self::PermissionDenied | Self::OtherEntity(_) => "permission_denied",
            Self::NoModel(why) => match why.kind() {
                NoModelKind::Body => "invalid_body",
                NoModelKind::Query => "invalid_query",
                NoModelKind::TooLong => "body_too_large",
                NoModelKind::Unsupported => "unsupported_media_type",
                NoModelKind::Permission => "permission_denied",
                NoModelKind::Rate => "rate_limited",
                NoModelKind::Time => "unavailable",
            },
            Self::RateLimited => "rate_limited",
            Self::TooManyBodies => "rate_limited",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<NoModel> for Refusal {
    fn from(why: NoModel) -> Self {
        Self::NoModel(why)
    }
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, subject: None, operation: None }
    }
}
