//! The doctor finds each planted fault and nothing else, and nothing in what is right.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

#[path = "corpus/corpus.rs"]
mod corpus;

use std::collections::{BTreeMap, BTreeSet};

use patgate_doctor::{Hints, Report, examine};
use serde_json::Value;

use self::corpus::{SILENT, base, dump, faults, legitimate};

fn report(configuration: &Value) -> Report {
    examine(configuration, &Hints::default()).unwrap()
}

/// The findings: rule, severity and what was found.
fn found(configuration: &Value) -> BTreeSet<(String, String, String)> {
    let report = report(configuration);
    let findings = report.findings.iter();
    findings
        .map(|one| (one.rule.id.to_owned(), one.severity.to_string(), one.found.clone()))
        .collect()
}

/// What the doctor finds in the base itself does not count.
fn own(
    configuration: &Value,
    before: &BTreeSet<(String, String, String)>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut rules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (rule, severity, text) in found(configuration).difference(before).cloned() {
        rules.entry(rule).or_default().insert(format!("{severity}: {text}"));
    }
    rules
}

#[test]
fn nothing_is_found_in_what_is_right() {
    for name in SILENT {
        assert_eq!(found(&base(name)), BTreeSet::new(), "{name}");
        assert_eq!(found(&dump::of(&base(name))), BTreeSet::new(), "{name} as a dump");
    }
}

/// Writes the names of fields as protobuf's own JSON does, which some tools print. The keys of maps,
/// which an operator chooses, stay.
fn in_camel_case(value: &Value) -> Value {
    const MAPS: [&str; 5] = [
        "typed_per_filter_config",
        "typed_extension_protocol_options",
        "policies",
        "json_format",
        "filter_metadata",
    ];
    match value {
        Value::Array(items) => items.iter().map(in_camel_case).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| {
                let value = if MAPS.contains(&key.as_str()) && value.is_object() {
                    let entries = value.as_object().unwrap().iter();
                    entries.map(|(key, value)| (key.clone(), in_camel_case(value))).collect()
                } else if key == "metadata" && value.get("ISTIO_VERSION").is_some() {
                    value.clone()
                } else {
                    in_camel_case(value)
                };
                let mut camel = String::new();
                for (number, part) in key.split('_').enumerate() {
                    let (first, rest) = part.split_at(part.len().min(1));
                    let first = if number > 0 { first.to_uppercase() } else { first.to_owned() };
                    camel.push_str(&first);
                    camel.push_str(rest);
                }
                (camel, value)
            });
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

#[test]
fn the_spelling_of_names_does_not_matter() {
    for name in SILENT {
        let camel = in_camel_case(&dump::of(&base(name)));
        assert!(camel.to_string().contains("httpFilters"));
        let report = report(&camel);
        assert!(!report.authorizers.is_empty(), "{name}");
        assert_eq!(found(&camel), BTreeSet::new(), "{name}");
    }
}

#[test]
fn each_planted_fault_is_found_and_nothing_else() {
    let faults = faults();
    assert!(faults.len() >= 60, "{}", faults.len());
    let mut wrong = Vec::new();
    let mut bases: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for fault in &faults {
        let before = bases.entry(fault.on.clone()).or_insert_with(|| found(&base(&fault.on)));
        for (form, configuration) in fault.forms() {
            let found = own(&configuration, before);
            let expected: BTreeSet<_> = fault.also.iter().chain([&fault.rule]).collect();
            let rules: BTreeSet<_> = found.keys().collect();
            let severity = found.get(&fault.rule).is_some_and(|texts| {
                let severity =
                    |wanted: &String| texts.iter().any(|text| text.starts_with(wanted.as_str()));
                fault.severity.as_ref().is_none_or(severity)
            });
            if rules != expected || !severity {
                wrong.push(format!(
                    "{} ({form} of {}): expected {} {:?}, found {found:#?}",
                    fault.fault, fault.on, fault.rule, fault.severity
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn legitimate_changes_are_silent() {
    let legitimate = legitimate();
    assert!(legitimate.len() >= 15, "{}", legitimate.len());
    let mut wrong = Vec::new();
    for one in &legitimate {
        let configuration = one.configuration();
        for configuration in [dump::of(&configuration), configuration] {
            let found = found(&configuration);
            if !found.is_empty() {
                wrong.push(format!("{}: {found:#?}", one.change));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A rule without a planted fault may find nothing at all.
#[test]
fn each_rule_has_a_planted_fault() {
    let planted: BTreeSet<_> = faults().into_iter().map(|fault| fault.rule).collect();
    let rules: BTreeSet<_> = patgate_doctor::rules::all().map(|rule| rule.id.to_owned()).collect();
    assert_eq!(planted, rules);
}
