//! Keeps one file in a folder, which a gateway watches. The file is replaced by renaming, so a reader
//! sees the old content or the new one.
//!
//! What is in the folder decides where the gateway sends credentials. So a folder is refused if others may
//! write to it, and no link in it is followed. The file names the installation that has written it, and
//! no other one replaces it: a copy of the database, pointed at the folder of production, changes nothing.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use patgate_routes::{Plan, Target, installation_of};

use crate::{
    files::trusted::{self, ReadError, UntrustedFile},
    installation::Installation,
};

/// The file whose lock says which process writes.
const LOCK: &str = ".patgate-sync.lock";

/// The mode of the files: everyone may read them, and only this user writes.
const MODE: u32 = 0o644;

/// A folder, for one target.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    target: Target,
    allow_empty: bool,
    /// Whether a file of another installation is taken over.
    adopt: bool,
    /// Whether this process has found the file to be its own, or has written it. Then a file that names
    /// no installation was changed by hand, and is restored.
    owned: bool,
    /// Held until this is dropped, if this process writes.
    lock: Option<File>,
}

/// Why the file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: {why}", path.display())]
    Untrusted { path: PathBuf, why: UntrustedFile },
    #[error(
        "{}: no backend is left, so the file stays as it is; if all routes shall go, run this once with \
         --allow-empty",
        path.display()
    )]
    NothingLeft { path: PathBuf },
    #[error(
        "{}: another installation of patgate has written it ({found}; this database is {own}), so the \
         file stays as it is; if this database takes the place of that one, run this once with --adopt",
        path.display()
    )]
    AnotherInstallation { path: PathBuf, found: String, own: Installation },
    #[error(
        "{}: it does not say which installation of patgate has written it, so the file stays as it is; \
         if this database decides where its gateway sends requests, run this once with --adopt",
        path.display()
    )]
    NoInstallation { path: PathBuf },
}

impl Folder {
    pub(crate) fn new(path: &Path, target: Target, allow_empty: bool, adopt: bool) -> Self {
        Self { path: path.to_owned(), target, allow_empty, adopt, owned: false, lock: None }
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
        self.check()?;
        let path = self.path.join(LOCK);
        let opened = trusted::open(File::options().create(true).append(true).mode(MODE), &path);
        let file = opened.map_err(|error| FolderError::of(&path, error))?;
        match file.try_lock() {
            Ok(()) => self.lock = Some(file),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(FolderError::Io { path, error }),
        }
        Ok(true)
    }

    /// Writes the file if its content differs. Returns whether it did. `own` is the installation whose
    /// backends are in the plan.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, is of another installation, or would lose its last backend.
    pub(crate) fn keep(&mut self, plan: &Plan, own: Installation) -> Result<bool, FolderError> {
        self.check()?;
        self.target.installation = own.to_string();
        let path = self.path.join(self.target.gateway.file_name());
        let failed = |error| FolderError::Io { path: path.clone(), error };
        let text = plan.file(&self.target);
        let found = match trusted::open(File::options().read(true), &path) {
            Ok(mut file) => {
                let mut found = Vec::new();
                file.read_to_end(&mut found).map_err(failed)?;
                Some(found)
            }
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(FolderError::of(&path, error)),
        };
        self.permit(found.as_deref(), own, &path)?;
        if found.as_deref() == Some(text.as_bytes()) {
            self.owned = true;
            return Ok(false);
        }
        if plan.is_empty() && found.is_some() && !self.allow_empty {
            return Err(FolderError::NothingLeft { path });
        }
        self.replace(&path, &text).map_err(failed)?;
        self.owned = true;
        Ok(true)
    }

    /// Checks that a file may be replaced by this installation.
    fn permit(
        &self,
        found: Option<&[u8]>,
        own: Installation,
        path: &Path,
    ) -> Result<(), FolderError> {
        let Some(found) = found.filter(|_| !self.adopt) else { return Ok(()) };
        match installation_of(found) {
            Some(named) if named == self.target.installation => Ok(()),
            // It may be any text.
            Some(named) => Err(FolderError::AnotherInstallation {
                path: path.to_owned(),
                found: named.escape_debug().take(100).collect(),
                own,
            }),
            None if self.owned => Ok(()),
            None => Err(FolderError::NoInstallation { path: path.to_owned() }),
        }
    }

    fn check(&self) -> Result<(), FolderError> {
        trusted::check_folder(&self.path).map_err(|error| FolderError::of(&self.path, error))
    }

    fn replace(&self, path: &Path, text: &str) -> io::Result<()> {
        // In the same folder, so that renaming is one step.
        let temporary = self.path.join(format!(".{}.new", self.target.gateway.file_name()));
        let written = (|| {
            // Left by a process that was killed. A link is removed itself, not what it leads to.
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = File::options().write(true).create_new(true).open(&temporary)?;
            // The gateway may run as another user. The file holds no secret.
            file.set_permissions(Permissions::from_mode(MODE))?;
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

impl FolderError {
    fn of(path: &Path, error: ReadError) -> Self {
        let path = path.to_owned();
        match error {
            ReadError::Io(error) => Self::Io { path, error },
            ReadError::Untrusted(why) => Self::Untrusted { path, why },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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

    fn own() -> Installation {
        "7/16384/00000000-0000-0000-0000-000000000001".parse().unwrap()
    }

    /// A dump of that database, restored beside it.
    fn restored() -> Installation {
        "7/16385/00000000-0000-0000-0000-000000000001".parse().unwrap()
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
        Folder::new(path, target, allow_empty, false)
    }

    #[test]
    fn the_last_backend_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clusters.yaml");
        let mut kept = folder(dir.path(), false);
        // At first, Envoy needs a file.
        assert!(kept.keep(&plan(&[]), own()).unwrap());
        assert!(kept.keep(&plan(&["a"]), own()).unwrap());
        assert!(!kept.keep(&plan(&["a"]), own()).unwrap());
        let one = fs::read(&file).unwrap();
        assert!(kept.keep(&plan(&["a", "b"]), own()).unwrap());
        assert!(kept.keep(&plan(&["a"]), own()).unwrap());
        assert_eq!(fs::read(&file).unwrap(), one);
        let refused = kept.keep(&plan(&[]), own()).unwrap_err();
        assert!(matches!(refused, FolderError::NothingLeft { .. }), "{refused}");
        assert_eq!(fs::read(&file).unwrap(), one);
        assert!(folder(dir.path(), true).keep(&plan(&[]), own()).unwrap());
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("# patgate/installation: {}\nresources: []\n", own()));
        // Nothing else is left behind.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_changed_by_hand_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clusters.yaml");
        let mut kept = folder(dir.path(), false);
        kept.keep(&plan(&["a"]), own()).unwrap();
        let one = fs::read(&file).unwrap();
        fs::write(&file, "resources: []\n").unwrap();
        assert!(kept.keep(&plan(&["a"]), own()).unwrap());
        fs::remove_file(&file).unwrap();
        assert!(kept.keep(&plan(&["a"]), own()).unwrap());
        assert_eq!(fs::read(&file).unwrap(), one);
    }

    #[test]
    fn another_installation_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clusters.yaml");
        folder(dir.path(), false).keep(&plan(&["a"]), own()).unwrap();
        let text = fs::read(&file).unwrap();
        // Neither with other backends, nor with the same.
        for names in [&["a", "b"][..], &["a"]] {
            let refused = folder(dir.path(), false).keep(&plan(names), restored()).unwrap_err();
            assert!(matches!(refused, FolderError::AnotherInstallation { .. }), "{refused}");
            let told = refused.to_string();
            assert!(told.contains(&own().to_string()) && told.contains("--adopt"), "{told}");
            assert_eq!(fs::read(&file).unwrap(), text);
        }
        // The own installation needs no word.
        assert!(!folder(dir.path(), false).keep(&plan(&["a"]), own()).unwrap());
        let adopting = |names: &[&str], allow_empty| {
            let mut adopting = folder(dir.path(), allow_empty);
            adopting.adopt = true;
            adopting.keep(&plan(names), restored())
        };
        let refused = adopting(&[], false).unwrap_err();
        assert!(matches!(refused, FolderError::NothingLeft { .. }), "{refused}");
        assert!(adopting(&["a"], false).unwrap());
        assert!(!folder(dir.path(), false).keep(&plan(&["a"]), restored()).unwrap());
        let refused = folder(dir.path(), false).keep(&plan(&["a"]), own()).unwrap_err();
        assert!(matches!(refused, FolderError::AnotherInstallation { .. }), "{refused}");
        // The empty file names it, too.
        assert!(adopting(&[], true).unwrap());
        assert!(folder(dir.path(), false).keep(&plan(&["a"]), own()).is_err());
    }

    /// A file of an earlier release, or one that was made by hand.
    #[test]
    fn a_file_that_names_no_installation_is_not_replaced() {
        for text in ["resources: []\n", "", "# patgate/installation: \nresources: []\n"] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("clusters.yaml");
            fs::write(&file, text).unwrap();
            let mut kept = folder(dir.path(), false);
            let refused = kept.keep(&plan(&["a"]), own()).unwrap_err();
            assert!(matches!(refused, FolderError::NoInstallation { .. }), "{refused}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            kept.adopt = true;
            assert!(kept.keep(&plan(&["a"]), own()).unwrap());
        }
        // Half of a line is another name, and is no prefix of the own one.
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("clusters.yaml"), "# patgate/installation: 7/163").unwrap();
        let refused = folder(dir.path(), false).keep(&plan(&["a"]), own()).unwrap_err();
        assert!(matches!(refused, FolderError::AnotherInstallation { .. }), "{refused}");
    }

    /// A process that goes on does not take back what another one has taken over meanwhile.
    #[test]
    fn a_running_process_sees_that_its_file_was_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = folder(dir.path(), false);
        assert!(running.keep(&plan(&["a"]), own()).unwrap());
        let mut other = folder(dir.path(), false);
        other.adopt = true;
        assert!(other.keep(&plan(&["b"]), restored()).unwrap());
        let refused = running.keep(&plan(&["a"]), own()).unwrap_err();
        assert!(matches!(refused, FolderError::AnotherInstallation { .. }), "{refused}");
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = folder(dir.path(), false);
        for (mode, is_refused) in
            [(0o777, true), (0o775, true), (0o757, true), (0o755, false), (0o1777, false)]
        {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            for outcome in [kept.keep(&plan(&["a"]), own()), kept.leads()] {
                let refused = matches!(outcome, Err(FolderError::Untrusted { .. }));
                assert_eq!(refused, is_refused, "{mode:o}: {outcome:?}");
            }
            kept.lock = None;
        }
    }

    #[test]
    fn links_and_pipes_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        fs::write(elsewhere.path(), "kept").unwrap();
        let mut kept = folder(dir.path(), false);
        // In the place of the temporary file: the link goes, and what it leads to stays.
        symlink(elsewhere.path(), dir.path().join(".clusters.yaml.new")).unwrap();
        assert!(kept.keep(&plan(&["a"]), own()).unwrap());
        let file = dir.path().join("clusters.yaml");
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
        assert_eq!(mode(&file), 0o644);
        // In the place of the file.
        fs::remove_file(&file).unwrap();
        symlink(elsewhere.path(), &file).unwrap();
        assert!(matches!(kept.keep(&plan(&["a"]), own()), Err(FolderError::Io { .. })));
        // In the place of the lock: a link, and a pipe, which nobody reads.
        let lock = dir.path().join(LOCK);
        symlink(elsewhere.path(), &lock).unwrap();
        assert!(matches!(kept.leads(), Err(FolderError::Io { .. })));
        fs::remove_file(&lock).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&lock).status().unwrap();
        assert!(made.success());
        assert!(matches!(kept.leads(), Err(FolderError::Io { .. })));
        assert_eq!(fs::read_to_string(elsewhere.path()).unwrap(), "kept");
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = folder(dir.path(), false);
        assert!(kept.keep(&plan(&["a"]), own()).unwrap());
        let file = dir.path().join("clusters.yaml");
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(kept.keep(&plan(&["a"]), own()), Err(FolderError::Untrusted { .. })));
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
