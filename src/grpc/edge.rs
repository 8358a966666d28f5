//! Between the wire and the check: knows protobuf, decides nothing.

use std::{
    borrow::Cow,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use uuid::Uuid;

use crate::{
    check::{Checked, Checker, Particulars, Step},
    clock::Tick,
    codec::HttpRequest,
    decision::Decision,
    refusal::{Malformed, Refusal},
    request::{Cleaned, Parts},
    response::{Addressee, Answer, Facts},
    telemetry::Metrics,
};

/// Answers what came over gRPC.
#[derive(Clone)]
pub(crate) struct GrpcEdge(pub(crate) Arc<Checker>);

impl GrpcEdge {
    /// How long a check may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// Answers a `CheckRequest`, as it came over the wire, or what kept it from coming; what is
    /// none is denied.
    pub(crate) async fn check(&self, message: Result<&[u8], Refusal>, step: Step) -> Answer {
        const MALFORMED: Refusal = Refusal::BadRequest(Malformed::Message);
        let (checker, started) = (&*self.0, Tick::now());
        let apis = checker.apis.load();
        let http = message.and_then(|bytes| HttpRequest::decode(bytes).ok_or(MALFORMED));
        let header = |name: &str| http.as_ref().ok()?.header(name);
        let parts = http.as_ref().map_err(|refusal| *refusal).map(|http| {
            let HttpRequest { method, host: authority, path: target, body, .. } = http;
            Parts { method, authority, target, header, body }
        });
        let (checked, about) = match &parts {
            Ok(parts) => {
                let check = checker.check(parts, &apis, step, started);
                guard(&checker.metrics, check, Particulars::default()).await
            }
            Err(refusal) => (denied(*refusal), Particulars::default()),
        };
        let decision = match checked {
            Checked::Decided(decision) => decision,
            Checked::AwaitsBody(awaits) => {
                checker.metrics.asked_for_a_body();
                return Answer::awaiting(&awaits, &checker.answers);
            }
        };
        let request_id = header("x-request-id").filter(|id| is_request_id(id));
        let request_id = request_id.map_or_else(|| Uuid::new_v4().to_string().into(), Cow::from);
        let facts =
            parts.as_ref().map_or_else(|_| Facts::default(), |parts| about.facts(parts, &apis));
        let cookies = about.cookies();
        let cleaned = match &decision {
            _ if decision.permit().is_some() => {
                Cleaned::for_a_backend(header, cookies, &checker.tokens)
            }
            Decision::Pass(_) => Cleaned::of_tokens(header, cookies, &checker.tokens),
            Decision::Allow(_) | Decision::Answer(_) | Decision::Deny(_) => Cleaned::default(),
        };
        let to = Addressee { request_id: &request_id, manner: about.manner, facts, cleaned };
        let answer = Answer::new(&decision, &about.grounds, &checker.answers, &to);
        let ended = Tick::now();
        let took = ended.since(started);
        let (outcome, code) = (decision.outcome(), decision.code());
        checker.metrics.decided(outcome, code, decision.is_enforced(), took);
        if checker.log.admits(&decision, ended) {
            let (decided, request_id) = ((decision, about), request_id.into_owned());
            let method = http.map_or("", |http| http.method);
            let record = || checker.record(method, decided, request_id, ended, took);
            let write = || checker.log.write(record());
            // The answer stands, whatever becomes of its record.
            if catch_unwind(AssertUnwindSafe(write)).is_err() {
                checker.metrics.panicked();
            }
        }
        answer
    }
}

/// A bug must neither open the gate nor take the process down. No `async fn`, whose future would hold
/// that of the check twice.
fn guard<T>(
    metrics: &Metrics,
    check: impl Future<Output = (Checked, T)>,
    otherwise: T,
) -> impl Future<Output = (Checked, T)> {
    AssertUnwindSafe(check).catch_unwind().map(|checked| {
        checked.unwrap_or_else(|_| {
            metrics.panicked();
            (denied(Refusal::Unavailable), otherwise)
        })
    })
}

fn denied(refusal: Refusal) -> Checked {
    Checked::Decided(Decision::Deny(refusal.into()))
}

/// Envoy makes one for each request. What else a client might have sent is not repeated to it.
fn is_request_id(id: &str) -> bool {
    id.len() <= 128
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/=+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{check::tests::hot, codec::encode, response::Told};

    /// Exactly: one more on the way of every check should be meant.
    #[tokio::test]
    async fn an_allow_from_memory_allocates_what_it_is_made_of() {
        let (checker, _, token) = hot(&mut Registry::default());
        let edge = GrpcEdge(Arc::new(checker));
        let asked = |path: &str| {
            let bearer = format!("Bearer {}", token.expose());
            let headers = [("authorization", bearer), ("x-request-id", "r-1".to_owned())];
            let message = encode("GET", "gateway", path, &headers, b"");
            let check =
                || edge.check(Ok(&message), Step::Only).now_or_never().expect("an answer at once");
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

    #[tokio::test]
    async fn a_panic_is_denied_and_counted() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let (checked, ()) = guard(&metrics, async { panic!("on purpose") }, ()).await;
        let Checked::Decided(decision) = checked else { panic!("{checked:?}") };
        assert_eq!(decision, Decision::Deny(Refusal::Unavailable.into()));
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        assert!(page.contains("patgate_panics_total 1"), "{page}");
    }
}
