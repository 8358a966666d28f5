//! Bodies: none makes the reader panic; whatever model it reads from JSON, serde_json reads, and no
//! other; and nothing that may follow what was shown brings in another one.
//!
//! The input is a body, of JSON if it begins with anything but `-`, else a form with boundary `b`.

#![no_main]

use std::fmt;

use libfuzzer_sys::fuzz_target;
use patgate::body::{Body, Form};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let form = if data.first() == Some(&b'-') { Form::Multipart } else { Form::Json };
    let Some(model) = read(data, form) else { return };
    assert!((1..=256).contains(&model.chars().count()) && !model.contains(char::is_control));
    for more in ["", " ", "\n", "x", "}", ",\"model\":\"n\"}", "{\"model\":\"n\"}", "--b\r\n"] {
        let longer = [data, more.as_bytes()].concat();
        assert!(read(&longer, form).is_none_or(|again| again == model), "{more:?}");
    }
    match form {
        Form::Json => {
            let Members(members) = serde_json::from_slice(data).expect("JSON for serde_json, too");
            assert_eq!(members, [("model".to_owned(), Value::from(model))]);
        }
        _ => assert_eq!(models_in_form(data), [model.as_bytes()]),
    }
});

fn read(bytes: &[u8], form: Form) -> Option<String> {
    let media_type = match form {
        Form::Json => "application/json",
        _ => "multipart/form-data; boundary=b",
    };
    let (partial, media_type) = (Some("false"), Some(media_type));
    let body = Body { bytes, partial, media_type, ..Body::default() };
    body.model(form).ok().map(|name| name.as_str().to_owned())
}

/// The members that some reader might take for `model`.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Collect)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key.split('\0').next().is_some_and(|key| key.eq_ignore_ascii_case("model")) {
                members.push((key, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Members(members))
    }
}

/// What a careless reader finds: wherever a delimiter stands, a part; in it, any `model`.
fn models_in_form(form: &[u8]) -> Vec<&[u8]> {
    let mut models = Vec::new();
    for part in split(form, b"--b") {
        let mut halves = split(part, b"\r\n\r\n");
        let head = String::from_utf8_lossy(halves.remove(0)).to_ascii_lowercase();
        let named = |line: &str| {
            let mut pieces = line.split(';').filter_map(|piece| piece.trim().strip_prefix("name="));
            pieces.any(|name| ["model", "\"model\""].contains(&name.trim()))
        };
        let mut lines = head.split(['\r', '\n']);
        if lines.any(|line| line.trim().starts_with("content-disposition") && named(line)) {
            let content = &part[head.len() + 4..];
            models.push(content.strip_suffix(b"\r\n").unwrap_or(content));
        }
    }
    models
}

fn split<'a>(mut text: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while let Some(found) = text.windows(at.len()).position(|window| window == at) {
        pieces.push(&text[..found]);
        text = &text[found + at.len()..];
    }
    pieces.push(text);
    pieces
}
