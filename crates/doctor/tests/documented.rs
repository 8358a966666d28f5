//! The table of rules in docs/doctor.md is that of the code.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

fn table() -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let rows = patgate_doctor::rules::all().map(|rule| {
        format!(
            "| `{}` | {} | {} | {} | {} |\n",
            rule.id,
            rule.severity,
            cell(rule.title),
            cell(rule.consequence),
            cell(rule.fix.envoy)
        )
    });
    let head = "| rule | severity | what is wrong | consequence | fix |\n| --- | --- | --- | --- | --- |\n";
    std::iter::once(head.to_owned()).chain(rows).collect()
}

#[test]
fn the_document_lists_the_rules() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/doctor.md");
    let document = fs::read_to_string(&path).unwrap();
    let table = table();
    assert!(document.contains(&table), "docs/doctor.md should have this table:\n\n{table}");
}
