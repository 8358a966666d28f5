//! Values for the tests of this package and others, which otherwise only a check or a database makes.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    api::{Entity, MatchedRule},
    backend::ReservedNames,
    body::BodyForm,
    clock::Moment,
    decide::{
        AuthorizationProgress, Authorized, AwaitsBody, Listing, ModelReading, Permit, authorize,
    },
    domain::{Domain, DomainId, Models},
    installation::Installation,
    model_list::ListForm,
    operation::{EntityType, Operation},
    principal::{DomainGrants, Principal, UserId},
    refusal::{CompressionFault, Excess, LimitedBy, MalformedPart, NoModel, NotAToken, Refusal},
    token::{TokenDigest, TokenId},
};

/// The installation in unit tests.
pub const OURS: Installation = Installation { system: 7, database: 16_384, id: Uuid::from_u128(1) };

const DOMAIN: DomainId = DomainId(Uuid::from_u128(3));

/// Returns the domain `acme`, with all models and the backend `model-acme`.
fn acme() -> Arc<Domain> {
    let Ok(slug) = "acme".parse() else { panic!("a slug") };
    Arc::new(Domain::new(DOMAIN, slug, true, "model-acme".into(), Models::All))
}

/// Returns a permit to list the models of the domain `acme`, for token 1 of user 2.
pub fn permit() -> Permit {
    Permit::for_tests(acme(), "model-acme")
}

/// Calls `then` with the listing of a permitted request, whose token may use the model `a`. `whole` says
/// whether the token may read about all models.
pub fn listing<T>(
    form: ListForm,
    model: Option<&str>,
    whole: bool,
    then: impl FnOnce(Listing<'_>) -> T,
) -> T {
    use Operation::{LlmChatCompletions as Chat, LlmRead as Read};
    let Ok(slug) = "acme".parse() else { panic!("a slug") };
    let mut grants = DomainGrants::new(DOMAIN, slug, [Chat, Read].into_iter().collect());
    let read = if whole { "*" } else { "a" };
    for (model, operation) in [(read, Read), ("a", Chat)] {
        grants.add_scope(EntityType::Models, model, operation);
    }
    let token = TokenId(Uuid::from_u128(7));
    let owner = UserId(Uuid::from_u128(8));
    let digest = TokenDigest::from_bytes([0; 32]);
    let valid = Moment(0)..Moment(1);
    let principal = Principal::new(token, digest, valid, false, owner, true, vec![grants]);
    let rule = MatchedRule {
        domain: "acme".into(),
        operation: Read,
        entity_type: EntityType::Models,
        entity: Entity::None,
        upstream: None,
        answer: Some(ListForm::OpenaiModels),
    };
    let (domain, reserved) = (acme(), ReservedNames::default());
    match authorize(&principal, &rule, Some(&domain), None, ModelReading::WhenNeeded, &reserved) {
        Ok(AuthorizationProgress::Authorized(Authorized::List(listing))) => {
            then(listing.for_tests(form, model))
        }
        other => panic!("{other:?}"),
    }
}

/// A first step of token 7 of user 8, whose body is needed.
pub fn awaits_body() -> AwaitsBody {
    let Ok(slug) = "acme".parse() else { panic!("a slug") };
    let chat = Operation::LlmChatCompletions;
    let mut grants = DomainGrants::new(DOMAIN, slug, [chat].into_iter().collect());
    grants.add_scope(EntityType::Models, "a", chat);
    let (token, owner) = (TokenId(Uuid::from_u128(7)), UserId(Uuid::from_u128(8)));
    let (digest, valid) = (TokenDigest::from_bytes([0; 32]), Moment(0)..Moment(1));
    let principal = Principal::new(token, digest, valid, false, owner, true, vec![grants]);
    let rule = MatchedRule {
        domain: "acme".into(),
        operation: chat,
        entity_type: EntityType::Models,
        entity: Entity::Unread(BodyForm::Json),
        upstream: None,
        answer: None,
    };
    let (domain, reserved) = (acme(), ReservedNames::default());
    match authorize(&principal, &rule, Some(&domain), None, ModelReading::WhenNeeded, &reserved) {
        Ok(AuthorizationProgress::NeedsModel(needs)) => needs.await_body(),
        other => panic!("{other:?}"),
    }
}

/// Builds a gzip member around a deflated text, with the checksum and length of `text`.
pub fn gzip_member(deflated: &[u8], text: &[u8]) -> Vec<u8> {
    let checksum = crc32fast::hash(text).to_le_bytes();
    let length = (text.len() as u32).to_le_bytes();
    [&[0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 0, 255], deflated, &checksum, &length].concat()
}

/// Compresses a text into one member of gzip.
pub fn gzip(text: &[u8]) -> Vec<u8> {
    gzip_member(&miniz_oxide::deflate::compress_to_vec(text, 6), text)
}

/// Makes every value of a type, from a list of its variants: first those without content, then those with
/// content, each with the values of that. A variant that is not in the list does not compile.
macro_rules! every {
    ($type:ident { $($unit:ident),* $(; $($holder:ident($values:expr)),+)? }) => {{
        let _ = |value: $type| match value {
            $($type::$unit => (),)*
            $($($type::$holder { .. } => (),)+)?
        };
        let every = [$($type::$unit),*].into_iter();
        $($(let every = every.chain($values);)+)?
        every
    }};
}

/// Returns every reason to refuse. Reasons with a number or a name have one or two examples of it.
pub fn refusals() -> Vec<Refusal> {
    let parts = every!(MalformedPart {
        Path,
        Authorization,
        Credentials,
        TokenInQuery,
        Connection,
        Authority,
        Message
    });
    let not_tokens = every!(NotAToken {
        NoScheme,
        OtherScheme,
        Blank,
        ForeignKey,
        Jwt,
        Variable,
        Quoted,
        Beginning,
        OtherPrefix
    });
    let no_models = every!(NoModel {
        NotShown, Cut, Encoded, CompressedForm, TooMuchAtOnce, NotInTime, NotJson, NotForm, Absent,
        Repeated, NotAName, InQuery, Endless, Elsewhere;
        Compressed(every!(CompressionFault {
            Malformed, Optional, TooLong, TooDense, TooManyBlocks
        }).map(NoModel::Compressed)),
        MalformedJson([NoModel::MalformedJson { at: 17 }]),
        UnfinishedJson([NoModel::UnfinishedJson { at: 17 }]),
        MalformedForm([0, 2].map(|part| NoModel::MalformedForm { part })),
        Excessive(every!(Excess { Depth, Members, Parts, Parameters }).map(NoModel::Excessive)),
        Rival([NoModel::Rival("models")])
    });
    let every = every!(Refusal {
        MissingCredential, InvalidToken, TokenNotYetIssued, TokenExpired, TokenRevoked,
        OwnerDisabled, NotFound, PermissionDenied, RateLimited, TooManyBodies, Unavailable;
        BadRequest(parts.map(Refusal::BadRequest)),
        NotAToken(not_tokens.map(Refusal::NotAToken)),
        OtherEntity(every!(LimitedBy { Scopes, Domain }).map(Refusal::OtherEntity)),
        NoModel(no_models.map(Refusal::NoModel))
    });
    every.collect()
}
