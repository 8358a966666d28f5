//! The protected API surfaces: rule tables, read from YAML and compiled once.
//!
//! Methods and path template are one key. Templates match whole segments; one named tail may end
//! them. What no rule names is denied. The router's cost does not grow with the number of rules.

use matchit::{InsertError, Router};
use serde::Deserialize;

use crate::{
    body::Form,
    operation::{EntityType, Operation},
};

/// The table for Cube AI that the binary carries.
const CUBE_AI: &str = include_str!("../deploy/apis/cube-ai.yaml");

/// How an API words its errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorStyle {
    /// `{"error":{"message","type","param","code"}}`, of which the OpenAI SDKs show the message.
    #[default]
    Openai,
}

/// All tables, compiled.
#[derive(Debug)]
pub struct Apis {
    router: Router<usize>,
    /// By the router's value: the rules of one template, each with its method.
    routes: Vec<Vec<(Box<str>, Rule)>>,
}

/// What a method and a path mean.
#[derive(Clone, Debug)]
struct Rule {
    errors: ErrorStyle,
    operation: Operation,
    entity_type: EntityType,
    id: IdSource,
}

#[derive(Clone, Debug, PartialEq)]
enum IdSource {
    None,
    Path(Box<str>),
    Body(Form),
}

/// A rule that a request falls under.
#[derive(Debug, PartialEq)]
pub struct Action<'a> {
    /// How this API words its errors.
    pub errors: ErrorStyle,
    /// The domain as the path names it.
    pub domain: &'a str,
    /// What the request does.
    pub operation: Operation,
    /// What it does it to.
    pub entity_type: EntityType,
    /// Which one.
    pub entity: Entity<'a>,
}

/// The one entity that a request is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entity<'a> {
    /// None in particular.
    None,
    /// This one.
    Named(&'a str),
    /// The one that the body names in this form; it has not been read.
    Unread(Form),
}

impl Entity<'_> {
    /// The id, where it is known.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::None | Self::Unread(_) => None,
        }
    }
}

/// What is wrong with a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not YAML of the expected form.
    #[error("{0}")]
    Yaml(String),
    /// A rule that cannot be.
    #[error("rule `{rule}`: {problem}")]
    Rule {
        /// Its methods and path.
        rule: String,
        /// What is wrong with it.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// For people; nothing depends on it.
    #[serde(rename = "name")]
    _name: String,
    mount: String,
    errors: ErrorStyle,
    rules: Vec<TableRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableRule {
    methods: Vec<String>,
    path: String,
    operation: String,
    entity: String,
    id: Option<String>,
}

impl Apis {
    /// The tables that the binary carries.
    ///
    /// # Errors
    ///
    /// None, as a test of the shipped tables shows.
    pub fn embedded() -> Result<Self, TableError> {
        Self::compile(CUBE_AI)
    }

    /// Compiles a table.
    ///
    /// # Errors
    ///
    /// The first thing in it that is not understood or contradicts another.
    pub fn compile(yaml: &str) -> Result<Self, TableError> {
        let table: Table =
            serde_saphyr::from_str(yaml).map_err(|error| TableError::Yaml(error.to_string()))?;
        let mut apis = Self { router: Router::new(), routes: Vec::new() };
        let mut templates: Vec<String> = Vec::new();
        for row in &table.rules {
            let refuse = |problem: String| TableError::Rule {
                rule: format!("{} {}", row.methods.join(","), row.path),
                problem,
            };
            let template = format!("{}{}", table.mount, row.path);
            let rule = Rule::compile(table.errors, &template, row).map_err(refuse)?;
            let route = match templates.iter().position(|known| *known == template) {
                Some(route) => route,
                None => {
                    let conflict = |error: InsertError| refuse(error.to_string());
                    apis.router.insert(template.clone(), templates.len()).map_err(conflict)?;
                    templates.push(template);
                    apis.routes.push(Vec::new());
                    templates.len() - 1
                }
            };
            for method in &row.methods {
                if apis.routes[route].iter().any(|(known, _)| **known == **method) {
                    return Err(refuse(format!("{method} on this path has a rule already")));
                }
                apis.routes[route].push((method.as_str().into(), rule.clone()));
            }
        }
        Ok(apis)
    }

    /// The rule for a method and a canonical path.
    pub fn find<'a>(&self, method: &str, path: &'a str) -> Option<Action<'a>> {
        let found = self.router.at(path).ok()?;
        // The router lets a parameter in the middle of a path be empty.
        if found.params.iter().any(|(_, value)| value.is_empty()) {
            return None;
        }
        let (_, rule) = self.routes[*found.value].iter().find(|(known, _)| **known == *method)?;
        let entity = match &rule.id {
            IdSource::None => Entity::None,
            IdSource::Path(parameter) => Entity::Named(found.params.get(parameter)?),
            IdSource::Body(form) => Entity::Unread(*form),
        };
        Some(Action {
            errors: rule.errors,
            domain: found.params.get("domain")?,
            operation: rule.operation,
            entity_type: rule.entity_type,
            entity,
        })
    }
}

impl Rule {
    fn compile(errors: ErrorStyle, template: &str, row: &TableRule) -> Result<Self, String> {
        let known_method = |method: &String| {
            !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase())
        };
        if row.methods.is_empty() || !row.methods.iter().all(known_method) {
            return Err("expected one method or more, in capitals".to_owned());
        }
        if !template.contains("/{domain}") {
            return Err("expected `{domain}` in `mount`".to_owned());
        }
        let operation: Operation = row.operation.parse().map_err(|e| format!("{e}"))?;
        let entity_type: EntityType = row.entity.parse().map_err(|e| format!("{e}"))?;
        if !entity_type.operations().contains(operation) {
            return Err(format!("`{operation}` is not an operation of `{entity_type}`"));
        }
        let id = match row.id.as_deref().map(|id| id.split_once('.').unwrap_or((id, ""))) {
            None => IdSource::None,
            Some(("body", "model")) => IdSource::Body(Form::Json),
            Some(("form", "model")) => IdSource::Body(Form::Multipart),
            Some(("body", "")) => IdSource::Body(Form::Other),
            Some(("path", name))
                if !name.is_empty()
                    && (template.contains(&format!("{{{name}}}"))
                        || template.contains(&format!("{{*{name}}}"))) =>
            {
                IdSource::Path(name.into())
            }
            Some(_) => {
                return Err("expected `id` to be `body.model`, `form.model`, `body` or \
                            `path.<a parameter of the path>`"
                    .to_owned());
            }
        };
        Ok(Self { errors, operation, entity_type, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, path, and what it should come to.
    fn check(method: &str, path: &str, expected: Option<(&str, Operation, Entity<'_>)>) {
        let apis = Apis::embedded().unwrap();
        let found = apis.find(method, path).map(|a| (a.domain, a.operation, a.entity));
        assert_eq!(found, expected, "{method} {path}");
    }

    #[test]
    fn cube_ai() {
        use Entity::{Named, None as Any};
        let in_json = Entity::Unread(Form::Json);
        let chat = Operation::LlmChatCompletions;
        check("POST", "/proxy/acme/v1/chat/completions", Some(("acme", chat, in_json)));
        check("POST", "/proxy/acme/api/chat", Some(("acme", chat, in_json)));
        let heard = Some(("acme", Operation::LlmTranscription, Entity::Unread(Form::Multipart)));
        check("POST", "/proxy/acme/v1/audio/transcriptions", heard);
        let copied = Some(("acme", Operation::LlmCreate, Entity::Unread(Form::Other)));
        check("POST", "/proxy/acme/api/copy", copied);
        let read = Operation::LlmRead;
        check("GET", "/proxy/acme/v1/models", Some(("acme", read, Any)));
        check("GET", "/proxy/acme/v1/models/org/m-7b", Some(("acme", read, Named("org/m-7b"))));
        // The tail is a name, whatever it looks like.
        let name = Named("v1/chat/completions");
        check("GET", "/proxy/acme/v1/models/v1/chat/completions", Some(("acme", read, name)));
        check("GET", "/proxy/acme/audit/a/b", Some(("acme", Operation::AuditLogRead, Any)));
    }

    #[test]
    fn what_no_rule_names_is_nothing() {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/proxy"),
            ("GET", "/proxy/acme"),
            ("GET", "/proxy/acme/v1/models/"),
            ("HEAD", "/proxy/acme/v1/models"),
            ("get", "/proxy/acme/v1/models"),
            ("POST", "/proxy/acme/v1/models"),
            ("POST", "/proxy/acme/v1/chat/completions/x"),
            ("POST", "/proxy/acme/v1/chat"),
            ("POST", "/proxy/acme/x/v1/chat/completions"),
            ("POST", "/v1/chat/completions"),
            ("GET", "/proxy/acme/audit"),
            ("POST", "/proxy//v1/chat/completions"),
        ] {
            check(method, path, None);
        }
    }

    #[test]
    fn mistakes_are_refused_with_the_rule() {
        let rule = |rules: &str| {
            let head = "name: x\nmount: /p/{domain}\nerrors: openai\nrules:\n";
            Apis::compile(&format!("{head}{rules}")).unwrap_err().to_string()
        };
        let cases = [
            (
                "  - { methods: [GET], path: /a, operation: llm, entity: models }",
                "unknown operation `llm`",
            ),
            (
                "  - { methods: [GET], path: /a, operation: read, entity: models }",
                "not an operation of `models`",
            ),
            ("  - { methods: [], path: /a, operation: read, entity: scim }", "one method or more"),
            (
                "  - { methods: [GET], path: /a, operation: read, entity: scim, id: path.b }",
                "parameter of the path",
            ),
            (
                "  - { methods: [GET], path: /a, operation: read, entity: scim }\n  - { methods: [GET], path: /a, operation: delete, entity: scim }",
                "has a rule already",
            ),
            (
                "  - { methods: [GET], path: \"/a/{x}\", operation: read, entity: scim }\n  - { methods: [GET], path: \"/a/{y}\", operation: read, entity: scim }",
                "conflict",
            ),
        ];
        for (rules, expected) in cases {
            let message = rule(rules);
            assert!(message.contains(expected), "{message}");
        }
        assert!(matches!(Apis::compile("name: x"), Err(TableError::Yaml(_))));
    }
}
