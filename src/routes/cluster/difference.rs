//! Compares what an API server holds with what is wanted.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Whether all wanted texts are among those that an object has.
pub(super) fn holds(found: &BTreeMap<String, String>, wanted: &Value) -> bool {
    wanted
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| found.get(key).map(String::as_str) == value.as_str())
}

/// Returns the merge patch that makes `found` equal to `wanted`; `None` if it is equal. In a merge
/// patch, `null` removes a field, and a list replaces a list.
pub(super) fn removal(found: &Value, wanted: &Value) -> Option<Value> {
    if found == wanted {
        return None;
    }
    let (Some(have), Some(want)) = (found.as_object(), wanted.as_object()) else {
        return Some(wanted.clone());
    };
    let mut patch = Map::new();
    for key in have.keys().filter(|key| !want.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in want {
        match have.get(key) {
            None => drop(patch.insert(key.clone(), value.clone())),
            Some(old) => patch.extend(removal(old, value).map(|change| (key.clone(), change))),
        }
    }
    Some(patch.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As RFC 7396 says.
    fn merged(target: &Value, patch: &Value) -> Value {
        let Some(changes) = patch.as_object() else { return patch.clone() };
        let mut merged = target.as_object().cloned().unwrap_or_default();
        for (key, change) in changes {
            if change.is_null() {
                merged.remove(key);
            } else {
                let old = merged.get(key).cloned().unwrap_or_default();
                merged.insert(key.clone(), self::merged(&old, change));
            }
        }
        merged.into()
    }

    #[test]
    fn what_others_have_added_is_removed() {
        let wanted = json!({ "a": 1, "b": { "c": [1, 2], "d": "x" } });
        for found in [
            json!({}),
            json!({ "a": 1, "b": { "c": [1, 2], "d": "x" }, "mirror": { "host": "evil" } }),
            json!({ "a": 2, "b": { "c": [1], "e": { "f": 1 } } }),
            json!({ "b": 3 }),
        ] {
            let patch = removal(&found, &wanted).unwrap();
            assert_eq!(merged(&found, &patch), wanted, "{found}");
        }
        assert_eq!(removal(&wanted, &wanted), None);
    }

    #[test]
    fn labels() {
        let found = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into();
        assert!(holds(&found, &json!({ "a": "1" })) && holds(&found, &json!({})));
        assert!(!holds(&found, &json!({ "a": "2" })) && !holds(&found, &json!({ "c": "1" })));
    }
}
