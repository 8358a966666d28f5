//! How an API words its errors: one style for all of its paths, or one for each beginning of a path.

use std::cmp::Reverse;

use serde_saphyr::Spanned;

use super::{Apis, Surface, template::Template};
use crate::{
    vocabulary::{UnknownWord, vocabulary},
    yaml::{Placed, YamlNode, line},
};

vocabulary! {
    /// How an API words its errors.
    ErrorStyle, "error style" {
        Openai = "openai",
        Ollama = "ollama",
        Anthropic = "anthropic",
        Aigne = "aigne",
        Scim = "scim",
        Problem = "problem",
    }
}

/// The styles of one API, by the beginnings of its paths below the mount.
#[derive(Debug)]
pub(super) struct ErrorStyles {
    /// For every other path.
    default: ErrorStyle,
    /// The longest prefix first. A prefix begins with `/`, and does not end with it.
    by_prefix: Vec<(Box<str>, ErrorStyle)>,
}

impl ErrorStyles {
    /// The style for a path below the mount, canonical or not.
    pub(super) fn of(&self, below_mount: &str) -> ErrorStyle {
        self.longest(below_mount).map_or(self.default, |(_, style)| style)
    }

    /// The length of the longest prefix of the path, and its style.
    fn longest(&self, path: &str) -> Option<(usize, ErrorStyle)> {
        let begins = |(prefix, _): &&(Box<str>, ErrorStyle)| {
            let rest = path.strip_prefix(&**prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.by_prefix.iter().find(begins).map(|(prefix, style)| (prefix.len(), *style))
    }
}

impl Apis {
    /// The style in which errors about a path are worded. A path that belongs to no API is often
    /// one of an API whose mount is missing, so it takes the style of the API whose prefix it
    /// begins with, and OpenAI's otherwise.
    pub fn error_style(&self, authority: &str, path: &str) -> ErrorStyle {
        if let Some(matched) = self.surface(authority, path) {
            return matched.surface.error_style(path);
        }
        let here = self.surfaces.iter().filter(|surface| surface.host.covers(authority));
        let longest = here.filter_map(|surface| surface.errors.longest(path)).max_by_key(|it| it.0);
        longest.map_or(ErrorStyle::Openai, |(_, style)| style)
    }
}

impl Surface {
    /// The style in which errors about one of its paths are worded.
    pub(super) fn error_style(&self, path: &str) -> ErrorStyle {
        self.errors.of(below(path, self.mount.segments.len()))
    }
}

/// A path without its first segments, from the next `/` on.
fn below(path: &str, segments: usize) -> &str {
    let slash = path.match_indices('/').nth(segments);
    slash.and_then(|(at, _)| path.get(at..)).unwrap_or_default()
}

/// Reads the field `errors` of a table: one style, or a style for each prefix of its paths.
///
/// # Errors
///
/// Every mistake, with its line.
pub(super) fn read(field: &Placed) -> Result<ErrorStyles, Vec<(u64, String)>> {
    let YamlNode::Map(entries) = &field.value else {
        let default = style(field).map_err(|problem| mistake(field, "`errors`", &problem));
        return default
            .map(|default| ErrorStyles { default, by_prefix: Vec::new() })
            .map_err(|mistake| vec![mistake]);
    };
    let (mut default, mut by_prefix, mut mistakes) = (None, Vec::new(), Vec::new());
    for (key, value) in entries {
        let style = style(value);
        match (prefix(&key.value), &style) {
            (Ok(Some(prefix)), Ok(style)) => by_prefix.push((prefix, *style)),
            (Ok(None), Ok(style)) => default = Some(*style),
            (Ok(_), Err(_)) => {}
            (Err(problem), _) => mistakes.push(mistake(key, "`errors`", &problem)),
        }
        if let Err(problem) = style {
            mistakes.push(mistake(value, &format!("`errors`: `{}`", key.value), &problem));
        }
    }
    if !entries.iter().any(|(key, _)| key.value == "/") {
        let problem = "`/` is missing: the style for all other paths";
        mistakes.push(mistake(field, "`errors`", problem));
    }
    by_prefix.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
    let styles = default.map(|default| ErrorStyles { default, by_prefix });
    styles.filter(|_| mistakes.is_empty()).ok_or(mistakes)
}

fn mistake<T>(placed: &Spanned<T>, at: &str, problem: &str) -> (u64, String) {
    (line(placed), format!("{at}: {problem}"))
}

fn style(placed: &Placed) -> Result<ErrorStyle, String> {
    match &placed.value {
        YamlNode::Text(word) => word.parse().map_err(|unknown: UnknownWord| unknown.to_string()),
        other => Err(format!("expected an error style, not {}", other.kind())),
    }
}

/// A prefix of paths below the mount; `None` stands for `/`, with which all of them begin.
fn prefix(text: &str) -> Result<Option<Box<str>>, String> {
    let template = Template::parse(text)?;
    match template.names().next() {
        Some(name) => Err(format!("`{{{name}}}`: a prefix has no parameters")),
        None => Ok(Some(text.into()).filter(|_| !template.segments.is_empty())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apis(tables: &[&str]) -> Apis {
        let rule = "rules: [{ methods: [GET], path: /a, operation: read, entity: scim }]\n";
        let sources = tables.iter().enumerate().map(|(number, table)| crate::api::TableSource {
            file: "t".to_owned(),
            text: format!("name: t{number}\n{table}\n{rule}"),
        });
        Apis::compile(&sources.collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_counts() {
        use ErrorStyle::{Anthropic, Ollama, Openai, Scim};
        let by_path = "mount: /p/{domain}\n\
                       errors: { /v1/messages: anthropic, /v1: scim, /: openai, /api: ollama }";
        let apis = apis(&[by_path]);
        for (path, expected) in [
            ("/p/acme", Openai),
            ("/p/acme/", Openai),
            ("/p/acme/api", Ollama),
            ("/p/acme/api/", Ollama),
            ("/p/acme/api/chat", Ollama),
            ("/p/acme/apis", Openai),
            ("/p/acme/v2/api/chat", Openai),
            ("/p/acme/v1", Scim),
            ("/p/acme/v1/message", Scim),
            ("/p/acme/v1/messages", Anthropic),
            ("/p/acme/v1/messages/count_tokens", Anthropic),
            // Not canonical, and so refused, in the words of the path that it was meant for.
            ("/p/acme/api//chat", Ollama),
            ("/p/acme/api/chat;x", Ollama),
            ("/p/acme//api/chat", Openai),
            // Of no API: the mount is missing.
            ("/api/chat", Ollama),
            ("/v1/messages", Anthropic),
            ("/p/api/chat", Openai),
            ("/chat", Openai),
            ("/", Openai),
            ("", Openai),
        ] {
            assert_eq!(apis.error_style("gateway", path), expected, "{path}");
        }
    }

    #[test]
    fn one_style_is_for_every_path_of_its_api_and_for_no_other() {
        let other = "host: b.example\nmount: /q\ndomain: beta\nerrors: { /: scim, /x: ollama }";
        let apis = apis(&["host: a.example\nmount: /p\ndomain: acme\nerrors: problem", other]);
        for (host, path, expected) in [
            ("a.example", "/p/a", ErrorStyle::Problem),
            ("a.example", "/p", ErrorStyle::Problem),
            ("a.example", "/x", ErrorStyle::Openai),
            ("b.example:80", "/q/a", ErrorStyle::Scim),
            ("b.example", "/q/x/a", ErrorStyle::Ollama),
            ("b.example", "/x/a", ErrorStyle::Ollama),
            ("b.example", "/p/a", ErrorStyle::Openai),
            ("c.example", "/x", ErrorStyle::Openai),
        ] {
            assert_eq!(apis.error_style(host, path), expected, "{host} {path}");
        }
    }
}
