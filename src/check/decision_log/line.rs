//! A line of the decision log, written and read.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, BufRead},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use uuid::Uuid;

/// Lines of this log are far shorter. A longer line is skipped, not held in memory.
const MAX_LINE: usize = 64 * 1024;

/// A decision. An absent member is unknown, or does not exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DecisionLine<'a> {
    /// RFC 3339, in UTC.
    pub(crate) time: Cow<'a, str>,
    pub(crate) request_id: Cow<'a, str>,
    /// The trace of the call, as in the traces of the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<Cow<'a, str>>,
    /// `allow`, `answered` or `deny`: the verdict, enforced or not.
    pub(crate) outcome: Cow<'a, str>,
    pub(crate) code: Cow<'a, str>,
    /// Whether the answer was the verdict.
    pub(crate) enforced: bool,
    pub(crate) mode: Cow<'a, str>,
    pub(crate) status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pat_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<Uuid>,
    /// The domain as the request names it: a slug or an id, of a domain that need not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain_slug: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<Cow<'a, str>>,
    /// Method and path of a request that no rule names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream: Option<Cow<'a, str>>,
    /// The farthest tier that answered.
    pub(crate) tier: Cow<'a, str>,
    /// Microseconds from the decoded request to the answer.
    pub(crate) micros: u64,
}

/// A summary: what was not recorded since the previous one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OmittedSummary {
    pub(crate) time: String,
    /// Denials that would have exceeded the rate, by code.
    pub(crate) left_out: BTreeMap<String, u64>,
    /// Records that were dropped because the queue was full.
    pub(crate) dropped: u64,
}

/// A summary: how many denials of one token were not recorded line by line since the previous one,
/// because they repeat a logged denial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RepeatedSummary {
    pub(crate) time: String,
    pub(crate) repeated: u64,
    pub(crate) code: String,
    pub(crate) enforced: bool,
    pub(crate) mode: String,
    pub(crate) status: u16,
    pub(crate) pat_id: Uuid,
    pub(crate) user_id: Uuid,
    /// The domain as all of these requests name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain_slug: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<String>,
    /// Method and path of all these requests, if no rule names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// No rule names these requests, and their paths are not kept apart: there were too many.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) paths_left_out: bool,
}

/// Formats a time to the microsecond, always with the same number of digits, so that lines sort by
/// time as text.
pub(super) fn rfc3339(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// The meaning of a line in a file.
#[derive(Debug, PartialEq)]
pub(crate) enum LogEntry {
    Decision(Box<DecisionLine<'static>>),
    Repeated(Box<RepeatedSummary>),
    Omitted(OmittedSummary),
    /// JSON, but not of this log.
    Other,
    NotJson,
}

/// Reads the lines of a decision log, among any other lines.
pub(crate) struct LogLines<R>(pub(crate) R);

impl<R: BufRead> Iterator for LogLines<R> {
    type Item = io::Result<LogEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match next_line(&mut self.0) {
                Ok(None) => return None,
                Ok(Some(line)) if line.trim_ascii().is_empty() => {}
                Ok(Some(line)) => return Some(Ok(LogEntry::read(&line))),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl LogEntry {
    fn read(line: &[u8]) -> Self {
        if let Ok(line) = serde_json::from_slice(line) {
            return Self::Decision(Box::new(line));
        }
        if let Ok(repeated) = serde_json::from_slice(line) {
            return Self::Repeated(Box::new(repeated));
        }
        match serde_json::from_slice(line) {
            Ok(omitted) => Self::Omitted(omitted),
            Err(_) if serde_json::from_slice::<IgnoredAny>(line).is_ok() => Self::Other,
            Err(_) => Self::NotJson,
        }
    }
}

/// Returns the next line, up to the maximum length; `None` at the end.
fn next_line(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut any = false;
    loop {
        let buffer = match from.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            return Ok(any.then_some(line));
        }
        any = true;
        let end = memchr::memchr(b'\n', buffer);
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&piece[..piece.len().min(MAX_LINE - line.len())]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        from.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> DecisionLine<'static> {
        DecisionLine {
            time: "2026-11-22T09:00:00.000001Z".into(),
            request_id: "r-1".into(),
            trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
            outcome: "deny".into(),
            code: "permission_denied".into(),
            enforced: false,
            mode: "shadow".into(),
            status: 403,
            pat_id: Some(Uuid::from_u128(1)),
            user_id: Some(Uuid::from_u128(2)),
            domain: Some("acme".into()),
            domain_id: None,
            domain_slug: None,
            operation: Some("llm_read".into()),
            method: Some("PO\"ST".into()),
            path: Some("/a/\\b".into()),
            model: Some("a\"b\nc\u{1b}[2Jü\u{2028}".into()),
            upstream: None,
            tier: "memory".into(),
            micros: 7,
        }
    }

    fn read(text: impl AsRef<[u8]>) -> Vec<LogEntry> {
        // A small buffer, so that lines lie across its end.
        let reader = io::BufReader::with_capacity(7, text.as_ref());
        LogLines(reader).map(Result::unwrap).collect()
    }

    #[test]
    fn what_is_written_is_one_line_and_is_read_back() {
        let written = serde_json::to_string(&line()).unwrap();
        assert!(!written.bytes().any(|byte| byte < b' '), "{written:?}");
        assert_eq!(read(&written), [LogEntry::Decision(Box::new(line()))]);
    }

    #[test]
    fn other_lines_are_told_apart_and_stepped_over() {
        let written = serde_json::to_string(&line()).unwrap();
        let omitted = r#"{"time":"t","left_out":{"invalid_token":3},"dropped":1}"#;
        let repeated = RepeatedSummary {
            time: "t".into(),
            repeated: 7,
            code: "token_revoked".into(),
            enforced: true,
            mode: "enforce".into(),
            status: 401,
            pat_id: Uuid::from_u128(1),
            user_id: Uuid::from_u128(2),
            domain: None,
            domain_id: None,
            domain_slug: None,
            operation: None,
            method: Some("GET".into()),
            path: Some("/a".into()),
            paths_left_out: false,
        };
        let repeats = serde_json::to_string(&repeated).unwrap();
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(2 * MAX_LINE));
        let torn = &written[..written.len() / 2];
        let text = format!(
            "\n{torn}\nplain\r\n{omitted}\n{repeats}\n{{\"level\":\"INFO\"}}\n{long}\n{written}"
        );
        let expected = OmittedSummary {
            time: "t".into(),
            left_out: [("invalid_token".to_owned(), 3)].into(),
            dropped: 1,
        };
        assert_eq!(
            read(text),
            [
                LogEntry::NotJson,
                LogEntry::NotJson,
                LogEntry::Omitted(expected),
                LogEntry::Repeated(Box::new(repeated)),
                LogEntry::Other,
                LogEntry::NotJson,
                LogEntry::Decision(Box::new(line())),
            ]
        );
        assert_eq!(read(b"\xff\xfe\n"), [LogEntry::NotJson]);
        assert_eq!(read(""), []);
    }
}
