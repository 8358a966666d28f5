//! Fuzzes bodies: no body makes the reader panic. If it reads a model from JSON, serde_json reads
//! the same model; and nothing that may follow the shown bytes brings in another model.
//!
//! The input is a body: a form with boundary `b` if it begins with `-`; a zstd frame if it begins
//! like one; the deflated content of a gzip member if it begins with 0x1f, which is removed;
//! otherwise JSON. The model that is read from a compressed body must be the one in the output of
//! other decoders.

#![no_main]

use std::{fmt, io::Read};

use flate2::read::DeflateDecoder;
use libfuzzer_sys::fuzz_target;
use patgate::body::{Body, BodyForm};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

fuzz_target!(|data: &[u8]| match data {
    [0x1f, deflated @ ..] => gzip(deflated),
    [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd(data),
    [b'-', ..] => plain(data, BodyForm::Multipart),
    _ => plain(data, BodyForm::Json),
});

fn plain(data: &[u8], form: BodyForm) {
    let Some(model) = read(data, form, None) else { return };
    assert!((1..=256).contains(&model.chars().count()) && !model.contains(char::is_control));
    for more in ["", " ", "\n", "x", "}", ",\"model\":\"n\"}", "{\"model\":\"n\"}", "--b\r\n"] {
        let longer = [data, more.as_bytes()].concat();
        assert!(read(&longer, form, None).is_none_or(|again| again == model), "{more:?}");
    }
    match form {
        BodyForm::Json if is_odd(data) => {}
        BodyForm::Json => {
            let Members(members) = serde_json::from_slice(data).expect("JSON for serde_json also");
            assert_eq!(members, [("model".to_owned(), Value::from(model))]);
        }
        _ => assert_eq!(models_in_form(data), [model.as_bytes()]),
    }
}

/// Returns whether the text has something that serde_json refuses.
fn is_odd(data: &[u8]) -> bool {
    let odd = ["\u{feff}", "NaN", "Infinity", "\\ud", "\\uD"];
    odd.iter().any(|odd| data.windows(odd.len()).any(|window| window == odd.as_bytes()))
}

/// Builds a gzip member around deflated bytes, with the checksum of another decoder's output.
fn gzip(deflated: &[u8]) {
    let mut decoder = DeflateDecoder::new(deflated);
    let mut text = Vec::new();
    let decoded = decoder.by_ref().take(1 << 20).read_to_end(&mut text).is_ok();
    let mut checksum = flate2::Crc::new();
    checksum.update(&text);
    let (sum, length) = (checksum.sum().to_le_bytes(), checksum.amount().to_le_bytes());
    let member = [&b"\x1f\x8b\x08\0\0\0\0\0\0\xff"[..], deflated, &sum, &length].concat();
    if let Some(model) = read(&member, BodyForm::Json, Some("gzip")) {
        assert!(decoded && decoder.total_in() == deflated.len() as u64);
        assert_eq!(read(&text, BodyForm::Json, None), Some(model));
    }
}

fn zstd(frame: &[u8]) {
    let Some(model) = read(frame, BodyForm::Json, Some("zstd")) else { return };
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(frame).expect("a frame");
    let mut text = Vec::new();
    decoder.read_to_end(&mut text).expect("a whole frame");
    assert_eq!(read(&text, BodyForm::Json, None), Some(model));
}

fn read(bytes: &[u8], form: BodyForm, encoding: Option<&str>) -> Option<String> {
    let media_type = match form {
        BodyForm::Json => "application/json",
        _ => "multipart/form-data; boundary=b",
    };
    let (partial, media_type) = (Some("false"), Some(media_type));
    let body = Body { bytes, partial, media_type, encoding, ..Body::default() };
    body.model(form).ok().map(|name| name.as_str().to_owned())
}

/// The members that some reader might read as `model`.
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

/// Returns what a careless reader finds: a part wherever a delimiter stands, and any `model` in it.
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
