//! The exceptions of the guard: policies that let requests through about which patgate is not asked.

use serde_json::Value;

use crate::{
    guard::permission,
    matcher::{in_words, matches},
    model::Route,
    value::Read,
};

/// A policy of the guard that does not want patgate's word.
pub(crate) struct Exception {
    pub(crate) name: String,
    policy: Value,
}

impl Exception {
    pub(super) fn new(name: &str, policy: &Value) -> Self {
        Self { name: name.to_owned(), policy: policy.clone() }
    }

    /// What it lets through, for people.
    pub(crate) fn in_words(&self) -> String {
        let what: Vec<_> = self.policy.list("permissions").iter().map(permission).collect();
        let to = self.clusters().map(|names| format!(", to the cluster {}", names.join(" or ")));
        format!("{}: {}{}", self.name, what.join(" or "), to.unwrap_or_default())
    }

    /// The clusters to which its condition binds it; `None` if it has none that this program reads.
    pub(crate) fn clusters(&self) -> Option<Vec<&str>> {
        let checked = self.policy.at("checked_condition/expr");
        let condition = if checked.is_object() { checked } else { self.policy.at("condition") };
        clusters(condition)
    }

    /// The matchers of its paths; `None` if it takes any path.
    pub(crate) fn paths(&self) -> Option<Vec<&Value>> {
        every(self.policy.list("permissions"), &paths)
            .map(|all| all.into_iter().flatten().collect())
    }

    /// Whether it takes no request that has this header.
    pub(crate) fn refuses(&self, header: &str) -> bool {
        let refuses = |condition: &Value| lacks(condition, header).then_some(());
        every(self.policy.list("permissions"), &refuses).is_some()
            || every(self.policy.list("principals"), &refuses).is_some()
    }

    /// Whether it may take a request that this route matches.
    pub(crate) fn may_take(&self, route: &Route) -> bool {
        let matched = route.config.at("match");
        self.paths().is_none_or(|all| all.into_iter().any(|matcher| overlap(matcher, matched)))
    }
}

/// What is known of each of these alternatives; `None` if nothing is known of one of them.
fn every<'v, T>(
    alternatives: &'v [Value],
    known: &dyn Fn(&'v Value) -> Option<T>,
) -> Option<Vec<T>> {
    let all: Option<Vec<T>> = alternatives.iter().map(known).collect();
    all.filter(|all| !all.is_empty())
}

fn either<'v>(condition: &'v Value, lists: [&str; 2]) -> Option<&'v [Value]> {
    lists.iter().find(|list| condition.has(list)).map(|list| condition.list(list))
}

const ANY: [&str; 2] = ["or_rules/rules", "or_ids/ids"];
const ALL: [&str; 2] = ["and_rules/rules", "and_ids/ids"];

fn paths(condition: &Value) -> Option<Vec<&Value>> {
    if condition.has("url_path/path") {
        return Some(vec![condition.at("url_path/path")]);
    }
    if condition.has("uri_template") {
        return Some(vec![condition.at("uri_template")]);
    }
    if condition.text("header/name") == Some(":path") && condition.has("header/string_match") {
        return Some(vec![condition.at("header/string_match")]);
    }
    if let Some(alternatives) = either(condition, ANY) {
        return every(alternatives, &paths).map(|all| all.into_iter().flatten().collect());
    }
    either(condition, ALL)?.iter().find_map(paths)
}

/// Whether a condition is met only without this header.
fn lacks(condition: &Value, header: &str) -> bool {
    let of = |matcher: &Value| {
        matcher.text("name").is_some_and(|name| name.eq_ignore_ascii_case(header))
    };
    for not in ["not_rule/header", "not_id/header"] {
        let matcher = condition.at(not);
        if of(matcher) && matcher.is_on("present_match") && !matcher.is_on("invert_match") {
            return true;
        }
    }
    let matcher = condition.at("header");
    if of(matcher) {
        let inverted = matcher.is_on("present_match") && matcher.is_on("invert_match");
        let absent = matcher.flag("present_match") == Some(false);
        return inverted || absent && !matcher.is_on("invert_match");
    }
    if let Some(alternatives) = either(condition, ANY) {
        return !alternatives.is_empty() && alternatives.iter().all(|one| lacks(one, header));
    }
    either(condition, ALL).is_some_and(|all| all.iter().any(|one| lacks(one, header)))
}

/// The clusters with which an expression compares `xds.cluster_name`.
fn clusters(expression: &Value) -> Option<Vec<&str>> {
    let call = expression.at("call_expr");
    let arguments = call.list("args");
    match call.text("function")? {
        "_==_" => {
            let text = |value: &'_ Value| value.at("const_expr").text("string_value").is_some();
            let [first, second] = arguments else { return None };
            let (named, constant) = if text(second) { (first, second) } else { (second, first) };
            let of_cluster = named.text("select_expr/field") == Some("cluster_name")
                && named.text("select_expr/operand/ident_expr/name") == Some("xds");
            let name = constant.text("const_expr/string_value")?;
            of_cluster.then(|| vec![name])
        }
        "_||_" => {
            let all: Option<Vec<_>> = arguments.iter().map(clusters).collect();
            all.filter(|all| !all.is_empty()).map(|all| all.into_iter().flatten().collect())
        }
        "_&&_" => arguments.iter().find_map(clusters),
        _ => None,
    }
}

/// Whether a path may be matched by both: yes, unless it is certain that there is none.
fn overlap(matcher: &Value, route: &Value) -> bool {
    let prefix = route.text("prefix").or_else(|| route.text("path_separated_prefix"));
    if let Some(exact) = matcher.text("exact") {
        return match (prefix, route.text("path"), route.text("safe_regex/regex")) {
            (Some(prefix), _, _) => exact.starts_with(prefix),
            (_, Some(path), _) => path == exact,
            (_, _, Some(expression)) => {
                matches(&serde_json::json!({ "safe_regex": { "regex": expression } }), exact)
            }
            _ => true,
        };
    }
    if let Some(path) = route.text("path") {
        let readable = ["prefix", "suffix", "contains", "safe_regex"];
        return !readable.iter().any(|field| matcher.has(field)) || matches(matcher, path);
    }
    match (matcher.text("prefix"), prefix) {
        (Some(one), Some(other)) => one.starts_with(other) || other.starts_with(one),
        _ => true,
    }
}

/// The names in a header that a policy with patgate's word lets pass: `None` if it takes every value.
pub(crate) fn refused_values<'v>(policy: &'v Value, header: &str) -> Vec<&'v Value> {
    fn of<'v>(condition: &'v Value, header: &str) -> Vec<&'v Value> {
        let not = ["not_rule/header", "not_id/header"].into_iter().find_map(|at| {
            let matcher = condition.at(at);
            let named = matcher.text("name").is_some_and(|name| name.eq_ignore_ascii_case(header));
            (named && matcher.has("string_match") && !matcher.is_on("invert_match"))
                .then(|| matcher.at("string_match"))
        });
        let all = either(condition, ALL).unwrap_or_default().iter();
        not.into_iter().chain(all.flat_map(|one| of(one, header))).collect()
    }
    // Several alternatives would each have to refuse it.
    let single = |list: &'v [Value]| match list {
        [one] => of(one, header),
        _ => Vec::new(),
    };
    let by_permissions = single(policy.list("permissions"));
    by_permissions.into_iter().chain(single(policy.list("principals"))).collect()
}

/// For a list of routes.
pub(crate) fn paths_in_words(exception: &Exception) -> String {
    exception.paths().map_or_else(
        || "any path".to_owned(),
        |all| all.into_iter().map(in_words).collect::<Vec<_>>().join(" or "),
    )
}
