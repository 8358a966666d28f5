//! Edits a key-ring file. A process that reads it meanwhile sees the old ring or the new one, never a
//! part of one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use crate::{
    config::read_keyring_text,
    keyring::{KeyId, KeyRing},
};

/// The file has no key of this name.
#[derive(Debug, thiserror::Error)]
#[error("key `{0}` does not exist")]
pub(in crate::cli) struct NoSuchKey(KeyId);

/// A key-ring file as it was when opened.
pub(super) struct KeyRingFile {
    path: PathBuf,
    text: Zeroizing<String>,
}

impl KeyRingFile {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        // Resolves a link, so that the edit replaces the file behind the link and not the link.
        let path = fs::canonicalize(path).with_context(|| path.display().to_string())?;
        let text = read_keyring_text(&path)?;
        KeyRing::parse(&text).with_context(|| path.display().to_string())?;
        Ok(Self { path, text })
    }

    /// Like [`Self::open`], but begins a new ring if the file does not exist.
    pub(super) fn open_or_begin(path: &Path) -> anyhow::Result<Self> {
        if fs::exists(path)? {
            return Self::open(path);
        }
        Ok(Self { path: path.to_owned(), text: Zeroizing::default() })
    }

    /// The names of the keys, the current one first.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter_map(id_of)
    }

    /// Appends a line; returns the key's name.
    pub(super) fn add(&self, line: &str) -> anyhow::Result<KeyId> {
        let id = match KeyRing::parse(line)?.ids().next() {
            Some(id) => id.clone(),
            None => bail!("no key"),
        };
        let lines = self.text.lines().chain([line]);
        self.replace(lines)?;
        Ok(id)
    }

    /// Moves a key before all others. Comments stay where they are.
    pub(super) fn promote(&self, id: &KeyId) -> anyhow::Result<()> {
        let chosen = self.find(id)?;
        let rest = self.text.lines().filter(|line| id_of(line) != Some(id.as_str()));
        let at = rest.clone().position(|line| id_of(line).is_some()).unwrap_or(0);
        self.replace(rest.clone().take(at).chain([chosen]).chain(rest.skip(at)))
    }

    pub(super) fn drop_key(&self, id: &KeyId) -> anyhow::Result<()> {
        self.find(id)?;
        self.replace(self.text.lines().filter(|line| id_of(line) != Some(id.as_str())))
    }

    fn find(&self, id: &KeyId) -> Result<&str, NoSuchKey> {
        self.text
            .lines()
            .find(|line| id_of(line) == Some(id.as_str()))
            .ok_or_else(|| NoSuchKey(id.clone()))
    }

    fn replace<'a>(&self, lines: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(self.text.len() + 256));
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        KeyRing::parse(&text)?;
        let shown = self.path.display();
        let Some(name) = self.path.file_name() else { bail!("{shown} is not a file") };
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let new = directory.join(format!(".{}.new", name.to_string_lossy()));
        let outcome = self.write_beside(&new, &text, directory);
        if outcome.as_ref().is_err_and(|error| !is_taken(error)) {
            let _ = fs::remove_file(&new);
        }
        outcome.map_err(|error| {
            if is_taken(&error) {
                return anyhow::anyhow!(
                    "{} exists: another command is editing the key ring, or was interrupted; \
                     remove the file if none is running",
                    new.display()
                );
            }
            anyhow::Error::new(error).context(format!("writing {shown}"))
        })
    }

    fn write_beside(&self, new: &Path, text: &str, directory: &Path) -> io::Result<()> {
        // The file must not exist: it is also the lock between two edits.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        if let Ok(old) = fs::metadata(&self.path) {
            // The service must still be able to read the file after an administrator has edited it.
            if (old.uid(), old.gid()) != (file.metadata()?.uid(), file.metadata()?.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o644))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, &self.path)?;
        File::open(directory)?.sync_all()
    }
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AlreadyExists
}

/// The name of the key on a line, if the line holds a key.
fn id_of(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.starts_with('#') { None } else { line.split_once(':').map(|(id, _)| id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::new_line;

    fn id(text: &str) -> KeyId {
        text.parse().unwrap()
    }

    fn ids(path: &Path) -> Vec<String> {
        KeyRingFile::open(path).unwrap().ids().map(str::to_owned).collect()
    }

    #[test]
    fn edits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring");
        assert!(KeyRingFile::open(&path).is_err());
        for name in ["a", "b", "c", "d"] {
            let line = new_line(&id(name)).unwrap();
            KeyRingFile::open_or_begin(&path).unwrap().add(&line).unwrap();
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let fifth = new_line(&id("e")).unwrap();
        assert!(KeyRingFile::open(&path).unwrap().add(&fifth).is_err());
        KeyRingFile::open(&path).unwrap().drop_key(&id("b")).unwrap();
        let repeated = new_line(&id("a")).unwrap();
        assert!(KeyRingFile::open(&path).unwrap().add(&repeated).is_err());
        KeyRingFile::open(&path).unwrap().promote(&id("d")).unwrap();
        assert_eq!(ids(&path), ["d", "a", "c"]);
        assert!(KeyRingFile::open(&path).unwrap().promote(&id("b")).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn comments_mode_and_link_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring");
        let link = directory.path().join("link");
        let lines = ["a", "b"].map(|name| new_line(&id(name)).unwrap());
        let text = format!("# old\n{}\n\n{}\n# end\n", lines[0].as_str(), lines[1].as_str());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        KeyRingFile::open(&link).unwrap().promote(&id("b")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        let expected = format!("# old\n{}\n{}\n\n# end\n", lines[1].as_str(), lines[0].as_str());
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn one_edit_at_a_time_and_none_of_a_file_that_others_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring");
        let line = new_line(&id("a")).unwrap();
        KeyRingFile::open_or_begin(&path).unwrap().add(&line).unwrap();
        let lock = directory.path().join(".ring.new");
        fs::write(&lock, "").unwrap();
        let other = new_line(&id("b")).unwrap();
        assert!(KeyRingFile::open(&path).unwrap().add(&other).is_err());
        assert!(lock.exists());
        assert_eq!(ids(&path), ["a"]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(KeyRingFile::open(&path).is_err());
    }
}
