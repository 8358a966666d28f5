use std::collections::BTreeMap;

use super::*;
use crate::{
    credential::{Credential, CredentialHeader, CredentialScheme},
    decide::Permit,
    enforce::Enforcement,
    model_list::ListForm,
    refusal::Refusal,
    request::{CREDENTIAL_HEADERS, HeaderEdit, HeaderEdits},
    rollout::Mode,
    testing,
    wording::MessageContext,
};

const GROUNDS: Provenance = Provenance { tier: Tier::Redis, age: Duration::from_micros(1_234_567) };

fn with_answer<T>(
    decision: &Decision,
    edits: HeaderEdits,
    then: impl FnOnce(Answer<'_>) -> T,
) -> T {
    let context = AnswerContext::for_tests(decision, edits, MessageContext::default());
    let settings = AnswerSettings::new("x-", "gateway-7");
    let mut ids = IdTexts::default();
    then(Answer::new(&context, &GROUNDS, &settings, &mut ids))
}

fn texts<'m>(metadata: impl IntoIterator<Item = Metadatum<'m>>) -> BTreeMap<&'static str, String> {
    let texts = metadata.into_iter().filter_map(|(name, value)| match value {
        MetadataValue::Text(text) => Some((name, text.into_owned())),
        MetadataValue::Number(_) | MetadataValue::Flag(_) => None,
    });
    texts.collect()
}

fn permit_with(model: Option<&str>, credential: Option<Credential>) -> Permit {
    testing::permit().with_for_tests(model, credential)
}

#[test]
fn an_allow_sets_or_removes_every_identity_header() {
    for model in [None, Some("org/m-7b")] {
        let decision = Decision::Allow(permit_with(model, None));
        let edits = HeaderEdits { subprotocols: HeaderEdit::Remove, ..HeaderEdits::default() };
        with_answer(&decision, edits, |answer| {
            let Answer::Allow(allow) = answer else { panic!("{answer:?}") };
            let set: BTreeMap<_, _> = allow.headers_set().collect();
            assert_eq!(set.get("x-auth-model").copied(), model);
            assert_eq!(set["x-domain-id"], "00000000-0000-0000-0000-000000000003");
            assert_eq!(set["x-user-id"], "00000000-0000-0000-0000-000000000002");
            assert_eq!(set["x-pat-id"], "00000000-0000-0000-0000-000000000001");
            assert_eq!((set["x-domain-slug"], set["x-auth-operation"]), ("acme", "llm_read"));
            assert_eq!(set["x-upstream-cluster"], "model-acme");
            let mut names: Vec<_> = set.into_keys().chain(allow.headers_removed()).collect();
            names.sort_unstable();
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
            let metadata = texts(allow.metadata());
            assert_eq!(metadata.get("model").map(String::as_str), model);
            assert_eq!((&*metadata["outcome"], &*metadata["guard"]), ("allow", "gateway-7"));
        });
    }
}

#[test]
fn a_backends_credential_takes_the_place_of_the_token_and_is_not_shown() {
    for place in CredentialHeader::ALL {
        let credential = match place {
            CredentialHeader::Authorization => Credential::new(CredentialScheme::Bearer, "sk-1"),
            CredentialHeader::XApiKey | CredentialHeader::ApiKey => {
                Credential::bare(*place, "sk-1")
            }
        };
        let decision = Decision::Allow(permit_with(None, credential.ok()));
        with_answer(&decision, HeaderEdits::default(), |answer| {
            let shown = format!("{answer:?}");
            let Answer::Allow(allow) = answer else { panic!("{answer:?}") };
            let own = allow.headers_set().filter(|(name, _)| CREDENTIAL_HEADERS.contains(name));
            let own: Vec<_> = own.collect();
            assert!(
                matches!(&own[..], [(name, value)] if *name == place.as_str() && value.contains("sk-1")),
                "{own:?}"
            );
            let mut removed = allow.headers_removed();
            assert!(!removed.any(|name| name == place.as_str()), "{place}");
            let kept = CREDENTIAL_HEADERS.len() - 1;
            let removed = allow.headers_removed();
            assert_eq!(removed.filter(|name| CREDENTIAL_HEADERS.contains(name)).count(), kept);
            let metadata: Vec<_> = allow.metadata().collect();
            let shown = format!("{shown} {allow:?} {metadata:?}");
            assert!(!shown.contains("sk-1"), "{shown}");
        });
    }
}

/// It has no identity, and only patgate's own tokens are removed.
#[test]
fn what_is_not_enforced_passes_as_what_it_came() {
    let enforcement = Mode::Shadow.apply_to_denial(Refusal::PermissionDenied.into(), None);
    let Enforcement::Unenforced(unenforced) = enforcement else { panic!("{enforcement:?}") };
    let cookies = HeaderEdit::Set("a=1".to_owned());
    let edits = HeaderEdits { with_tokens: vec!["x-api-key"], cookies, ..HeaderEdits::default() };
    with_answer(&Decision::Unenforced(unenforced), edits, |answer| {
        let Answer::Pass(pass) = answer else { panic!("{answer:?}") };
        assert_eq!(pass.headers_set(), [("cookie", "a=1")]);
        let removed = pass.headers_removed();
        assert_eq!(removed.len(), 8);
        assert!(removed.contains(&"x-user-id") && removed.contains(&"x-api-key"));
        let metadata = texts(pass.metadata().iter().cloned());
        for (name, value) in [
            ("outcome", "deny"),
            ("code", "permission_denied"),
            ("enforced", "false"),
            ("mode", "shadow"),
            ("guard", "gateway-7"),
        ] {
            assert_eq!(metadata[name], value, "{name}");
        }
    });
}

/// In a rollout, a list goes on as what it is permitted as; if nothing permits it, without an
/// identity.
#[test]
fn a_list_that_is_not_answered_passes_as_what_it_may() {
    for whole in [true, false] {
        let decision = testing::listing(ListForm::OllamaTags, None, whole, |listing| {
            match Mode::Shadow.apply_to_list(listing) {
                Enforcement::Unenforced(unenforced) => Decision::Unenforced(unenforced),
                Enforcement::Enforced(listing) => panic!("{listing:?}"),
            }
        });
        with_answer(&decision, HeaderEdits::default(), |answer| {
            let (set, metadata) = match &answer {
                Answer::Allow(allow) => (allow.headers_set().count(), texts(allow.metadata())),
                Answer::Pass(pass) => {
                    (pass.headers_set().len(), texts(pass.metadata().iter().cloned()))
                }
                Answer::Reply(_) => panic!("{answer:?}"),
            };
            assert_eq!(set, if whole { 6 } else { 0 });
            for (name, value) in [
                ("outcome", "answered"),
                ("code", "ok"),
                ("enforced", "false"),
                ("mode", "shadow"),
                ("operation", "llm_read"),
                ("guard", "gateway-7"),
            ] {
                assert_eq!(metadata[name], value, "{name}");
            }
        });
    }
}

/// Of whatever form, it lets nothing through: no identity, and no word for the guard.
#[test]
fn a_list_is_a_reply() {
    for form in ListForm::ALL {
        for model in [None, Some("a")] {
            let list = testing::listing(*form, model, true, |it| it.answer());
            let body = list.body().to_owned();
            with_answer(&Decision::AnswerList(list), HeaderEdits::default(), |answer| {
                let Answer::Reply(reply) = answer else { panic!("{answer:?}") };
                assert_eq!((reply.status(), reply.error(), reply.body()), (200, None, &*body));
                let headers = reply.headers().iter().map(|(name, value)| (*name, &**value));
                assert_eq!(
                    headers.collect::<Vec<_>>(),
                    [
                        ("content-type", "application/json"),
                        ("cache-control", "no-store"),
                        ("x-request-id", "r-1"),
                    ]
                );
                let metadata = texts(reply.metadata().iter().cloned());
                assert_eq!(metadata.get("guard"), None, "{form}");
                assert_eq!(metadata.get("model").map(String::as_str), model);
                assert_eq!((&*metadata["outcome"], &*metadata["code"]), ("answered", "ok"));
                assert_eq!(metadata["domain_slug"], "acme");
                for name in ["user_id", "pat_id", "domain_id", "operation"] {
                    assert!(metadata.contains_key(name), "{name}");
                }
            });
        }
    }
}

#[test]
fn the_question_for_the_body_permits_nothing() {
    let settings = AnswerSettings::new("x-", "gateway-7");
    let awaits = testing::awaits_body();
    let Answer::Pass(pass) = Answer::awaiting(&awaits, &settings) else { panic!("no pass") };
    assert!(pass.headers_set().is_empty());
    assert_eq!(pass.headers_removed().len(), 7, "the client's own `authorization` stays");
    assert_eq!(pass.metadata(), [("needs_body", MetadataValue::Flag(true))]);
}

#[test]
fn the_grounds_are_in_the_metadata() {
    let age = (AGE_MS, MetadataValue::Number(1234.0));
    let tier = ("tier", MetadataValue::Text("redis".into()));
    let expected = |metadata: Vec<Metadatum<'_>>| {
        assert!(metadata.contains(&age) && metadata.contains(&tier), "{metadata:?}");
    };
    with_answer(&Decision::Allow(testing::permit()), HeaderEdits::default(), |answer| {
        let Answer::Allow(allow) = answer else { panic!("{answer:?}") };
        expected(allow.metadata().collect());
    });
    let denied = Decision::Deny(Refusal::PermissionDenied.into());
    with_answer(&denied, HeaderEdits::default(), |answer| {
        let Answer::Reply(reply) = answer else { panic!("{answer:?}") };
        expected(reply.metadata().to_vec());
    });
}
