//! The report for people.

use std::fmt::Write as _;

use super::Report;
use crate::rules::Severity;

/// How many places of a finding are shown.
const PLACES: usize = 10;

/// Returns the findings, what could not be judged, and a summary, as text.
#[must_use]
pub fn reported(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let _ = writeln!(
            text,
            "{}  {}  {}",
            finding.severity.to_string().to_uppercase(),
            finding.rule.id,
            finding.rule.title
        );
        for (number, place) in finding.places.iter().take(PLACES).enumerate() {
            let label = if number == 0 { "at" } else { "" };
            let _ = writeln!(text, "  {label:<6} {place}");
        }
        if let Some(more) = finding.places.len().checked_sub(PLACES + 1) {
            let _ = writeln!(text, "         and {} more places (--output json)", more + 1);
        }
        let _ = writeln!(text, "  found  {}", finding.found);
        let _ = writeln!(text, "  means  {}", Report::consequence(finding));
        let _ = writeln!(text, "  fix    {}", report.fix(finding));
        text.push('\n');
    }
    if !report.unjudged.is_empty() {
        text.push_str("Not judged:\n");
        for one in &report.unjudged {
            let _ = writeln!(text, "  {}: {}", one.place, one.reason);
        }
        text.push('\n');
    }
    for authorizer in &report.authorizers {
        let at = match authorizer.addresses.as_slice() {
            [] => String::new(),
            addresses => format!(" at {}", addresses.join(", ")),
        };
        let signs = authorizer.signs.join("; ");
        let _ = writeln!(text, "patgate is the cluster {}{at}: {signs}.", authorizer.cluster);
    }
    for guard in &report.guards {
        let passes = match guard.exceptions.as_slice() {
            [] => "nothing".to_owned(),
            exceptions => exceptions.join("; "),
        };
        if guard.sound {
            let _ = writeln!(
                text,
                "A guard is {}. Without patgate's word it lets through: {passes}.",
                guard.place
            );
        }
    }
    text.push_str(&summary(report));
    text
}

fn summary(report: &Report) -> String {
    let count = |severity: Severity| {
        report.findings.iter().filter(|finding| finding.severity == severity).count()
    };
    let envoy = report.envoy.as_ref().map(|version| format!(", Envoy {version}"));
    let what = format!("configuration of {}{}", report.maker, envoy.unwrap_or_default());
    if report.findings.is_empty() {
        return format!("Nothing found in this {what}.");
    }
    let severities = [Severity::High, Severity::Medium, Severity::Low].map(count);
    let [high, medium, low] = severities;
    format!("Found in this {what}: {high} high, {medium} medium, {low} low.")
}
