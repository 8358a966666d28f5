//! Where lines go.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::config::LogTo;

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("decision_log.to: cannot open {}: {error}", .path.display())]
pub struct OpenError {
    path: PathBuf,
    error: io::Error,
}

/// Standard output, or a file.
pub(super) enum Sink {
    Stdout,
    File { path: PathBuf, file: File },
}

impl Sink {
    /// Nothing where nothing is to be written.
    pub(super) fn open(to: &LogTo) -> Result<Option<Self>, OpenError> {
        Ok(match to {
            LogTo::Nowhere => None,
            LogTo::Stdout => Some(Self::Stdout),
            LogTo::File(path) => {
                let path = path.clone();
                match append_to(&path) {
                    Ok(file) => Some(Self::File { path, file }),
                    Err(error) => return Err(OpenError { path, error }),
                }
            }
        })
    }

    /// Takes up the file that has its name now. If there can be none, the one before goes on.
    pub(super) fn reopen(&mut self) {
        let Self::File { path, file } = self else { return };
        match append_to(path) {
            Ok(opened) => *file = opened,
            Err(error) => tracing::error!(
                %error, path = %path.display(),
                "the decision log cannot be opened again; the file before stays in use",
            ),
        }
    }

    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File { file, .. } => file.write_all(lines),
        }
    }
}

/// Ids of users and tokens are nobody's business but the operator's and their group's.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}
