//! The scopes of a token, as clients write them.

use serde::Deserialize;
use utoipa::ToSchema;

use super::forms;
use crate::{admin::NewScope, web::problem::Problem};

/// What a token may be used for. `domain_id` and `optional_domain_id` are read as `domain`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewScope, example = json!({
    "domain": "acme", "entity_type": "models", "entity_id": "*", "operation": "llm_read"
}))]
#[serde(deny_unknown_fields)]
pub(super) struct ScopeInput {
    /// The slug or the id of the domain.
    #[serde(alias = "domain_id", alias = "optional_domain_id")]
    #[schema(value_type = forms::DomainName)]
    domain: String,
    #[schema(value_type = forms::EntityKind)]
    entity_type: String,
    /// One entity, or `*` for all of the type. Whoever says nothing does not mean all.
    #[schema(value_type = forms::EntityName)]
    entity_id: String,
    #[schema(value_type = forms::OperationName)]
    operation: String,
    /// SuperMQ's clients send these, empty: the service gives a scope its id.
    #[serde(default)]
    #[schema(value_type = forms::Nothing)]
    id: Empty,
    #[serde(default)]
    #[schema(value_type = forms::Nothing)]
    pat_id: Empty,
}

/// A text that has to be empty.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct Empty;

impl TryFrom<String> for Empty {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Ok(Self) } else { Err("the service chooses ids: leave it out") }
    }
}

impl ScopeInput {
    pub(super) fn read(self) -> Result<NewScope, Problem> {
        let Self { domain, entity_type, entity_id, operation, id: Empty, pat_id: Empty } = self;
        if domain.contains(':') || entity_type.contains(':') || operation.contains([':', ',']) {
            return Err(Problem::invalid("a domain, an entity type and an operation have no `:`"));
        }
        let text = format!("{domain}:{entity_type}:{entity_id}:{operation}");
        text.parse().map_err(|error| Problem::invalid(format!("a scope is not valid: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        let read = |json: &str| {
            let input: ScopeInput = serde_json::from_str(json).map_err(|e| e.to_string())?;
            input.read().map(|scope| scope.to_string()).map_err(|e| e.detail)
        };
        let model = r#"{"domain":"acme","entity_type":"models","entity_id":"org/a:b","operation":"llm_read"}"#;
        assert_eq!(read(model).unwrap(), "acme:models:org/a:b:llm_read");
        let theirs = r#"{"optional_domain_id":"acme","entity_type":"models","entity_id":"*","operation":"llm_read"}"#;
        assert_eq!(read(theirs).unwrap(), "acme:models:*:llm_read");
        let filled = theirs.replace('}', r#","id":"","pat_id":""}"#);
        assert_eq!(read(&filled).unwrap(), "acme:models:*:llm_read");
        for wrong in [
            r#"{"domain":"acme","entity_type":"models","entity_id":"*","operation":"llm_read","id":"x"}"#,
            r#"{"domain":"acme","entity_type":"models","entity_id":"*","operation":"llm_read","pat_id":"x"}"#,
            r#"{"domain":"acme:models:x","entity_type":"models","entity_id":"*","operation":"llm_read"}"#,
            r#"{"domain":"acme","entity_type":"models","entity_id":"*","operation":"llm_read,llm_use"}"#,
            r#"{"domain":"acme","domain_id":"beta","entity_type":"models","entity_id":"*","operation":"llm_read"}"#,
            r#"{"domain":"acme","entity_type":"models","entity_id":"*","operation":"fly"}"#,
            r#"{"domain":"acme","entity_type":"models","entity_id":"*","operation":"llm_read","more":1}"#,
            r#"{"domain":"acme","entity_type":"models","operation":"llm_read"}"#,
            r#"{"domain":"acme","entity_type":"models","entity_id":"*"}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
