//! The JSON Schema of a table: what an editor needs to complete and check it. It is published as
//! `deploy/apis/schema.json`. What takes more than one field to see, only compiling finds.

use serde_json::{Value, json};

use super::{ContentTypeUse, ErrorStyle, InsufficientStatus, Method, TokenSource, Upgrade};
use crate::{
    model_list::ListForm,
    operation::{EntityType, Operation},
};

/// The schema as it is published.
pub fn text() -> String {
    format!("{:#}\n", schema())
}

/// The schema as of this version.
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
    // What each entity type can be asked to do, and where the id of one may come from.
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
    // What patgate answers itself is one model, or all that a token may use.
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
    // Whole segments: literal, `{name}`, and for rules one `{*tail}` at the end.
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
                "description": "What the table is called. Unique.",
                "type": "string",
                "pattern": "^[a-z][a-z0-9-]{0,62}$",
            },
            "host": {
                "description": "Where the API is served: a host, or `{domain}.` and the rest of one. Without it, at whatever host.",
                "type": "string",
                "pattern": format!(r"^(\{{domain\}}\.)?{label}(\.{label})*$"),
            },
            "mount": {
                "description": "What its paths begin with. `{domain}` may be one segment.",
                "type": "string",
                "pattern": mount,
            },
            "domain": {
                "description": "The domain, by slug or id, when neither host nor mount names it.",
                "type": "string",
                "pattern": "^[a-z0-9][a-z0-9-]{1,62}$",
            },
            "upstream": {
                "description": "The backend that serves the API for every domain, as `patgate backend create` was given its name. By default each domain's own.",
                "type": "string",
                "pattern": backend,
            },
            "credentials": {
                "description": "Where clients may send their tokens. By default in `authorization`, as `Bearer <token>`. Where several are sent, they must be equal.",
                "type": "array",
                "minItems": 1,
                "uniqueItems": true,
                "items": words(&sources),
                "contains": { "pattern": "^authorization[.]" },
            },
            "remove_cookies": {
                "description": "Names of cookies that reach no backend. No cookie is ever taken for a credential.",
                "type": "array",
                "uniqueItems": true,
                "items": { "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" },
            },
            "errors": {
                "description": "How errors are worded: one style, or a style for each prefix of the paths below the mount. The longest prefix counts; `/` is for all other paths.",
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
                "description": "The status for a good token that may not do this. By default 403.",
                "enum": statuses,
            },
            "rules": {
                "description": "What requests mean. What no rule names is denied.",
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
                        "description": "Any of these. HEAD is not GET.",
                        "type": "array",
                        "minItems": 1,
                        "uniqueItems": true,
                        "items": words(&methods),
                    },
                    "path": {
                        "description": "Below the mount: literal segments, `{name}` for any one, and at the end `{*name}` for one or more.",
                        "type": "string",
                        "pattern": path,
                    },
                    "operation": {
                        "description": "What such a request does.",
                        "enum": operations,
                    },
                    "entity": {
                        "description": "What it does it to.",
                        "enum": entities,
                    },
                    "id": {
                        "description": "Where the id of the one entity comes from. Without it, the request is about none in particular; of `models`, only `llm_read` can be.",
                        "type": "string",
                        "pattern": format!(r"^(body|(body|form|query)\.model|path\.(?!domain$){name})$"),
                    },
                    "content_type": {
                        "description": "Whether the backend looks at `Content-Type` before it reads the body as JSON. By default it is taken to, and the body must say that it is JSON.",
                        "enum": content_types,
                    },
                    "upgrade": {
                        "description": "What such a request may be upgraded to. Without it, to nothing.",
                        "enum": upgrades,
                    },
                    "upstream": {
                        "description": "The backend that serves such requests, in place of the table's.",
                        "type": "string",
                        "pattern": backend,
                    },
                    "answer": {
                        "description": "In which form patgate answers such requests itself, for a token or a domain that is limited to some models. Without it, backends answer all of them.",
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
