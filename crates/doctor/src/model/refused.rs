//! What Envoy has refused: the updates of a control plane that a dump keeps beside what is in use.

use serde_json::Value;

use super::source::Section;
use crate::value::{Read, entries};

/// The longest reason that is shown, in characters.
const LONGEST: usize = 240;
/// A part of a value this long is not shown either, in bytes.
const PART: usize = 8;
/// A value with more words than this is a sentence or a script.
const SENTENCE: usize = 4;
/// Values under these keys are names, which may be shown.
const NAMES: [&str; 13] = [
    "address",
    "@type",
    "type_url",
    "typeUrl",
    "name",
    "cluster",
    "cluster_name",
    "clusterName",
    "stat_prefix",
    "statPrefix",
    "rules_stat_prefix",
    "route_config_name",
    "routeConfigName",
];

/// How Envoy begins a message that it quotes in several lines.
const QUOTE: &str = "goo.gle/debug";
/// How it names a broken constraint.
const CONSTRAINT: &str = "Proto constraint validation failed";

/// An update that Envoy has refused.
pub(crate) struct Refused {
    pub(crate) part: Section,
    pub(crate) name: String,
    /// Whether an older version is in use.
    pub(crate) serves: bool,
    /// Envoy's reason, shortened, without values of the configuration.
    pub(crate) reason: String,
}

impl Refused {
    /// Whether only the socket was not to be had, on which nothing is in use then: a fault of the
    /// machine, not of what was sent.
    pub(super) fn is_unbound(&self) -> bool {
        self.part == Section::Listener && !self.serves && self.reason.starts_with("cannot bind")
    }

    /// Collects them. Envoy lists a refused listener twice, the second time without what is in use.
    pub(super) fn collect(all: &mut Vec<Self>, more: impl Iterator<Item = Self>) {
        for one in more {
            let known = all.iter().position(|it| it.part == one.part && it.name == one.name);
            match known {
                None => all.push(one),
                Some(at) if one.serves && !all[at].serves => all[at] = one,
                Some(_) => {}
            }
        }
    }

    /// Reads an entry of a dump, in which `active` is what is in use.
    pub(super) fn read(part: Section, entry: &Value, active: &str) -> Option<Self> {
        if !entry.has("error_state") {
            return None;
        }
        let failed = entry.at("error_state/failed_configuration");
        let named = [entry, entry.at(active), failed].map(|config| {
            let name = config.text("name").or_else(|| config.text("cluster_name"));
            name.filter(|name| !name.is_empty())
        });
        let details = entry.text("error_state/details").unwrap_or_default();
        Some(Self {
            part,
            name: named.into_iter().flatten().next().unwrap_or("without a name").to_owned(),
            serves: entry.has(active),
            reason: excerpt(details, entry),
        })
    }
}

/// One line of a reason. Envoy quotes whole messages before or after a broken constraint, so only what
/// names the constraint is taken, or a line without a brace, and of that no word that stands in a value
/// of the configuration.
fn excerpt(details: &str, entry: &Value) -> String {
    let quoted = details.starts_with(QUOTE);
    let line = match (details.rfind(CONSTRAINT), quoted) {
        (Some(at), _) => details[at..].lines().next(),
        (None, true) => details.lines().last(),
        (None, false) => details.lines().next(),
    };
    let line = line.unwrap_or_default().split('{').next().unwrap_or_default();
    let line = line.split_once("): ").map_or(line.to_owned(), |(reason, _)| format!("{reason})"));
    let mut secrets = Vec::new();
    values(entry, &mut secrets);
    let words = line.split_whitespace().map(|word| if shows(word, &secrets) { "…" } else { word });
    let text = words.collect::<Vec<_>>().join(" ").replace(char::is_control, "");
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain("…".chars()).collect()
}

/// Whether a word has a part of a value in it, or is one.
fn shows(word: &str, secrets: &[&str]) -> bool {
    let core = word.trim_matches(|c: char| !c.is_alphanumeric());
    secrets.iter().any(|secret| {
        word == *secret
            || core == *secret
            || core.len() >= PART && secret.contains(core)
            || secret.len() >= PART / 2 && word.contains(secret)
    })
}

/// The words of all values that are no names. In a sentence or a script, only those that may be more
/// than a word of a language.
fn values<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => {
            let words = text.split_whitespace().filter(|word| word.len() > 3);
            let few = text.split_whitespace().count() <= SENTENCE;
            found.extend(words.filter(|word| {
                few || word.len() > 20 || word.bytes().any(|byte| byte.is_ascii_digit())
            }));
        }
        Value::Array(items) => items.iter().for_each(|item| values(item, found)),
        Value::Object(_) => {
            for (key, value) in entries(value) {
                let shown = NAMES.contains(&key.as_str()) || key == "details";
                if !(shown && value.is_string()) {
                    values(value, found);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reason_has_no_value_of_the_configuration() {
        let entry = json!({ "error_state": { "failed_configuration": {
            "name": "patgate.guard",
            "initial_metadata": [{ "key": "patgate-secret", "value": "5b1f6d6e%4c2a4f0c" }],
            "body": { "inline_string": "The value must be read again in 5 seconds, with hunter2." },
            "credentials": [{ "key": "sk-live-0815", "client": "acme" }],
        } } });
        for (details, expected) in [
            ("no filter patgate.guard of this type", "no filter patgate.guard of this type"),
            ("wrong format 5b1f6d6e%4c2a4f0c here", "wrong format … here"),
            ("wrong format '%4c2a4f0c', really", "wrong format … really"),
            ("wrong key \"sk-live-0815\"", "wrong key …"),
            ("failed (Field.Name: too short): secret: 1", "failed (Field.Name: too short)"),
            // As Envoy 1.40 writes it.
            (
                "goo.gle/debugproto   \ninitial_metadata {\n  value: \"none\"\n}\n: Proto constraint validation failed (CodeError.Code: value must be defined)",
                "Proto constraint validation failed (CodeError.Code: value must be defined)",
            ),
            ("goo.gle/debugstr\nvalue: \"none\"\nno such type", "no such type"),
            ("no proto: {\"secret\": 1}", "no proto:"),
            ("first\nsecond", "first"),
            ("script error: [string \"hunter2.\"]:1", "script error: [string …"),
        ] {
            assert_eq!(excerpt(details, &entry), expected);
        }
        assert_eq!(excerpt(&"long ".repeat(200), &entry).chars().count(), LONGEST + 1);
    }
}
