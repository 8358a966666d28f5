//! Adds up the lines of a decision log.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use serde::Serialize;
use uuid::Uuid;

use super::{
    GroupBy,
    row::{Group, Names, Requested, Row, Tally},
};
use crate::check::decision_log::{DecisionLine, LogEntry, RepeatedSummary};

/// Different denials that are kept apart. The log may be of any length, and paths are a client's.
pub(super) const MAX_GROUPS: usize = 65_536;

#[derive(Default, Serialize)]
pub(super) struct Report {
    /// The time of the first decision in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    /// The time of the last decision in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<String>,
    /// Decisions that were denials and not enforced.
    pub(super) not_enforced_total: u64,
    /// Of these, the ones without a verified token.
    pub(super) without_token: u64,
    /// Of these, the ones of further groups than are kept apart.
    pub(super) ungrouped: u64,
    pub(super) denied: u64,
    pub(super) allowed: u64,
    /// Denials that the log does not hold, enforced or not, by code.
    pub(super) left_out: BTreeMap<String, u64>,
    /// Records that were lost because the queue was full.
    pub(super) dropped: u64,
    pub(super) not_json: u64,
    #[serde(skip)]
    tallies: HashMap<Group, Tally>,
    /// A domain may be named by its id in one request and by its slug in another.
    #[serde(skip)]
    slugs: HashMap<String, String>,
}

impl Report {
    pub(super) fn take(&mut self, entry: LogEntry) {
        match entry {
            LogEntry::Decision(line) => self.take_decision(&line),
            LogEntry::Repeated(summary) => self.take_repeated(*summary),
            LogEntry::Omitted(summary) => {
                self.dropped += summary.dropped;
                for (code, count) in summary.left_out {
                    *self.left_out.entry(code).or_default() += count;
                }
            }
            LogEntry::NotJson => self.not_json += 1,
            LogEntry::Other => {}
        }
    }

    fn take_decision(&mut self, line: &DecisionLine<'_>) {
        // If the logs of several replicas were joined, their lines are in no order.
        if self.from.as_deref().is_none_or(|from| *line.time < *from) {
            self.from = Some(line.time.to_string());
        }
        if self.to.as_deref().is_none_or(|to| *line.time > *to) {
            self.to = Some(line.time.to_string());
        }
        self.learn(line.domain_id, line.domain_slug.as_deref());
        match (&*line.outcome, line.enforced) {
            ("allow" | "answered", _) => self.allowed += 1,
            (_, true) => self.denied += 1,
            (_, false) => {
                let text = |text: &Option<Cow<'_, str>>| text.as_ref().map(ToString::to_string);
                let domain = line.domain_slug.as_ref().or(line.domain.as_ref());
                let group = Group {
                    user: line.user_id,
                    token: line.pat_id,
                    domain: domain.map(ToString::to_string),
                    code: line.code.to_string(),
                    request: requested(text(&line.operation), text(&line.method), text(&line.path)),
                };
                self.count(group, 1, &line.request_id);
            }
        }
    }

    /// Adds denials that the log only counts.
    fn take_repeated(&mut self, summary: RepeatedSummary) {
        self.learn(summary.domain_id, summary.domain_slug.as_deref());
        if summary.enforced {
            self.denied += summary.repeated;
            return;
        }
        let request = if summary.paths_left_out {
            Requested::FurtherPaths
        } else {
            requested(summary.operation, summary.method, summary.path)
        };
        let group = Group {
            user: Some(summary.user_id),
            token: Some(summary.pat_id),
            domain: summary.domain_slug.or(summary.domain),
            code: summary.code,
            request,
        };
        self.count(group, summary.repeated, "");
    }

    fn learn(&mut self, id: Option<Uuid>, slug: Option<&str>) {
        if let (Some(id), Some(slug)) = (id, slug) {
            self.slugs.insert(id.to_string(), slug.to_owned());
        }
    }

    fn count(&mut self, group: Group, count: u64, example: &str) {
        self.not_enforced_total += count;
        if group.token.is_none() {
            self.without_token += count;
        }
        if self.tallies.len() >= MAX_GROUPS && !self.tallies.contains_key(&group) {
            self.ungrouped += count;
            return;
        }
        self.tallies.entry(group).or_default().add(count, example);
    }

    /// Returns the rows of a table.
    pub(super) fn rows(&self, by: GroupBy, names: &Names) -> Vec<Row> {
        let tallies = self.tallies.iter().map(|(group, tally)| {
            let mut group = group.clone();
            if let Some(slug) = group.domain.as_ref().and_then(|domain| self.slugs.get(domain)) {
                group.domain = Some(slug.clone());
            }
            (group, tally)
        });
        by.rows(tallies, names)
    }

    /// Returns the ids of the owners and of the tokens.
    pub(super) fn subjects(&self) -> (Vec<Uuid>, Vec<Uuid>) {
        let owners: BTreeSet<Uuid> = self.tallies.keys().filter_map(|group| group.user).collect();
        let tokens: BTreeSet<Uuid> = self.tallies.keys().filter_map(|group| group.token).collect();
        (owners.into_iter().collect(), tokens.into_iter().collect())
    }
}

fn requested(operation: Option<String>, method: Option<String>, path: Option<String>) -> Requested {
    match (operation, method, path) {
        (Some(operation), ..) => Requested::Operation(operation),
        (None, Some(method), Some(path)) => Requested::Path { method, path },
        _ => Requested::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeated(path: usize, count: u64) -> LogEntry {
        LogEntry::Repeated(Box::new(RepeatedSummary {
            time: "t".into(),
            repeated: count,
            code: "not_found".into(),
            enforced: false,
            mode: "shadow".into(),
            status: 404,
            pat_id: Uuid::from_u128(1),
            user_id: Uuid::from_u128(2),
            domain: Some("acme".into()),
            domain_id: None,
            domain_slug: None,
            operation: None,
            method: Some("GET".into()),
            path: Some(format!("/{path}")),
            paths_left_out: false,
        }))
    }

    #[test]
    fn a_log_with_any_number_of_paths_takes_bounded_memory() {
        let mut report = Report::default();
        for path in 0..MAX_GROUPS + 10 {
            report.take(repeated(path, 3));
        }
        report.take(repeated(0, 4));
        assert_eq!((report.tallies.len(), report.ungrouped), (MAX_GROUPS, 30));
        assert_eq!(report.not_enforced_total, 3 * (MAX_GROUPS as u64 + 10) + 4);
        let rows = report.rows(GroupBy::Request, &Names::default());
        assert_eq!(
            (rows.len(), rows[0].count, rows[0].path.as_deref()),
            (MAX_GROUPS, 7, Some("/0"))
        );
    }
}
