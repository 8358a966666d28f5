//! The rules: what each looks for, how bad it is, what it means, and what fixes it.

mod ask;
mod between;
mod body;
mod call;
mod chain;
mod change;
mod except;
mod exposed;
mod fail;
mod guard;
mod header;
mod reach;
mod refused;
mod route;
mod see;
mod steps;

pub(crate) use self::{ask::matches_all, reach::reads_metrics};

use std::fmt;

use serde::Serialize;

use crate::{
    model::{Host, Maker, Route},
    view::{Asker, Context, Fate, View},
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something costs time, or a second measure is missing.
    Low,
    /// Answers are wrong, an outage is worse than it must be, or one more error opens a way.
    Medium,
    /// Requests reach a backend without patgate's permission, secrets leave, or Envoy cannot do what it
    /// was told.
    High,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

/// One thing that can be wrong.
pub struct Rule {
    /// Its id, which stays the same.
    pub id: &'static str,
    /// Its usual severity. A finding may be less severe, for example if the guard holds, or more.
    pub severity: Severity,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// What follows from it, in one sentence.
    pub consequence: &'static str,
    /// The setting that fixes it.
    pub fix: Fix,
    check: fn(&Context<'_>, &mut Found),
}

/// The setting that fixes something, in the words of each control plane.
pub struct Fix {
    /// In Envoy's own configuration.
    pub envoy: &'static str,
    /// With Envoy Gateway, if it differs.
    pub gateway: Option<&'static str>,
    /// With Istio, if it differs.
    pub istio: Option<&'static str>,
}

impl Fix {
    /// Returns the words for what has made the configuration.
    #[must_use]
    pub fn with(&self, maker: Maker) -> &'static str {
        match maker {
            Maker::Envoy => None,
            Maker::EnvoyGateway => self.gateway,
            Maker::Istio => self.istio,
        }
        .unwrap_or(self.envoy)
    }
}

/// The part of the configuration that a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The listener's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// The filter chain's name or position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// The virtual host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The route's name or position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The HTTP filter's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// The cluster's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

impl Place {
    fn of(view: &View<'_>) -> Self {
        Self {
            listener: Some(view.listener.name.clone()),
            chain: Some(view.chain.name.clone()),
            ..Self::default()
        }
    }

    pub(crate) fn filter(view: &View<'_>, name: &str) -> Self {
        Self { filter: Some(name.to_owned()), ..Self::of(view) }
    }

    fn asker(view: &View<'_>, asker: &Asker<'_>) -> Self {
        Self::filter(view, &asker.filter.name)
    }

    fn route(view: &View<'_>, host: &Host, route: &Route) -> Self {
        Self { host: Some(host.name.clone()), route: Some(route.name.clone()), ..Self::of(view) }
    }

    fn host(view: &View<'_>, host: &Host) -> Self {
        Self { host: Some(host.name.clone()), ..Self::of(view) }
    }

    fn cluster(name: &str) -> Self {
        Self { cluster: Some(name.to_owned()), ..Self::default() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("listener", &self.listener),
            ("chain", &self.chain),
            ("host", &self.host),
            ("route", &self.route),
            ("filter", &self.filter),
            ("cluster", &self.cluster),
        ];
        let named: Vec<_> = parts
            .iter()
            .filter_map(|(what, name)| name.as_ref().map(|name| format!("{what} {name}")))
            .collect();
        if named.is_empty() {
            return formatter.write_str("the whole proxy");
        }
        formatter.write_str(&named.join(", "))
    }
}

/// What a rule has found.
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// How bad it is here.
    pub severity: Severity,
    /// Where it was found; the same thing may stand in several places.
    pub places: Vec<Place>,
    /// What stands there.
    pub found: String,
    /// What limits the consequence here, such as the guard.
    pub note: Option<&'static str>,
}

/// Collects what one rule finds.
struct Found {
    rule: &'static Rule,
    findings: Vec<Finding>,
}

const HELD: &str = "The guard refuses these requests: nothing passes, and clients get an error.";
const DEAD_END: &str =
    "No route leads anywhere without patgate's header: nothing passes, and clients get an error.";

impl Found {
    fn add(&mut self, place: Place, found: impl Into<String>) {
        self.with(self.rule.severity, place, found, None);
    }

    fn at(&mut self, severity: Severity, place: Place, found: impl Into<String>) {
        self.with(severity, place, found, None);
    }

    /// Adds a way past patgate, as severe as what becomes of the requests.
    fn hole(&mut self, fate: Fate, place: Place, found: impl Into<String>) {
        let (severity, note) = match fate {
            // The rules about exceptions judge it.
            Fate::Excepted => return,
            Fate::Passes => (Severity::High, None),
            Fate::Held => (Severity::Medium, Some(HELD)),
            Fate::DeadEnd => (Severity::Medium, Some(DEAD_END)),
        };
        self.with(severity, place, found, note);
    }

    fn with(
        &mut self,
        severity: Severity,
        place: Place,
        found: impl Into<String>,
        note: Option<&'static str>,
    ) {
        let found = found.into();
        let same =
            |one: &&mut Finding| one.severity == severity && one.found == found && one.note == note;
        match self.findings.iter_mut().find(same) {
            Some(one) if one.places.contains(&place) => {}
            Some(one) => one.places.push(place),
            None => self.findings.push(Finding {
                rule: self.rule,
                severity,
                places: vec![place],
                found,
                note,
            }),
        }
    }
}

/// All rules, by family.
const FAMILIES: &[&[Rule]] = &[
    refused::RULES,
    ask::RULES,
    chain::RULES,
    between::RULES,
    guard::RULES,
    except::RULES,
    fail::RULES,
    call::RULES,
    route::RULES,
    header::RULES,
    change::RULES,
    see::RULES,
    body::RULES,
    steps::RULES,
    exposed::RULES,
    reach::RULES,
];

/// Returns every rule.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    FAMILIES.iter().copied().flatten()
}

/// Returns the findings, the worst first.
pub(crate) fn apply(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in all() {
        let mut found = Found { rule, findings: Vec::new() };
        (rule.check)(context, &mut found);
        findings.append(&mut found.findings);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

const fn everywhere(envoy: &'static str) -> Fix {
    Fix { envoy, gateway: None, istio: None }
}

const fn each(envoy: &'static str, gateway: &'static str, istio: &'static str) -> Fix {
    Fix { envoy, gateway: Some(gateway), istio: Some(istio) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_id_is_used_once_and_texts_are_sentences() {
        let mut ids = BTreeSet::new();
        for rule in all() {
            assert!(ids.insert(rule.id) && rule.id.starts_with("PG-"), "{}", rule.id);
            assert!(rule.consequence.ends_with('.'), "{}", rule.consequence);
            assert!(!rule.title.ends_with('.') && !rule.fix.envoy.ends_with('.'), "{}", rule.id);
        }
        assert!(ids.len() > 60, "{}", ids.len());
    }
}
