//! Names of objects in Kubernetes, made from the names of backends. No two backends have the same, and
//! each name can be read back.
//!
//! The name of a backend may hold `.` and `_` and end with any of its characters; the name of an object
//! is made of letters, digits and single hyphens. So `--` begins an escape: `--d` is a dot, `--u` an
//! underscore, `--h` a hyphen that no letter or digit follows.

use std::{fmt, str::FromStr};

use patgate_core::backend::BackendName;

/// The longest label of a DNS name, in bytes.
const LONGEST_LABEL: usize = 63;
/// The zone of the names that only Istio uses.
const ZONE: &str = "patgate.internal";

/// Which of several gateways in one namespace an object belongs to: it is the value of a label, and what
/// the names of objects begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(Box<str>);

/// A text that cannot name an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 40 characters of a-z and 0-9, beginning with a letter")]
pub struct InvalidInstance;

impl Instance {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Instance {
    type Err = InvalidInstance;

    fn from_str(text: &str) -> Result<Self, InvalidInstance> {
        // Without a hyphen, the first one in the name of an object is where the instance ends.
        let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
        let fits = (1..=40).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(known);
        if fits { Ok(Self(text.into())) } else { Err(InvalidInstance) }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of the objects of a backend: a DNS subdomain of at most 230 characters.
pub(crate) fn object_name(instance: &Instance, backend: &BackendName) -> String {
    format!("{instance}-{}", escaped(backend))
}

/// The name by which Istio knows the host of a backend. No resolver has it.
pub(crate) fn internal_host(instance: &Instance, backend: &BackendName) -> String {
    let escaped = escaped(backend);
    if escaped.len() <= LONGEST_LABEL {
        return format!("{escaped}.{instance}.{ZONE}");
    }
    // More labels than the short form has, each between two letters.
    let bytes: Vec<char> = escaped.chars().collect();
    let labels = bytes.chunks(LONGEST_LABEL - 2).map(|part| {
        let part: String = part.iter().collect();
        format!("x{part}x")
    });
    let labels: Vec<String> = labels.collect();
    format!("{}.{instance}.{ZONE}", labels.join("."))
}

fn escaped(backend: &BackendName) -> String {
    let text = backend.as_str();
    let mut name = String::with_capacity(text.len() + 8);
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        let before_letter = rest.peek().is_some_and(char::is_ascii_alphanumeric);
        match character {
            '.' => name.push_str("--d"),
            '_' => name.push_str("--u"),
            '-' if !before_letter => name.push_str("--h"),
            other => name.push(other),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn name(text: &str) -> BackendName {
        text.parse().unwrap()
    }

    fn instance() -> Instance {
        "patgate".parse().unwrap()
    }

    fn unescaped(name: &str) -> String {
        let mut text = String::new();
        let mut rest = name;
        while let Some(first) = rest.chars().next() {
            let escape = rest.strip_prefix("--").and_then(|after| after.chars().next());
            let (character, taken) = match escape {
                Some('d') => ('.', 3),
                Some('u') => ('_', 3),
                Some('h') => ('-', 3),
                Some(other) => panic!("no escape: {other}"),
                None => (first, 1),
            };
            text.push(character);
            rest = &rest[taken..];
        }
        text
    }

    fn is_label(label: &str) -> bool {
        label.len() <= LONGEST_LABEL
            && !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    }

    #[test]
    fn readable_where_possible() {
        for (backend, object, host) in [
            ("model-acme", "patgate-model-acme", "model-acme.patgate.patgate.internal"),
            ("a.b", "patgate-a--db", "a--db.patgate.patgate.internal"),
            ("a_b-", "patgate-a--ub--h", "a--ub--h.patgate.patgate.internal"),
            ("a--b", "patgate-a--h-b", "a--h-b.patgate.patgate.internal"),
            ("a-d", "patgate-a-d", "a-d.patgate.patgate.internal"),
            ("a--d", "patgate-a--h-d", "a--h-d.patgate.patgate.internal"),
        ] {
            assert_eq!(object_name(&instance(), &name(backend)), object);
            assert_eq!(internal_host(&instance(), &name(backend)), host);
        }
    }

    #[test]
    fn instances() {
        for good in ["a", "patgate", "eu1"] {
            assert!(good.parse::<Instance>().is_ok());
        }
        let long = "a".repeat(41);
        for bad in ["", "1a", "-a", "a-", "eu-1", "A", "a.b", "a_b", "a/b", &long] {
            assert_eq!(bad.parse::<Instance>(), Err(InvalidInstance), "{bad}");
        }
    }

    /// Names of few different characters, so that similar ones are frequent.
    fn backend() -> impl Strategy<Value = BackendName> {
        let first = select(vec!['a', 'd', 'h', 'u', 'x', '0']);
        let rest = vec(select(vec!['a', 'd', 'h', 'u', 'x', '0', '-', '-', '.', '_']), 0..=62);
        (first, rest).prop_map(|(first, rest)| {
            let text: String = [first].into_iter().chain(rest).collect();
            name(&text)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn each_name_can_be_read_back(backend in backend()) {
            let object = object_name(&instance(), &backend);
            prop_assert!(object.len() <= 230);
            prop_assert!(is_label(&object) || object.len() > LONGEST_LABEL);
            prop_assert!(object.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(!object.ends_with('-'));
            let of_backend = object.strip_prefix("patgate-").unwrap();
            prop_assert_eq!(unescaped(of_backend), backend.as_str());
        }

        #[test]
        fn hosts_differ_as_names_do(one in backend(), other in backend()) {
            let hosts = [&one, &other].map(|backend| internal_host(&instance(), backend));
            prop_assert_eq!(hosts[0] == hosts[1], one == other);
            for host in hosts {
                prop_assert!(host.len() <= 253 && host.split('.').all(is_label), "{}", host);
            }
        }
    }

    /// `patgate` with `eu-m`, and `patgate-eu` with `m`, would be the same object.
    #[test]
    fn no_two_instances_have_the_same_object() {
        let mut texts = vec![String::new()];
        let mut all = Vec::new();
        for _ in 0..3 {
            texts = texts
                .iter()
                .flat_map(|text| ["a", "d", "-", "."].map(|c| format!("{text}{c}")))
                .collect();
            all.extend(texts.clone());
        }
        let mut seen = std::collections::BTreeMap::new();
        for instance in all.iter().filter_map(|text| text.parse::<Instance>().ok()) {
            for backend in all.iter().filter_map(|text| text.parse::<BackendName>().ok()) {
                let whose = format!("{instance} and {backend}");
                assert_eq!(seen.insert(object_name(&instance, &backend), whose), None);
            }
        }
        assert!(seen.len() > 300);
    }

    /// All names up to four characters of an alphabet that makes escapes likely.
    #[test]
    fn no_two_short_names_collide() {
        let mut texts = vec![String::new()];
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..4 {
            texts = texts
                .iter()
                .flat_map(|text| ["a", "d", "h", "u", "-", ".", "_"].map(|c| format!("{text}{c}")))
                .collect();
            for backend in texts.iter().filter_map(|text| text.parse::<BackendName>().ok()) {
                let names =
                    (object_name(&instance(), &backend), internal_host(&instance(), &backend));
                assert_eq!(seen.insert(names, backend.clone()), None, "{backend}");
            }
        }
        assert!(seen.len() > 1000);
    }
}
