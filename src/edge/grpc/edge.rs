//! Between the wire and the check: decodes, and encodes. It decides nothing.

use std::{sync::Arc, time::Duration};

use crate::{
    check::{CheckStep, Checker, ToEncode},
    clock,
    refusal::{Malformed, Refusal},
    request::Parts,
    wire::{codec::HttpRequest, response::Answer},
};

/// Answers what came over gRPC.
#[derive(Clone)]
pub(crate) struct GrpcEdge(pub(crate) Arc<Checker>);

impl GrpcEdge {
    /// How long a check may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// Answers a `CheckRequest` as it came over the wire, or the reason why it did not come. A
    /// message that is no `CheckRequest` is denied.
    pub(crate) async fn check(&self, message: Result<&[u8], Refusal>, step: CheckStep) -> Answer {
        const MALFORMED: Refusal = Refusal::BadRequest(Malformed::Message);
        let checker = &*self.0;
        let started = clock::now();
        let http = message.and_then(|bytes| HttpRequest::decode(bytes).ok_or(MALFORMED));
        let header = |name: &str| http.as_ref().ok()?.header(name);
        let parts = http.as_ref().map_err(|refusal| *refusal).map(|http| {
            let HttpRequest { method, host: authority, path: target, body, .. } = http;
            Parts { method, authority, target, header, body }
        });
        let parts = parts.as_ref().map_err(|refusal| *refusal);
        let encode = |answer: ToEncode<'_>| match answer {
            ToEncode::Decision(decision, grounds, to) => {
                Answer::new(decision, grounds, &checker.answers, to)
            }
            ToEncode::AwaitsBody(awaits) => Answer::awaiting(awaits, &checker.answers),
        };
        checker.answer(parts, step, started, encode).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{
        check::tests::hot,
        wire::{codec::encode, response::Told},
    };

    /// Exactly: one more on the way of every check should be meant.
    #[tokio::test]
    async fn an_allow_from_memory_allocates_what_it_is_made_of() {
        let (checker, _, token) = hot(&mut Registry::default());
        let edge = GrpcEdge(Arc::new(checker));
        let asked = |path: &str| {
            let bearer = format!("Bearer {}", token.expose());
            let headers = [("authorization", bearer), ("x-request-id", "r-1".to_owned())];
            let message = encode("GET", "gateway", path, &headers, b"");
            let check = || {
                edge.check(Ok(&message), CheckStep::Only).now_or_never().expect("an answer at once")
            };
            // Counters and the like are made the first time.
            drop(check());
            let mut answer = None;
            let counted = allocation_counter::measure(|| answer = Some(check()));
            let told = Told::decode(&answer.unwrap().into_frame()).unwrap();
            assert_eq!((told.status, &*told.code), (200, "ok"));
            counted.count_total
        };
        // The slug that the domain is looked up by, the upstream's name, the answer.
        assert_eq!(asked("/proxy/acme/api/version"), 3);
        // And the model's name.
        assert_eq!(asked("/proxy/acme/v1/models/org/m-7b"), 4);
    }
}
