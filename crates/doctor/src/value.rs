//! Reads single settings of a JSON value as protobuf writes them, in any of its spellings.

use serde_json::Value;

const NOTHING: &Value = &Value::Null;

/// Settings of a message, by paths such as `a/b`. Unknown and missing ones are `Null`, empty or `None`.
pub(crate) trait Read {
    fn at(&self, path: &str) -> &Value;
    /// The entry with exactly this key, which may contain anything.
    fn entry(&self, key: &str) -> &Value;

    fn text(&self, path: &str) -> Option<&str> {
        self.at(path).as_str()
    }

    /// A boolean, bare or wrapped in `value` or `default_value`.
    fn flag(&self, path: &str) -> Option<bool> {
        let value = self.at(path);
        value.as_bool().or_else(|| value.get("value")?.as_bool()).or_else(|| {
            let value = value.get("default_value")?;
            value.as_bool().or_else(|| value.get("value")?.as_bool())
        })
    }

    fn is_on(&self, path: &str) -> bool {
        self.flag(path) == Some(true)
    }

    /// A number, which protobuf writes as a text if it has 64 bits.
    fn number(&self, path: &str) -> Option<u64> {
        let value = self.at(path);
        value
            .as_u64()
            .or_else(|| value.as_str()?.parse().ok())
            .or_else(|| value.get("value")?.as_u64())
    }

    /// A duration in seconds, from a text such as `0.25s`.
    fn seconds(&self, path: &str) -> Option<f64> {
        let value = self.at(path);
        if let Some(text) = value.as_str() {
            return text.strip_suffix('s')?.parse().ok();
        }
        let seconds = value.get("seconds").and_then(Value::as_f64);
        let nanos = value.get("nanos").and_then(Value::as_f64);
        (seconds.is_some() || nanos.is_some())
            .then(|| seconds.unwrap_or_default() + nanos.unwrap_or_default() / 1e9)
    }

    fn list(&self, path: &str) -> &[Value] {
        self.at(path).as_array().map_or(&[], Vec::as_slice)
    }

    fn has(&self, path: &str) -> bool {
        !self.at(path).is_null()
    }

    /// The last part of the name of the message's type, such as `ExtAuthz`.
    fn type_name(&self) -> &str {
        self.text("@type").and_then(|url| url.rsplit(['.', '/']).next()).unwrap_or_default()
    }
}

impl Read for Value {
    fn at(&self, path: &str) -> &Value {
        path.split('/').filter(|part| !part.is_empty()).fold(self, |value, part| {
            match value {
                Value::Array(items) => part.parse().ok().and_then(|at: usize| items.get(at)),
                _ => value.get(part).or_else(|| value.get(camel(part))),
            }
            .unwrap_or(NOTHING)
        })
    }

    fn entry(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(NOTHING)
    }
}

/// The spelling of a field's name in protobuf's own JSON, which some tools print.
fn camel(name: &str) -> String {
    let mut upper = false;
    let mut camel = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '_' => upper = true,
            c if upper => {
                camel.extend(c.to_uppercase());
                upper = false;
            }
            c => camel.push(c),
        }
    }
    camel
}

/// The pairs of a map.
pub(crate) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A message of any type, without the wrappings in which Envoy accepts it.
pub(crate) fn unwrapped(config: &Value) -> Value {
    if config.type_name() != "TypedStruct" {
        return config.clone();
    }
    let mut inner = config.at("value").clone();
    if let (Value::Object(fields), Some(url)) = (&mut inner, config.text("type_url")) {
        fields.insert("@type".to_owned(), url.into());
    }
    inner
}

/// Every text in a value.
pub(crate) fn texts<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|item| texts(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_spellings_of_protobuf_are_read() {
        let value = json!({
            "failureModeAllow": true, "wrapped": { "value": true }, "share": { "default_value": true },
            "long": "33554432", "short": 5, "wait": "0.250s", "parts": { "seconds": 1, "nanos": 500000000 },
            "typed": { "@type": "type.googleapis.com/envoy.config.A" },
        });
        assert!(
            value.is_on("failure_mode_allow") && value.is_on("wrapped") && value.is_on("share")
        );
        assert_eq!((value.number("long"), value.number("short")), (Some(33_554_432), Some(5)));
        assert_eq!((value.seconds("wait"), value.seconds("parts")), (Some(0.25), Some(1.5)));
        assert_eq!(value.at("typed").type_name(), "A");
        assert!(!value.has("missing/deeper") && value.list("missing").is_empty());
    }
}
