//! Reads the fields of a map in a table, and records every error with its line.

use crate::{
    api::TableError,
    yaml::{Placed, YamlNode, line},
};

/// Reads one table, and collects the errors in it.
pub(super) struct TableReader<'m> {
    pub(super) file: &'m str,
    /// The rule that is being read, for errors in it.
    pub(super) rule: Option<String>,
    pub(super) errors: &'m mut Vec<TableError>,
}

/// The fields of a map by name.
pub(super) struct TableFields<'d> {
    pub(super) line: u64,
    found: Vec<(&'d str, &'d Placed)>,
}

impl<'d> TableFields<'d> {
    pub(super) fn get(&self, name: &str) -> Option<&'d Placed> {
        self.found.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

impl TableReader<'_> {
    /// Records an error in the rule that is being read, or in the table.
    pub(super) fn report(&mut self, line: u64, problem: impl Into<String>) {
        self.errors.push(TableError {
            file: self.file.to_owned(),
            line,
            rule: self.rule.clone(),
            problem: problem.into(),
        });
    }

    /// Returns the fields of a map, and reports those that are unknown.
    pub(super) fn fields<'d>(
        &mut self,
        placed: &'d Placed,
        known: &[&str],
    ) -> Option<TableFields<'d>> {
        let YamlNode::Map(entries) = &placed.value else {
            let kind = placed.value.kind();
            self.report(line(placed), format!("expected a map of fields, not {kind}"));
            return None;
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&&*key.value)) {
            let problem =
                format!("unknown field `{}`; expected one of: {}", key.value, known.join(" "));
            self.report(line(key), problem);
        }
        let found = entries.iter().map(|(key, value)| (&*key.value, value)).collect();
        Some(TableFields { line: line(placed), found })
    }

    /// Parses a field that need not be there, and reports an error in it.
    pub(super) fn optional<T>(
        &mut self,
        fields: &TableFields<'_>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> FieldValue<T> {
        let Some(placed) = fields.get(name) else { return FieldValue::Absent };
        let problem = match &placed.value {
            YamlNode::Text(text) => match parse(text) {
                Ok(value) => return FieldValue::Value(value),
                Err(problem) => problem,
            },
            other => format!("expected a value, not {}", other.kind()),
        };
        self.report(line(placed), format!("`{name}`: {problem}"));
        FieldValue::Wrong
    }

    /// Parses a field, and reports it if it is missing or wrong.
    pub(super) fn required<T>(
        &mut self,
        fields: &TableFields<'_>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let given = self.optional(fields, name, parse);
        if matches!(given, FieldValue::Absent) {
            self.report(fields.line, format!("`{name}` is missing"));
        }
        given.value()
    }

    /// Returns the words of a list, each with its line, and reports anything else.
    pub(super) fn texts<'d>(
        &mut self,
        placed: &'d Placed,
        name: &str,
    ) -> Option<Vec<(u64, &'d str)>> {
        if let YamlNode::List(items) = &placed.value {
            let texts = items.iter().map(|item| match &item.value {
                YamlNode::Text(text) => Some((line(item), &**text)),
                _ => None,
            });
            if let Some(texts) = texts.collect() {
                return Some(texts);
            }
        }
        self.report(line(placed), format!("`{name}`: expected a list of words"));
        None
    }
}

/// The value of a field that need not be there.
pub(super) enum FieldValue<T> {
    Value(T),
    Absent,
    /// The value is wrong, and the error is reported already.
    Wrong,
}

impl<T> FieldValue<T> {
    pub(super) fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong)
    }

    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Wrong => None,
        }
    }
}

impl<T: Default> FieldValue<T> {
    pub(super) fn or_default(self) -> T {
        self.value().unwrap_or_default()
    }
}
