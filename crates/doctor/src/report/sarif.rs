//! SARIF 2.1.0, as code scanning reads it.

use serde_json::{Value, json};

use super::Report;
use crate::rules::{self, Severity};

pub(super) fn write(report: &Report, file: &str, version: &str) -> Value {
    let rules: Vec<_> = rules::all()
        .map(|rule| {
            json!({
                "id": rule.id,
                "shortDescription": { "text": rule.title },
                "fullDescription": { "text": rule.consequence },
                "help": { "text": format!("Fix: {}.", rule.fix.with(report.maker)) },
                "defaultConfiguration": { "level": level(rule.severity) },
                "properties": {
                    "security-severity": score(rule.severity),
                    "tags": ["security"],
                },
            })
        })
        .collect();
    let results: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            let logical = finding.places.iter().map(
                |place| json!({ "fullyQualifiedName": place.to_string(), "kind": "resource" }),
            );
            json!({
                "ruleId": finding.rule.id,
                "level": level(finding.severity),
                "message": {
                    "text": format!(
                        "{}: {}. {} Fix: {}.",
                        finding.rule.title,
                        finding.found,
                        Report::consequence(finding),
                        report.fix(finding),
                    ),
                },
                // A dump has no lines that anybody has written: the place is in the logical location.
                "locations": [{
                    "physicalLocation": {
                        "artifactLocation": { "uri": file },
                        "region": { "startLine": 1 },
                    },
                    "logicalLocations": logical.collect::<Vec<_>>(),
                }],
                "partialFingerprints": {
                    "patgateDoctor/v1": format!(
                        "{} {} {}",
                        finding.rule.id,
                        finding.found,
                        finding.places.first().map(ToString::to_string).unwrap_or_default(),
                    ),
                },
            })
        })
        .collect();
    let notes: Vec<_> = report
        .unjudged
        .iter()
        .map(|one| {
            let text = format!("not judged: {}: {}", one.place, one.reason);
            json!({ "level": "note", "message": { "text": text } })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {
                "driver": {
                    "name": "patgate doctor",
                    "version": version,
                    "rules": rules,
                },
            },
            "invocations": [{
                "executionSuccessful": true,
                "toolExecutionNotifications": notes,
            }],
            "results": results,
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "note",
    }
}

/// The scale that code scanning sorts by.
fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::High => "8.0",
        Severity::Medium => "5.0",
        Severity::Low => "2.0",
    }
}
