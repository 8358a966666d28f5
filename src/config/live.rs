//! Settings that change while patgate serves.

use std::{collections::BTreeMap, fmt, sync::Arc};

use zeroize::Zeroizing;

use super::{
    Config, ConfigErrors, ConfigPurpose, ConfigSources,
    keys::{FOLLOWED, KEYS, Key, LIVE},
    sources::{FILE_VARIABLE, SettingTexts},
};

/// The text of each setting, from which a [`Config`] was built. Its `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ReadTexts(Arc<BTreeMap<&'static str, ReadText>>);

#[derive(PartialEq, Eq)]
struct ReadText {
    text: Zeroizing<String>,
    /// Whether a file held it alone.
    in_own_file: bool,
}

/// Settings as the sources held them at one time. Equal if all texts are.
#[derive(Clone)]
pub(crate) struct ReadSettings {
    /// The settings that were read from `texts`.
    pub(crate) config: Config,
}

impl ReadTexts {
    pub(super) fn of(texts: &SettingTexts) -> Self {
        let text = |key: &Key| {
            let setting = texts.get(key.name)?;
            let text = Zeroizing::new(setting.text.clone());
            Some((key.name, ReadText { text, in_own_file: setting.file.is_some() }))
        };
        Self(Arc::new(KEYS.iter().filter_map(text).collect()))
    }
}

impl fmt::Debug for ReadTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadTexts").finish_non_exhaustive()
    }
}

impl PartialEq for ReadSettings {
    fn eq(&self, other: &Self) -> bool {
        self.config.texts == other.config.texts
    }
}

impl ReadSettings {
    /// Reads the sources again, each once.
    ///
    /// # Errors
    ///
    /// Returns all errors, as [`Config::load`] does at startup: also those of settings that do not change
    /// while patgate serves, because a restart would fail.
    pub(crate) fn read(sources: &ConfigSources) -> Result<Self, ConfigErrors> {
        Ok(Self { config: Config::load(sources, ConfigPurpose::Serve)? })
    }

    /// Returns the settings that differ from those at startup and change only with a restart.
    pub(crate) fn restart_only(&self, at_startup: &Self) -> Vec<&'static str> {
        let (now, before) = (&self.config.texts.0, &at_startup.config.texts.0);
        let changes_by_itself = |name: &str| {
            let in_own_file = || now.get(name).is_some_and(|read| read.in_own_file);
            LIVE.contains(&name) || (FOLLOWED.contains(&name) && in_own_file())
        };
        let names = KEYS.iter().map(|key| key.name);
        names.filter(|name| now.get(name) != before.get(name) && !changes_by_itself(name)).collect()
    }
}

impl ConfigSources {
    /// Returns whether any of the sources is a file, which may change.
    pub(crate) fn have_files(&self) -> bool {
        let by_file =
            |key: &Key| key.secret && self.env.contains_key(&format!("{}_FILE", key.variable()));
        self.file.is_some() || self.env.contains_key(FILE_VARIABLE) || KEYS.iter().any(by_file)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// The files of addresses are read again where the addresses are used.
    #[test]
    fn a_restart_is_asked_for_only_if_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| {
            fs::write(path(name), text).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).unwrap();
        };
        for name in ["postgres", "feed", "redis", "secret", "yaml"] {
            write(name, "");
        }
        let variables = [
            ("PATGATE_POSTGRES_URL_FILE", "postgres"),
            ("PATGATE_FEED_URL_FILE", "feed"),
            ("PATGATE_REDIS_URL_FILE", "redis"),
            ("PATGATE_GRPC_SECRET_FILE", "secret"),
            ("PATGATE_KEYRING_FILE", "keyring"),
        ];
        let mut sources = ConfigSources::of_process(Some(path("yaml")), Vec::new());
        sources.env = variables
            .map(|(variable, name)| (variable.to_owned(), path(name).display().to_string()))
            .into();
        let fill = |version: &str| {
            write("postgres", &format!("postgres://u:{version}@h/db"));
            write("feed", &format!("postgres://f:{version}@h/db"));
            write("secret", &version.repeat(32));
        };
        write("redis", "redis://h");
        fill("1");
        let at_startup = ReadSettings::read(&sources).unwrap();
        fill("2");
        let read = ReadSettings::read(&sources).unwrap();
        assert!(read != at_startup);
        assert_eq!(read.restart_only(&at_startup), [""; 0]);
        write("redis", "redis://other");
        write("yaml", "max_staleness: 9s");
        let read = ReadSettings::read(&sources).unwrap();
        assert_eq!(read.restart_only(&at_startup), ["redis.url", "max_staleness"]);
        let shown = format!("{read:?}", read = read.config);
        assert!(!shown.contains("2222"), "{shown}");

        // In the configuration file, an address changes with a restart.
        sources.env.remove("PATGATE_POSTGRES_URL_FILE");
        write("yaml", "postgres.url: postgres://h/1");
        let at_startup = ReadSettings::read(&sources).unwrap();
        write("yaml", "postgres.url: postgres://h/2");
        let read = ReadSettings::read(&sources).unwrap();
        assert_eq!(read.restart_only(&at_startup), ["postgres.url"]);
    }
}
