//! The guard: an RBAC filter that lets through only what patgate has let through, by a word in the
//! dynamic metadata of ext_authz.

use serde_json::Value;

use crate::{
    exception::{Exception, refused_values},
    matcher::{in_words, matches},
    value::{Read, entries},
};

/// The namespace into which every ext_authz filter writes, whatever its name.
pub(crate) const NAMESPACE: &str = "envoy.filters.http.ext_authz";
/// The field in which patgate puts the word.
const FIELD: &str = "guard";

/// What the policies of a guard let through.
#[derive(Default)]
pub(crate) struct Guard {
    /// Conditions on the metadata that other services may fulfil too.
    pub(crate) weak: Vec<String>,
    /// Policies that let everything through.
    pub(crate) open: Vec<String>,
    /// Policies that let some requests through without the word.
    pub(crate) exceptions: Vec<Exception>,
    /// Policies that want the word.
    worded: Vec<Value>,
}

impl Guard {
    /// Reads an RBAC filter; `None` if none of its policies looks at the metadata of ext_authz.
    pub(crate) fn read(rbac: &Value) -> Option<Self> {
        Self::of_rules(rbac.at("rules"))
    }

    /// The same for its shadow rules, which only count.
    pub(crate) fn read_shadow(rbac: &Value) -> Option<Self> {
        Self::of_rules(rbac.at("shadow_rules"))
    }

    fn of_rules(rules: &Value) -> Option<Self> {
        if rules.text("action").unwrap_or("ALLOW") != "ALLOW" {
            return None;
        }
        let mut guard = Self::default();
        let mut looks = false;
        for (name, policy) in entries(rules.at("policies")) {
            let by_principals = needs(policy.list("principals"));
            let needed = by_principals.or_else(|| needs(policy.list("permissions")));
            if let Some(needed) = needed {
                looks = true;
                guard.worded.push(policy.clone());
                guard.weak.extend(needed.into_iter().filter_map(weakness));
            } else if policy.list("permissions").iter().any(always)
                && policy.list("principals").iter().any(always)
                && !policy.has("condition")
                && !policy.has("checked_condition")
            {
                guard.open.push(name.clone());
            } else {
                guard.exceptions.push(Exception::new(name, policy));
            }
        }
        looks.then_some(guard)
    }

    /// Whether it lets nothing through that patgate has not let through, except its exceptions.
    pub(crate) fn is_sound(&self) -> bool {
        self.weak.is_empty() && self.open.is_empty()
    }

    /// Whether it refuses what patgate has let through with this name of a cluster in its header.
    pub(crate) fn keeps_apart(&self, header: &str, cluster: &str) -> bool {
        let refuses = |policy: &Value| {
            let refused = refused_values(policy, header);
            refused.into_iter().any(|matcher| matches(matcher, cluster))
        };
        !self.worded.is_empty() && self.worded.iter().all(refuses)
    }

    /// Whether one of its exceptions is for this cluster.
    pub(crate) fn excepts(&self, cluster: &str) -> bool {
        let mut named = self.exceptions.iter().filter_map(Exception::clusters);
        named.any(|names| names.contains(&cluster))
    }
}

/// The matchers on the metadata of ext_authz, if each of these conditions has one.
fn needs(alternatives: &[Value]) -> Option<Vec<&Value>> {
    let needed: Option<Vec<_>> = alternatives.iter().map(need).collect();
    needed.filter(|all| !all.is_empty()).map(|all| all.into_iter().flatten().collect())
}

fn need(condition: &Value) -> Option<Vec<&Value>> {
    let sourced = condition.at("sourced_metadata/metadata_matcher");
    for matcher in [sourced, condition.at("metadata")] {
        if matcher.text("filter") == Some(NAMESPACE) {
            return Some(vec![matcher]);
        }
    }
    for list in ["or_ids/ids", "or_rules/rules"] {
        if condition.has(list) {
            return needs(condition.list(list));
        }
    }
    for list in ["and_ids/ids", "and_rules/rules"] {
        if condition.has(list) {
            return condition.list(list).iter().find_map(need);
        }
    }
    None
}

fn weakness(matcher: &Value) -> Option<String> {
    let path: Vec<_> = matcher.list("path").iter().filter_map(|part| part.text("key")).collect();
    let path = path.join(".");
    let value = matcher.at("value");
    let word = value.text("string_match/exact").filter(|word| !word.is_empty());
    let generic = |word: &str| ["true", "false", "yes", "ok", "allow", "1"].contains(&word);
    if matcher.is_on("invert") {
        Some(format!("every value of `{path}` except one"))
    } else if path != FIELD {
        Some(format!("the field `{path}` instead of `{FIELD}`"))
    } else if word.is_some_and(|word| !generic(word)) {
        None
    } else {
        // A part of the word is as secret as the word.
        let shown = value.has("bool_match") || word.is_some();
        let value = if shown { value.to_string() } else { "another match than `exact`".to_owned() };
        Some(format!("`{path}` with {value}"))
    }
}

/// Whether a condition of RBAC is always met.
pub(crate) fn always(condition: &Value) -> bool {
    let any = |list: &str| condition.list(list).iter().any(always);
    let all = |list: &str| condition.has(list) && condition.list(list).iter().all(always);
    let path = condition.at("url_path/path");
    let every = [".*", "/.*", "^.*$", "^/.*$", ".+", "/.*$"];
    condition.is_on("any")
        || all("and_rules/rules")
        || all("and_ids/ids")
        || any("or_rules/rules")
        || any("or_ids/ids")
        || matches!(path.text("prefix"), Some("" | "/"))
        || path.text("safe_regex/regex").is_some_and(|expression| every.contains(&expression))
}

/// A permission in words.
pub(crate) fn permission(condition: &Value) -> String {
    let several = |list: &str, word: &str| {
        let parts: Vec<_> = condition.list(list).iter().map(permission).collect();
        (!parts.is_empty()).then(|| parts.join(word))
    };
    if condition.is_on("any") {
        return "anything".to_owned();
    }
    if condition.has("url_path/path") {
        return format!("path {}", in_words(condition.at("url_path/path")));
    }
    if let Some(name) = condition.text("header/name") {
        let text = condition.at("header/string_match");
        return if text.is_null() {
            format!("header {name}")
        } else {
            format!("{name} {}", in_words(text))
        };
    }
    for matcher in ["sourced_metadata/metadata_matcher", "metadata"] {
        if let Some(filter) = condition.text(&format!("{matcher}/filter")) {
            return format!("metadata of {filter}");
        }
    }
    if condition.has("not_rule") {
        return format!("not ({})", permission(condition.at("not_rule")));
    }
    several("and_rules/rules", " and ")
        .or_else(|| several("or_rules/rules", " or "))
        .unwrap_or_else(|| condition.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn guard(principal: Value) -> Option<Guard> {
        let policy = json!({ "permissions": [{ "any": true }], "principals": [principal] });
        Guard::read(&json!({ "rules": { "policies": { "one": policy } } }))
    }

    #[test]
    fn only_a_word_of_its_own_is_sound() {
        let with = |value: Value| json!({ "metadata": { "filter": NAMESPACE, "path": [{ "key": "guard" }], "value": value } });
        let word = with(json!({ "string_match": { "exact": "gateway-7" } }));
        assert!(guard(word.clone()).is_some_and(|guard| guard.is_sound()));
        let pass = with(json!({ "bool_match": true }));
        assert!(guard(pass.clone()).is_some_and(|guard| !guard.is_sound()));
        let either = json!({ "or_ids": { "ids": [word.clone(), pass] } });
        assert!(guard(either).is_some_and(|guard| !guard.is_sound()));
        // A part of the word is not shown.
        let begins = guard(with(json!({ "string_match": { "prefix": "gateway-7" } }))).unwrap();
        assert!(!begins.is_sound() && !begins.weak[0].contains("gateway"), "{:?}", begins.weak);
        let or_any = json!({ "or_ids": { "ids": [word.clone(), { "any": true }] } });
        assert!(guard(or_any).is_none());
        let both = json!({ "and_ids": { "ids": [{ "any": true }, word] } });
        assert!(guard(both).is_some_and(|guard| guard.is_sound()));
        assert!(guard(json!({ "any": true })).is_none());
    }
}
