//! Turns a decision into what Envoy understands. Nothing else builds a `CheckResponse`.
//!
//! Envoy takes an empty `CheckResponse`, and a denial whose `status.code` is 0, for an ALLOW. So
//! the message is wrapped in [`Answer`], which has no default and one constructor, and every
//! denial carries a non-OK status. An allow is written by `allow.rs`, without the message.

mod allow;

use bytes::Bytes;
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use serde_json::json;

#[expect(clippy::disallowed_types, reason = "the one place that builds it")]
use crate::proto::envoy::service::auth::v3::CheckResponse;
use crate::{
    api::ErrorStyle,
    decision::{Decision, Denial, Malformed, NoModel, Refusal},
    proto::{
        envoy::{
            config::core::v3::{
                HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
            },
            service::auth::v3::{DeniedHttpResponse, check_response::HttpResponse},
            r#type::v3::{HttpStatus, StatusCode},
        },
        google::rpc::Status,
    },
};

/// Seconds after which a client may ask again when we could not decide.
const RETRY_AFTER: &str = "1";

/// An answer to a check as it goes over the wire: never empty, and an allow only for a [`Permit`].
///
/// [`Permit`]: crate::decision::Permit
#[derive(Debug)]
pub(crate) struct Answer(Bytes);

/// What an answer is addressed to.
#[derive(Debug)]
pub(crate) struct Addressee<'a> {
    /// Echoed to the client, so that it can be found in the logs.
    pub(crate) request_id: &'a str,
    /// How the API in question words its errors.
    pub(crate) errors: ErrorStyle,
}

/// The names of the identity headers, under the operator's prefix.
#[derive(Clone, Debug)]
pub(crate) struct HeaderNames {
    domain_id: String,
    domain_slug: String,
    user_id: String,
    pat_id: String,
    operation: String,
    model: String,
    upstream: String,
}

impl HeaderNames {
    pub(crate) fn new(prefix: &str) -> Self {
        let name = |rest: &str| format!("{prefix}{rest}");
        Self {
            domain_id: name("domain-id"),
            domain_slug: name("domain-slug"),
            user_id: name("user-id"),
            pat_id: name("pat-id"),
            operation: name("auth-operation"),
            model: name("auth-model"),
            upstream: name("upstream-cluster"),
        }
    }
}

/// What gRPC puts before a message: that it is not compressed, and its length.
const FRAME_HEAD: usize = 5;
/// Most allows fit.
const CAPACITY: usize = 1024;

impl Answer {
    /// The answer that carries out `decision`.
    pub(crate) fn new(decision: &Decision, names: &HeaderNames, to: &Addressee<'_>) -> Self {
        let mut frame = Vec::with_capacity(CAPACITY);
        frame.extend_from_slice(&[0; FRAME_HEAD]);
        match decision {
            Decision::Allow(permit) => allow::write(permit, names, &mut frame),
            Decision::Deny(denial) => deny(denial, to, &mut frame),
        }
        // Messages are far shorter than that.
        let length = u32::try_from(frame.len() - FRAME_HEAD).unwrap_or(u32::MAX);
        frame[1..FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
        Self(frame.into())
    }

    /// As gRPC frames it.
    pub(crate) fn into_frame(self) -> Bytes {
        self.0
    }
}

fn deny(denial: &Denial, to: &Addressee<'_>, frame: &mut Vec<u8>) {
    let response = CheckResponse {
        status: Some(Status {
            code: grpc_code(denial.refusal) as i32,
            message: denial.refusal.code().to_owned(),
        }),
        http_response: Some(HttpResponse::DeniedResponse(denied(denial, to))),
        dynamic_metadata: Some(metadata(denial)),
    };
    // A vector grows as it must.
    let _ = response.encode(frame);
}

fn denied(denial: &Denial, to: &Addressee<'_>) -> DeniedHttpResponse {
    let message = message(denial);
    let mut headers = vec![
        header("content-type", "application/json".to_owned()),
        header("cache-control", "no-store".to_owned()),
        header("x-request-id", to.request_id.to_owned()),
    ];
    if let Some(challenge) = challenge(denial, &message) {
        headers.push(header("www-authenticate", challenge));
    }
    if denial.refusal == Refusal::Unavailable {
        headers.push(header("retry-after", RETRY_AFTER.to_owned()));
    }
    DeniedHttpResponse {
        status: Some(HttpStatus { code: http_status(denial.refusal) as i32 }),
        headers,
        body: match to.errors {
            ErrorStyle::Openai => openai_body(denial.refusal, &message),
        },
    }
}

fn http_status(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::BadRequest(_) => StatusCode::BadRequest,
        Refusal::MissingCredential
        | Refusal::InvalidToken
        | Refusal::TokenExpired
        | Refusal::TokenRevoked
        | Refusal::OwnerDisabled => StatusCode::Unauthorized,
        Refusal::PermissionDenied | Refusal::NoModel(_) => StatusCode::Forbidden,
        Refusal::Unavailable => StatusCode::ServiceUnavailable,
    }
}

fn grpc_code(refusal: Refusal) -> tonic::Code {
    match http_status(refusal) {
        StatusCode::BadRequest => tonic::Code::InvalidArgument,
        StatusCode::Unauthorized => tonic::Code::Unauthenticated,
        StatusCode::ServiceUnavailable => tonic::Code::Unavailable,
        StatusCode::Forbidden | StatusCode::Empty => tonic::Code::PermissionDenied,
    }
}

/// For the person who reads the client's error: what happened and what to do.
fn message(denial: &Denial) -> String {
    match (denial.refusal, denial.operation) {
        (Refusal::BadRequest(Malformed::Path), _) => {
            "The request path is not in canonical form: send it without empty, `.` or `..` \
             segments, percent-encoding, `;`, `\\` or a trailing slash."
        }
        (Refusal::BadRequest(Malformed::Authorization), _) => {
            "The Authorization header has more than one value. Send exactly one."
        }
        (Refusal::BadRequest(Malformed::Message), _) => "The request could not be read.",
        (Refusal::MissingCredential, _) => {
            "No access token was sent. Send it as `Authorization: Bearer <token>`."
        }
        (Refusal::InvalidToken, _) => {
            "The access token is not valid. Check that it was copied completely and still exists."
        }
        (Refusal::TokenExpired, _) => "The access token has expired. Create a new one.",
        (Refusal::TokenRevoked, _) => "The access token was revoked. Create a new one.",
        (Refusal::OwnerDisabled, _) => {
            "The owner of the access token is disabled. Ask an administrator."
        }
        (Refusal::PermissionDenied, Some(operation)) => {
            return format!(
                "The access token does not permit `{operation}` here: it needs a scope for it in \
                 this domain, and its owner a role with it."
            );
        }
        (Refusal::PermissionDenied, None) => {
            "The access token does not permit this: no rule covers this method and path."
        }
        (Refusal::NoModel(why), _) => {
            return format!(
                "The access token or the domain is limited to some models. {}",
                no_model(why)
            );
        }
        (Refusal::Unavailable, _) => {
            "Authorization is temporarily unavailable. Nothing is wrong with the request: retry."
        }
    }
    .to_owned()
}

/// What to change about a body, or about the gateway, so that a model can be read.
fn no_model(why: NoModel) -> &'static str {
    match why {
        NoModel::NotShown => {
            "No body was shown to authorization: send one that names the model. If you did, the \
             gateway must set `with_request_body` with `pack_as_bytes` on this route."
        }
        NoModel::Cut => {
            "The body is longer than what the gateway shows to authorization: send a shorter one, \
             or have `max_request_bytes` raised on this route."
        }
        NoModel::Encoded => "The body is compressed: send it without Content-Encoding.",
        NoModel::NotJson => "Send JSON in UTF-8, with `Content-Type: application/json`.",
        NoModel::NotForm => {
            "Send a form, with `Content-Type: multipart/form-data` and a boundary of letters, \
             digits, `-` and `_` as its only parameter."
        }
        NoModel::MalformedJson => "The body is not one well-formed JSON object in UTF-8.",
        NoModel::TooDeep => "The JSON body is nested more than 100 levels deep.",
        NoModel::MalformedForm => "The form is malformed, or can be read in more than one way.",
        NoModel::Absent => "The body names no model: send `model`.",
        NoModel::Repeated => {
            "The body names more than one model: send `model` once, and no other \
                              spelling of it."
        }
        NoModel::NotAName => {
            "The body's `model` is not a text of 1 to 256 characters without control characters."
        }
        NoModel::Elsewhere => {
            "This call names its models in a way that is not read, so it needs both without limits."
        }
    }
}

/// RFC 6750, section 3: no error parameter when no credential was sent.
fn challenge(denial: &Denial, message: &str) -> Option<String> {
    const REALM: &str = r#"Bearer realm="patgate""#;
    match (denial.refusal, denial.operation) {
        (Refusal::MissingCredential, _) => Some(REALM.to_owned()),
        (Refusal::PermissionDenied | Refusal::NoModel(_), Some(operation)) => {
            Some(format!(r#"{REALM}, error="insufficient_scope", scope="{operation}""#))
        }
        (
            Refusal::BadRequest(_)
            | Refusal::PermissionDenied
            | Refusal::NoModel(_)
            | Refusal::Unavailable,
            _,
        ) => None,
        _ => Some(format!(r#"{REALM}, error="invalid_token", error_description="{message}""#)),
    }
}

fn openai_body(refusal: Refusal, message: &str) -> String {
    let kind = match http_status(refusal) {
        StatusCode::BadRequest => "invalid_request_error",
        StatusCode::Unauthorized => "authentication_error",
        StatusCode::ServiceUnavailable => "service_unavailable_error",
        StatusCode::Forbidden | StatusCode::Empty => "permission_error",
    };
    let param = matches!(refusal, Refusal::NoModel(_)).then_some("model");
    json!({
        "error": { "message": message, "type": kind, "param": param, "code": refusal.code() }
    })
    .to_string()
}

fn header(name: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value }),
        // Always stated: what Envoy does when it is unset has changed between releases.
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
    }
}

/// For Envoy's access log and rate limits: what was refused, and to whom.
fn metadata(denial: &Denial) -> Struct {
    let subject = denial.subject;
    let fields = [
        ("outcome", Some("deny".to_owned())),
        ("code", Some(denial.refusal.code().to_owned())),
        ("user_id", subject.map(|(_, owner)| owner.to_string())),
        ("pat_id", subject.map(|(token, _)| token.to_string())),
        ("operation", denial.operation.map(|operation| operation.to_string())),
    ];
    let known = fields.into_iter().filter_map(|(name, value)| {
        Some((name.to_owned(), Value { kind: Some(Kind::StringValue(value?)) }))
    });
    Struct { fields: known.collect() }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, sync::Arc};

    use envoy_types::pb::envoy::service::auth::v3 as envoy;
    use uuid::Uuid;

    use super::*;
    use crate::{
        decision::Permit,
        domain::{Domain, DomainId},
        operation::Operation,
        principal::UserId,
        token::TokenId,
    };

    const TOKEN: TokenId = TokenId(Uuid::from_u128(1));
    const OWNER: UserId = UserId(Uuid::from_u128(2));

    /// The answer as Envoy's own definitions read it.
    fn answer(decision: &Decision) -> envoy::CheckResponse {
        let to = Addressee { request_id: "r-1", errors: ErrorStyle::Openai };
        let frame = Answer::new(decision, &HeaderNames::new("x-"), &to).into_frame();
        let (head, bytes) = frame.split_at(FRAME_HEAD);
        assert_eq!(head, [&[0][..], &(bytes.len() as u32).to_be_bytes()].concat());
        assert!(!bytes.is_empty(), "an empty message is an ALLOW");
        envoy::CheckResponse::decode(bytes).unwrap()
    }

    fn permit(model: Option<&str>) -> Decision {
        let (id, slug) = (DomainId(Uuid::from_u128(3)), "acme".parse().unwrap());
        let domain = Domain::new(id, slug, true, "model-acme".into(), Vec::new());
        Decision::Allow(Permit {
            token: TOKEN,
            owner: OWNER,
            domain: Arc::new(domain),
            operation: Operation::LlmRead,
            model: model.map(Box::from),
            upstream: "model-acme".into(),
        })
    }

    fn denials() -> Vec<Denial> {
        let early = [
            Refusal::BadRequest(Malformed::Path),
            Refusal::BadRequest(Malformed::Authorization),
            Refusal::BadRequest(Malformed::Message),
            Refusal::MissingCredential,
            Refusal::InvalidToken,
            Refusal::Unavailable,
        ];
        let late = [
            Refusal::TokenExpired,
            Refusal::TokenRevoked,
            Refusal::OwnerDisabled,
            Refusal::PermissionDenied,
        ];
        let subject = Some((TOKEN, OWNER));
        let late = late.map(|refusal| Denial { subject, ..refusal.into() });
        let named = Denial {
            refusal: Refusal::PermissionDenied,
            subject,
            operation: Some(Operation::LlmChatCompletions),
        };
        let no_model = [
            NoModel::NotShown,
            NoModel::Cut,
            NoModel::Encoded,
            NoModel::NotJson,
            NoModel::NotForm,
            NoModel::MalformedJson,
            NoModel::TooDeep,
            NoModel::MalformedForm,
            NoModel::Absent,
            NoModel::Repeated,
            NoModel::NotAName,
            NoModel::Elsewhere,
        ];
        let no_model = no_model.map(|why| Denial { refusal: Refusal::NoModel(why), ..named });
        early.map(Denial::from).into_iter().chain(late).chain([named]).chain(no_model).collect()
    }

    #[test]
    fn every_denial_is_a_denial_for_envoy() {
        let mut seen = String::new();
        for denial in denials() {
            let response = answer(&Decision::Deny(denial));
            let status = response.status.unwrap();
            assert_ne!(status.code, 0, "{denial:?}");
            let Some(envoy::check_response::HttpResponse::DeniedResponse(denied)) =
                response.http_response
            else {
                panic!("{denial:?} is not denied");
            };
            let http = denied.status.unwrap().code;
            writeln!(seen, "{http} {} grpc {}", status.message, status.code).unwrap();
            for option in denied.headers {
                assert_eq!(option.append_action, 2, "overwrite, stated");
                let header = option.header.unwrap();
                writeln!(seen, "  {}: {}", header.key, header.value).unwrap();
            }
            let metadata = response.dynamic_metadata.unwrap();
            let mut metadata: Vec<_> = metadata.fields.keys().map(String::as_str).collect();
            metadata.sort_unstable();
            writeln!(seen, "  {}\n  metadata: {}\n", denied.body, metadata.join(" ")).unwrap();
        }
        insta::assert_snapshot!(seen);
    }

    #[test]
    fn every_identity_header_is_set_or_removed() {
        for model in [None, Some("org/m-7b")] {
            let response = answer(&permit(model));
            assert_eq!(response.status.unwrap().code, 0);
            let Some(envoy::check_response::HttpResponse::OkResponse(ok)) = response.http_response
            else {
                panic!("not allowed");
            };
            let overwrite =
                |option: &envoy_types::pb::envoy::config::core::v3::HeaderValueOption| {
                    option.append_action == 2
                };
            assert!(ok.headers.iter().all(overwrite), "overwrite, stated");
            let set = ok.headers.iter().map(|option| option.header.clone().unwrap().key);
            let mut names: Vec<_> = set.chain(ok.headers_to_remove).collect();
            names.sort();
            assert_eq!(
                names,
                [
                    "authorization",
                    "x-auth-model",
                    "x-auth-operation",
                    "x-domain-id",
                    "x-domain-slug",
                    "x-pat-id",
                    "x-upstream-cluster",
                    "x-user-id"
                ]
            );
            let metadata = response.dynamic_metadata.unwrap();
            assert_eq!(metadata.fields.contains_key("model"), model.is_some());
        }
    }
}
