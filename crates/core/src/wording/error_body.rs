//! The body of an error in the style of the API that was called.

use serde_json::{Value, json};

use super::ErrorStatus;
use crate::api::ErrorStyle;

/// The contents of an error body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorBody<'a> {
    /// The status of the answer.
    pub(crate) status: ErrorStatus,
    /// The word for programs.
    pub(crate) code: &'a str,
    /// The text for people.
    pub(crate) message: &'a str,
    /// Whether the denial is about the model that the request names.
    pub(crate) about_model: bool,
    /// The gateway's id of the request.
    pub(crate) request_id: &'a str,
}

impl ErrorBody<'_> {
    /// Returns the media type and the text.
    pub(crate) fn write(&self, style: ErrorStyle) -> (&'static str, String) {
        let Self { status, code, message, about_model, request_id } = *self;
        let number = status.code();
        let (media_type, body) = match style {
            ErrorStyle::Openai => {
                let (kind, param) = (openai_type(status), about_model.then_some("model"));
                let error =
                    json!({ "message": message, "type": kind, "param": param, "code": code });
                ("application/json", json!({ "error": error }))
            }
            ErrorStyle::Ollama => ("application/json", json!({ "error": message })),
            ErrorStyle::Anthropic => {
                let error = json!({ "type": anthropic_type(status), "message": message });
                let body = json!({ "type": "error", "error": error, "request_id": request_id });
                ("application/json", body)
            }
            ErrorStyle::Aigne => {
                ("application/json", json!({ "error": status.title(), "message": message }))
            }
            // RFC 7644, section 3.12: the status is a string, and `scimType` is for faults of a body.
            ErrorStyle::Scim => (
                "application/scim+json",
                json!({
                    "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
                    "status": number.to_string(),
                    "detail": message,
                }),
            ),
            // RFC 9457: without a type of its own, the title is that of the status.
            ErrorStyle::Problem => (
                "application/problem+json",
                json!({
                    "type": "about:blank",
                    "title": status.title(),
                    "status": number,
                    "detail": message,
                    "code": code,
                }),
            ),
        };
        (media_type, body.to_string())
    }
}

/// Returns the text for people in an error body of any style.
pub fn message_of(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    let texts = ["/error/message", "/message", "/detail", "/error"];
    texts.iter().find_map(|at| body.pointer(at)?.as_str()).map(str::to_owned)
}

fn openai_type(status: ErrorStatus) -> &'static str {
    match status {
        ErrorStatus::BadRequest
        | ErrorStatus::NotFound
        | ErrorStatus::ContentTooLarge
        | ErrorStatus::UnsupportedMediaType => "invalid_request_error",
        ErrorStatus::Unauthorized => "authentication_error",
        ErrorStatus::TooManyRequests => "rate_limit_error",
        ErrorStatus::ServiceUnavailable => "service_unavailable_error",
        ErrorStatus::Forbidden => "permission_error",
    }
}

fn anthropic_type(status: ErrorStatus) -> &'static str {
    match status {
        ErrorStatus::BadRequest | ErrorStatus::UnsupportedMediaType => "invalid_request_error",
        ErrorStatus::Unauthorized => "authentication_error",
        ErrorStatus::NotFound => "not_found_error",
        ErrorStatus::ContentTooLarge => "request_too_large",
        ErrorStatus::TooManyRequests => "rate_limit_error",
        ErrorStatus::ServiceUnavailable => "api_error",
        ErrorStatus::Forbidden => "permission_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::ApiStyle,
        refusal::{Excess, LimitedBy, MalformedPart, NoModel, Refusal},
        wording::{MessageContext, message as text_of},
    };

    #[test]
    fn every_style_words_every_refusal() {
        let invalid = "invalid_request_error";
        for (refusals, status, title, openai, anthropic) in [
            (
                &[
                    Refusal::BadRequest(MalformedPart::Path),
                    NoModel::Excessive(Excess::Members).into(),
                    NoModel::MalformedJson { at: 7 }.into(),
                    NoModel::InQuery.into(),
                ][..],
                400,
                "Bad Request",
                invalid,
                invalid,
            ),
            (&[NoModel::Cut.into()], 413, "Content Too Large", invalid, "request_too_large"),
            (
                &[NoModel::Encoded.into(), NoModel::NotJson.into()],
                415,
                "Unsupported Media Type",
                invalid,
                invalid,
            ),
            (
                &[Refusal::MissingCredential, Refusal::TokenRevoked],
                401,
                "Unauthorized",
                "authentication_error",
                "authentication_error",
            ),
            (
                &[
                    Refusal::PermissionDenied,
                    NoModel::Elsewhere.into(),
                    Refusal::OtherEntity(LimitedBy::Domain),
                ],
                403,
                "Forbidden",
                "permission_error",
                "permission_error",
            ),
            (&[Refusal::NotFound], 404, "Not Found", invalid, "not_found_error"),
            (
                &[Refusal::RateLimited, Refusal::TooManyBodies],
                429,
                "Too Many Requests",
                "rate_limit_error",
                "rate_limit_error",
            ),
            (
                &[Refusal::Unavailable],
                503,
                "Service Unavailable",
                "service_unavailable_error",
                "api_error",
            ),
        ] {
            for refusal in refusals {
                check(*refusal, (status, title, openai, anthropic));
            }
        }
    }

    /// `expected`: the status, its title, and the types of errors of OpenAI and Anthropic.
    fn check(refusal: Refusal, expected: (u16, &str, &str, &str)) {
        let (status, title, openai, anthropic) = expected;
        let text = text_of(&refusal.into(), &MessageContext::default());
        let error = ErrorBody {
            status: ErrorStatus::of(refusal, ApiStyle::default()),
            code: refusal.code(),
            message: &text,
            about_model: false,
            request_id: "r-1",
        };
        assert_eq!(error.status.code(), status, "{refusal:?}");
        for style in ErrorStyle::ALL {
            let (media_type, body) = match style {
                ErrorStyle::Openai => (
                    "application/json",
                    json!({ "error": {
                            "message": text, "type": openai, "param": null, "code": refusal.code(),
                        } }),
                ),
                ErrorStyle::Ollama => ("application/json", json!({ "error": text })),
                ErrorStyle::Anthropic => (
                    "application/json",
                    json!({
                        "type": "error",
                        "error": { "type": anthropic, "message": text },
                        "request_id": "r-1",
                    }),
                ),
                ErrorStyle::Aigne => {
                    ("application/json", json!({ "error": title, "message": text }))
                }
                ErrorStyle::Scim => (
                    "application/scim+json",
                    json!({
                        "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
                        "status": status.to_string(),
                        "detail": text,
                    }),
                ),
                ErrorStyle::Problem => (
                    "application/problem+json",
                    json!({
                        "type": "about:blank",
                        "title": title,
                        "status": status,
                        "detail": text,
                        "code": refusal.code(),
                    }),
                ),
            };
            let written = error.write(*style);
            let parsed: Value = serde_json::from_str(&written.1).unwrap();
            assert_eq!((written.0, parsed), (media_type, body), "{style} {refusal:?}");
            // What `patgate check` shows of it.
            assert_eq!(message_of(&written.1), Some(text.clone()), "{style}");
        }
    }
}
