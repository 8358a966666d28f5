//! What went wrong, as RFC 9457 has it.

use std::time::Duration;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{limits::Refusal, oidc::Failure, page::Fault};
use crate::admin::web::Error;

/// An answer that says what is wrong, and what to do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Names the kind of problem; clients see it after `urn:patgate:problem:`.
    #[serde(rename = "type", serialize_with = "urn")]
    #[schema(value_type = String, pattern = "^urn:patgate:problem:[a-z-]+$")]
    pub(super) code: &'static str,
    /// The kind in words.
    pub(super) title: &'static str,
    #[serde(serialize_with = "number")]
    #[schema(value_type = u16, minimum = 400, maximum = 599)]
    pub(super) status: StatusCode,
    /// What is wrong with this request.
    pub(super) detail: String,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

fn urn<S: serde::Serializer>(code: &&'static str, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("urn:patgate:problem:{code}"))
}

fn number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

const SIGN_IN: &str =
    "sign in with POST /api/sessions, and send the cookie or the secret of the session";

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { code, title, status, detail: detail.into(), retry_after: None }
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", "The request is not valid", detail)
    }

    /// A request to change something that does not say what.
    pub(super) fn no_change(members: &str) -> Self {
        Self::invalid(format!("say what to change: {members}"))
    }

    pub(super) fn method_not_allowed() -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let detail = "this path does not take this method; the header `allow` names those it takes";
        Self::new(status, "method-not-allowed", "Method not allowed", detail)
    }

    /// Something was sent that is no session: a Personal Access Token, for example.
    pub(super) fn not_a_session() -> Self {
        let detail = "what `authorization` holds is no session; a Personal Access Token cannot govern \
                      tokens: ";
        Self { detail: format!("{detail}{SIGN_IN}"), ..Error::NotSignedIn.into() }
    }

    /// A token of a sign-in was sent, which proves no session.
    pub(super) fn not_exchanged(takes_access_tokens: bool) -> Self {
        let detail = if takes_access_tokens {
            "a JWT is no session: send it once to POST /api/sessions, and then the `secret` of the \
             answer as `authorization: Bearer …`"
        } else {
            "a JWT is no session, and this self-service takes none: sign in with POST /api/sessions"
        };
        Self { detail: detail.to_owned(), ..Error::NotSignedIn.into() }
    }

    pub(super) fn foreign_origin() -> Self {
        let detail = "a request that changes something must come from this site: its `origin` must be \
                      that of `web.url`. A program that is no browser sends the secret of the session \
                      as `authorization: Bearer …` instead of a cookie";
        Self::new(StatusCode::FORBIDDEN, "foreign-origin", "Sent by another site", detail)
    }

    /// A form of another session, or of no page at all.
    pub(super) fn foreign_form() -> Self {
        let detail =
            "this form is not of your present session; open the page again, and send its form";
        Self::new(StatusCode::FORBIDDEN, "foreign-form", "Not your form", detail)
    }

    pub(super) fn wrong_host() -> Self {
        let status = StatusCode::MISDIRECTED_REQUEST;
        let detail = "self-service is reached under another name: that of `web.url`";
        Self::new(status, "wrong-host", "Wrong host", detail)
    }

    pub(super) fn too_large() -> Self {
        let detail = "the body is longer than 64 KiB";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    pub(super) fn arrived_too_slowly() -> Self {
        let detail = "the request did not arrive within five seconds; try again";
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "Too slow", detail)
    }

    pub(super) fn took_too_long() -> Self {
        let detail = "the answer took too long; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available", detail)
    }

    fn after(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }
}

/// Answers a problem as what asks can read: a program of the API, or a person with a browser.
pub(super) fn answer(problem: Problem, path: &str) -> Response {
    match path.strip_prefix("/api") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => problem.into_response(),
        _ => Fault::from(problem).into_response(),
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Client(after) => {
                let detail = "too many requests from this address; try again later";
                let status = StatusCode::TOO_MANY_REQUESTS;
                Self::new(status, "too-many-requests", "Too many requests", detail).after(after)
            }
            Refusal::Busy => {
                let detail = "too many requests at the same time; try again";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let second = Duration::from_secs(1);
                Self::new(status, "busy", "Busy", detail).after(second)
            }
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Token(refused) => {
                let detail = format!("the access token is not accepted: {refused}");
                Self { detail, ..Error::SignInFailed.into() }
            }
            Failure::Unavailable(_) | Failure::Code | Failure::NoRandomNumbers => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let detail = "the provider cannot be used now; try again later. Accounts with a \
                              password work meanwhile";
                Self::new(status, "provider-unavailable", "The provider is not available", detail)
                    .after(Duration::from_secs(5))
            }
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        use StatusCode as S;
        let detail = error.to_string();
        let (status, code, title) = match &error {
            Error::NotSignedIn => (S::UNAUTHORIZED, "not-signed-in", "Not signed in"),
            Error::SignInFailed => (S::UNAUTHORIZED, "sign-in-failed", "The sign-in failed"),
            Error::TooManyAttempts => {
                (S::TOO_MANY_REQUESTS, "too-many-attempts", "Too many attempts")
            }
            Error::NotPermitted(_) => (S::FORBIDDEN, "not-permitted", "Not permitted"),
            Error::NeedsElevation => (S::FORBIDDEN, "needs-password", "Confirm your password"),
            Error::NotFound(_) => (S::NOT_FOUND, "not-found", "Not found"),
            Error::Changed(_) => (S::PRECONDITION_FAILED, "changed", "Changed meanwhile"),
            Error::Exists(_) => (S::CONFLICT, "exists", "Exists already"),
            Error::LifetimeTooLong { .. } => {
                (S::UNPROCESSABLE_ENTITY, "lifetime-too-long", "Lives too long")
            }
            Error::Invalid(_) => (S::BAD_REQUEST, "invalid", "The request is not valid"),
            Error::KeyReused => {
                (S::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "Another request had this key")
            }
            Error::TokenEnded => (S::CONFLICT, "token-ended", "The token has ended"),
            Error::TooMany(_) => (S::CONFLICT, "too-many", "Too many"),
            Error::Busy => {
                let second = Duration::from_secs(1);
                return Self::new(S::CONFLICT, "busy", "Another change is in the way", detail)
                    .after(second);
            }
            Error::NoRandomNumbers(_)
            | Error::Password(_)
            | Error::Schema(_)
            | Error::TooPowerful { .. }
            | Error::OtherInstallation
            | Error::Denied(_)
            | Error::Unavailable(_) => {
                // It may name hosts and logins.
                tracing::error!(%error, "a request of self-service failed");
                let detail = "self-service cannot reach its database now, or not as it should; try \
                              again, and tell an operator if that does not help";
                let second = Duration::from_secs(1);
                return Self::new(S::SERVICE_UNAVAILABLE, "unavailable", "Not available", detail)
                    .after(second);
            }
        };
        Self::new(status, code, title, detail)
    }
}

impl Problem {
    /// Tells a client when to try again, in any form of answer.
    pub(super) fn retry_after(&self) -> Option<(HeaderName, HeaderValue)> {
        let after = self.retry_after?;
        // Whole seconds, at least one.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        Some((header::RETRY_AFTER, HeaderValue::from(seconds.max(1))))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&self).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body).into_response();
        response.headers_mut().extend(self.retry_after());
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"patgate\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
