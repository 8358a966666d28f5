//! Reads tables of APIs from files and directories.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    api::{Apis, TableError, TableErrors, TableSource},
    files::trusted,
};

/// Reads and compiles the tables in files and directories, or those in the binary if `paths` is
/// empty.
///
/// # Errors
///
/// Returns all errors: every file that cannot be read, and every error in a table.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Apis, TableErrors> {
    Apis::compile(&read(paths)?)
}

/// Reads the files, and for a directory its files that end in `.yaml` or `.yml`, in the order of
/// their names. If `paths` is empty, returns the tables in the binary.
///
/// # Errors
///
/// Returns an error for every file that cannot be read or that others may write to, and for every
/// directory without tables.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<TableSource>, TableErrors> {
    if paths.is_empty() {
        return Ok(TableSource::embedded());
    }
    let mut sources = Vec::new();
    let mut mistakes = Vec::new();
    let mut note = |path: &Path, problem: String| {
        let file = path.display().to_string();
        mistakes.push(TableError { file, line: 0, rule: None, problem });
    };
    for path in paths {
        let files = match files(path) {
            Ok(files) if files.is_empty() => {
                note(path, "the directory holds no file that ends in .yaml or .yml".to_owned());
                continue;
            }
            Ok(files) => files,
            Err(error) => {
                note(path, error.to_string());
                continue;
            }
        };
        for file in files {
            match trusted::read_to_string(&file) {
                Ok(text) => sources.push(TableSource { file: file.display().to_string(), text }),
                Err(error) => note(&file, error.to_string()),
            }
        }
    }
    if mistakes.is_empty() { Ok(sources) } else { Err(TableErrors::new(mistakes)) }
}

/// Kubernetes keeps the files of a mounted ConfigMap in hidden directories, next to links to them.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml =
            file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let load = |paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(|path| dir.path().join(path)).collect();
            let names =
                |apis: Apis| apis.list().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
            super::load(&paths).map(names).map_err(|mistakes| mistakes.to_string())
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
            super::load(&[]).unwrap().list().map(|(name, _)| name).collect::<Vec<_>>(),
            ["cube-ai"]
        );
    }
}
