//! Why a request may not pass: every reason, and the code of each.

use crate::{operation::Operation, principal::UserId, token::TokenId};

/// Why a request may not pass, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Denial {
    /// The reason.
    pub refusal: Refusal,
    /// The token and its owner, once possession of the token was proven.
    pub subject: Option<(TokenId, UserId)>,
    /// What the request would have done.
    pub operation: Option<Operation>,
}

/// The reasons, by the stage that gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a request that has one meaning.
    BadRequest(MalformedPart),
    /// No credential.
    MissingCredential,
    /// A credential that is no token of ours, as its form alone shows.
    NotAToken(NotAToken),
    /// A credential that proves nothing. One answer for all of them.
    InvalidToken,
    /// The token's row says that it was issued in the future.
    TokenNotYetIssued,
    /// The token's time is over.
    TokenExpired,
    /// The token was revoked.
    TokenRevoked,
    /// The token's owner was disabled.
    OwnerDisabled,
    /// No rule names the request.
    NotFound,
    /// Scope or permission is missing, or the domain is not there for this caller.
    PermissionDenied,
    /// The operation is permitted here, on other entities than this one.
    OtherEntity(LimitedBy),
    /// It depends on the model whether the request may pass, and the body does not name one model.
    NoModel(NoModel),
    /// The token was denied too often lately.
    RateLimited,
    /// As many bodies are awaited for the token as may be at a time.
    TooManyBodies,
    /// It cannot be known in time.
    Unavailable,
}

/// What names the entities that are permitted, and not the one of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// The token's scopes.
    Scopes,
    /// The domain's list of models.
    Domain,
}

/// How a request can fail to have one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedPart {
    /// The path has another spelling.
    Path,
    /// `Authorization` has more than one value.
    Authorization,
    /// The places of credentials hold different ones.
    Credentials,
    /// The query holds a token.
    TokenInQuery,
    /// An upgrade whose `Connection` names headers.
    Connection,
    /// The host has more than one value.
    Authority,
    /// The message lacks the HTTP request.
    Message,
}

/// What a credential is whose form alone shows that it is no token of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAToken {
    /// `Authorization` holds one word, and no scheme before it.
    NoScheme,
    /// `Authorization` has a scheme that this API does not accept.
    OtherScheme,
    /// Nothing, or something with blanks in it.
    Blank,
    /// A key of another vendor.
    ForeignKey,
    /// A variable that the client should have replaced.
    Variable,
    /// A token by its form, with a prefix that is not used here.
    OtherPrefix,
}

/// What a request has more of than is read, where it must be read to find its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Objects and arrays in each other.
    Depth,
    /// Members of a JSON object.
    Members,
    /// Parts of a form.
    Parts,
    /// Parameters of a query.
    Parameters,
}

/// How a compressed body can fail to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionFault {
    /// It is not exactly one member of gzip or one frame of zstd, or was damaged.
    Malformed,
    /// It has an optional field, a dictionary or a larger window.
    Optional,
    /// It becomes longer than any body that is read.
    TooLong,
    /// It becomes so many times as long as it was sent.
    TooDense,
    /// It consists of very small blocks.
    TooManyBlocks,
}

/// How a body can fail to name one model, the same for every reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoModel {
    /// Nothing of a body was shown.
    NotShown,
    /// Only its beginning was shown.
    Cut,
    /// It has an encoding that is not read, or more than one.
    Encoded,
    /// It is a form that is compressed.
    CompressedForm,
    /// It is compressed, and not in the one way that is read.
    Compressed(CompressionFault),
    /// Too much is awaited and decoded for the token already.
    TooMuchAtOnce,
    /// There is neither memory nor time to decode it.
    NotInTime,
    /// It does not say that it is JSON.
    NotJson,
    /// It does not say that it is a form, with its boundary.
    NotForm,
    /// Not one well-formed JSON object in UTF-8.
    MalformedJson {
        /// How many of its bytes had been read when that was noticed.
        at: usize,
    },
    /// It, or the query, has more of something than is read.
    Excessive(Excess),
    /// Not a form that is read in one way only.
    MalformedForm {
        /// Which of its parts, from 1; 0 for what stands before them.
        part: usize,
    },
    /// It names no model.
    Absent,
    /// It names more than one, or one in a spelling that some readers take for it.
    Repeated,
    /// What it names is not a text that can be a model's name.
    NotAName,
    /// This member may make the backend use another one.
    Rival(&'static str),
    /// The query may name another one.
    InQuery,
    /// A form without a length, which may go on behind what was shown.
    Endless,
    /// This call names its models in another way.
    Elsewhere,
}

impl NoModel {
    /// What is at fault.
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

/// What is at fault if no model can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoModelKind {
    /// What the body holds.
    Body,
    /// What the query holds.
    Query,
    /// How long the body is.
    TooLong,
    /// Its encoding, or its type.
    Unsupported,
    /// Nothing: the token or the domain is limited to some models.
    Permission,
    /// Nothing: so much is read for the token already.
    Rate,
    /// Nothing: it cannot be read in time.
    Time,
}

impl NoModelKind {
    /// Whether the same request may be judged otherwise in a moment.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Rate | Self::Time)
    }
}

impl Refusal {
    /// Every code, by the stage that gives it.
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

    /// The word for it in bodies, metrics, logs and metadata.
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
