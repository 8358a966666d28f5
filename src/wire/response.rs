//! Turns a decision into what Envoy understands. Nothing else builds a `CheckResponse`.
//!
//! Envoy takes an empty `CheckResponse`, and a denial whose `status.code` is 0, for an ALLOW. So
//! the message is wrapped in [`Answer`], which has no default and one constructor, and every
//! denial carries a non-OK status. An allow is written by `allow.rs`, without the message.

mod allow;
mod answered;
mod settings;
mod told;

use std::{fmt, time::Duration};

use bytes::Bytes;
use prost::Message;
use prost_types::{Struct, Value, value::Kind};

pub(crate) use self::{settings::AnswerSettings, told::Told};
#[expect(clippy::disallowed_types, reason = "the one place that builds it")]
use crate::wire::proto::envoy::service::auth::v3::CheckResponse;
use crate::{
    api::{ApiStyle, ErrorStyle},
    decide::{AwaitsBody, UnansweredList},
    decision::Decision,
    enforce::UnenforcedVerdict,
    provenance::{Provenance, Tier},
    refusal::{Denial, Refusal},
    request::{COOKIES, HeaderEdit, HeaderEdits, SUBPROTOCOLS},
    wire::{
        codec::frame,
        proto::{
            envoy::{
                config::core::v3::{
                    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
                },
                service::auth::v3::{
                    DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse,
                },
                r#type::v3::HttpStatus,
            },
            google::rpc::Status,
        },
    },
    wording::{ErrorBody, ErrorStatus, Facts, challenge, is_about_model, message},
};

/// Seconds after which a client may ask again when we could not decide, or did not want to.
const RETRY_AFTER: &str = "1";

/// The metadatum by which Envoy's second filter knows that it is to ask.
const NEEDS_BODY: &str = "needs_body";

/// An answer to a check as it goes over the wire: never empty, and an allow only for a [`Permit`],
/// or for a [`UnenforcedVerdict`] or an [`AwaitsBody`], which are given nothing but a `Permit` of their own.
///
/// [`Permit`]: crate::decide::Permit
pub(crate) struct Answer(Bytes);

/// It may hold a backend's credential.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(…)")
    }
}

/// What an answer is addressed to.
#[derive(Debug)]
pub(crate) struct Addressee<'a> {
    /// Echoed to the client, so that it can be found in the logs.
    pub(crate) request_id: &'a str,
    /// How the API in question answers.
    pub(crate) api_style: ApiStyle,
    /// What a denial may say of the request.
    pub(crate) facts: Facts<'a>,
    /// What goes on of the client's headers if the request does.
    pub(crate) edits: HeaderEdits,
}

impl Answer {
    /// The answer that carries out `decision`.
    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub(crate) fn new(
        decision: &Decision,
        provenance: &Provenance,
        settings: &AnswerSettings,
        to: &Addressee<'_>,
    ) -> Self {
        Self(match decision {
            Decision::Allow(permit) => allow::write(permit, provenance, settings, &to.edits),
            Decision::Answer(answered) => {
                answered::write(answered, metadata(decision, provenance), to)
            }
            Decision::Pass(unenforced) => {
                match unenforced.list().and_then(UnansweredList::permit) {
                    Some(permit) => {
                        let by = unenforced.by();
                        allow::write_unanswered(permit, by, provenance, settings, &to.edits)
                    }
                    None => pass(unenforced, metadata(decision, provenance), settings, &to.edits),
                }
            }
            Decision::Deny(denial) => deny(denial, metadata(decision, provenance), to),
        })
    }

    /// The answer that asks for the body, and permits nothing: no identity, no backend, no word for
    /// the guard. The client's own `authorization` stays for the second step, and its copies of our
    /// headers go.
    pub(crate) fn awaiting(_: &AwaitsBody, settings: &AnswerSettings) -> Self {
        let http_response = HttpResponse::OkResponse(OkHttpResponse {
            headers: Vec::new(),
            headers_to_remove: settings.names.all().map(String::clone).into(),
        });
        let needed = Value { kind: Some(Kind::BoolValue(true)) };
        let metadata = Struct { fields: [(NEEDS_BODY.to_owned(), needed)].into() };
        Self(framed(Status::default(), http_response, metadata))
    }

    /// Without what gRPC puts before it.
    pub(crate) fn into_message(self) -> Bytes {
        self.into_frame().slice(frame::HEAD..)
    }

    /// As gRPC frames it.
    pub(crate) fn into_frame(self) -> Bytes {
        self.0
    }
}

/// The HTTP status of the verdict, carried out or not.
pub(crate) fn status(decision: &Decision, api_style: ApiStyle) -> u16 {
    decision.denial().map_or(200, |denial| ErrorStatus::of(denial.refusal, api_style).code())
}

/// Lets a request on as what it came, except that tokens of ours are removed, as are its copies of
/// our headers. A credential of another kind stays, for what served the request before. Removing
/// headers also makes Envoy choose the route again.
fn pass(
    unenforced: &UnenforcedVerdict,
    mut metadata: Struct,
    settings: &AnswerSettings,
    edits: &HeaderEdits,
) -> Bytes {
    // The guard before the router lets through what patgate lets through, whatever the verdict.
    for (name, value) in [
        ("enforced", "false"),
        ("mode", unenforced.by().as_str()),
        (settings::GUARD, settings.guard.word()),
    ] {
        metadata.fields.insert(name.to_owned(), string(value.to_owned()));
    }
    let mut headers = Vec::new();
    let mut headers_to_remove: Vec<_> = settings.names.all().map(String::clone).into();
    headers_to_remove.extend(edits.with_tokens.iter().map(|name| (*name).to_owned()));
    for (name, change) in [(SUBPROTOCOLS, &edits.subprotocols), (COOKIES, &edits.cookies)] {
        match change {
            HeaderEdit::Keep => {}
            HeaderEdit::Remove => headers_to_remove.push(name.to_owned()),
            HeaderEdit::Set(value) => headers.push(header(name, value.clone())),
        }
    }
    let ok = HttpResponse::OkResponse(OkHttpResponse { headers, headers_to_remove });
    framed(Status::default(), ok, metadata)
}

fn deny(denial: &Denial, metadata: Struct, to: &Addressee<'_>) -> Bytes {
    let status = Status {
        code: grpc_code(ErrorStatus::of(denial.refusal, to.api_style)) as i32,
        message: denial.refusal.code().to_owned(),
    };
    framed(status, HttpResponse::DeniedResponse(denied(denial, to)), metadata)
}

/// The gRPC code of a denial. Whatever is not OK makes it a denial.
fn grpc_code(status: ErrorStatus) -> tonic::Code {
    match status {
        ErrorStatus::BadRequest
        | ErrorStatus::ContentTooLarge
        | ErrorStatus::UnsupportedMediaType => tonic::Code::InvalidArgument,
        ErrorStatus::Unauthorized => tonic::Code::Unauthenticated,
        ErrorStatus::Forbidden => tonic::Code::PermissionDenied,
        ErrorStatus::NotFound => tonic::Code::NotFound,
        ErrorStatus::TooManyRequests => tonic::Code::ResourceExhausted,
        ErrorStatus::ServiceUnavailable => tonic::Code::Unavailable,
    }
}

/// A `CheckResponse`, as gRPC frames it.
fn framed(status: Status, http_response: HttpResponse, metadata: Struct) -> Bytes {
    let response = CheckResponse {
        status: Some(status),
        http_response: Some(http_response),
        dynamic_metadata: Some(metadata),
    };
    let length = response.encoded_len();
    let mut frame = Vec::with_capacity(frame::HEAD + length);
    frame.extend_from_slice(&frame::head(length));
    response.encode_raw(&mut frame);
    frame.into()
}

fn denied(denial: &Denial, to: &Addressee<'_>) -> DeniedHttpResponse {
    let message = message(denial, &to.facts);
    let status = ErrorStatus::of(denial.refusal, to.api_style);
    let style = to.facts.error_style();
    let error = ErrorBody {
        status,
        code: denial.refusal.code(),
        message: &message,
        about_model: is_about_model(denial, &to.facts),
        request_id: to.request_id,
    };
    let (content_type, body) = error.write(style);
    let mut headers = headers(content_type, to);
    if style == ErrorStyle::Anthropic {
        // From here its clients take the id that they show.
        headers.push(header("request-id", to.request_id.to_owned()));
    }
    if let Some(challenge) = challenge(denial, to.api_style, &message) {
        headers.push(header("www-authenticate", challenge));
    }
    if is_temporary(denial.refusal) {
        headers.push(header("retry-after", RETRY_AFTER.to_owned()));
    }
    DeniedHttpResponse { status: Some(HttpStatus { code: status.code().into() }), headers, body }
}

/// Whether the client may send the same again in a moment.
fn is_temporary(refusal: Refusal) -> bool {
    match refusal {
        Refusal::RateLimited | Refusal::TooManyBodies | Refusal::Unavailable => true,
        Refusal::NoModel(why) => why.kind().is_temporary(),
        _ => false,
    }
}

/// Of what patgate answers itself. It depends on the token, so no cache may keep it.
fn headers(content_type: &str, to: &Addressee<'_>) -> Vec<HeaderValueOption> {
    vec![
        header("content-type", content_type.to_owned()),
        header("cache-control", "no-store".to_owned()),
        header("x-request-id", to.request_id.to_owned()),
    ]
}

fn header(name: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value, ..HeaderValue::default() }),
        // Always stated: what Envoy does when it is unset has changed between releases.
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
    }
}

/// For Envoy's access log and rate limits: what was decided, about whom, and going by what.
fn metadata(decision: &Decision, provenance: &Provenance) -> Struct {
    let subject = decision.subject();
    let fields = [
        ("outcome", Some(decision.outcome().as_str().to_owned())),
        ("code", Some(decision.code().to_owned())),
        ("user_id", subject.map(|(_, owner)| owner.to_string())),
        ("pat_id", subject.map(|(token, _)| token.to_string())),
        ("operation", decision.operation().map(|operation| operation.to_string())),
        ("tier", Some(provenance.tier.as_str().to_owned())),
    ];
    let known =
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), string(value?))));
    let age =
        (provenance.tier != Tier::None).then(|| Kind::NumberValue(milliseconds(provenance.age)));
    let age = age.map(|age| ("age_ms".to_owned(), Value { kind: Some(age) }));
    Struct { fields: known.chain(age).collect() }
}

/// Whole ones, as far as the numbers of metadata are.
fn milliseconds(age: Duration) -> f64 {
    age.as_millis() as f64
}

fn string(text: String) -> Value {
    Value { kind: Some(Kind::StringValue(text)) }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use envoy_types::pb::envoy::service::auth::v3 as envoy;
    use uuid::Uuid;

    use super::*;
    use crate::{
        credential::{Credential, CredentialScheme},
        operation::Operation,
        principal::UserId,
        refusal::{CompressionFault, Excess, LimitedBy, MalformedPart, NoModel},
        token::TokenId,
    };

    const TOKEN: TokenId = TokenId(Uuid::from_u128(1));
    const OWNER: UserId = UserId(Uuid::from_u128(2));

    const PROVENANCE: Provenance =
        Provenance { tier: Tier::Redis, age: Duration::from_micros(1_234_567) };

    /// The answer as Envoy's own definitions read it.
    fn answer(decision: &Decision) -> envoy::CheckResponse {
        let facts = Facts { method: "GET", target: "/a?b", ..Facts::default() };
        let edits = HeaderEdits { subprotocols: HeaderEdit::Remove, ..HeaderEdits::default() };
        let to = Addressee { request_id: "r-1", api_style: ApiStyle::default(), facts, edits };
        let frame =
            Answer::new(decision, &PROVENANCE, &AnswerSettings::new("x-", "gateway-7"), &to)
                .into_frame();
        let (head, bytes) = frame.split_at(frame::HEAD);
        assert_eq!(head, [&[0][..], &(bytes.len() as u32).to_be_bytes()].concat());
        assert!(!bytes.is_empty(), "an empty message is an ALLOW");
        envoy::CheckResponse::decode(bytes).unwrap()
    }

    fn permit(model: Option<&str>) -> Decision {
        Decision::Allow(patgate_core::testing::permit().with_for_tests(model, None))
    }

    fn denials() -> Vec<Denial> {
        let early = [
            Refusal::BadRequest(MalformedPart::Path),
            Refusal::BadRequest(MalformedPart::Authorization),
            Refusal::BadRequest(MalformedPart::Authority),
            Refusal::BadRequest(MalformedPart::Credentials),
            Refusal::BadRequest(MalformedPart::TokenInQuery),
            Refusal::BadRequest(MalformedPart::Message),
            Refusal::MissingCredential,
            Refusal::InvalidToken,
            Refusal::Unavailable,
        ];
        let late = [
            Refusal::TokenNotYetIssued,
            Refusal::TokenExpired,
            Refusal::TokenRevoked,
            Refusal::OwnerDisabled,
            Refusal::NotFound,
            Refusal::PermissionDenied,
            Refusal::RateLimited,
            Refusal::TooManyBodies,
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
            NoModel::CompressedForm,
            NoModel::Compressed(CompressionFault::Malformed),
            NoModel::Compressed(CompressionFault::Optional),
            NoModel::Compressed(CompressionFault::TooLong),
            NoModel::Compressed(CompressionFault::TooDense),
            NoModel::Compressed(CompressionFault::TooManyBlocks),
            NoModel::NotJson,
            NoModel::NotForm,
            NoModel::MalformedJson { at: 17 },
            NoModel::MalformedForm { part: 0 },
            NoModel::MalformedForm { part: 2 },
            NoModel::Absent,
            NoModel::Repeated,
            NoModel::NotAName,
            NoModel::Rival("models"),
            NoModel::InQuery,
            NoModel::Endless,
            NoModel::Elsewhere,
            NoModel::Excessive(Excess::Depth),
            NoModel::Excessive(Excess::Members),
            NoModel::Excessive(Excess::Parts),
            NoModel::Excessive(Excess::Parameters),
        ];
        let no_model = no_model.map(|why| Denial { refusal: Refusal::NoModel(why), ..named });
        let others = [LimitedBy::Scopes, LimitedBy::Domain];
        let others = others.map(|limit| Denial { refusal: Refusal::OtherEntity(limit), ..named });
        let denials = early.map(Denial::from).into_iter().chain(late).chain([named]);
        denials.chain(no_model).chain(others).collect()
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
    fn a_backends_credential_takes_the_place_of_the_token() {
        let credential = Credential::new(CredentialScheme::Bearer, "sk-1").unwrap();
        let permit = patgate_core::testing::permit().with_for_tests(None, Some(credential));
        let decision = Decision::Allow(permit);
        let response = answer(&decision);
        assert!(!format!("{:?}", response.dynamic_metadata).contains("sk-1"));
        let Some(envoy::check_response::HttpResponse::OkResponse(ok)) = response.http_response
        else {
            panic!("not allowed");
        };
        let set: Vec<_> = ok
            .headers
            .iter()
            .filter_map(|option| Some((option.header.as_ref()?, option.append_action)))
            .filter(|(header, _)| header.key == "authorization")
            .map(|(header, action)| (header.value.as_str(), action))
            .collect();
        assert_eq!(set, [("Bearer sk-1", 2)], "once, overwrite stated");
        assert!(!ok.headers_to_remove.contains(&"authorization".to_owned()));
        let facts = Facts::default();
        let edits = HeaderEdits { subprotocols: HeaderEdit::Remove, ..HeaderEdits::default() };
        let to = Addressee { request_id: "r-1", api_style: ApiStyle::default(), facts, edits };
        let shown = format!(
            "{decision:?} {:?}",
            Answer::new(&decision, &PROVENANCE, &AnswerSettings::new("x-", "gateway-7"), &to)
        );
        assert!(!shown.contains("sk-1"), "{shown}");
    }

    #[test]
    fn what_it_rests_on_is_in_the_metadata() {
        use envoy_types::pb::google::protobuf::value::Kind;
        for decision in [permit(None), Decision::Deny(Refusal::PermissionDenied.into())] {
            let metadata = answer(&decision).dynamic_metadata.unwrap().fields;
            let value = |name: &str| metadata[name].kind.clone().unwrap();
            assert_eq!(value("tier"), Kind::StringValue("redis".to_owned()));
            assert_eq!(value("age_ms"), Kind::NumberValue(1234.0));
        }
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
                    "api-key",
                    "authorization",
                    "ocp-apim-subscription-key",
                    "proxy-authorization",
                    "sec-websocket-protocol",
                    "x-api-key",
                    "x-auth-model",
                    "x-auth-operation",
                    "x-domain-id",
                    "x-domain-slug",
                    "x-goog-api-key",
                    "x-litellm-api-key",
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
