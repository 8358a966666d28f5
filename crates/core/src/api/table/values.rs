//! Parses the values of single fields.

use std::str::FromStr;

use crate::{
    api::{DomainSource, IdSource, host::HostPattern, template::Template},
    backend::{BackendName, BackendNameError, ReservedNames},
    body::BodyForm,
    domain::DomainRef,
    operation::EntityType,
    vocabulary::UnknownWord,
    yaml::{Placed, YamlNode},
};

/// The parameter that names the domain, in a host or a mount.
pub(super) const DOMAIN: &str = "domain";

/// Returns what names the domain. It must be in exactly one place, otherwise a request could name two
/// domains.
pub(super) fn domain_source(
    host: &HostPattern,
    mount: &Template,
    fixed: Option<Box<str>>,
) -> Option<DomainSource> {
    let by_host = matches!(host, HostPattern::Under(_)).then_some(DomainSource::Host);
    let by_path = mount.capture(DOMAIN).map(DomainSource::Path);
    let mut sources = [by_host, by_path, fixed.map(DomainSource::Fixed)].into_iter().flatten();
    sources.next().filter(|_| sources.next().is_none())
}

/// Returns methods and path of a rule as they are written, even if they are wrong.
pub(super) fn title(rule: &YamlNode) -> Option<String> {
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

pub(super) fn word<T: FromStr<Err = UnknownWord>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: UnknownWord| error.to_string())
}

pub(super) fn table_name(text: &str) -> Result<Box<str>, String> {
    let well_formed = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.len() <= 63
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if well_formed { Ok(text.into()) } else { Err("expected a word of a-z, 0-9 and -".to_owned()) }
}

/// Returns whether a text is the name of a cookie: a token of RFC 9110, as RFC 6265 requires.
pub(super) fn is_cookie_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(known)
}

pub(super) fn mount(text: &str) -> Result<Template, String> {
    let template = Template::parse(text)?;
    if template.tail.is_some() {
        return Err("a mount has no tail".to_owned());
    }
    if let Some(name) = template.names().find(|name| *name != DOMAIN) {
        return Err(format!("`{{{name}}}`: a mount has no parameter but `{{domain}}`"));
    }
    Ok(template)
}

pub(super) fn domain(text: &str) -> Result<Box<str>, String> {
    DomainRef::parse(text).map(|_| text.into()).ok_or_else(|| DomainRef::EXPECTED.to_owned())
}

pub(super) fn backend(text: &str) -> Result<BackendName, String> {
    let name: BackendName = text.parse().map_err(|error: BackendNameError| error.to_string())?;
    ReservedNames::default().admit(&name).map_err(|error| error.to_string())?;
    Ok(name)
}

pub(super) fn id_source(
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
            let missing = || format!("`{{{name}}}` does not occur in `path`");
            template.capture(name).map(IdSource::Path).ok_or_else(missing)
        }
        _ => Err(
            "expected `body.model`, `form.model`, `query.model`, `body`, or `path.` and the name of \
             a parameter"
                .to_owned(),
        ),
    }
}
