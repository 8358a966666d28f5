//! `patgate why`: finds the decision about one request in a decision log.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader},
    path::PathBuf,
};

use anyhow::Context as _;

use super::{output::write, session::Session};
use crate::check::decision_log::{DecisionLine, LogEntry, LogLines};

/// The decision log to read.
#[derive(clap::Args)]
pub(super) struct LogArguments {
    /// The decision log, by default standard input; other lines in it are skipped
    #[arg(long = "log", value_name = "FILE")]
    path: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The request id, from `x-request-id` of the answer or from Envoy's access log
    request_id: String,
    #[command(flatten)]
    log: LogArguments,
}

/// The log holds no decision about the request.
#[derive(Debug, thiserror::Error)]
#[error(
    "no decision about request {request_id} among {decisions} in this log. Look it up in Envoy's \
     access log first: only if `outcome` is `deny` there, patgate refused it. With `allow`, the backend \
     or Envoy answered; without `outcome`, Envoy got no answer from patgate or did not ask it. A \
     decision may also be missing here: allows are sampled (decision_log.sample_allows), {repeated} \
     denials repeated others and were only counted (decision_log.repeats_per_second), {omitted} records \
     were left out or dropped according to this log, each replica writes its own log, and {not_json} \
     lines were not JSON"
)]
pub(super) struct NotLogged {
    request_id: String,
    decisions: u64,
    repeated: u64,
    omitted: u64,
    not_json: u64,
}

impl LogArguments {
    /// Reads its lines one by one: the log may be of any length.
    pub(super) fn lines(&self) -> anyhow::Result<LogLines<Box<dyn BufRead>>> {
        Ok(LogLines(match &self.path {
            None => Box::new(BufReader::new(io::stdin())),
            Some(path) => {
                let file = File::open(path).with_context(|| format!("--log {}", path.display()))?;
                Box::new(BufReader::new(file))
            }
        }))
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let mut decisions = 0;
    let mut repeated = 0;
    let mut omitted = 0;
    let mut not_json = 0;
    for entry in arguments.log.lines()? {
        match entry.context("the decision log")? {
            LogEntry::Decision(line) => {
                decisions += 1;
                if line.request_id == arguments.request_id {
                    found.push(*line);
                }
            }
            LogEntry::Repeated(summary) => repeated += summary.repeated,
            LogEntry::Omitted(summary) => {
                omitted += summary.dropped + summary.left_out.values().sum::<u64>();
            }
            LogEntry::NotJson => not_json += 1,
            LogEntry::Other => {}
        }
    }
    if found.is_empty() {
        let request_id = arguments.request_id.escape_debug().to_string();
        return Err(NotLogged { request_id, decisions, repeated, omitted, not_json }.into());
    }
    if session.out.is_json() {
        return session.out.json(&found);
    }
    // Envoy asks again if an answer is late, so there may be several.
    for (index, line) in found.iter().enumerate() {
        if index > 0 {
            write("\n")?;
        }
        session.out.one(line, properties(line))?;
    }
    Ok(())
}

fn properties(line: &DecisionLine<'_>) -> Vec<(&'static str, String)> {
    let effect = match (&*line.outcome, line.enforced) {
        ("deny", false) => format!("let through nevertheless (mode {})", line.mode),
        ("answered", false) => format!("sent to a backend instead (mode {})", line.mode),
        _ => format!("enforced (mode {})", line.mode),
    };
    let domain = match (&line.domain_slug, line.domain_id) {
        (Some(slug), Some(id)) => Some(format!("{slug} ({id})")),
        _ => line.domain.as_ref().map(|named| format!("{named}, as the request names it")),
    };
    let text = |text: &Option<Cow<'_, str>>| text.as_ref().map(ToString::to_string);
    let asked = line.method.as_ref().zip(line.path.as_ref());
    let asked = asked.map(|(method, path)| format!("{method} {path}, which no rule names"));
    let known = [
        ("request", Some(line.request_id.to_string())),
        ("time", Some(line.time.to_string())),
        ("verdict", Some(format!("{} {} {}", line.outcome, line.status, line.code))),
        ("effect", Some(effect)),
        ("pat_id", line.pat_id.map(|id| id.to_string())),
        ("user_id", line.user_id.map(|id| id.to_string())),
        ("domain", domain),
        ("operation", text(&line.operation)),
        ("path", asked),
        ("model", text(&line.model)),
        ("upstream", text(&line.upstream)),
        ("took", Some(format!("{} µs, answered from {}", line.micros, line.tier))),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
