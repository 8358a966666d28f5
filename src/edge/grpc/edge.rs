//! Decodes checks and encodes answers. Decides nothing.

use std::{sync::Arc, time::Duration};

use crate::{
    answer::Answer,
    check::{CallMetadata, Checker},
    clock,
    refusal::{MalformedPart, Refusal},
    request::RequestParts,
    wire::{
        codec::HttpRequest,
        response::{AnswerEncoder, EncodedAnswer},
    },
};

/// Answers checks that arrive over gRPC.
#[derive(Clone)]
pub(crate) struct GrpcEdge {
    pub(super) checker: Arc<Checker>,
    encoder: Arc<AnswerEncoder>,
}

impl GrpcEdge {
    pub(crate) fn new(checker: Arc<Checker>) -> Self {
        let encoder = Arc::new(AnswerEncoder::new(&checker.answers));
        Self { checker, encoder }
    }

    /// The time limit for the lookups of a check; a second step may take longer, for its body.
    pub(crate) fn deadline(&self) -> Duration {
        self.checker.deadline
    }

    /// Answers a check without the secret that it needs. Its message is not read.
    pub(super) fn refuse_stranger(&self) -> EncodedAnswer {
        self.checker.refuse_stranger(|answer| self.encoder.encode(answer))
    }

    /// Answers an encoded `CheckRequest`, or the reason why none arrived. A message that is not a
    /// `CheckRequest` is denied.
    pub(crate) async fn check(
        &self,
        message: Result<&[u8], Refusal>,
        call: CallMetadata,
    ) -> EncodedAnswer {
        const MALFORMED: Refusal = Refusal::BadRequest(MalformedPart::Message);
        let started = clock::now();
        let http = message.and_then(|bytes| HttpRequest::decode(bytes).ok_or(MALFORMED));
        let header = |name: &str| http.as_ref().ok()?.header(name);
        let parts = http.as_ref().map_err(|refusal| *refusal).map(|http| {
            let HttpRequest { method, host: authority, path: target, body, stream, .. } = http;
            RequestParts { method, authority, target, header, body, stream }
        });
        let parts = parts.as_ref().map_err(|refusal| *refusal);
        let encode = |answer: &Answer<'_>| self.encoder.encode(answer);
        self.checker.answer(parts, call, started, encode).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{
        check::{CheckStep, tests::hot},
        wire::{codec::encode, response::DecodedAnswer},
    };

    /// The number is exact: an additional allocation on the path of every check must be deliberate.
    #[tokio::test]
    async fn an_allow_from_memory_allocates_what_it_is_made_of() {
        let (checker, _, token) = hot(&mut Registry::default());
        let edge = GrpcEdge::new(Arc::new(checker));
        let call = CallMetadata { step: CheckStep::Only, trace: None };
        let asked = |path: &str| {
            let bearer = format!("Bearer {}", token.expose());
            let headers = [("authorization", bearer), ("x-request-id", "r-1".to_owned())];
            let message = encode("GET", "gateway", path, &headers, b"");
            let check =
                || edge.check(Ok(&message), call).now_or_never().expect("an answer at once");
            // The first check creates counters and the like.
            drop(check());
            let mut answer = None;
            let counted = allocation_counter::measure(|| answer = Some(check()));
            let decoded = DecodedAnswer::decode(&answer.unwrap().into_frame()).unwrap();
            assert_eq!((decoded.status, &*decoded.code), (200, "ok"));
            counted.count_total
        };
        // The domain's slug for the lookup, the upstream's name, and the answer.
        assert_eq!(asked("/proxy/acme/api/version"), 3);
        // In addition, the model's name.
        assert_eq!(asked("/proxy/acme/v1/models/org/m-7b"), 4);
    }
}
