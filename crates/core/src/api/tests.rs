//! The shipped tables side by side, every error that a table can have, and what finding a rule
//! costs.

use std::path::PathBuf;

use super::*;

mod cost;
mod schema;
mod shipped;
mod table_errors;

/// The beginning of a table whose rules follow from line 4 on.
const HEAD: &str = "name: x\nmount: /p/{domain}\nerrors: openai\n";

fn folder() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/apis").into()
}

fn sources() -> Vec<TableSource> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let tables = files.filter(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    let mut tables: Vec<_> = tables.collect();
    tables.sort();
    let source = |file: &PathBuf| TableSource {
        file: file.display().to_string(),
        text: std::fs::read_to_string(file).unwrap(),
    };
    tables.iter().map(source).collect()
}

fn shipped() -> Apis {
    Apis::compile(&sources()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn compile(text: &str) -> Result<Apis, TableErrors> {
    Apis::compile(&[TableSource { file: "t.yaml".to_owned(), text: text.to_owned() }])
}

#[test]
fn a_rule_names_its_backend_over_its_table() {
    let rule = |path, more| {
        format!("- {{ methods: [GET], path: {path}, operation: read, entity: scim{more} }}\n")
    };
    let rules = rule("/a", "") + &rule("/b", ", upstream: of-rule");
    let upstreams = |head: &str| {
        let apis = compile(&format!("{head}rules:\n{rules}")).unwrap();
        let of = |path| {
            let rule = apis.find("h", path).unwrap().rule("GET", path).unwrap();
            rule.upstream.map(ToString::to_string)
        };
        let named = apis.upstreams().next().unwrap().1.into_iter().map(ToString::to_string);
        (of("/p/x/a"), of("/p/x/b"), named.collect::<Vec<_>>())
    };
    let of_rule = || Some("of-rule".to_owned());
    assert_eq!(upstreams(HEAD), (None, of_rule(), vec!["of-rule".to_owned()]));
    let (table, both) = (format!("{HEAD}upstream: of-table\n"), ["of-rule", "of-table"]);
    let expected = (Some("of-table".to_owned()), of_rule(), both.map(str::to_owned).to_vec());
    assert_eq!(upstreams(&table), expected);
}

/// Every example of the documentation is a table that compiles.
#[test]
fn documented_tables_compile() {
    let document = include_str!("../../../../docs/apis.md");
    let blocks = document.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let tables: Vec<_> = blocks.filter(|block| block.contains("name: ")).collect();
    assert_eq!(tables.len(), 2);
    tables.iter().for_each(|table| drop(compile(table).unwrap()));
}
