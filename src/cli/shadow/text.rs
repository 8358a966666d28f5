//! The report for people.

use super::{
    GroupBy,
    report::{MAX_GROUPS, Report},
    row::Row,
};
use crate::cli::output::aligned;

/// Returns the report with these tables, each of at most `limit` rows.
pub(super) fn text(report: &Report, tables: &[(GroupBy, Vec<Row>)], limit: usize) -> String {
    let mut text = String::new();
    if let (Some(from), Some(to)) = (&report.from, &report.to) {
        text.push_str(&lines(vec![
            format!("from {from} to {to}"),
            format!("denied, not enforced: {}", report.not_enforced_total),
            format!("denied: {}", report.denied),
            format!("allowed and in the sample: {}", report.allowed),
        ]));
        text.push('\n');
    }
    for (by, rows) in tables {
        text.push_str(&table(*by, rows, limit));
        text.push('\n');
    }
    text.push_str(&lines(notes(report, tables)));
    text
}

fn lines(lines: Vec<String>) -> String {
    aligned(lines.into_iter().map(|line| vec![line]).collect())
}

fn table(by: GroupBy, rows: &[Row], limit: usize) -> String {
    let (title, who, counts): (_, &[&str], &[&str]) = match by {
        GroupBy::Request => ("which requests", &[], &["OWNERS", "TOKENS"]),
        GroupBy::Owner => ("whose requests, by owner", &["OWNER"], &["TOKENS"]),
        GroupBy::Token => ("whose requests, by token", &["OWNER", "TOKEN"], &[]),
    };
    let heading = [who, &["DOMAIN", "CODE", "REQUEST", "COUNT"], counts, &["EXAMPLE"]].concat();
    let mut cells: Vec<Vec<String>> = vec![heading.into_iter().map(str::to_owned).collect()];
    cells.extend(rows.iter().take(limit).map(|row| row.cells(by)));
    let mut text = format!("{title}\n{}", aligned(cells));
    let further = rows.iter().skip(limit);
    let (more, denials) = further.fold((0, 0), |(rows, sum), row| (rows + 1, sum + row.count));
    if more > 0 {
        text.push_str(&format!("and {more} more, with {denials} denials; --limit 0 prints all\n"));
    }
    text
}

impl Row {
    fn cells(&self, by: GroupBy) -> Vec<String> {
        let id = |id: Option<uuid::Uuid>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let owner = || self.owner.clone().unwrap_or_else(|| id(self.user_id));
        let mut cells = match by {
            GroupBy::Request => Vec::new(),
            GroupBy::Owner => vec![owner()],
            GroupBy::Token => {
                let named = self.token.as_ref().map(|name| format!("{name} ({})", id(self.pat_id)));
                vec![owner(), named.unwrap_or_else(|| id(self.pat_id))]
            }
        };
        cells.extend([self.domain.clone(), self.code.clone(), self.request()]);
        cells.push(self.count.to_string());
        cells.extend([self.owners, self.tokens].into_iter().flatten().map(|n| n.to_string()));
        cells.push(self.example.clone());
        cells
    }

    fn request(&self) -> String {
        match (&self.method, &self.path) {
            (Some(method), Some(path)) => format!("{method} {path}"),
            _ if self.paths_left_out => "(further paths)".to_owned(),
            _ => self.operation.clone(),
        }
    }
}

/// Says what the tables and the log leave out.
fn notes(report: &Report, tables: &[(GroupBy, Vec<Row>)]) -> Vec<String> {
    let mut lines = Vec::new();
    let by_subject = tables.iter().filter(|(by, _)| *by != GroupBy::Request);
    if by_subject.clone().count() > 0 && report.without_token > 0 {
        lines.push(format!(
            "without a verified token: {} denials, whose owner patgate does not know",
            report.without_token
        ));
    }
    let no_path = |row: &Row| row.request() == "-";
    if tables.iter().flat_map(|(_, rows)| rows).any(no_path) {
        lines.push(
            "request -: no rule names it, and its path is not logged; Envoy's access log has it, \
             under the request id"
                .to_owned(),
        );
    }
    let subjects: Vec<&Row> = by_subject.flat_map(|(_, rows)| rows).collect();
    if !subjects.is_empty() && subjects.iter().all(|row| row.owner.is_none()) {
        lines.push("owners and tokens by name: --names, with a login for the database".to_owned());
    }
    if report.ungrouped > 0 {
        lines.push(format!(
            "in no table: {} denials; the log has more than {MAX_GROUPS} different ones",
            report.ungrouped
        ));
    }
    for (code, count) in &report.left_out {
        lines.push(format!(
            "not in the log: {count} denials with {code}, above decision_log.denials_per_second"
        ));
    }
    if report.dropped > 0 {
        let dropped = report.dropped;
        lines.push(format!("not in the log: {dropped} records, because the queue was full"));
    }
    if report.left_out.is_empty() && report.dropped == 0 {
        lines.push("according to this log, no denial is missing".to_owned());
    }
    if report.not_json > 0 {
        lines.push(format!("{} lines were not JSON", report.not_json));
    }
    lines
}
