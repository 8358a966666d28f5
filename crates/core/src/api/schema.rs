//! The JSON Schema of a table, with which an editor completes and checks it. It is published as
//! `deploy/apis/schema.json`. Some errors that concern several fields are found only by compiling.

use serde_json::{Value, json};

use super::{ContentTypeUse, ErrorStyle, InsufficientStatus, Method, TokenSource, Upgrade};
use crate::{
    model_list::ListForm,
    operation::{EntityType, Operation},
};

/// Returns the schema as it is published, as text.
pub fn text() -> String {
    format!("{:#}\n", schema())
}

/// Returns the schema of this version.
pub fn schema() -> Value {
    let words = |all: &[&'static str]| json!({ "enum": all });
    let operations: Vec<_> = Operation::ALL.iter().map(|word| word.as_str()).collect();
    let entities: Vec<_> = EntityType::ALL.iter().map(|word| word.as_str()).collect();
    let methods: Vec<_> = Method::ALL.iter().map(|word| word.as_str()).collect();
    let sources: Vec<_> = TokenSource::ALL.iter().map(|word| word.as_str()).collect();
    let upgrades: Vec<_> = Upgrade::ALL.iter().map(|word| word.as_str()).collect();
    let forms: Vec<_> = ListForm::ALL.iter().map(|word| word.as_str()).collect();
    let lists: Vec<_> =
        ListForm::ALL.iter().filter(|form| !form.is_of_one()).map(|form| form.as_str()).collect();
    let errors: Vec<_> = ErrorStyle::ALL.iter().map(|word| word.as_str()).collect();
    let content_types: Vec<_> = ContentTypeUse::ALL.iter().map(|word| word.as_str()).collect();
    let statuses: Vec<u16> =
        InsufficientStatus::ALL.iter().filter_map(|word| word.as_str().parse().ok()).collect();
    // The operations of each entity type, and where the id of an entity may come from.
    let pairs: Vec<_> = EntityType::ALL
        .iter()
        .map(|entity| {
            let own: Vec<_> = entity.operations().iter().map(|word| word.as_str()).collect();
            let mut then = json!({ "properties": { "operation": words(&own) } });
            match entity {
                EntityType::Models => {
                    let reads = json!({ "const": Operation::LlmRead.as_str() });
                    then["if"] = json!({ "properties": { "operation": reads } });
                    then["else"] = json!({ "required": ["id"] });
                }
                EntityType::Domains => then["properties"]["id"] = json!(false),
                _ => then["properties"]["id"] = json!({ "pattern": "^path[.]" }),
            }
            let this = json!({ "entity": { "const": entity.as_str() } });
            json!({ "if": { "required": ["entity"], "properties": this }, "then": then })
        })
        .collect();
    // patgate answers requests about one model, or about all models that a token may use.
    let read = [Method::Get.as_str(), Method::Head.as_str()];
    let answers = json!({
        "if": { "required": ["answer"] },
        "then": {
            "properties": {
                "methods": { "items": words(&read) },
                "operation": { "const": Operation::LlmRead.as_str() },
                "entity": { "const": EntityType::Models.as_str() },
            },
            "if": { "properties": { "answer": words(&lists) } },
            "then": { "properties": { "id": false } },
            "else": { "required": ["id"], "properties": { "id": { "pattern": "^path[.]" } } },
        },
    });
    let pairs: Vec<_> = pairs.into_iter().chain([answers]).collect();
    // Segments are whole: literal, `{name}` and, at the end of rules, one `{*tail}`.
    let literal = r##"(?!\.{1,2}(/|$)|:)[!"$&-)+-.0-:<->@-\[\]-z|~]+"##;
    let name = "[a-z][a-z0-9_]*";
    let path = format!(r"^/$|^(/({literal}|\{{{name}\}}))*(/({literal}|\{{\*?{name}\}}))$");
    let mount = format!(r"^/$|^(/({literal}|\{{domain\}}))+$");
    let label = "[a-z0-9_-]{1,63}";
    let backend = "^[a-z0-9][a-z0-9._-]{0,62}$";
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An API that patgate protects",
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "errors", "rules"],
        "properties": {
            "name": {
                "description": "The name of the table. It must be unique.",
                "type": "string",
                "pattern": "^[a-z][a-z0-9-]{0,62}$",
            },
            "host": {
                "description": "The host at which the API is served, or `{domain}.` and the rest of a host. Without it, the API is served at every host.",
                "type": "string",
                "pattern": format!(r"^(\{{domain\}}\.)?{label}(\.{label})*$"),
            },
            "mount": {
                "description": "The beginning of all paths of the API. One segment can be `{domain}`.",
                "type": "string",
                "pattern": mount,
            },
            "domain": {
                "description": "The slug or the id of the domain, if neither host nor mount names it.",
                "type": "string",
                "pattern": "^[a-z0-9][a-z0-9-]{1,62}$",
            },
            "upstream": {
                "description": "The backend that serves the API for every domain, by its name in `patgate backend create`. By default, each domain's own backends serve it.",
                "type": "string",
                "pattern": backend,
            },
            "credentials": {
                "description": "The headers in which clients may send their tokens. By default, `authorization` with `Bearer <token>`. If a client sends several, they must be equal.",
                "type": "array",
                "minItems": 1,
                "uniqueItems": true,
                "items": words(&sources),
                "contains": { "pattern": "^authorization[.]" },
            },
            "remove_cookies": {
                "description": "The names of cookies that must not reach a backend. patgate never reads a credential from a cookie.",
                "type": "array",
                "uniqueItems": true,
                "items": { "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" },
            },
            "errors": {
                "description": "The form of errors: one style, or one style per prefix of the paths below the mount. The longest prefix counts; `/` stands for all other paths.",
                "anyOf": [
                    { "enum": errors },
                    {
                        "type": "object",
                        "required": ["/"],
                        "propertyNames": { "pattern": format!(r"^/$|^(/{literal})+$") },
                        "additionalProperties": { "enum": errors },
                    },
                ],
            },
            "insufficient_permission": {
                "description": "The status if the token is good, but does not permit the request. By default 403.",
                "enum": statuses,
            },
            "rules": {
                "description": "What requests do. A request without a rule is denied.",
                "type": "array",
                "minItems": 1,
                "items": { "$ref": "#/$defs/rule" },
            },
        },
        "$defs": {
            "rule": {
                "type": "object",
                "additionalProperties": false,
                "required": ["methods", "path", "operation", "entity"],
                "properties": {
                    "methods": {
                        "description": "The methods of the request. GET does not include HEAD.",
                        "type": "array",
                        "minItems": 1,
                        "uniqueItems": true,
                        "items": words(&methods),
                    },
                    "path": {
                        "description": "The path below the mount: literal segments, `{name}` for any one segment and, at the end, `{*name}` for one or more.",
                        "type": "string",
                        "pattern": path,
                    },
                    "operation": {
                        "description": "The operation of such a request.",
                        "enum": operations,
                    },
                    "entity": {
                        "description": "The type of entity on which it acts.",
                        "enum": entities,
                    },
                    "id": {
                        "description": "The part of the request that names the entity. Without it, the request is about no entity in particular; for `models`, only `llm_read` can be.",
                        "type": "string",
                        "pattern": format!(r"^(body|(body|form|query)\.model|path\.(?!domain$){name})$"),
                    },
                    "content_type": {
                        "description": "Whether the backend checks `Content-Type` before it reads the body as JSON. By default it is assumed to, and the request must say that its body is JSON.",
                        "enum": content_types,
                    },
                    "upgrade": {
                        "description": "The protocol to which such a request may be upgraded. By default, it must not be upgraded.",
                        "enum": upgrades,
                    },
                    "upstream": {
                        "description": "The backend that serves such requests, in place of the table's backend.",
                        "type": "string",
                        "pattern": backend,
                    },
                    "answer": {
                        "description": "The form in which patgate answers such requests itself, if the token or the domain is limited to some models. Without it, backends answer all of them.",
                        "enum": forms,
                    },
                },
                "allOf": pairs,
                "dependentSchemas": {
                    "content_type": {
                        "required": ["id"],
                        "properties": { "id": { "const": "body.model" } },
                    },
                },
            },
        },
    })
}
