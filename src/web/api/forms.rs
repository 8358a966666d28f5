//! The forms of texts in requests, for the document of the API. They say what the domain types accept.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Object, ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{SchemaType, Type},
    },
};

use crate::{
    admin::AuditActionFilter,
    operation::{EntityType, Operation},
    rollout::DomainMode,
};

/// The characters of [`misleads`], without those beyond the 16 bits that every reader of patterns knows.
///
/// [`misleads`]: crate::legible::misleads
const MISLEADING: &str = r"\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb";

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

/// A text that people read: no control, bidirectional or invisible characters.
fn legible(least: usize, most: usize) -> ObjectBuilder {
    like(&format!("^[^{MISLEADING}]*$")).min_length(Some(least)).max_length(Some(most))
}

fn like(pattern: &str) -> ObjectBuilder {
    text().pattern(Some(pattern))
}

fn of_format(name: &str) -> ObjectBuilder {
    text().format(Some(SchemaFormat::Custom(name.to_owned())))
}

fn words<'w>(words: impl IntoIterator<Item = &'w str>) -> ObjectBuilder {
    text().enum_values(Some(words))
}

/// Declares types that stand for a form in the document, and for nothing else.
macro_rules! forms {
    ($(#[doc = $description:literal] $name:ident = $schema:expr;)+) => {$(
        #[doc = $description]
        pub(super) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let description: &str = $description;
                let schema: Object = $schema.description(Some(description.trim())).build();
                schema.into()
            }
        }

        impl ToSchema for $name {}
    )+};
}

forms! {
    /// The name of a token, unique among its owner's, without control, bidirectional and invisible characters and without secrets.
    TokenName = legible(1, 200).examples(["laptop"]);
    /// What a token is for, without control, bidirectional and invisible characters and without secrets.
    Description = legible(0, 2000).examples(["for my editor"]);
    /// What people call a user or a domain, without control, bidirectional and invisible characters and without secrets.
    DisplayName = legible(1, 200).examples(["Ann"]);
    /// An e-mail address; in lower case, it names the user.
    Email = of_format("email").min_length(Some(3)).max_length(Some(254)).examples(["zoe@example.com"]);
    /// From 12 to 256 characters.
    Password = of_format("password").min_length(Some(12)).max_length(Some(256));
    /// A time, such as `24h`, `720h` or `30d`.
    Lifetime = like("^[1-9][0-9]{0,3}(s|m|h|d)$").examples(["720h"]);
    /// A time of 7 days at most, such as `12h`.
    InvitationLife = like("^([1-9][0-9]?h|[1-7]d)$").examples(["24h"]);
    /// A moment, such as `2030-01-31T00:00:00Z`.
    Moment = of_format("date-time").examples(["2030-01-31T00:00:00Z"]);
    /// Only `true`.
    True = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Boolean)).enum_values(Some([true]));
    /// Empty, as SuperMQ's clients send it.
    Nothing = text().max_length(Some(0));
    /// The state of a token; `enabled` and `live` are `active`.
    PatStatus = words(["active", "enabled", "live", "expired", "revoked", "owner_disabled", "all"]);
    /// An action, or a kind of object, for all actions on it.
    AuditWord = words(AuditActionFilter::words());
    /// A domain's name in paths.
    Slug = like("^[a-z][a-z0-9-]{1,62}$").examples(["shop"]);
    /// The slug or the id of a domain.
    DomainName = like("^([a-z][a-z0-9-]{1,62}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$").examples(["acme"]);
    /// The name of a role, unique in its domain.
    RoleName = like("^[a-z][a-z0-9_-]{0,62}$").examples(["admin"]);
    /// The address or the id of a user.
    UserName = text().examples(["bob@example.com"]);
    /// The name of a backend, which is that of its Envoy cluster.
    BackendName = like("^[a-z0-9][a-z0-9._-]{0,62}$").examples(["model-acme"]);
    /// The address of a backend, without credentials. With `patgate sync`, the gateway sends requests there; otherwise it is a note for people.
    BackendUrl = like("^https?://[a-z0-9.-]+(:[0-9]{1,5})?(/[a-zA-Z0-9._/-]*)?$").examples(["http://10.0.0.7:8000"]);
    /// The API that a backend offers.
    BackendKind = words(["vllm", "ollama", "openai"]);
    /// A model's name in requests; one `*` stands for letters, digits and `. _ - :`.
    Model = like("^([A-Za-z0-9._:/@+-]+|[A-Za-z0-9._:/@+-]*\\*[A-Za-z0-9._:/@+-]*)$")
        .max_length(Some(256)).examples(["qwen2.5-*"]);
    /// Whether denials are enforced, or only recorded.
    Mode = words(DomainMode::ALL.iter().map(|mode| mode.as_str()));
    /// What a request does.
    OperationName = words(Operation::ALL.iter().map(|operation| operation.as_str()));
    /// On what a request acts.
    EntityKind = words(EntityType::ALL.iter().map(|kind| kind.as_str()));
    /// One entity, or `*` for all of the type.
    EntityName = like(&format!("^(\\*|[^*{MISLEADING}]+)$")).min_length(Some(1)).max_length(Some(256)).examples(["*"]);
}
