//! Where tables come from: the binary, or files and directories.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{TableError, TableErrors};
use crate::trusted_file;

/// The table for Cube AI that the binary carries.
const CUBE_AI: &str = include_str!("../../deploy/apis/cube-ai.yaml");

/// A table's text and the name of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// For people.
    pub file: String,
    /// YAML.
    pub text: String,
}

impl Source {
    /// What the binary carries.
    pub fn embedded() -> Vec<Self> {
        vec![Self { file: "cube-ai.yaml (embedded)".to_owned(), text: CUBE_AI.to_owned() }]
    }

    /// Reads files, and those of directories that end in `.yaml` or `.yml`, in the order of their
    /// names; what the binary carries, when there is no path at all.
    ///
    /// # Errors
    ///
    /// Every file that cannot be read or that others may write to, and a directory that holds none.
    pub fn read(paths: &[PathBuf]) -> Result<Vec<Self>, TableErrors> {
        if paths.is_empty() {
            return Ok(Self::embedded());
        }
        let (mut sources, mut mistakes) = (Vec::new(), Vec::new());
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
                match trusted_file::read_to_string(&file) {
                    Ok(text) => sources.push(Self { file: file.display().to_string(), text }),
                    Err(error) => note(&file, error.to_string()),
                }
            }
        }
        if mistakes.is_empty() { Ok(sources) } else { Err(TableErrors(mistakes)) }
    }
}

/// Kubernetes keeps the files of a mounted ConfigMap in hidden directories, beside links to them.
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
