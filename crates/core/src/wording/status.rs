//! The HTTP status of a refusal.

use crate::{
    api::{ApiStyle, InsufficientStatus},
    refusal::{NoModelKind, Refusal},
};

/// The statuses of errors that patgate answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorStatus {
    /// The request is malformed, or its body or query does not name one model.
    BadRequest = 400,
    /// The request has no valid credential.
    Unauthorized = 401,
    /// The credential is valid, and does not permit the request.
    Forbidden = 403,
    /// No rule names the request.
    NotFound = 404,
    /// The body is longer than what patgate reads.
    ContentTooLarge = 413,
    /// The encoding or the type of the body is not read.
    UnsupportedMediaType = 415,
    /// The token has to wait.
    TooManyRequests = 429,
    /// The answer is not known in time.
    ServiceUnavailable = 503,
}

impl ErrorStatus {
    /// Returns the status for a refusal in an API.
    pub fn of(refusal: Refusal, api_style: ApiStyle) -> Self {
        match (refusal, api_style.insufficient) {
            (Refusal::BadRequest(_), _) => Self::BadRequest,
            (
                Refusal::MissingCredential
                | Refusal::NotAToken(_)
                | Refusal::InvalidToken
                | Refusal::TokenNotYetIssued
                | Refusal::TokenExpired
                | Refusal::TokenRevoked
                | Refusal::OwnerDisabled,
                _,
            )
            | (
                Refusal::PermissionDenied | Refusal::OtherEntity(_),
                InsufficientStatus::Unauthorized,
            ) => Self::Unauthorized,
            (
                Refusal::PermissionDenied | Refusal::OtherEntity(_),
                InsufficientStatus::Forbidden,
            ) => Self::Forbidden,
            (Refusal::NoModel(why), insufficient) => match (why.kind(), insufficient) {
                (NoModelKind::Body | NoModelKind::Query, _) => Self::BadRequest,
                (NoModelKind::TooLong, _) => Self::ContentTooLarge,
                (NoModelKind::Unsupported, _) => Self::UnsupportedMediaType,
                (NoModelKind::Permission, InsufficientStatus::Unauthorized) => Self::Unauthorized,
                (NoModelKind::Permission, InsufficientStatus::Forbidden) => Self::Forbidden,
                (NoModelKind::Rate, _) => Self::TooManyRequests,
                (NoModelKind::Time, _) => Self::ServiceUnavailable,
            },
            (Refusal::NotFound, _) => Self::NotFound,
            (Refusal::RateLimited | Refusal::TooManyBodies, _) => Self::TooManyRequests,
            (Refusal::Unavailable, _) => Self::ServiceUnavailable,
        }
    }

    /// Returns the HTTP status code.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// Returns the reason phrase (RFC 9110, section 15).
    pub fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Unauthorized => "Unauthorized",
            Self::NotFound => "Not Found",
            Self::ContentTooLarge => "Content Too Large",
            Self::UnsupportedMediaType => "Unsupported Media Type",
            Self::TooManyRequests => "Too Many Requests",
            Self::ServiceUnavailable => "Service Unavailable",
            Self::Forbidden => "Forbidden",
        }
    }
}
