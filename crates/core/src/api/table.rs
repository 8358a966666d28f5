//! Reads a table from its YAML text, and tells all of its mistakes.

use std::str::FromStr;

use super::{
    ApiStyle, ContentTypeUse, DomainSource, IdSource, InsufficientStatus, Method, Methods, Rule,
    TableError, TokenSource, TokenSources, Upgrade,
    errors::{self, ErrorStyles},
    host::HostPattern,
    template::Template,
};
use crate::{
    backend::{BackendName, BackendNameError},
    body::BodyForm,
    domain::DomainRef,
    model_list::ListForm,
    operation::{EntityType, Operation},
    yaml::{self, Placed, YamlError, YamlErrorKind, YamlNode, line},
};

/// The parameter that names the domain, in a host or a mount.
const DOMAIN: &str = "domain";

/// The fields of a table and of a rule, for the schema as well.
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

/// A call of no model in particular would pass by a domain's list of models.
const MODEL_IS_MISSING: &str = "`id` is missing: write `id: body.model`, `id: form.model` or `id: \
     path.` and the name of a parameter, or `id: body` where the model is named in a way that is \
     not read; only `llm_read` can be about no model in particular";

/// What patgate answers itself, it must know: which models there are for a token.
const NOT_A_LIST: &str = "`answer` is for rules of `llm_read` on `models` with the methods GET and \
     HEAD: `openai-model` with `id: path.` and the name of a parameter, the others without `id`";

/// One surface, well-formed in itself.
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

/// One rule of it.
pub(super) struct RuleRow {
    pub(super) line: u64,
    /// Methods and path, as written.
    pub(super) title: String,
    pub(super) rule: Rule,
}

/// Reads a table; what is wrong with it is added to `mistakes`.
pub(super) fn read(file: &str, text: &str, mistakes: &mut Vec<TableError>) -> Option<Table> {
    let before = mistakes.len();
    let mut reader = TableReader { file, rule: None, mistakes };
    let table = match yaml::read(text) {
        Ok(document) => reader.table(&document),
        Err(YamlError { line, kind, .. }) => {
            let problem = match kind {
                YamlErrorKind::KeyTwice => "a key stands here twice".to_owned(),
                YamlErrorKind::Malformed(error) => format!("not well-formed YAML: {error}"),
            };
            reader.mistake(line, problem);
            None
        }
    };
    table.filter(|_| mistakes.len() == before)
}

struct TableReader<'m> {
    file: &'m str,
    rule: Option<String>,
    mistakes: &'m mut Vec<TableError>,
}

/// The fields of a map by name.
struct TableFields<'d> {
    line: u64,
    found: Vec<(&'d str, &'d Placed)>,
}

impl<'d> TableFields<'d> {
    fn get(&self, name: &str) -> Option<&'d Placed> {
        self.found.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

impl TableReader<'_> {
    fn mistake(&mut self, line: u64, problem: impl Into<String>) {
        self.mistakes.push(TableError {
            file: self.file.to_owned(),
            line,
            rule: self.rule.clone(),
            problem: problem.into(),
        });
    }

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
        // Whatever these are, the rules' own mistakes are to be found as well.
        let (host, mount) = (host.or_default(), mount.or_default());
        let domain = domain_source(&host, &mount, fixed.value());
        if domain.is_none() && !wrong {
            self.mistake(
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
        let (file, line) = (self.file.to_owned(), fields.line);
        let (name, domain, errors, cookies) = (name?, domain?, errors?, cookies?);
        Some(Table {
            file,
            line,
            name,
            host,
            mount,
            domain,
            upstream,
            api_style,
            errors,
            cookies,
            rows,
        })
    }

    fn errors(&mut self, fields: &TableFields<'_>) -> Option<ErrorStyles> {
        let Some(field) = fields.get("errors") else {
            self.mistake(fields.line, "`errors` is missing");
            return None;
        };
        let mistakes = match errors::read(field) {
            Ok(styles) => return Some(styles),
            Err(mistakes) => mistakes,
        };
        for (line, problem) in mistakes {
            self.mistake(line, problem);
        }
        None
    }

    fn sources(&mut self, fields: &TableFields<'_>) -> Option<TokenSources> {
        let Some(list) = fields.get("credentials") else { return Some(TokenSources::default()) };
        let mut sources = TokenSources::NONE;
        for (line, text) in self.texts(list, "credentials")? {
            match text.parse::<TokenSource>() {
                Ok(source) if sources.contains(source) => {
                    self.mistake(line, format!("`{source}` stands there twice"));
                }
                Ok(source) => sources = sources.with(source),
                Err(error) => self.mistake(line, error.to_string()),
            }
        }
        // A 401 must come with a challenge (RFC 9110, section 15.5.2), and a challenge names a scheme.
        if sources.schemes().next().is_none() {
            let problem = "`credentials`: expected at least one in `authorization`, such as \
                           `authorization.Bearer`";
            self.mistake(line(list), problem);
            return None;
        }
        Some(sources)
    }

    fn cookies(&mut self, fields: &TableFields<'_>) -> Option<Box<[Box<str>]>> {
        let Some(list) = fields.get("remove_cookies") else { return Some(Box::default()) };
        let mut names: Vec<Box<str>> = Vec::new();
        for (line, name) in self.texts(list, "remove_cookies")? {
            if !is_cookie_name(name) {
                self.mistake(line, format!("`{name}` is not the name of a cookie"));
            } else if names.iter().any(|known| **known == *name) {
                self.mistake(line, format!("`{name}` stands there twice"));
            }
            names.push(name.into());
        }
        Some(names.into())
    }

    fn rows(&mut self, fields: &TableFields<'_>, mount: &Template) -> Option<Vec<RuleRow>> {
        let Some(rules) = fields.get("rules") else {
            self.mistake(fields.line, "`rules` is missing");
            return None;
        };
        let YamlNode::List(rules) = &rules.value else {
            self.mistake(
                line(rules),
                format!("`rules`: expected a list, not {}", rules.value.kind()),
            );
            return None;
        };
        if rules.is_empty() {
            self.mistake(fields.line, "`rules` is empty: nothing could be allowed");
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
                self.mistake(fields.line, problem);
            } else if entity_type == EntityType::Models
                && operation != Operation::LlmRead
                && fields.get("id").is_none()
            {
                self.mistake(fields.line, MODEL_IS_MISSING);
            }
        }
        let path = path?;
        if path.names().any(|name| name == DOMAIN) {
            self.mistake(fields.line, "`{domain}` belongs into `host` or `mount`");
            return None;
        }
        let template = match mount.join(&path) {
            Ok(template) => template,
            Err(problem) => {
                self.mistake(fields.line, problem);
                return None;
            }
        };
        let id = self.optional(&fields, "id", |text| id_source(text, &template, entity_type));
        let mut id = id.or_default();
        let content_type = self.optional(&fields, "content_type", word::<ContentTypeUse>).value();
        if content_type.is_some() && id != IdSource::Body(BodyForm::Json) {
            let problem = "`content_type` belongs to a rule with `id: body.model`";
            self.mistake(fields.line, problem);
        } else if content_type == Some(ContentTypeUse::Ignored) {
            id = IdSource::Body(BodyForm::JsonOfAnyType);
        }
        let upstream = self.optional(&fields, "upstream", backend).value();
        let upgrade = self.optional(&fields, "upgrade", word::<Upgrade>).value();
        let answer = self.optional(&fields, "answer", word::<ListForm>).value();
        let (methods, operation, entity_type) = (methods?, operation?, entity_type?);
        let lists = (operation, entity_type) == (Operation::LlmRead, EntityType::Models)
            && methods.only_read();
        if let Some(form) = answer
            && !(lists && form.is_of_one() == matches!(id, IdSource::Path(_)))
        {
            self.mistake(fields.line, NOT_A_LIST);
        }
        Some(RuleRow {
            line: fields.line,
            title: self.rule.clone().unwrap_or_default(),
            rule: Rule { methods, operation, entity_type, id, upgrade, upstream, answer, template },
        })
    }

    fn methods(&mut self, fields: &TableFields<'_>) -> Option<Methods> {
        let Some(list) = fields.get("methods") else {
            self.mistake(fields.line, "`methods` is missing");
            return None;
        };
        let mut methods = Methods::default();
        let mut complete = true;
        for (line, text) in self.texts(list, "methods")? {
            match text.parse::<Method>() {
                Ok(method) if methods.contains(method) => {
                    self.mistake(line, format!("`{method}` stands there twice"));
                }
                Ok(method) => methods.insert(method),
                Err(error) => {
                    complete = false;
                    self.mistake(line, error.to_string());
                }
            }
        }
        if complete && methods == Methods::default() {
            self.mistake(line(list), "`methods`: expected one or more");
        }
        Some(methods)
    }

    /// The fields of a map, none of them unknown.
    fn fields<'d>(&mut self, placed: &'d Placed, known: &[&str]) -> Option<TableFields<'d>> {
        let YamlNode::Map(entries) = &placed.value else {
            let kind = placed.value.kind();
            self.mistake(line(placed), format!("expected a map of fields, not {kind}"));
            return None;
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&&*key.value)) {
            let problem =
                format!("unknown field `{}`; expected one of: {}", key.value, known.join(" "));
            self.mistake(line(key), problem);
        }
        let found = entries.iter().map(|(key, value)| (&*key.value, value)).collect();
        Some(TableFields { line: line(placed), found })
    }

    fn optional<T>(
        &mut self,
        fields: &TableFields<'_>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> FieldValue<T> {
        let Some(placed) = fields.get(name) else { return FieldValue::Absent };
        let problem = match &placed.value {
            YamlNode::Text(text) => match parse(text) {
                Ok(value) => return FieldValue::Value(value),
                Err(problem) => problem,
            },
            other => format!("expected a value, not {}", other.kind()),
        };
        self.mistake(line(placed), format!("`{name}`: {problem}"));
        FieldValue::Wrong
    }

    fn required<T>(
        &mut self,
        fields: &TableFields<'_>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let given = self.optional(fields, name, parse);
        if matches!(given, FieldValue::Absent) {
            self.mistake(fields.line, format!("`{name}` is missing"));
        }
        given.value()
    }

    fn texts<'d>(&mut self, placed: &'d Placed, name: &str) -> Option<Vec<(u64, &'d str)>> {
        if let YamlNode::List(items) = &placed.value {
            let texts = items.iter().map(|item| match &item.value {
                YamlNode::Text(text) => Some((line(item), &**text)),
                _ => None,
            });
            if let Some(texts) = texts.collect() {
                return Some(texts);
            }
        }
        self.mistake(line(placed), format!("`{name}`: expected a list of words"));
        None
    }
}

/// A field that need not be there.
enum FieldValue<T> {
    Value(T),
    Absent,
    /// A mistake that has been told.
    Wrong,
}

impl<T> FieldValue<T> {
    fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong)
    }

    fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Wrong => None,
        }
    }
}

impl<T: Default> FieldValue<T> {
    fn or_default(self) -> T {
        self.value().unwrap_or_default()
    }
}

/// The domain is named in exactly one place, or a request could name two.
fn domain_source(
    host: &HostPattern,
    mount: &Template,
    fixed: Option<Box<str>>,
) -> Option<DomainSource> {
    let by_host = matches!(host, HostPattern::Under(_)).then_some(DomainSource::Host);
    let by_path = mount.capture(DOMAIN).map(DomainSource::Path);
    let mut sources = [by_host, by_path, fixed.map(DomainSource::Fixed)].into_iter().flatten();
    sources.next().filter(|_| sources.next().is_none())
}

/// Methods and path of a rule as they are written, however wrong.
fn title(rule: &YamlNode) -> Option<String> {
    let YamlNode::Map(entries) = rule else { return None };
    let text = |placed: &Placed| match &placed.value {
        YamlNode::Text(text) => Some(text.clone()),
        _ => None,
    };
    let field = |name: &str| entries.iter().find(|(key, _)| key.value == name).map(|(_, v)| v);
    let path = field("path").and_then(text)?;
    let methods = match field("methods").map(|methods| &methods.value) {
        Some(YamlNode::List(items)) => items.iter().filter_map(text).collect::<Vec<_>>().join(","),
        _ => return Some(path),
    };
    Some(format!("{methods} {path}"))
}

fn word<T: FromStr<Err = crate::vocabulary::UnknownWord>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: crate::vocabulary::UnknownWord| error.to_string())
}

fn table_name(text: &str) -> Result<Box<str>, String> {
    let well_formed = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.len() <= 63
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if well_formed { Ok(text.into()) } else { Err("expected a word of a-z, 0-9 and -".to_owned()) }
}

/// A token of RFC 9110, as RFC 6265 wants it.
fn is_cookie_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(known)
}

fn mount(text: &str) -> Result<Template, String> {
    let template = Template::parse(text)?;
    if template.tail.is_some() {
        return Err("a mount has no tail".to_owned());
    }
    if let Some(name) = template.names().find(|name| *name != DOMAIN) {
        return Err(format!("`{{{name}}}`: a mount has no parameter but `{{domain}}`"));
    }
    Ok(template)
}

fn domain(text: &str) -> Result<Box<str>, String> {
    DomainRef::parse(text).map(|_| text.into()).ok_or_else(|| DomainRef::EXPECTED.to_owned())
}

fn backend(text: &str) -> Result<BackendName, String> {
    text.parse().map_err(|error: BackendNameError| error.to_string())
}

fn id_source(
    text: &str,
    template: &Template,
    entity_type: Option<EntityType>,
) -> Result<IdSource, String> {
    if entity_type == Some(EntityType::Domains) {
        return Err("a rule about the domain itself has none".to_owned());
    }
    let of_a_model = |form| match entity_type {
        None | Some(EntityType::Models) => Ok(IdSource::Body(form)),
        Some(other) => Err(format!("`{text}` is the id of one of `models`, not `{other}`")),
    };
    match text.split_once('.').unwrap_or((text, "")) {
        ("body", "model") => of_a_model(BodyForm::Json),
        ("form", "model") => of_a_model(BodyForm::Multipart),
        ("body", "") if text == "body" => of_a_model(BodyForm::Other),
        ("query", "model") => match of_a_model(BodyForm::Other) {
            Ok(_) => Ok(IdSource::Query),
            Err(problem) => Err(problem),
        },
        ("path", name) if name != DOMAIN => {
            let missing = || format!("`{{{name}}}` does not stand in `path`");
            template.capture(name).map(IdSource::Path).ok_or_else(missing)
        }
        _ => Err(
            "expected `body.model`, `form.model`, `query.model`, `body`, or `path.` and the name of \
             a parameter"
                .to_owned(),
        ),
    }
}
