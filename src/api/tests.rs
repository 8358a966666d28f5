//! The shipped tables side by side, every mistake that a table can hold, and what finding a rule
//! costs.

use std::path::PathBuf;

use super::*;

mod cost;
mod mistakes;
mod schema;
mod shipped;

/// The beginning of a table whose rules follow from line 4 on.
const HEAD: &str = "name: x\nmount: /p/{domain}\nerrors: openai\n";

fn folder() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/apis").into()
}

fn shipped() -> Apis {
    Apis::load(&[folder()]).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn compile(text: &str) -> Result<Apis, TableErrors> {
    Apis::compile(&[Source { file: "t.yaml".to_owned(), text: text.to_owned() }])
}

#[test]
fn files_and_directories() {
    let dir = tempfile::tempdir().unwrap();
    let load = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(|path| dir.path().join(path)).collect();
        let names = |apis: Apis| apis.list().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        Apis::load(&paths).map(names).map_err(|mistakes| mistakes.to_string())
    };
    assert!(load(&[""]).unwrap_err().contains("holds no file"));
    assert!(load(&["missing.yaml"]).unwrap_err().contains("missing.yaml: No such file"));
    for name in ["b.yaml", "a.yml", ".hidden.yaml", "notes.txt"] {
        let text = format!(
            "name: {}\nmount: /{name}/{{domain}}\nerrors: scim\nrules:\n\
             - {{ methods: [GET], path: /, operation: read, entity: scim }}\n",
            &name[..1]
        );
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    assert_eq!(load(&[""]).unwrap(), ["a", "b"]);
    assert_eq!(load(&["b.yaml"]).unwrap(), ["b"]);
    assert_eq!(
        Apis::load(&[]).unwrap().list().map(|(name, _)| name).collect::<Vec<_>>(),
        ["cube-ai"]
    );
}
