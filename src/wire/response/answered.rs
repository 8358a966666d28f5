//! What patgate answers in place of a backend.

use bytes::Bytes;
use prost_types::Struct;

use super::{
    Addressee, DeniedHttpResponse, HttpResponse, HttpStatus, Status, framed, headers, string,
};
use crate::decide::AnsweredList;

/// The HTTP status. Those of refusals are in `wording`.
const OK: i32 = 200;

/// The `CheckResponse` that ends the request with an answer of ours. For Envoy it is a denial like
/// any other, whose status happens to be 200: nothing reaches a backend.
pub(super) fn write(answered: &AnsweredList, mut metadata: Struct, to: &Addressee<'_>) -> Bytes {
    // Whatever is not OK makes it a denial.
    let status = Status { code: tonic::Code::Aborted as i32, message: "answered".to_owned() };
    let domain = answered.domain();
    for (name, value) in [
        ("domain_id", Some(domain.id.to_string())),
        ("domain_slug", Some(domain.slug.to_string())),
        ("model", answered.model().map(str::to_owned)),
    ] {
        metadata.fields.extend(value.map(|value| (name.to_owned(), string(value))));
    }
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: OK }),
        headers: headers("application/json", to),
        body: answered.body().to_owned(),
    };
    framed(status, HttpResponse::DeniedResponse(denied), metadata)
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::{
        envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse},
        google::protobuf::value::Kind,
    };
    use prost::Message;

    use super::*;
    use crate::{
        api::ApiStyle,
        decision::Decision,
        model_list::ListForm,
        provenance::Provenance,
        request::HeaderEdits,
        rollout::Mode,
        wire::response::{Answer, AnswerSettings},
        wording::Facts,
    };

    fn read(decision: &Decision) -> CheckResponse {
        let to = Addressee {
            request_id: "r-1",
            api_style: ApiStyle::default(),
            facts: Facts::default(),
            edits: HeaderEdits::default(),
        };
        let settings = AnswerSettings::new("x-", "gateway-7");
        let frame = Answer::new(decision, &Provenance::default(), &settings, &to).into_frame();
        CheckResponse::decode(&frame[5..]).unwrap()
    }

    fn text(response: &CheckResponse, name: &str) -> Option<String> {
        match response.dynamic_metadata.as_ref()?.fields.get(name)?.kind.clone()? {
            Kind::StringValue(text) => Some(text),
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Of whatever form, it lets nothing through: no OK, no identity, no word for the guard.
    #[test]
    fn an_answer_in_place_of_a_backend_is_no_allow() {
        for form in ListForm::ALL {
            for model in [None, Some("a")] {
                let answered = patgate_core::testing::listing(*form, model, true, |it| it.answer());
                let body = answered.body().to_owned();
                let response = read(&Decision::Answer(answered));
                assert_ne!(response.status.as_ref().unwrap().code, 0, "{form}");
                assert_eq!(text(&response, "guard"), None, "{form}");
                assert_eq!(text(&response, "outcome").as_deref(), Some("answered"));
                assert_eq!(text(&response, "code").as_deref(), Some("ok"));
                assert_eq!(text(&response, "domain_slug").as_deref(), Some("acme"));
                assert_eq!(text(&response, "operation").as_deref(), Some("llm_read"));
                assert_eq!(text(&response, "model").as_deref(), model);
                for name in ["user_id", "pat_id", "domain_id"] {
                    assert!(text(&response, name).is_some(), "{name}");
                }
                let Some(HttpResponse::DeniedResponse(denied)) = response.http_response else {
                    panic!("{form} is let through");
                };
                assert_eq!((denied.status.unwrap().code, denied.body), (200, body));
                let headers = denied.headers.into_iter().map(|option| {
                    assert_eq!(option.append_action, 2, "overwrite, stated");
                    let header = option.header.unwrap();
                    (header.key, header.value)
                });
                assert_eq!(
                    headers.collect::<Vec<_>>(),
                    [
                        ("content-type", "application/json"),
                        ("cache-control", "no-store"),
                        ("x-request-id", "r-1"),
                    ]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                );
            }
        }
    }

    /// In a rollout it goes on as what it is permitted: somebody, or nobody.
    #[test]
    fn a_list_that_is_not_answered_yet_passes_as_what_it_may() {
        for whole in [true, false] {
            let decision =
                patgate_core::testing::listing(ListForm::OllamaTags, None, whole, |listing| {
                    Decision::Pass(*Mode::Shadow.rule_on_list(listing).unwrap_err())
                });
            let response = read(&decision);
            assert_eq!(response.status.as_ref().unwrap().code, 0);
            for (name, value) in [
                ("outcome", "answered"),
                ("code", "ok"),
                ("enforced", "false"),
                ("mode", "shadow"),
                ("operation", "llm_read"),
                ("guard", "gateway-7"),
            ] {
                assert_eq!(text(&response, name).as_deref(), Some(value), "{name}");
            }
            let Some(HttpResponse::OkResponse(ok)) = response.http_response else {
                panic!("{whole}: refused");
            };
            let set: Vec<_> = ok.headers.into_iter().map(|it| it.header.unwrap().key).collect();
            let removed = ok.headers_to_remove;
            // The client's own copies never survive, and its token reaches no backend.
            for name in ["x-user-id", "x-upstream-cluster"].map(str::to_owned) {
                assert_eq!(
                    (set.contains(&name), removed.contains(&name)),
                    (whole, !whole),
                    "{name}"
                );
            }
            assert_eq!(removed.contains(&"authorization".to_owned()), whole, "{removed:?}");
        }
    }
}
