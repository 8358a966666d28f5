//! The generated service. It gets the checks with a compressed message; the connection answers all
//! others itself.

use bytes::{Buf, BufMut, Bytes};
use tonic::{
    Request, Response, Status, async_trait,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::GrpcEdge;
use crate::{
    check::{CallMetadata, CheckStep},
    refusal::Refusal,
    wire::{
        proto::authorization::authorization_server::{Authorization, AuthorizationServer},
        response::EncodedAnswer,
    },
};

/// An encoded `CheckRequest`.
pub(crate) struct EncodedRequest(Bytes);

/// Passes messages through: `wire/codec.rs` reads every check, and an answer is encoded already.
#[derive(Default)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = EncodedAnswer;
    type Decode = EncodedRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = EncodedAnswer;
    type Error = Status;

    fn encode(&mut self, answer: EncodedAnswer, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(answer.into_message());
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = EncodedRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<EncodedRequest>, Status> {
        Ok(Some(EncodedRequest(from.copy_to_bytes(from.remaining()))))
    }
}

/// Makes the service, for messages whose length is already limited.
pub(super) fn authorization(edge: GrpcEdge) -> AuthorizationServer<GrpcEdge> {
    AuthorizationServer::new(edge).max_decoding_message_size(usize::MAX)
}

#[async_trait]
impl Authorization for GrpcEdge {
    /// Never returns an error, which could become an ALLOW.
    async fn check(
        &self,
        request: Request<EncodedRequest>,
    ) -> Result<Response<EncodedAnswer>, Status> {
        let call = request.extensions().get::<CallMetadata>().copied();
        let message = request.into_inner();
        Ok(Response::new(match call {
            Some(call) => GrpcEdge::check(self, Ok(&message.0), call).await,
            // The caller adds the metadata to every check.
            None => {
                let call = CallMetadata { step: CheckStep::Only, trace: None };
                GrpcEdge::check(self, Err(Refusal::Unavailable), call).await
            }
        }))
    }
}
