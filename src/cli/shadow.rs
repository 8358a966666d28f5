//! `patgate shadow …`: reports from a decision log which requests enforcing would have refused.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use anyhow::Context as _;
use serde::Serialize;
use uuid::Uuid;

use super::{
    output::{aligned, write},
    session::Session,
    why::LogArguments,
};
use crate::check::decision_log::{DecisionLine, LogEntry, RepeatedSummary};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Counts denials that were not enforced, by domain, code and operation
    Report {
        #[command(flatten)]
        log: LogArguments,
    },
}

#[derive(Default, Serialize)]
struct ShadowReport {
    /// The time of the first decision in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// The time of the last decision in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// Denials that were not enforced, the most frequent first.
    not_enforced: Vec<DenialRow>,
    /// Decisions that were denials and not enforced.
    not_enforced_total: u64,
    denied: u64,
    allowed: u64,
    /// Denials that the log does not hold, enforced or not, by code.
    left_out: BTreeMap<String, u64>,
    /// Records that were lost because the queue was full.
    dropped: u64,
    not_json: u64,
}

#[derive(Serialize)]
struct DenialRow {
    domain: String,
    code: String,
    operation: String,
    count: u64,
    /// The number of different verified tokens.
    tokens: usize,
    /// The id of one of the requests.
    example: String,
}

/// Domain, code and operation of a denial.
type DenialGroup = (String, String, String);

#[derive(Default)]
struct Tally {
    count: u64,
    tokens: HashSet<Uuid>,
    example: String,
}

pub(super) fn run(session: &Session, command: &Command) -> anyhow::Result<()> {
    let Command::Report { log } = command;
    let mut report = ShadowReport::default();
    let mut groups = HashMap::new();
    // A domain may be named by its id in one request and by its slug in another.
    let mut slugs = HashMap::new();
    for entry in log.lines()? {
        match entry.context("the decision log")? {
            LogEntry::Decision(line) => report.take(&line, &mut groups, &mut slugs),
            LogEntry::Repeated(summary) => report.add(&summary, &mut groups, &mut slugs),
            LogEntry::Omitted(summary) => {
                report.dropped += summary.dropped;
                for (code, count) in summary.left_out {
                    *report.left_out.entry(code).or_default() += count;
                }
            }
            LogEntry::NotJson => report.not_json += 1,
            LogEntry::Other => {}
        }
    }
    report.not_enforced = rows(groups, &slugs);
    if session.out.is_json() { session.out.json(&report) } else { write(&report.text()) }
}

impl ShadowReport {
    fn take(
        &mut self,
        line: &DecisionLine<'_>,
        groups: &mut HashMap<DenialGroup, Tally>,
        slugs: &mut HashMap<String, String>,
    ) {
        // If the logs of several replicas were joined, their lines are in no order.
        if self.from.as_deref().is_none_or(|from| *line.time < *from) {
            self.from = Some(line.time.to_string());
        }
        if self.to.as_deref().is_none_or(|to| *line.time > *to) {
            self.to = Some(line.time.to_string());
        }
        if let (Some(id), Some(slug)) = (line.domain_id, &line.domain_slug) {
            slugs.insert(id.to_string(), slug.to_string());
        }
        match (&*line.outcome, line.enforced) {
            ("allow" | "answered", _) => self.allowed += 1,
            (_, true) => self.denied += 1,
            (_, false) => {
                self.not_enforced_total += 1;
                let domain = line.domain_slug.as_ref().or(line.domain.as_ref());
                let text = |text: Option<&Cow<'_, str>>| {
                    text.map_or_else(|| "-".to_owned(), ToString::to_string)
                };
                let operation = text(line.operation.as_ref());
                let group = (text(domain), line.code.to_string(), operation);
                let tally = groups.entry(group).or_default();
                tally.count += 1;
                tally.tokens.extend(line.pat_id);
                tally.example = line.request_id.to_string();
            }
        }
    }

    /// Adds denials that the log only counts.
    fn add(
        &mut self,
        summary: &RepeatedSummary,
        groups: &mut HashMap<DenialGroup, Tally>,
        slugs: &mut HashMap<String, String>,
    ) {
        if let (Some(id), Some(slug)) = (summary.domain_id, &summary.domain_slug) {
            slugs.insert(id.to_string(), slug.clone());
        }
        if summary.enforced {
            self.denied += summary.repeated;
            return;
        }
        self.not_enforced_total += summary.repeated;
        let domain = summary.domain_slug.as_ref().or(summary.domain.as_ref());
        let text = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
        let group = (text(domain), summary.code.clone(), text(summary.operation.as_ref()));
        let tally = groups.entry(group).or_default();
        tally.count += summary.repeated;
        tally.tokens.insert(summary.pat_id);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if let (Some(from), Some(to)) = (&self.from, &self.to) {
            let counts = [
                format!("from {from} to {to}"),
                format!("denied, not enforced: {}", self.not_enforced_total),
                format!("denied: {}", self.denied),
                format!("allowed and in the sample: {}", self.allowed),
            ];
            text.push_str(&aligned(counts.map(|line| vec![line]).into()));
            text.push('\n');
        }
        let heading = ["DOMAIN", "CODE", "OPERATION", "COUNT", "TOKENS", "EXAMPLE"];
        let mut table = vec![heading.map(str::to_owned).to_vec()];
        table.extend(self.not_enforced.iter().map(|row| {
            let DenialRow { domain, code, operation, count, tokens, example } = row;
            let counts = [count.to_string(), tokens.to_string()];
            let texts = [domain, code, operation].map(String::clone);
            texts.into_iter().chain(counts).chain([example.clone()]).collect()
        }));
        text.push_str(&aligned(table));
        text.push('\n');
        text.push_str(&aligned(self.omissions().into_iter().map(|line| vec![line]).collect()));
        text
    }

    /// Says what the log leaves out.
    fn omissions(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (code, count) in &self.left_out {
            lines.push(format!(
                "not in the log: {count} denials with {code}, above decision_log.denials_per_second"
            ));
        }
        if self.dropped > 0 {
            let dropped = self.dropped;
            lines.push(format!("not in the log: {dropped} records, because the queue was full"));
        }
        if self.left_out.is_empty() && self.dropped == 0 {
            lines.push("according to this log, no denial is missing".to_owned());
        }
        if self.not_json > 0 {
            lines.push(format!("{} lines were not JSON", self.not_json));
        }
        lines
    }
}

fn rows(groups: HashMap<DenialGroup, Tally>, slugs: &HashMap<String, String>) -> Vec<DenialRow> {
    let mut named: HashMap<DenialGroup, Tally> = HashMap::new();
    for ((domain, code, operation), tally) in groups {
        let domain = slugs.get(&domain).cloned().unwrap_or(domain);
        let all = named.entry((domain, code, operation)).or_default();
        all.count += tally.count;
        all.tokens.extend(tally.tokens);
        if !tally.example.is_empty() {
            all.example = tally.example;
        }
    }
    let mut rows: Vec<DenialRow> = named
        .into_iter()
        .map(|((domain, code, operation), Tally { count, tokens, example })| DenialRow {
            domain,
            code,
            operation,
            count,
            tokens: tokens.len(),
            // There is no example if the log only counts these denials.
            example: if example.is_empty() { "-".to_owned() } else { example },
        })
        .collect();
    rows.sort_unstable_by(|a, b| {
        let names = |row: &DenialRow| (row.domain.clone(), row.code.clone(), row.operation.clone());
        b.count.cmp(&a.count).then_with(|| names(a).cmp(&names(b)))
    });
    rows
}
