//! Where the lines of the decision log are written.

use std::{
    borrow::Cow,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::{config::LogTo, telemetry::outlet::Outlet};

/// The setting that says where the lines go, for messages.
pub(super) const SETTING: &str = "decision_log.to";

/// The file, or standard output, cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("decision_log.to: cannot open {}: {error}", .path.display())]
pub struct LogOpenError {
    path: PathBuf,
    error: io::Error,
}

/// Standard output, or a file.
pub(super) enum Sink {
    Stdout(Outlet),
    File { path: PathBuf, file: Outlet },
}

impl Sink {
    /// Returns `None` if decisions are not logged.
    pub(super) fn open(to: &LogTo) -> Result<Option<Self>, LogOpenError> {
        Ok(match to {
            LogTo::Nowhere => None,
            LogTo::Stdout => match Outlet::stdout() {
                Ok(stdout) => Some(Self::Stdout(stdout)),
                Err(error) => return Err(LogOpenError { path: "standard output".into(), error }),
            },
            LogTo::File(path) => {
                let path = path.clone();
                match append_to(&path) {
                    Ok(file) => Some(Self::File { path, file: file.into() }),
                    Err(error) => return Err(LogOpenError { path, error }),
                }
            }
        })
    }

    /// Opens the file again under its name. If that fails, the previous file stays in use. Returns
    /// whether it did not fail.
    pub(super) fn reopen(&mut self) -> bool {
        let Self::File { path, file } = self else { return true };
        match append_to(path) {
            Ok(opened) => {
                file.replace(opened);
                true
            }
            Err(error) => {
                tracing::error!(
                    %error, setting = SETTING, path = %path.display(),
                    "the decision log cannot be opened again; the previous file stays in use",
                );
                false
            }
        }
    }

    /// Returns where it writes, for a message.
    pub(super) fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Stdout(_) => Cow::Borrowed("standard output"),
            Self::File { path, .. } => path.to_string_lossy(),
        }
    }

    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let (Self::Stdout(outlet) | Self::File { file: outlet, .. }) = self;
        outlet.write(lines)
    }
}

/// Opens the file. Only its owner and its group may read it, because it has ids of users and tokens.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}
