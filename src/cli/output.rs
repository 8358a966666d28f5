//! Writes results: aligned columns for people, JSON for programs.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

use crate::legible::{misleads, without_secrets};

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Aligned columns
    Table,
    /// One JSON document
    Json,
}

#[derive(Clone, Copy)]
pub(super) struct Output(pub(super) Format);

/// A column: its heading, and the text of its cells.
pub(super) type Column<T> = (&'static str, fn(&T) -> String);

impl Output {
    /// Prints a table, one row per value.
    pub(super) fn list<T: Serialize>(
        self,
        rows: &[T],
        columns: &[Column<T>],
    ) -> anyhow::Result<()> {
        if self.is_json() {
            return self.json(&rows);
        }
        let heading = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let cells = rows.iter().map(|row| columns.iter().map(|(_, cell)| cell(row)).collect());
        write(&aligned(std::iter::once(heading).chain(cells).collect()))
    }

    /// Prints one value, one property per line.
    pub(super) fn one<T: Serialize>(
        self,
        value: &T,
        properties: Vec<(&'static str, String)>,
    ) -> anyhow::Result<()> {
        if self.is_json() {
            return self.json(value);
        }
        let lines = properties.into_iter().map(|(name, text)| vec![format!("{name}:"), text]);
        write(&aligned(lines.collect()))
    }

    /// Prints what was done, if there is no other result.
    pub(super) fn message(self, text: &str) -> anyhow::Result<()> {
        if self.is_json() {
            return self.json(&serde_json::json!({ "message": text }));
        }
        write(&format!("{}\n", printable_lines(text)))
    }

    pub(super) fn json<T: Serialize>(self, value: &T) -> anyhow::Result<()> {
        write(&format!("{}\n", escaped(&serde_json::to_string_pretty(value)?)))
    }

    pub(super) fn is_json(self) -> bool {
        self.0 == Format::Json
    }
}

/// Writes to standard output. It is no error if the reader stops reading, as `head` does.
pub(super) fn write(text: &str) -> anyhow::Result<()> {
    match write_all(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("standard output"),
    }
}

/// Writes to standard output a text that must not be lost: a reader that stops is an error.
pub(super) fn write_all(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a message for the operator to standard error.
pub(super) fn complain(text: &str) {
    complain_as(&complaint(text));
}

/// Writes a text to standard error as it is, without our name.
pub(super) fn complain_as(text: &str) {
    // If standard error cannot be written, there is no other place for the message.
    let _ = writeln!(io::stderr(), "{}", printable_lines(text));
}

/// Makes a message legible and adds our name. A token or key that was given in a wrong place is not
/// repeated.
pub(super) fn complaint(text: &str) -> String {
    format!("patgate: {}", printable_lines(&without_secrets(text)))
}

/// The texts of an error and its causes. Many errors repeat their cause in their own text; such a
/// cause is left out.
pub(super) fn causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

pub(super) fn aligned(rows: Vec<Vec<String>>) -> String {
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        // A cell may be longer than the width that a format accepts.
        let padded = |(cell, width): (&String, &usize)| {
            let missing = width.saturating_sub(cell.chars().count());
            format!("{cell}{}", " ".repeat(missing))
        };
        let cells: Vec<String> = row.iter().zip(&widths).map(padded).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Escapes characters that would control the terminal, or show a text in another order than it has.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            c if c.is_control() => shown.extend(c.escape_debug()),
            c if misleads(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// Does the same for a text of several lines.
fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Escapes the same characters in JSON. Outside of strings, JSON has none of them except line
/// endings; in strings, line endings are escaped already.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character == '\n' || !misleads(character) {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_nothing_steers_the_terminal() {
        let rows = [["NAME", "NOTE"], ["ä", ""], ["longer", "a\x1b[2J\nb"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec()).to_vec();
        assert_eq!(aligned(rows), "NAME    NOTE\nä\nlonger  a\\u{1b}[2J\\nb\n");
        let long = "o".repeat(70_000);
        let rows = vec![vec![long.clone(), "x".to_owned()], vec!["a".to_owned()]];
        assert_eq!(aligned(rows), format!("{long}  x\na\n"));
        assert_eq!(printable("a\u{202e}b\u{2066}\u{200f}ä"), "a\\u{202e}b\\u{2066}\\u{200f}ä");
        assert_eq!(printable_lines("a\x1b\nb\u{9b}"), "a\\u{1b}\nb\\u{9b}");
    }

    #[test]
    fn a_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot listen: {source}")]
        struct InUse {
            source: io::Error,
        }
        let error = anyhow::Error::new(InUse { source: io::Error::other("in use") });
        assert_eq!(causes(&error), "cannot listen: in use");
        let error = error.context("starting");
        assert_eq!(causes(&error), "starting: cannot listen: in use");
        let plain = anyhow::Error::new(io::Error::other("full")).context("standard output");
        assert_eq!(causes(&plain), "standard output: full");
    }

    #[test]
    fn json_is_the_same_value_without_what_misleads() {
        let text = "ä\x1b\n\x7f\u{9b}\u{202e}\u{2028}\u{feff}\u{e0041}";
        let value = serde_json::json!({ text: [text] });
        let shown = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(!shown.chars().any(|c| c != '\n' && misleads(c)), "{shown:?}");
        assert!(
            shown.contains("\\u202e") && shown.contains("\\udb40\\udc41") && shown.contains('ä')
        );
    }
}
