//! Reads the key-ring file.

use std::{io, path::Path};

use zeroize::Zeroizing;

use crate::{
    files::trusted::{self, ReadError, UntrustedFile},
    keyring::{KeyRing, KeyRingError},
};

const OTHERS_READ: u32 = 0o004;
/// What to do about a ring that is not there. A new ring would refuse every token that there is.
const ABSENT: &str = "If this installation has tokens, bring a copy of its ring, from a replica, an \
                      operator or a backup. Only for a new installation, `patgate keyring new` \
                      makes the first key";

/// Why there is no key ring. The error names the file and never shows its content.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum KeyRingFileError {
    #[error("no key ring: set keyring_file (PATGATE_KEYRING_FILE) to its path")]
    Unset,
    #[error(
        "key ring {path}: the file does not exist; keyring_file (PATGATE_KEYRING_FILE) names it. \
         {ABSENT}"
    )]
    Missing { path: String },
    #[error("key ring {path}: no key. {ABSENT}")]
    Empty { path: String },
    #[error("key ring {path}: {error}")]
    Unreadable { path: String, error: io::Error },
    #[error("key ring {path}: {why}; a user who can write the keys can make valid tokens")]
    Untrusted { path: String, why: UntrustedFile },
    #[error("key ring {path}: {error}")]
    Malformed { path: String, error: KeyRingError },
}

impl KeyRingFileError {
    /// Returns the same for a replica that serves, and has the ring of this installation in memory:
    /// there, a new key is never the answer.
    pub(crate) fn while_serving(&self) -> String {
        match self {
            Self::Missing { path } => format!("key ring {path}: the file does not exist"),
            Self::Empty { path } => format!("key ring {path}: no key"),
            error => error.to_string(),
        }
    }
}

/// Reads and parses a key-ring file.
///
/// # Errors
///
/// If it cannot be read, if another user may write to it, or if it is not a key ring.
pub fn read_keyring(path: &Path) -> Result<KeyRing, KeyRingFileError> {
    parse(path, &read_keyring_text(path)?)
}

/// Does the same without a warning about a file that everyone can read, for a caller that reads it
/// again and again.
///
/// # Errors
///
/// As [`read_keyring`].
pub(crate) fn reread_keyring(path: &Path) -> Result<KeyRing, KeyRingFileError> {
    let (text, _mode) = read_text(path)?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<KeyRing, KeyRingFileError> {
    let path = || path.display().to_string();
    KeyRing::parse(text).map_err(|error| match error {
        KeyRingError::Empty => KeyRingFileError::Empty { path: path() },
        error => KeyRingFileError::Malformed { path: path(), error },
    })
}

/// Returns the text of a key-ring file, after checking the file itself.
pub(crate) fn read_keyring_text(path: &Path) -> Result<Zeroizing<String>, KeyRingFileError> {
    let (text, mode) = read_text(path)?;
    if mode & OTHERS_READ != 0 {
        // Kubernetes mounts Secrets like this by default, so this is no reason to refuse the file.
        tracing::warn!(
            path = %path.display(),
            mode = format!("{mode:04o}"),
            "everyone can read the key ring"
        );
    }
    Ok(text)
}

fn read_text(path: &Path) -> Result<(Zeroizing<String>, u32), KeyRingFileError> {
    let shown = || path.display().to_string();
    trusted::read(path).map_err(|error| match error {
        ReadError::Untrusted(why) => KeyRingFileError::Untrusted { path: shown(), why },
        ReadError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            KeyRingFileError::Missing { path: shown() }
        }
        ReadError::Io(error) => KeyRingFileError::Unreadable { path: shown(), error },
    })
}
