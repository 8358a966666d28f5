//! The sources of settings: a YAML file, the environment, flags; later ones win.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use serde_saphyr::Spanned;

use super::{
    ConfigError,
    keys::{self, KEYS, Key, PREFIX},
};
use crate::{
    files::trusted,
    yaml::{self, Placed, YamlError, YamlErrorKind, YamlNode},
};

/// Names the configuration file if `--config` does not.
pub(super) const FILE_VARIABLE: &str = "PATGATE_CONFIG";

/// The whole input of the configuration.
#[derive(Clone)]
pub struct ConfigSources {
    /// The path of the YAML file. Without it, `PATGATE_CONFIG` may name one.
    pub file: Option<PathBuf>,
    /// The environment variables, by name.
    pub env: BTreeMap<String, String>,
    /// The flags, each as `key=value`.
    pub flags: Vec<String>,
    /// Reads the text of a file.
    pub read: fn(&Path) -> io::Result<String>,
}

impl ConfigSources {
    /// Returns the environment and the file system of this process.
    ///
    /// A variable that is not UTF-8 is converted lossily: if it belongs to patgate, it is then
    /// reported, and otherwise it does not matter.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<String>) -> Self {
        let env = std::env::vars_os()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
            })
            .collect();
        Self { file, env, flags, read: trusted::read_to_string }
    }
}

impl fmt::Debug for ConfigSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file", &self.file).finish_non_exhaustive()
    }
}

/// A value as text, and its source. It has no `Debug`, because it may be a secret.
pub(super) struct Setting {
    pub(super) text: String,
    pub(super) source: String,
    /// The file that holds this value alone, if there is one.
    pub(super) file: Option<PathBuf>,
}

/// The effective settings by key, defaults included.
pub(super) struct SettingTexts {
    values: BTreeMap<&'static str, Setting>,
    pub(super) mistakes: Vec<ConfigError>,
    /// Reads the text of a file.
    pub(super) read: fn(&Path) -> io::Result<String>,
}

impl SettingTexts {
    /// Reads all sources. A value that cannot be understood becomes an error, and its default is
    /// used.
    pub(super) fn collect(sources: &ConfigSources) -> Self {
        let unset = |key: &'static Key| {
            let source = if key.default.is_empty() { "not set" } else { "default" };
            let setting =
                Setting { text: key.default.to_owned(), source: source.to_owned(), file: None };
            (key.name, setting)
        };
        let values = KEYS.iter().map(unset).collect();
        let mut settings = Self { values, mistakes: Vec::new(), read: sources.read };
        let named = sources.env.get(FILE_VARIABLE).filter(|name| !name.is_empty());
        if let Some(path) = sources.file.clone().or_else(|| named.map(PathBuf::from)) {
            settings.add_file(&path, sources.read);
        }
        settings.add_environment(&sources.env, sources.read);
        settings.add_flags(&sources.flags);
        settings
    }

    pub(super) fn get(&self, name: &'static str) -> Option<&Setting> {
        self.values.get(name)
    }

    fn set(&mut self, key: &Key, text: String, source: String) {
        self.values.insert(key.name, Setting { text, source, file: None });
    }

    fn mistake(&mut self, key: &str, source: &str, expected: impl Into<String>) {
        self.mistakes.push(ConfigError {
            key: key.to_owned(),
            source_name: source.to_owned(),
            expected: expected.into(),
        });
    }

    fn add_file(&mut self, path: &Path, read: fn(&Path) -> io::Result<String>) {
        let source = path.display().to_string();
        let text = match read(path) {
            Ok(text) => text,
            Err(error) => {
                return self.mistake("--config", &source, format!("a readable file: {error}"));
            }
        };
        let mut found = Vec::new();
        match yaml::read(&text).map(|document| document.value) {
            Ok(YamlNode::Text(text)) if text.is_empty() => {}
            Ok(YamlNode::Map(entries)) => self.flatten("", entries, &source, &mut found),
            Ok(_) => self.mistake("--config", &source, "a map of keys"),
            // The parser's message may quote the file, which may hold a secret.
            Err(YamlError { line, column, kind }) => {
                let expected = match kind {
                    YamlErrorKind::KeyTwice => "each key once",
                    YamlErrorKind::Malformed(_) => "well-formed YAML",
                };
                let expected = format!("{expected} (line {line}, column {column})");
                self.mistake("--config", &source, expected);
            }
        }
        for (index, (key, text)) in found.iter().enumerate() {
            // `a.b: 1` beside `a: {b: 2}` repeats a key in a way that YAML does not detect.
            if found[..index].iter().any(|(other, _)| other.name == key.name) {
                self.mistake(key.name, &source, "each key once");
            }
            self.set(key, text.clone(), source.clone());
        }
    }

    fn flatten(
        &mut self,
        group: &str,
        entries: Vec<(Spanned<String>, Placed)>,
        source: &str,
        found: &mut Vec<(&'static Key, String)>,
    ) {
        for (name, placed) in entries {
            let name = name.value;
            let name = if group.is_empty() { name } else { format!("{group}.{name}") };
            match (keys::find(&name), placed.value) {
                (Some(key), YamlNode::Text(text)) => found.push((key, text)),
                (Some(key), YamlNode::List(items)) if keys::LISTS.contains(&key.name) => {
                    let items = items.into_iter().map(|item| item.value.into_text());
                    match items.collect::<Option<Vec<_>>>() {
                        Some(items) => found.push((key, items.join(","))),
                        None => self.mistake(&name, source, "a list of values"),
                    }
                }
                (Some(_), _) => self.mistake(&name, source, "a single value"),
                (None, YamlNode::Map(entries)) if keys::is_group(&name) => {
                    self.flatten(&name, entries, source, found);
                }
                // A group without keys.
                (None, YamlNode::Text(text)) if keys::is_group(&name) && text.is_empty() => {}
                (None, _) if keys::is_group(&name) => {
                    self.mistake(&name, source, "a map of keys");
                }
                (None, _) => self.mistake(&name, source, unknown_key(&name)),
            }
        }
    }

    fn add_environment(
        &mut self,
        env: &BTreeMap<String, String>,
        read: fn(&Path) -> io::Result<String>,
    ) {
        for key in KEYS {
            let variable = key.variable();
            let by_file = format!("{variable}_FILE");
            let path = env.get(&by_file).filter(|path| key.secret && !path.is_empty());
            match (env.get(&variable), path) {
                (Some(_), Some(_)) => {
                    self.mistake(
                        key.name,
                        &by_file,
                        format!("only one of {variable} and {by_file}"),
                    );
                }
                (Some(text), None) => self.set(key, text.clone(), variable),
                (None, Some(path)) => match read(Path::new(path)) {
                    // Nobody names a file to say nothing. Its writer has failed.
                    Ok(text) if text.trim().is_empty() => {
                        self.mistake(
                            key.name,
                            &by_file,
                            format!("a value in `{path}`, which is empty; without {by_file}, the default applies"),
                        );
                    }
                    Ok(text) => {
                        let (text, file) = (text.trim().to_owned(), Some(PathBuf::from(path)));
                        self.values.insert(key.name, Setting { text, source: by_file, file });
                    }
                    Err(error) => {
                        self.mistake(
                            key.name,
                            &by_file,
                            format!("a readable file, `{path}`: {error}"),
                        );
                    }
                },
                (None, None) => {}
            }
        }
        let known: Vec<String> = KEYS
            .iter()
            .flat_map(|key| {
                let variable = key.variable();
                let by_file = key.secret.then(|| format!("{variable}_FILE"));
                [Some(variable), by_file]
            })
            .flatten()
            .chain([FILE_VARIABLE.to_owned()])
            .collect();
        for (name, value) in env {
            if name.starts_with(PREFIX) && !known.contains(name) && !is_service_link(name, value) {
                let expected = match keys::nearest(name, known.iter().cloned()) {
                    Some(near) => format!("a variable that exists; did you mean {near}?"),
                    None => "a variable that exists".to_owned(),
                };
                self.mistake(name, "environment", expected);
            }
        }
    }

    fn add_flags(&mut self, flags: &[String]) {
        const SOURCE: &str = "--set";
        for flag in flags {
            let Some((name, text)) = flag.split_once('=') else {
                // Not repeated: it may be a secret whose key is missing.
                self.mistake("--set", "flag", "`key=value`");
                continue;
            };
            match keys::find(name) {
                // Every user of the machine can read the arguments of a process.
                Some(key) if key.secret => self.mistake(
                    name,
                    SOURCE,
                    format!(
                        "a secret from {0} or {0}_FILE, not from the command line",
                        key.variable()
                    ),
                ),
                Some(key) => self.set(key, text.to_owned(), SOURCE.to_owned()),
                None => self.mistake(name, SOURCE, unknown_key(name)),
            }
        }
    }
}

fn unknown_key(name: &str) -> String {
    match keys::nearest(name, KEYS.iter().map(|key| key.name.to_owned())) {
        Some(near) => format!("a key that exists; did you mean `{near}`?"),
        None => "a key that exists; `patgate config reference` lists them".to_owned(),
    }
}

/// Whether Kubernetes has set this variable. It puts variables of this form into every container of
/// a namespace that has a Service called `patgate` or `patgate-…`. They are not settings, and must
/// not prevent the start.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_url)
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            name.find(protocol).is_some_and(|at| {
                name[..at].contains("_PORT_")
                    && ["", "_PROTO", "_PORT", "_ADDR"].contains(&&name[at + protocol.len()..])
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_are_not_ours() {
        for (name, value) in [
            ("PATGATE_SERVICE_HOST", "10.0.0.1"),
            ("PATGATE_SERVICE_PORT", "9191"),
            ("PATGATE_SERVICE_PORT_GRPC", "9191"),
            ("PATGATE_PORT", "tcp://10.0.0.1:9191"),
            ("PATGATE_PORT_9191_TCP", "tcp://10.0.0.1:9191"),
            ("PATGATE_PORT_9191_TCP_PROTO", "tcp"),
            ("PATGATE_PORT_9191_TCP_PORT", "9191"),
            ("PATGATE_PORT_9191_TCP_ADDR", "10.0.0.1"),
            ("PATGATE_METRICS_PORT_9192_UDP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in [("PATGATE_PORT", "9191"), ("PATGATE_TCP", "x"), ("PATGATE_HOST", "x")]
        {
            assert!(!is_service_link(name, value), "{name}");
        }
        for key in KEYS {
            assert!(!is_service_link(&key.variable(), "10.0.0.1"), "{}", key.name);
        }
    }
}
