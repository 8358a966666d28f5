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
