//! Compares what an API server holds with what is wanted.

use serde_json::{Map, Value, json};

use super::api::Live;

/// Returns the merge patch that makes an object what is wanted, and takes away what others have added:
/// fields of the spec, labels and annotations. A label can take an object out of use
/// (`istio.io/rev`), and an annotation can change what it means. `None` if there is no difference.
pub(super) fn correction(found: &Live, wanted: &Value) -> Option<Value> {
    let metadata = json!({ "labels": found.labels, "annotations": found.annotations });
    let has = json!({ "metadata": metadata, "spec": found.spec });
    let wants = json!({
        "metadata": {
            "labels": wanted["metadata"]["labels"],
            "annotations": wanted["metadata"]["annotations"],
        },
        "spec": wanted["spec"],
    });
    removal(&has, &wants)
}

/// Returns the merge patch that makes `found` equal to `wanted`; `None` if it is equal. In a merge
/// patch, `null` removes a field, and a list replaces a list.
fn removal(found: &Value, wanted: &Value) -> Option<Value> {
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
    use kube::api::DynamicObject;

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
    fn labels_and_annotations_of_others_are_removed() {
        let of = |labels: Value, annotations: Value| {
            let metadata =
                json!({ "name": "x", "uid": "1", "labels": labels, "annotations": annotations });
            json!({ "metadata": metadata, "spec": { "a": 1 } })
        };
        let wanted = of(json!({ "ours": "1" }), json!({ "ours": "2" }));
        let correct = |found: Value| {
            let found: DynamicObject = serde_json::from_value(found).unwrap();
            correction(&found.into(), &wanted)
        };
        assert_eq!(correct(wanted.clone()), None);
        for (labels, annotations) in [
            (json!({ "ours": "1", "istio.io/rev": "other" }), json!({ "ours": "2" })),
            (json!({ "ours": "1" }), json!({ "ours": "2", "internal.istio.io/x": "y" })),
            (json!({ "ours": "9" }), json!({ "ours": "2" })),
            (json!({ "ours": "1" }), json!({})),
        ] {
            let found = of(labels, annotations);
            let patch = correct(found.clone()).unwrap();
            assert_eq!(patch.get("spec"), None);
            assert_eq!(merged(&found, &patch), wanted, "{found}");
        }
    }
}
