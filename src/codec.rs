//! How a check travels: a `CheckRequest` in, a `response::Answer` out.

use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{proto::CheckRequest, response::Answer};

/// The codec of the Authorization service.
#[derive(Debug, Default)]
pub(crate) struct CheckCodec;

impl Codec for CheckCodec {
    type Encode = Answer;
    type Decode = CheckRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for CheckCodec {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        answer.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for CheckCodec {
    type Item = CheckRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<CheckRequest>, Status> {
        // A gRPC error would be an ALLOW under `failure_mode_allow`. An empty request is denied.
        Ok(Some(CheckRequest::decode(buffer).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::auth::v3 as envoy;

    use super::*;

    /// What Envoy's own definitions encode, ours read, and skip what they do not name.
    #[test]
    fn reads_what_envoy_writes() {
        let http = envoy::attribute_context::HttpRequest {
            id: "1".into(),
            method: "POST".into(),
            headers: [("authorization".to_owned(), "Bearer x".to_owned())].into(),
            path: "/a?b".into(),
            host: "h".into(),
            scheme: "https".into(),
            size: 7,
            protocol: "HTTP/2".into(),
            body: "as text".into(),
            raw_body: b"\xff{}".to_vec(),
            ..Default::default()
        };
        let request = envoy::attribute_context::Request { http: Some(http), ..Default::default() };
        let attributes = envoy::AttributeContext {
            source: Some(envoy::attribute_context::Peer::default()),
            request: Some(request),
            context_extensions: [("a".to_owned(), "b".to_owned())].into(),
            ..Default::default()
        };
        let bytes = envoy::CheckRequest { attributes: Some(attributes) }.encode_to_vec();
        let read = CheckRequest::decode(&*bytes).unwrap();
        let http = read.attributes.unwrap().request.unwrap().http.unwrap();
        assert_eq!(
            (&*http.method, &*http.path, &*http.host, &*http.id),
            ("POST", "/a?b", "h", "1")
        );
        assert_eq!(http.headers["authorization"], "Bearer x");
        assert_eq!(&*http.raw_body, b"\xff{}");
    }
}
