//! The document of the API, by OpenAPI 3.1, which is served and kept as `docs/openapi.json`.
//!
//! Each handler says what is its own: what it takes, what it answers, and refusals that only it has.
//! Here is added what follows from that for all of them.

use std::sync::LazyLock;

use axum::{http::header::CONTENT_TYPE, response::IntoResponse};
use serde_json::{Map, Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Components, OpenApi as Document,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::routes;
use crate::{
    operation::{EntityType, Operation},
    web::problem::Problem,
};

/// What the document says of the whole API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "patgate self-service",
        description = "Personal Access Tokens of users, and the administration of patgate. Sign in \
                       with `POST /sessions`, and send the cookie or `secret`. Errors are problems as \
                       RFC 9457 has them.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/api")),
    components(schemas(Problem)),
    security(("cookie" = []), ("bearer" = [])),
    modifiers(&Sessions),
    tags(
        (name = "sessions", description = "Signing in and out, and the password"),
        (name = "pats", description = "The caller's Personal Access Tokens"),
        (name = "users", description = "Users, for platform administrators"),
        (name = "domains", description = "Domains and their models, for platform administrators"),
        (name = "roles", description = "The roles of a domain, for those who govern them"),
        (name = "backends", description = "Backends, for platform administrators"),
        (name = "audit", description = "What has been done"),
    ),
)]
pub(super) struct Api;

/// The two ways to prove a session.
struct Sessions;

impl Modify for Sessions {
    fn modify(&self, document: &mut Document) {
        let cookie = "The cookie that `POST /sessions` sets; over plain HTTP, on the same machine only, \
                      its name is `patgate-session`. A request that changes something needs the \
                      `Origin` of this site as well.";
        let cookie = ApiKeyValue::with_description("__Host-patgate-session", cookie);
        let bearer = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The `secret` of the session. A Personal Access Token is none."))
            .build();
        let components = document.components.get_or_insert_with(Components::default);
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut document = serde_json::to_value(routes().get_openapi()).unwrap_or_default();
    complete(&mut document);
    format!("{document:#}\n")
});

/// Returns this document
#[utoipa::path(
    get, path = "/openapi.json", tag = "document", security(()),
    responses((status = OK, body = Value, description = "The document"))
)]
pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

type Follows = fn(&Handler<'_>) -> bool;

/// Refusals, and when there is one.
const REFUSALS: &[(&str, &str, Follows)] = &[
    ("400", "The request is not valid", |_| true),
    ("401", "There is no session", |it| !it.is_public),
    ("403", "Not permitted, or sent by another site", |it| it.changes),
    ("404", "There is no such thing, or it is not the caller's", |it| it.names),
    ("409", "Another thing or change is in the way", |it| it.changes && !it.is_public),
    ("410", "What the request had created was deleted", |_| false),
    ("412", "It is not at this version", |it| it.has_version),
    ("413", "The body is too long", |it| it.has_body),
    ("415", "The body is not JSON", |it| it.has_body),
    ("421", "The host is not that of `web.url`", |_| true),
    ("422", "It goes beyond a limit, or repeats a key", |_| false),
    ("429", "Too many requests; `retry-after` says when to try again", |_| true),
    ("503", "Not available now; `retry-after` says when to try again", |_| true),
];

/// What refusals follow from.
struct Handler<'d> {
    is_public: bool,
    changes: bool,
    names: bool,
    has_version: bool,
    has_body: bool,
    parts: &'d mut Map<String, Value>,
}

fn complete(document: &mut Value) {
    for (path, item) in members(&mut document["paths"]) {
        for (method, parts) in members(item) {
            let Some(parts) = parts.as_object_mut() else { continue };
            let parameters = parts.get("parameters").and_then(Value::as_array);
            let mut operation = Handler {
                is_public: parts.contains_key("security"),
                changes: method != "get",
                names: path.contains('{'),
                has_version: parameters
                    .is_some_and(|all| all.iter().any(|parameter| parameter["name"] == IF_MATCH)),
                has_body: parts.contains_key("requestBody"),
                parts,
            };
            operation.complete();
        }
    }
    let schemas = &mut document["components"]["schemas"];
    for (name, rule) in rules() {
        schemas[name].as_object_mut().into_iter().for_each(|schema| {
            schema.extend(rule.as_object().cloned().unwrap_or_default());
        });
    }
    for (status, description, _) in REFUSALS {
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        document["components"]["responses"][status] = json!({
            "description": description,
            "content": { "application/problem+json": { "schema": schema } },
        });
    }
}

/// Rules about several members of one body.
fn rules() -> [(&'static str, Value); 4] {
    let one_expiry = json!({ "not": {
        "required": ["duration", "expires_at"],
        "properties": { "duration": { "type": "string" }, "expires_at": { "type": "string" } },
    } });
    let of_kind = EntityType::ALL.iter().map(|kind| {
        let operations: Vec<Operation> = kind.operations().iter().collect();
        let mut properties = json!({
            "entity_type": { "enum": [kind] }, "operation": { "enum": operations },
        });
        if *kind == EntityType::Domains {
            // Its own id would say the same.
            properties["entity_id"] = json!({ "enum": ["*"] });
        }
        json!({ "properties": properties })
    });
    [
        ("NewPat", one_expiry.clone()),
        ("NewSecret", one_expiry),
        ("NewScope", json!({ "oneOf": of_kind.collect::<Vec<_>>() })),
        (
            "DomainInput",
            json!({ "oneOf": [
            { "required": ["models"], "properties": {
                "models": { "type": "array" }, "all_models": { "enum": [false] } } },
            { "required": ["all_models"], "properties": {
                "models": { "type": "null" }, "all_models": { "enum": [true] } } },
        ] }),
        ),
    ]
}

const IF_MATCH: &str = "if-match";

impl Handler<'_> {
    fn complete(&mut self) {
        // A handler's name is unique in its part of the API only.
        let id = format!("{}_{}", text(&self.parts["tags"][0]), text(&self.parts["operationId"]));
        self.parts.insert("operationId".to_owned(), id.into());
        // No query and no header is `null`.
        for parameter in self.parts.get_mut("parameters").into_iter().flat_map(elements) {
            without_null(&mut parameter["schema"]);
        }
        for (status, _, follows) in REFUSALS {
            let responses = &mut self.parts["responses"];
            if responses.get(status).is_some() || follows(self) {
                let refusal = json!({ "$ref": format!("#/components/responses/{status}") });
                self.parts["responses"][status] = refusal;
            }
        }
        for (status, response) in members(&mut self.parts["responses"]) {
            if response.get("$ref").is_none() && response.get("description").is_none() {
                let description = match status.as_str() {
                    "200" => "Done",
                    "201" => "Created",
                    _ => "Done, and nothing to say",
                };
                response["description"] = description.into();
            }
            let shows_token = response.to_string().contains("\"#/components/schemas/Pat\"");
            for (name, description, applies) in [
                ("location", "The path of what was created", status == "201"),
                ("etag", "The version of the token", shows_token),
            ] {
                // A session is created at no path of its own.
                if applies && !self.is_public {
                    let header = json!({ "description": description, "required": true,
                                         "schema": { "type": "string" } });
                    response["headers"][name] = header;
                }
            }
        }
    }
}

/// An `Option` is `null` or the type.
fn without_null(schema: &mut Value) {
    if let Some([Value::String(one), Value::String(other)]) =
        schema["type"].as_array().map(Vec::as_slice)
    {
        let kind = if one == "null" { other } else { one };
        schema["type"] = kind.clone().into();
    }
    let alternatives = schema["oneOf"].as_array();
    if let Some([Value::Object(null), kind]) = alternatives.map(Vec::as_slice)
        && null.get("type").is_some_and(|kind| kind == "null")
    {
        *schema = kind.clone();
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

fn elements(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_array_mut().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs, path::Path};

    use super::*;

    /// With `UPDATE=1`, the kept document becomes the one that is served.
    #[test]
    fn the_document_is_kept() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, DOCUMENT.as_str()).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap();
        let renew = "UPDATE=1 cargo test --lib the_document_is_kept";
        assert!(kept == *DOCUMENT, "docs/openapi.json is not what is served; renew it: {renew}");
    }

    /// axum shows its paths only to people.
    #[test]
    fn every_route_is_in_the_document() {
        let (router, document) = routes().split_for_parts();
        let shown = format!("{router:?}");
        let (own, _) = shown.split_once("fallback_router").unwrap();
        let routed: BTreeSet<&str> = own.split('"').filter(|part| part.starts_with('/')).collect();
        let documented: BTreeSet<&str> = document.paths.paths.keys().map(String::as_str).collect();
        assert_eq!(routed, documented);
        assert!(routed.contains("/pats/{id}/scope/add"), "{routed:?}");
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let document: Value = serde_json::from_str(&DOCUMENT).unwrap();
        assert_eq!(document["openapi"].as_str().unwrap().split('.').nth(1), Some("1"));
        let mut ids = BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id), "two operations are named {id}");
                assert!(operation["summary"].as_str().is_some_and(|it| !it.is_empty()), "{id}");
            }
        }
    }
}
