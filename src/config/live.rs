//! Settings that change while patgate serves.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::{
    Config, ConfigErrors, ConfigPurpose, ConfigSources,
    keys::{KEYS, Key, LIVE},
    sources::{FILE_VARIABLE, SettingTexts},
};

/// The settings as the sources hold them now. Equal if all texts are.
#[derive(Clone)]
pub(crate) struct ReadSettings {
    /// The settings that were read from `texts`.
    pub(crate) config: Config,
    texts: BTreeMap<&'static str, Zeroizing<String>>,
}

impl PartialEq for ReadSettings {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl ReadSettings {
    /// Reads the sources again.
    ///
    /// # Errors
    ///
    /// Returns all errors, as [`Config::load`] does at startup: also those of settings that do not change
    /// while patgate serves, because a restart would fail.
    pub(crate) fn read(sources: &ConfigSources) -> Result<Self, ConfigErrors> {
        let config = Config::load(sources, ConfigPurpose::Serve)?;
        let texts = SettingTexts::collect(sources);
        let text = |name| texts.get(name).map(|setting| Zeroizing::new(setting.text.clone()));
        let texts = KEYS.iter().filter_map(|key| Some((key.name, text(key.name)?))).collect();
        Ok(Self { config, texts })
    }

    /// Returns the settings that differ from those at startup and change only with a restart.
    pub(crate) fn restart_only(&self, at_startup: &Self) -> Vec<&'static str> {
        let differs = |name: &&'static str| self.texts.get(name) != at_startup.texts.get(name);
        let names = KEYS.iter().map(|key| key.name).filter(differs);
        names.filter(|name| !LIVE.contains(name)).collect()
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
