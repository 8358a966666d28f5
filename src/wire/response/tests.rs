//! Reads encoded answers with Envoy's own definitions.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use envoy_types::pb::{
    envoy::{config::core::v3::HeaderValueOption as Option_, service::auth::v3 as envoy},
    google::protobuf::{Struct, value::Kind},
};
use patgate_core::testing::{awaits_body, listing, permit, refusals};
use prost::Message;
use uuid::Uuid;

use super::*;
use crate::{
    answer::{AnswerContext, IdTexts},
    credential::{Credential, CredentialHeader, CredentialScheme},
    decision::Decision,
    enforce::Enforcement,
    model_list::ListForm,
    operation::Operation,
    principal::UserId,
    provenance::{Provenance, Tier},
    refusal::{Denial, Refusal},
    request::{HeaderEdit, HeaderEdits},
    rollout::Mode,
    token::TokenId,
    wording::MessageContext,
};

const TOKEN: TokenId = TokenId(Uuid::from_u128(1));
const OWNER: UserId = UserId(Uuid::from_u128(2));
const GROUNDS: Provenance = Provenance { tier: Tier::Redis, age: Duration::from_micros(1_234_567) };

/// Passes on the answer to a decision, and how Envoy reads it.
fn with_answer<T>(
    decision: &Decision,
    edits: HeaderEdits,
    then: impl FnOnce(&Answer<'_>, envoy::CheckResponse) -> T,
) -> T {
    let message_context =
        MessageContext { method: "GET", target: "/a?b", ..MessageContext::default() };
    let context = AnswerContext::for_tests(decision, edits, message_context);
    let settings = AnswerSettings::new("x-", "gateway-7");
    let mut ids = IdTexts::default();
    let answer = Answer::new(&context, &GROUNDS, &settings, &mut ids);
    let read = read(&settings, &answer);
    then(&answer, read)
}

fn read(settings: &AnswerSettings, answer: &Answer<'_>) -> envoy::CheckResponse {
    let frame = AnswerEncoder::new(settings).encode(answer).into_frame();
    let (head, bytes) = frame.split_at(frame::HEAD);
    assert_eq!(head, [&[0][..], &(bytes.len() as u32).to_be_bytes()].concat());
    assert!(!bytes.is_empty(), "an empty message is an ALLOW");
    let response = envoy::CheckResponse::decode(bytes).unwrap();
    assert_eq!(response.encoded_len(), bytes.len(), "a field is unknown or repeated");
    response
}

/// How Envoy reads the answer to a decision.
fn answer(decision: &Decision) -> envoy::CheckResponse {
    with_answer(decision, HeaderEdits::default(), |_, response| response)
}

type Texts = Vec<(String, String)>;

/// The headers that are set. Each states that it overwrites.
fn set(headers: Vec<Option_>) -> Texts {
    let headers = headers.into_iter().map(|option| {
        assert_eq!(option.append_action, 2, "overwrite, stated");
        let header = option.header.unwrap();
        (header.key, header.value)
    });
    headers.collect()
}

fn owned<'t, V: AsRef<str>>(texts: impl IntoIterator<Item = (&'t str, V)>) -> Texts {
    let texts = texts.into_iter();
    texts.map(|(name, value)| (name.to_owned(), value.as_ref().to_owned())).collect()
}

fn metadata<'m>(
    entries: impl IntoIterator<Item = Metadatum<'m>>,
) -> BTreeMap<String, Option<Kind>> {
    let entries = entries.into_iter().map(|(name, value)| {
        let kind = match value {
            MetadataValue::Text(text) => Kind::StringValue(text.into_owned()),
            MetadataValue::Number(number) => Kind::NumberValue(number),
            MetadataValue::Flag(flag) => Kind::BoolValue(flag),
        };
        (name.to_owned(), Some(kind))
    });
    entries.collect()
}

fn fields(metadata: Option<Struct>) -> BTreeMap<String, Option<Kind>> {
    metadata.unwrap().fields.into_iter().map(|(name, value)| (name, value.kind)).collect()
}

/// Compares an answer with what Envoy reads.
fn agrees(answer: &Answer<'_>, response: envoy::CheckResponse) {
    let code = response.status.as_ref().unwrap().code;
    let read = fields(response.dynamic_metadata);
    match (answer, response.http_response.unwrap()) {
        (Answer::Allow(allow), envoy::check_response::HttpResponse::OkResponse(ok)) => {
            assert_eq!(code, 0);
            assert_eq!(set(ok.headers), owned(allow.headers_set()));
            let removed: Vec<_> = allow.headers_removed().map(str::to_owned).collect();
            assert_eq!(ok.headers_to_remove, removed);
            assert_eq!(read, metadata(allow.metadata()));
        }
        (Answer::Pass(pass), envoy::check_response::HttpResponse::OkResponse(ok)) => {
            assert_eq!(code, 0);
            assert_eq!(set(ok.headers), owned(pass.headers_set().iter().copied()));
            assert_eq!(ok.headers_to_remove, pass.headers_removed());
            assert_eq!(read, metadata(pass.metadata().iter().cloned()));
        }
        (Answer::Reply(reply), envoy::check_response::HttpResponse::DeniedResponse(denied)) => {
            assert_ne!(code, 0);
            assert_eq!(response.status.unwrap().message, reply.reason());
            assert_eq!(denied.status.unwrap().code, i32::from(reply.status()));
            let headers = reply.headers().iter().map(|(name, value)| (*name, value));
            assert_eq!(set(denied.headers), owned(headers));
            assert_eq!(denied.body, reply.body());
            assert_eq!(read, metadata(reply.metadata().iter().cloned()));
        }
        (answer, read) => panic!("{answer:?}: {read:?}"),
    }
}

fn edits() -> HeaderEdits {
    let (subprotocols, cookies) = (HeaderEdit::Remove, HeaderEdit::Set("a=1".to_owned()));
    HeaderEdits { with_tokens: vec!["x-api-key"], subprotocols, cookies }
}

/// Lengths on both sides of where a length takes another byte, and of what was made room for.
#[test]
fn an_allow_of_any_length_is_read_as_it_is() {
    for length in [1, 60, 113, 114, 115, 127, 128, 129, 500, 1000, 2000, 4000] {
        let text = "k".repeat(length);
        let places = CredentialHeader::ALL.iter().map(|place| (None, Some(*place)));
        for (model, place) in places.chain([(Some(&text), None), (None, None)]) {
            let credential = place.map(|place| match place {
                CredentialHeader::Authorization => {
                    Credential::new(CredentialScheme::Bearer, &text).unwrap()
                }
                CredentialHeader::XApiKey | CredentialHeader::ApiKey => {
                    Credential::bare(place, &text).unwrap()
                }
            });
            let permit = permit().with_for_tests(model.map(String::as_str), credential);
            for edits in [HeaderEdits::default(), edits()] {
                with_answer(&Decision::Allow(permit.clone()), edits, agrees);
            }
        }
    }
}

#[test]
fn every_other_answer_is_read_as_it_is() {
    let denials = denials().into_iter();
    let unenforced =
        denials.clone().filter_map(|denial| match Mode::Shadow.apply_to_denial(denial, None) {
            Enforcement::Unenforced(unenforced) => Some(unenforced),
            Enforcement::Enforced(_) => None,
        });
    let lists = ListForm::ALL.iter().flat_map(|form| [(*form, None), (*form, Some("a"))]);
    let lists = lists.flat_map(|(form, model)| {
        let pass = |whole| {
            listing(form, model, whole, |listing| match Mode::Shadow.apply_to_list(listing) {
                Enforcement::Unenforced(unenforced) => Decision::Unenforced(unenforced),
                Enforcement::Enforced(listing) => panic!("{listing:?}"),
            })
        };
        [
            Decision::AnswerList(listing(form, model, true, |it| it.answer())),
            pass(true),
            pass(false),
        ]
    });
    let decisions =
        denials.map(Decision::Deny).chain(unenforced.map(Decision::Unenforced)).chain(lists);
    let mut kinds = [0; 3];
    for decision in decisions {
        with_answer(&decision, edits(), |answer, response| {
            kinds[match answer {
                Answer::Allow(_) => 0,
                Answer::Pass(_) => 1,
                Answer::Reply(_) => 2,
            }] += 1;
            agrees(answer, response);
        });
    }
    assert!(kinds.iter().all(|count| *count > 1), "{kinds:?}");
    let settings = AnswerSettings::new("x-", "gateway-7");
    let awaits = awaits_body();
    let answer = Answer::awaiting(&awaits, &settings);
    agrees(&answer, read(&settings, &answer));
}

/// Every reason to refuse, as early as it can come: before and after the token is known.
fn denials() -> Vec<Denial> {
    let subject = Some((TOKEN, OWNER));
    let operation = Some(Operation::LlmChatCompletions);
    let denials = refusals().into_iter().flat_map(|refusal| {
        let early = Denial::from(refusal);
        match refusal {
            Refusal::BadRequest(_)
            | Refusal::MissingCredential
            | Refusal::NotAToken(_)
            | Refusal::InvalidToken => vec![early],
            Refusal::Unavailable | Refusal::PermissionDenied => {
                vec![early, Denial { refusal, subject, operation }]
            }
            Refusal::OtherEntity(_) | Refusal::NoModel(_) => {
                vec![Denial { refusal, subject, operation }]
            }
            _ => vec![Denial { subject, ..early }],
        }
    });
    denials.collect()
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
        for (name, value) in set(denied.headers) {
            writeln!(seen, "  {name}: {value}").unwrap();
        }
        let metadata = response.dynamic_metadata.unwrap();
        let mut metadata: Vec<_> = metadata.fields.keys().map(String::as_str).collect();
        metadata.sort_unstable();
        writeln!(seen, "  {}\n  metadata: {}\n", denied.body, metadata.join(" ")).unwrap();
    }
    insta::assert_snapshot!(seen);
}

#[test]
fn no_credential_is_shown() {
    let credential = Credential::new(CredentialScheme::Bearer, "sk-1").unwrap();
    let decision = Decision::Allow(permit().with_for_tests(None, Some(credential)));
    with_answer(&decision, HeaderEdits::default(), |answer, response| {
        let settings = AnswerSettings::new("x-", "gateway-7");
        let encoder = AnswerEncoder::new(&settings);
        let shown = format!(
            "{decision:?} {answer:?} {:?} {:?} {encoder:?}",
            encoder.encode(answer),
            response.dynamic_metadata
        );
        assert!(!shown.contains("sk-1"), "{shown}");
    });
}
