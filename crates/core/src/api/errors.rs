//! The form of an API's errors: one style for all of its paths, or one per prefix of the path.

use std::cmp::Reverse;

use serde_saphyr::Spanned;

use super::{Api, Apis, template::Template};
use crate::{
    vocabulary::{UnknownWord, vocabulary},
    yaml::{Placed, YamlNode, line},
};

vocabulary! {
    /// The form of an error body, after the API whose clients read it.
    ErrorStyle, "error style" {
        Openai = "openai",
        Ollama = "ollama",
        Anthropic = "anthropic",
        Aigne = "aigne",
        Scim = "scim",
        Problem = "problem",
    }
}

/// The styles of one API, by prefixes of its paths below the mount.
#[derive(Debug)]
pub(super) struct ErrorStyles {
    /// The style for paths without one of the prefixes.
    default: ErrorStyle,
    /// The style per prefix, the longest prefix first. A prefix begins with `/`, and does not end with it.
    by_prefix: Vec<(Box<str>, ErrorStyle)>,
}

impl ErrorStyles {
    /// Returns the style for a path below the mount. The path need not be canonical.
    pub(super) fn of(&self, below_mount: &str) -> ErrorStyle {
        self.longest(below_mount).map_or(self.default, |(_, style)| style)
    }

    /// Returns the length of the longest prefix of the path, and its style.
    fn longest(&self, path: &str) -> Option<(usize, ErrorStyle)> {
        let begins = |(prefix, _): &&(Box<str>, ErrorStyle)| {
            let rest = path.strip_prefix(&**prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.by_prefix.iter().find(begins).map(|(prefix, style)| (prefix.len(), *style))
    }
}

impl Apis {
    /// Returns the style of errors about a path. A path that belongs to no API is often a path of an API
    /// whose mount is missing, so the style is that of the API with a prefix of the path, and otherwise
    /// OpenAI's.
    pub fn error_style(&self, authority: &str, path: &str) -> ErrorStyle {
        if let Some(matched) = self.find(authority, path) {
            return matched.api.error_style(path);
        }
        let here = self.all.iter().filter(|api| api.host.covers(authority));
        let longest = here.filter_map(|api| api.errors.longest(path)).max_by_key(|it| it.0);
        longest.map_or(ErrorStyle::Openai, |(_, style)| style)
    }
}

impl Api {
    /// Returns the style of errors about one of the API's paths.
    pub(super) fn error_style(&self, path: &str) -> ErrorStyle {
        self.errors.of(below(path, self.mount.segments.len()))
    }
}

/// Returns a path without its first segments, from the next `/` on.
fn below(path: &str, segments: usize) -> &str {
    let slash = path.match_indices('/').nth(segments);
    slash.and_then(|(at, _)| path.get(at..)).unwrap_or_default()
}

/// Reads the field `errors` of a table: one style, or a style for each prefix of its paths.
///
/// # Errors
///
/// Returns every error with its line.
pub(super) fn read(field: &Placed) -> Result<ErrorStyles, Vec<(u64, String)>> {
    let YamlNode::Map(entries) = &field.value else {
        let default = style(field).map_err(|problem| problem_at(field, "`errors`", &problem));
        return default
            .map(|default| ErrorStyles { default, by_prefix: Vec::new() })
            .map_err(|problem| vec![problem]);
    };
    let mut default = None;
    let mut by_prefix = Vec::new();
    let mut problems = Vec::new();
    for (key, value) in entries {
        let style = style(value);
        match (prefix(&key.value), &style) {
            (Ok(Some(prefix)), Ok(style)) => by_prefix.push((prefix, *style)),
            (Ok(None), Ok(style)) => default = Some(*style),
            (Ok(_), Err(_)) => {}
            (Err(problem), _) => problems.push(problem_at(key, "`errors`", &problem)),
        }
        if let Err(problem) = style {
            problems.push(problem_at(value, &format!("`errors`: `{}`", key.value), &problem));
        }
    }
    if !entries.iter().any(|(key, _)| key.value == "/") {
        let problem = "`/` is missing: the style for all other paths";
        problems.push(problem_at(field, "`errors`", problem));
    }
    by_prefix.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
    let styles = default.map(|default| ErrorStyles { default, by_prefix });
    styles.filter(|_| problems.is_empty()).ok_or(problems)
}

fn problem_at<T>(placed: &Spanned<T>, at: &str, problem: &str) -> (u64, String) {
    (line(placed), format!("{at}: {problem}"))
}

fn style(placed: &Placed) -> Result<ErrorStyle, String> {
    match &placed.value {
        YamlNode::Text(word) => word.parse().map_err(|unknown: UnknownWord| unknown.to_string()),
        other => Err(format!("expected an error style, not {}", other.kind())),
    }
}

/// Parses a prefix of paths below the mount. `None` stands for `/`, with which all paths begin.
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
            // A path that is not canonical is refused in the style of the path that was meant.
            ("/p/acme/api//chat", Ollama),
            ("/p/acme/api/chat;x", Ollama),
            ("/p/acme//api/chat", Openai),
            // These paths belong to no API, because the mount is missing.
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
