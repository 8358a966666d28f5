//! Keeps one file in a folder, which a gateway watches. The file is replaced by renaming, so a reader
//! sees the old content or the new one.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use patgate_routes::{Plan, Target};

/// The file whose lock says which process writes.
const LOCK: &str = ".patgate-sync.lock";

/// A folder, for one target.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    target: Target,
    allow_empty: bool,
    /// Held until this is dropped, if this process writes.
    lock: Option<File>,
}

/// Why the file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{}: no backend is left, so the file stays as it is; if all routes shall go, run this once with \
         --allow-empty",
        path.display()
    )]
    NothingLeft { path: PathBuf },
}

impl Folder {
    pub(crate) fn new(path: &Path, target: Target, allow_empty: bool) -> Self {
        Self { path: path.to_owned(), target, allow_empty, lock: None }
    }

    /// Returns whether this process writes: it takes the lock of the folder, unless another has it.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub(crate) fn leads(&mut self) -> Result<bool, FolderError> {
        if self.lock.is_some() {
            return Ok(true);
        }
        let path = self.path.join(LOCK);
        let failed = |error| FolderError::Io { path: path.clone(), error };
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => self.lock = Some(file),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(true)
    }

    /// Writes the file if its content differs. Returns whether it did.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or would lose its last backend.
    pub(crate) fn keep(&self, plan: &Plan) -> Result<bool, FolderError> {
        let path = self.path.join(self.target.gateway.file_name());
        let failed = |error| FolderError::Io { path: path.clone(), error };
        let text = plan.file(&self.target);
        let found = match fs::read(&path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if found.as_deref() == Some(text.as_bytes()) {
            return Ok(false);
        }
        if plan.is_empty() && found.is_some() && !self.allow_empty {
            return Err(FolderError::NothingLeft { path });
        }
        self.replace(&path, &text).map_err(failed)?;
        Ok(true)
    }

    fn replace(&self, path: &Path, text: &str) -> io::Result<()> {
        // In the same folder, so that renaming is one step.
        let name = format!(".{}.{}", self.target.gateway.file_name(), std::process::id());
        let temporary = self.path.join(name);
        let written = (|| {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use patgate_routes::{Described, Gateway, Rules};

    use super::*;

    fn plan(names: &[&str]) -> Plan {
        let described: Vec<_> = names
            .iter()
            .map(|name| Described {
                name: (*name).to_owned(),
                url: "http://10.20.0.7:8001".to_owned(),
                kind: "vllm".to_owned(),
            })
            .collect();
        let networks = vec!["10.20.0.0/16".parse().unwrap()];
        Plan::of(&described, &Rules { networks, ..Rules::default() })
    }

    fn folder(path: &Path, allow_empty: bool) -> Folder {
        let target = Target {
            gateway: Gateway::Envoy,
            namespace: String::new(),
            gateway_name: String::new(),
            listeners: Vec::new(),
            instance: "patgate".parse().unwrap(),
            installation: String::new(),
            authorities: None,
        };
        Folder::new(path, target, allow_empty)
    }

    #[test]
    fn the_last_backend_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clusters.yaml");
        let kept = folder(dir.path(), false);
        // At first, Envoy needs a file.
        assert!(kept.keep(&plan(&[])).unwrap());
        assert!(kept.keep(&plan(&["a"])).unwrap());
        assert!(!kept.keep(&plan(&["a"])).unwrap());
        let one = fs::read(&file).unwrap();
        assert!(kept.keep(&plan(&["a", "b"])).unwrap());
        assert!(kept.keep(&plan(&["a"])).unwrap());
        assert_eq!(fs::read(&file).unwrap(), one);
        let refused = kept.keep(&plan(&[])).unwrap_err();
        assert!(matches!(refused, FolderError::NothingLeft { .. }), "{refused}");
        assert_eq!(fs::read(&file).unwrap(), one);
        assert!(folder(dir.path(), true).keep(&plan(&[])).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "resources: []\n");
        // Nothing else is left behind.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_changed_by_hand_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clusters.yaml");
        let kept = folder(dir.path(), false);
        kept.keep(&plan(&["a"])).unwrap();
        let one = fs::read(&file).unwrap();
        fs::write(&file, "resources: []\n").unwrap();
        assert!(kept.keep(&plan(&["a"])).unwrap());
        fs::remove_file(&file).unwrap();
        assert!(kept.keep(&plan(&["a"])).unwrap());
        assert_eq!(fs::read(&file).unwrap(), one);
    }

    #[test]
    fn one_process_writes() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = folder(dir.path(), false);
        let mut second = folder(dir.path(), false);
        assert!(first.leads().unwrap() && !second.leads().unwrap() && first.leads().unwrap());
        drop(first);
        assert!(second.leads().unwrap());
        let mut nowhere = folder(&dir.path().join("missing"), false);
        assert!(nowhere.leads().is_err());
    }
}
