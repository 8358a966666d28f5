//! Reading the key-ring file, and refusing one that somebody else could have written.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use zeroize::Zeroizing;

use crate::keyring::{KeyRing, KeyRingError};

const GROUP_OR_OTHERS_WRITE: u32 = 0o022;
const OTHERS_READ: u32 = 0o004;

/// Why there is no key ring. Names the file, never shows what is in it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum KeyRingFileError {
    #[error("no key ring: set keyring_file (PATGATE_KEYRING_FILE) to its path")]
    Unset,
    #[error(
        "key ring {path}: there is no such file; keyring_file (PATGATE_KEYRING_FILE) names it, and \
         `patgate keyring new` makes the first key of a new one"
    )]
    Missing { path: String },
    #[error("key ring {path}: {error}")]
    Unreadable { path: String, error: io::Error },
    #[error(
        "key ring {path}: its mode {mode:04o} lets others write to it, and who writes the keys \
         can mint tokens; `chmod go-w` it"
    )]
    Writable { path: String, mode: u32 },
    #[error("key ring {path}: {error}")]
    Malformed { path: String, error: KeyRingError },
}

/// Reads and parses a key-ring file.
///
/// # Errors
///
/// When it cannot be read, when group or others may write to it, or when it is no key ring.
pub fn read_keyring(path: &Path) -> Result<KeyRing, KeyRingFileError> {
    let text = read_keyring_text(path)?;
    KeyRing::parse(&text)
        .map_err(|error| KeyRingFileError::Malformed { path: path.display().to_string(), error })
}

/// The text of a key-ring file, after the checks on the file itself.
pub(crate) fn read_keyring_text(path: &Path) -> Result<Zeroizing<String>, KeyRingFileError> {
    let shown = || path.display().to_string();
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KeyRingFileError::Missing { path: shown() },
        _ => KeyRingFileError::Unreadable { path: shown(), error },
    };
    let mut file = File::open(path).map_err(unreadable)?;
    // Of the opened file, so that what was checked is what is read.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & GROUP_OR_OTHERS_WRITE != 0 {
        return Err(KeyRingFileError::Writable { path: shown(), mode });
    }
    if mode & OTHERS_READ != 0 {
        // Kubernetes mounts Secrets like this by default, so it is no reason to refuse.
        tracing::warn!(
            path = shown(),
            mode = format!("{mode:04o}"),
            "everyone can read the key ring"
        );
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}
