//! Encodes answers for Envoy. Nothing else builds a `CheckResponse`.
//!
//! Envoy takes an empty `CheckResponse`, and a denial whose `status.code` is 0, for an ALLOW. So
//! the message is wrapped in [`EncodedAnswer`], which has no default and which only
//! [`AnswerEncoder::encode`] makes, from an [`Answer`]; and every denial carries a non-OK status. An
//! allow is written by `allow.rs`, without the message.

mod allow;
mod decoded;

use std::fmt;

use bytes::Bytes;
use prost::Message;
use prost_types::{Struct, Value, value::Kind};

use self::allow::Preencoded;
pub(crate) use self::decoded::DecodedAnswer;
#[expect(clippy::disallowed_types, reason = "the one place that builds it")]
use crate::wire::proto::envoy::service::auth::v3::CheckResponse;
use crate::{
    answer::{Answer, AnswerSettings, MetadataValue, Metadatum, Pass, Reply},
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
    wording::ErrorStatus,
};

/// An answer as it goes over the wire: never empty, and an allow only for an [`Answer`] that is one.
pub(crate) struct EncodedAnswer(Bytes);

/// It may hold a backend's credential.
impl fmt::Debug for EncodedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncodedAnswer(…)")
    }
}

impl EncodedAnswer {
    /// Returns the message without its gRPC frame.
    pub(crate) fn into_message(self) -> Bytes {
        self.into_frame().slice(frame::HEAD..)
    }

    /// Returns the message in its gRPC frame.
    pub(crate) fn into_frame(self) -> Bytes {
        self.0
    }
}

/// Encodes answers. What is the same in every allow is encoded once.
#[derive(Debug)]
pub(crate) struct AnswerEncoder(Preencoded);

impl AnswerEncoder {
    /// `settings` must be those with which the answers are made.
    pub(crate) fn new(settings: &AnswerSettings) -> Self {
        Self(Preencoded::new(settings))
    }

    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub(crate) fn encode(&self, answer: &Answer<'_>) -> EncodedAnswer {
        EncodedAnswer(match answer {
            Answer::Allow(allow) => allow::write(allow, &self.0),
            Answer::Pass(pass) => write_pass(pass),
            Answer::Reply(reply) => write_reply(reply),
        })
    }
}

fn write_pass(pass: &Pass<'_>) -> Bytes {
    let set = pass.headers_set().iter().map(|(name, value)| header(name, value));
    let removed = pass.headers_removed().iter().map(|name| (*name).to_owned());
    let ok = OkHttpResponse { headers: set.collect(), headers_to_remove: removed.collect() };
    framed(Status::default(), HttpResponse::OkResponse(ok), pass.metadata())
}

/// For Envoy, a list that patgate answers is a denial like any other, whose HTTP status happens to be
/// 200: nothing reaches a backend.
fn write_reply(reply: &Reply<'_>) -> Bytes {
    let code = reply.error().map_or(tonic::Code::Aborted, grpc_code);
    let status = Status { code: code as i32, message: reply.reason().to_owned() };
    let headers = reply.headers().iter().map(|(name, value)| header(name, value));
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: reply.status().into() }),
        headers: headers.collect(),
        body: reply.body().to_owned(),
    };
    framed(status, HttpResponse::DeniedResponse(denied), reply.metadata())
}

/// Returns the gRPC code of a denial. Any code but OK makes it a denial.
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

/// Encodes a `CheckResponse` in its gRPC frame.
fn framed(status: Status, http_response: HttpResponse, metadata: &[Metadatum<'_>]) -> Bytes {
    let entries = metadata.iter().map(|(name, value)| ((*name).to_owned(), encoded(value)));
    let response = CheckResponse {
        status: Some(status),
        http_response: Some(http_response),
        dynamic_metadata: Some(Struct { fields: entries.collect() }),
    };
    let length = response.encoded_len();
    let mut frame = Vec::with_capacity(frame::HEAD + length);
    frame.extend_from_slice(&frame::head(length));
    response.encode_raw(&mut frame);
    frame.into()
}

fn encoded(value: &MetadataValue<'_>) -> Value {
    let kind = match value {
        MetadataValue::Text(text) => Kind::StringValue(text.clone().into_owned()),
        MetadataValue::Number(number) => Kind::NumberValue(*number),
        MetadataValue::Flag(flag) => Kind::BoolValue(*flag),
    };
    Value { kind: Some(kind) }
}

fn header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            ..HeaderValue::default()
        }),
        // Always stated: what Envoy does when it is unset has changed between releases.
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
    }
}

#[cfg(test)]
mod tests;
