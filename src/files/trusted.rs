//! Reads files that decide whom patgate lets in, and refuses those that another user could have
//! written: the key ring, API tables, configuration files and files that hold URLs.
//!
//! Files that Kubernetes mounts are accepted: ConfigMaps and Secrets belong to root, are reached
//! through links, and `fsGroup` lets the group read them. The directory is not checked, because
//! mounted directories let everyone write: a file that another user puts there belongs to that
//! user.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The longest file: many times what any of these files needs.
const MAX_LENGTH: u64 = 16 << 20;

const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// Why a file is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UntrustedFile {
    /// Its mode lets others write.
    #[error("its mode {0:04o} lets others write to it; `chmod go-w` it")]
    Writable(u32),
    /// Its owner is neither root nor the user that patgate runs as.
    #[error(
        "it belongs to the user with id {owner}, who may write to it, and patgate runs as {user}; \
         `chown` it to that user or to root"
    )]
    Foreign {
        /// The id of the owner.
        owner: u32,
        /// The id of the user that patgate runs as.
        user: u32,
    },
}

/// A file that could not be read, or must not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Untrusted(#[from] UntrustedFile),
}

/// Returns the text of a file that only root and the user of this process can write to, and its
/// mode.
pub(crate) fn read(path: &Path) -> Result<(Zeroizing<String>, u32), ReadError> {
    // Without waiting for the other end of a pipe, which may never come.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // The metadata of the opened file, so that the checked file is the one that is read.
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o7777;
    if let Some(kind) = kind_without_content(metadata.file_type()) {
        let problem = format!("expected a regular file, found {kind}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem).into());
    }
    // A device such as /dev/null does not return what is written to it.
    if !metadata.file_type().is_char_device() {
        judge(mode, metadata.uid(), rustix::process::geteuid().as_raw())?;
    }
    // Whole from the start, so that no part of a secret is left behind when it grows.
    let capacity = usize::try_from(metadata.len().min(MAX_LENGTH)).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.by_ref().take(MAX_LENGTH + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LENGTH {
        let problem = format!("expected a file of at most {} MiB", MAX_LENGTH >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem).into());
    }
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        io::Error::new(io::ErrorKind::InvalidData, "expected text in UTF-8")
    })?;
    Ok((Zeroizing::new(text), mode))
}

/// Names what is no file that can be read to its end.
fn kind_without_content(kind: FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_dir() => Some("a directory"),
        kind if kind.is_fifo() => Some("a pipe"),
        kind if kind.is_socket() => Some("a socket"),
        kind if kind.is_block_device() => Some("a block device"),
        _ => None,
    }
}

/// Returns only the text, or the error.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    match read(path) {
        Ok((mut text, _)) => Ok(std::mem::take(&mut *text)),
        Err(ReadError::Io(error)) => Err(error),
        Err(ReadError::Untrusted(why)) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
    }
}

/// Checks a folder into which this process writes: only root and the user of this process may make,
/// replace and remove files in it. Where the sticky bit lets others make files, but not replace those of
/// this user, each file in it must be checked as well.
///
/// # Errors
///
/// If it cannot be read, or others may write to it.
pub(crate) fn check_folder(path: &Path) -> Result<(), ReadError> {
    const STICKY: u32 = 0o1000;
    let metadata = fs::metadata(path)?;
    let mode = metadata.mode() & 0o7777;
    let writable = if mode & STICKY == 0 { mode } else { mode & !GROUP_OR_OTHERS_WRITE };
    judge(writable, metadata.uid(), rustix::process::geteuid().as_raw())?;
    Ok(())
}

/// Opens a regular file at its own place: no link is followed, and no pipe waited for.
///
/// # Errors
///
/// If it cannot be opened, is something else, or others may write to it.
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> Result<File, ReadError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let problem = "expected a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem).into());
    }
    judge(metadata.mode() & 0o7777, metadata.uid(), rustix::process::geteuid().as_raw())?;
    Ok(file)
}

/// Judges a file. Its owner may write to it, whatever its mode is.
fn judge(mode: u32, owner: u32, user: u32) -> Result<(), UntrustedFile> {
    if mode & GROUP_OR_OTHERS_WRITE != 0 {
        return Err(UntrustedFile::Writable(mode));
    }
    if owner != user && owner != 0 {
        return Err(UntrustedFile::Foreign { owner, user });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    #[test]
    fn only_root_and_ourselves_may_have_written_it() {
        const US: u32 = 1000;
        // The modes with which Kubernetes mounts files: the default mode, with `fsGroup`, and
        // read-only.
        for (mode, owner) in [(0o644, 0), (0o640, 0), (0o440, 0), (0o600, US), (0o444, US)] {
            assert_eq!(judge(mode, owner, US), Ok(()), "{mode:o} {owner}");
        }
        for mode in [0o620, 0o602, 0o666, 0o660, 0o777] {
            for owner in [0, US, 1001] {
                assert_eq!(judge(mode, owner, US), Err(UntrustedFile::Writable(mode)), "{mode:o}");
            }
        }
        let foreign = |owner, user| Err(UntrustedFile::Foreign { owner, user });
        assert_eq!(judge(0o600, 1001, US), foreign(1001, US));
        assert_eq!(judge(0o444, 1001, 0), foreign(1001, 0));
    }

    /// A mounted ConfigMap: a link to a file in a hidden directory that is itself a link, in a
    /// directory to which everyone may write.
    #[test]
    fn links_are_followed_to_what_is_judged() {
        let mount = tempfile::tempdir().unwrap();
        let hidden = mount.path().join("..2026_11_29");
        fs::create_dir(&hidden).unwrap();
        fs::write(hidden.join("a.yaml"), "text").unwrap();
        symlink("..2026_11_29", mount.path().join("..data")).unwrap();
        symlink("..data/a.yaml", mount.path().join("a.yaml")).unwrap();
        fs::set_permissions(mount.path(), Permissions::from_mode(0o777)).unwrap();
        let path = mount.path().join("a.yaml");
        for (mode, passes) in [(0o644, true), (0o440, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(hidden.join("a.yaml"), Permissions::from_mode(mode)).unwrap();
            let read = read_to_string(&path);
            assert_eq!(read.is_ok(), passes, "{mode:o}: {read:?}");
            let refused = read.err().is_none_or(|error| error.to_string().contains("chmod go-w"));
            assert!(refused, "{mode:o}");
        }
        assert_eq!(read_to_string(Path::new("/dev/null")).unwrap(), "");
    }
    #[test]
    fn what_never_ends_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let check = |path: &Path, expected: &str| {
            let error = read_to_string(path).unwrap_err().to_string();
            assert!(error.contains(expected), "{}: {error}", path.display());
        };
        check(dir.path(), "found a directory");
        // Nothing writes to it, and an ordinary open would wait.
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        check(&pipe, "found a pipe");
        check(Path::new("/dev/zero"), "at most 16 MiB");
        let long = dir.path().join("long");
        let write = |length: usize| {
            fs::write(&long, "x".repeat(length)).unwrap();
            fs::set_permissions(&long, Permissions::from_mode(0o600)).unwrap();
        };
        write(16 << 20);
        assert_eq!(read_to_string(&long).unwrap().len(), 16 << 20);
        write((16 << 20) + 1);
        check(&long, "at most 16 MiB");
    }
}
