//! Writes YAML that every parser reads alike: blocks, and each text in double quotes, as JSON has it.
//! Without quotes, a backend called `1e3`, `null` or `on` would be a number, nothing or a truth for one
//! parser or the other.

use serde_json::Value;

/// Returns a value as a document of YAML, whose keys are in alphabetical order.
pub(crate) fn document(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, 0, &mut text),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut text),
        scalar => {
            text.push_str(&scalar.to_string());
            text.push('\n');
        }
    }
    text
}

fn mapping(map: &serde_json::Map<String, Value>, depth: usize, text: &mut String) {
    // The map may keep another order, if a crate of the program asks serde_json for that.
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    for (at, (key, value)) in entries.into_iter().enumerate() {
        // The first key of an item stands behind its dash.
        if at > 0 || !text.ends_with("- ") {
            text.push_str(&"  ".repeat(depth));
        }
        text.push_str(&quoted_key(key));
        text.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                text.push('\n');
                mapping(inner, depth + 1, text);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                sequence(items, depth + 1, text);
            }
            scalar => {
                text.push(' ');
                text.push_str(&scalar.to_string());
                text.push('\n');
            }
        }
    }
}

fn sequence(items: &[Value], depth: usize, text: &mut String) {
    for item in items {
        text.push_str(&"  ".repeat(depth));
        match item {
            Value::Object(inner) if !inner.is_empty() => {
                text.push_str("- ");
                mapping(inner, depth + 1, text);
            }
            // An item that is a sequence: JSON is YAML.
            other => {
                text.push_str("- ");
                text.push_str(&other.to_string());
                text.push('\n');
            }
        }
    }
}

/// Keys of the formats are words; anything else is quoted.
fn quoted_key(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
    let is_word = key.starts_with(|first: char| first.is_ascii_alphabetic())
        && key.bytes().all(plain)
        && !["y", "n", "yes", "no", "on", "off", "true", "false", "null"]
            .contains(&key.to_ascii_lowercase().as_str());
    if is_word { key.to_owned() } else { Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks() {
        let value = json!({
            "b": [{ "x": 1, "a": { "c": [] } }, "on", [1, "2"], {}],
            "a": { "@type": "t", "on": null, "e": "1e3" },
        });
        let expected = r#"a:
  "@type": "t"
  e: "1e3"
  "on": null
b:
  - a:
      c: []
    x: 1
  - "on"
  - [1,"2"]
  - {}
"#;
        assert_eq!(document(&value), expected);
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~]{0,12}",
            "[-.:#&*!|>'\"%@`{}, a0~?\\\\]{0,6}",
            "(on|no|null|~|1e3|0x1f|1_0)"
        ];
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u32>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                collection::btree_map("[ -~]{1,8}", inner, 0..4).prop_map(|map| Value::from(
                    map.into_iter().collect::<serde_json::Map<_, _>>()
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in value()) {
            let text = document(&value);
            let read: Value = serde_saphyr::from_str(&text).unwrap();
            prop_assert_eq!(read, value, "{}", text);
        }
    }
}
