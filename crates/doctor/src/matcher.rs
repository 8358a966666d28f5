//! Evaluates Envoy's string matchers and expressions.

use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

use crate::value::Read;

/// An expression that must match a whole text. Texts are names of headers and paths, which are ASCII:
/// without Unicode, an expression is compiled in a fraction of the time.
pub(crate) fn whole(expression: &str) -> Option<Regex> {
    RegexBuilder::new(&format!("^(?:{expression})$"))
        .unicode(false)
        .dot_matches_new_line(true)
        .build()
        .ok()
}

/// A `StringMatcher` that is asked about many texts, with its expression compiled.
pub(crate) enum Matcher {
    Expression(Regex),
    Other(Value),
}

impl Matcher {
    pub(crate) fn new(matcher: &Value) -> Self {
        match matcher.text("safe_regex/regex").and_then(whole) {
            Some(expression) => Self::Expression(expression),
            None => Self::Other(matcher.clone()),
        }
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Expression(expression) => expression.is_match(text.as_bytes()),
            Self::Other(matcher) => matches(matcher, text),
        }
    }
}

/// Whether a `StringMatcher` matches. What it cannot read does not match.
pub(crate) fn matches(matcher: &Value, text: &str) -> bool {
    let folded;
    let text = if matcher.is_on("ignore_case") {
        folded = text.to_ascii_lowercase();
        folded.as_str()
    } else {
        text
    };
    let part = |field| {
        let part = matcher.text(field)?;
        Some(if matcher.is_on("ignore_case") { part.to_ascii_lowercase() } else { part.to_owned() })
    };
    if let Some(exact) = part("exact") {
        text == exact
    } else if let Some(prefix) = part("prefix") {
        text.starts_with(&prefix)
    } else if let Some(suffix) = part("suffix") {
        text.ends_with(&suffix)
    } else if let Some(inner) = part("contains") {
        text.contains(&inner)
    } else if let Some(expression) = matcher.text("safe_regex/regex") {
        whole(expression).is_some_and(|expression| expression.is_match(text.as_bytes()))
    } else {
        false
    }
}

/// Whether a list of matchers has one that matches.
pub(crate) fn any_matches(list: &Value, text: &str) -> bool {
    list.list("patterns").iter().any(|matcher| matches(matcher, text))
}

/// A matcher in words, for a list of routes.
pub(crate) fn in_words(matcher: &Value) -> String {
    let fields =
        [("exact", "="), ("prefix", "begins with"), ("suffix", "ends with"), ("contains", "has")];
    for (field, word) in fields {
        if let Some(text) = matcher.text(field) {
            return format!("{word} {text}");
        }
    }
    match matcher.text("safe_regex/regex") {
        Some(expression) => format!("~ {expression}"),
        None => "matches something".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_matcher_matches_as_in_envoy() {
        let expression = json!({ "safe_regex": { "regex": "x-(a|b)" } });
        assert!(matches(&expression, "x-a") && !matches(&expression, "x-ab"));
        assert!(matches(&json!({ "prefix": "X-", "ignore_case": true }), "x-a"));
        assert!(!matches(&json!({}), "x-a"));
    }
}
