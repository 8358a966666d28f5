//! Reads a table from its YAML text, and reports all errors in it.

mod reader;
mod values;

use self::{
    reader::{TableFields, TableReader},
    values::{
        DOMAIN, backend, domain, domain_source, id_source, is_cookie_name, mount, table_name,
        title, word,
    },
};
use super::{
    ApiStyle, ContentTypeUse, DomainSource, IdSource, InsufficientStatus, Method, Methods, Rule,
    TableError, TokenSource, TokenSources, Upgrade,
    errors::{self, ErrorStyles},
    host::HostPattern,
    template::Template,
};
use crate::{
    backend::BackendName,
    body::BodyForm,
    model_list::ListForm,
    operation::{EntityType, Operation},
    yaml::{self, Placed, YamlError, YamlErrorKind, YamlNode, line},
};

/// The fields of a table. The schema has the same.
pub(super) const TABLE_FIELDS: [&str; 10] = [
    "name",
    "host",
    "mount",
    "domain",
    "upstream",
    "credentials",
    "remove_cookies",
    "errors",
    "insufficient_permission",
    "rules",
];
/// The fields of a rule. The schema has the same.
pub(super) const RULE_FIELDS: [&str; 9] = [
    "methods",
    "path",
    "operation",
    "entity",
    "id",
    "content_type",
    "upstream",
    "upgrade",
    "answer",
];

/// Without an `id`, the call would be about no model in particular, and the domain's list of models
/// would not apply.
const MODEL_IS_MISSING: &str = "`id` is missing: write `id: body.model`, `id: form.model` or `id: \
     path.` and the name of a parameter, or `id: body` where the model is named in a way that is \
     not read; only `llm_read` can be about no model in particular";

/// patgate can answer only what it knows: which models a token may use.
const NOT_A_LIST: &str = "`answer` is for rules of `llm_read` on `models` with the methods GET and \
     HEAD: `openai-model` with `id: path.` and the name of a parameter, the others without `id`";

/// One table, well-formed in itself. Conflicts with other tables are found later.
pub(super) struct Table {
    pub(super) file: String,
    pub(super) line: u64,
    pub(super) name: Box<str>,
    pub(super) host: HostPattern,
    pub(super) mount: Template,
    pub(super) domain: DomainSource,
    pub(super) upstream: Option<BackendName>,
    pub(super) api_style: ApiStyle,
    pub(super) errors: ErrorStyles,
    pub(super) cookies: Box<[Box<str>]>,
    pub(super) rows: Vec<RuleRow>,
}

/// One rule of a table.
pub(super) struct RuleRow {
    pub(super) line: u64,
    /// Methods and path as they are written, for errors.
    pub(super) title: String,
    pub(super) rule: Rule,
}

/// Reads a table, and adds all errors in it to `found`. Returns `None` if there are any.
pub(super) fn read(file: &str, text: &str, found: &mut Vec<TableError>) -> Option<Table> {
    let before = found.len();
    let mut reader = TableReader { file, rule: None, errors: found };
    let table = match yaml::read(text) {
        Ok(document) => reader.table(&document),
        Err(YamlError { line, kind, .. }) => {
            let problem = match kind {
                YamlErrorKind::KeyTwice => "this key occurs twice in the map".to_owned(),
                YamlErrorKind::Malformed(error) => format!("not well-formed YAML: {error}"),
            };
            reader.report(line, problem);
            None
        }
    };
    table.filter(|_| found.len() == before)
}

impl TableReader<'_> {
    fn table(&mut self, document: &Placed) -> Option<Table> {
        let fields = self.fields(document, &TABLE_FIELDS)?;
        let name = self.required(&fields, "name", table_name);
        let host = self.optional(&fields, "host", HostPattern::parse);
        let mount = self.optional(&fields, "mount", mount);
        let fixed = self.optional(&fields, "domain", domain);
        let upstream = self.optional(&fields, "upstream", backend).value();
        let sources = self.sources(&fields);
        let cookies = self.cookies(&fields);
        let errors = self.errors(&fields);
        let insufficient =
            self.optional(&fields, "insufficient_permission", word::<InsufficientStatus>);
        let wrong = host.is_wrong() || mount.is_wrong() || fixed.is_wrong();
        // Reading continues with defaults, so that errors in the rules are found in the same pass.
        let host = host.or_default();
        let mount = mount.or_default();
        let domain = domain_source(&host, &mount, fixed.value());
        if domain.is_none() && !wrong {
            self.report(
                fields.line,
                "expected one thing that names the domain: `{domain}` in `host`, `{domain}` in \
                 `mount`, or `domain`",
            );
        }
        let rows = self.rows(&fields, &mount)?;
        let api_style = ApiStyle {
            sources: sources?,
            insufficient: insufficient.value().unwrap_or(InsufficientStatus::Forbidden),
        };
        Some(Table {
            file: self.file.to_owned(),
            line: fields.line,
            name: name?,
            host,
            mount,
            domain: domain?,
            upstream,
            api_style,
            errors: errors?,
            cookies: cookies?,
            rows,
        })
    }

    fn errors(&mut self, fields: &TableFields<'_>) -> Option<ErrorStyles> {
        let Some(field) = fields.get("errors") else {
            self.report(fields.line, "`errors` is missing");
            return None;
        };
        match errors::read(field) {
            Ok(styles) => Some(styles),
            Err(problems) => {
                for (line, problem) in problems {
                    self.report(line, problem);
                }
                None
            }
        }
    }

    fn sources(&mut self, fields: &TableFields<'_>) -> Option<TokenSources> {
        let Some(list) = fields.get("credentials") else { return Some(TokenSources::default()) };
        let mut sources = TokenSources::NONE;
        for (line, text) in self.texts(list, "credentials")? {
            match text.parse::<TokenSource>() {
                Ok(source) if sources.contains(source) => {
                    self.report(line, format!("`{source}` occurs twice"));
                }
                Ok(source) => sources = sources.with(source),
                Err(error) => self.report(line, error.to_string()),
            }
        }
        // A 401 must come with a challenge (RFC 9110, section 15.5.2), and a challenge names a scheme.
        if sources.schemes().next().is_none() {
            let problem = "`credentials`: expected at least one in `authorization`, such as \
                           `authorization.Bearer`";
            self.report(line(list), problem);
            return None;
        }
        Some(sources)
    }

    fn cookies(&mut self, fields: &TableFields<'_>) -> Option<Box<[Box<str>]>> {
        let Some(list) = fields.get("remove_cookies") else { return Some(Box::default()) };
        let mut names: Vec<Box<str>> = Vec::new();
        for (line, name) in self.texts(list, "remove_cookies")? {
            if !is_cookie_name(name) {
                self.report(line, format!("`{name}` is not the name of a cookie"));
            } else if names.iter().any(|known| **known == *name) {
                self.report(line, format!("`{name}` occurs twice"));
            }
            names.push(name.into());
        }
        Some(names.into())
    }

    fn rows(&mut self, fields: &TableFields<'_>, mount: &Template) -> Option<Vec<RuleRow>> {
        let Some(rules) = fields.get("rules") else {
            self.report(fields.line, "`rules` is missing");
            return None;
        };
        let YamlNode::List(rules) = &rules.value else {
            self.report(
                line(rules),
                format!("`rules`: expected a list, not {}", rules.value.kind()),
            );
            return None;
        };
        if rules.is_empty() {
            self.report(fields.line, "`rules` is empty: nothing could be allowed");
        }
        let rows = rules.iter().filter_map(|rule| {
            let row = self.row(rule, mount);
            self.rule = None;
            row
        });
        Some(rows.collect())
    }

    fn row(&mut self, rule: &Placed, mount: &Template) -> Option<RuleRow> {
        self.rule = title(&rule.value);
        let fields = self.fields(rule, &RULE_FIELDS)?;
        let methods = self.methods(&fields);
        let path = self.required(&fields, "path", Template::parse);
        let operation = self.required(&fields, "operation", word::<Operation>);
        let entity_type = self.required(&fields, "entity", word::<EntityType>);
        if let (Some(operation), Some(entity_type)) = (operation, entity_type) {
            if !entity_type.operations().contains(operation) {
                let problem = format!("`{operation}` is not an operation of `{entity_type}`");
                self.report(fields.line, problem);
            } else if entity_type == EntityType::Models
                && operation != Operation::LlmRead
                && fields.get("id").is_none()
            {
                self.report(fields.line, MODEL_IS_MISSING);
            }
        }
        let path = path?;
        if path.names().any(|name| name == DOMAIN) {
            self.report(fields.line, "`{domain}` belongs in `host` or `mount`, not in `path`");
            return None;
        }
        let template = match mount.join(&path) {
            Ok(template) => template,
            Err(problem) => {
                self.report(fields.line, problem);
                return None;
            }
        };
        let id = self.optional(&fields, "id", |text| id_source(text, &template, entity_type));
        let mut id = id.or_default();
        let content_type = self.optional(&fields, "content_type", word::<ContentTypeUse>).value();
        if content_type.is_some() && id != IdSource::Body(BodyForm::Json) {
            let problem = "`content_type` belongs to a rule with `id: body.model`";
            self.report(fields.line, problem);
        } else if content_type == Some(ContentTypeUse::Ignored) {
            id = IdSource::Body(BodyForm::JsonOfAnyType);
        }
        let upstream = self.optional(&fields, "upstream", backend).value();
        let upgrade = self.optional(&fields, "upgrade", word::<Upgrade>).value();
        let answer = self.optional(&fields, "answer", word::<ListForm>).value();
        let methods = methods?;
        let operation = operation?;
        let entity_type = entity_type?;
        let lists = (operation, entity_type) == (Operation::LlmRead, EntityType::Models)
            && methods.only_read();
        if let Some(form) = answer
            && !(lists && form.is_of_one() == matches!(id, IdSource::Path(_)))
        {
            self.report(fields.line, NOT_A_LIST);
        }
        Some(RuleRow {
            line: fields.line,
            title: self.rule.clone().unwrap_or_default(),
            rule: Rule { methods, operation, entity_type, id, upgrade, upstream, answer, template },
        })
    }

    fn methods(&mut self, fields: &TableFields<'_>) -> Option<Methods> {
        let Some(list) = fields.get("methods") else {
            self.report(fields.line, "`methods` is missing");
            return None;
        };
        let mut methods = Methods::default();
        let mut complete = true;
        for (line, text) in self.texts(list, "methods")? {
            match text.parse::<Method>() {
                Ok(method) if methods.contains(method) => {
                    self.report(line, format!("`{method}` occurs twice"));
                }
                Ok(method) => methods.insert(method),
                Err(error) => {
                    complete = false;
                    self.report(line, error.to_string());
                }
            }
        }
        if complete && methods == Methods::default() {
            self.report(line(list), "`methods`: expected one or more");
        }
        Some(methods)
    }
}
