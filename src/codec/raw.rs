//! Headers as Envoy sends them with `encode_raw_headers`: in a list, each value as bytes, instead of
//! in a map.
//!
//! A check that has both, which Envoy sends never, must say the same in both: another reader of the
//! same message may read the other one.

use super::{Fields, HEADERS, KEY, VALUE, Value, pair};

/// Field number of the one field of `HeaderMap`.
const ENTRY: u32 = 1;
/// That of `HeaderValue` beside its key and its value as text.
const RAW_VALUE: u32 = 3;
/// Headers that are compared, where there is something to compare; Envoy lets a client send 100.
pub(super) const MAX_COMPARED: usize = 1024;
/// What a header says that is there several times. Where Envoy joins them, there is a comma, too.
pub(super) const SEVERAL: &[u8] = b",";

type Pair<'a> = (&'a [u8], &'a [u8]);

/// Whether `list`, a `HeaderMap`, is well-formed, and says what the map of the message around it
/// says, if that has one.
#[cold]
pub(super) fn agrees(message: &[u8], list: &[u8]) -> bool {
    check(message, list).unwrap_or(false)
}

fn check(message: &[u8], list: &[u8]) -> Option<bool> {
    let mut fields = Fields(message);
    let (mut mapped, mut listed) = (Vec::new(), Vec::new());
    while let Some(field) = fields.next()? {
        if let (HEADERS, Value::Bytes(header)) = field {
            mapped.push(pair(header)?);
            if mapped.len() > MAX_COMPARED {
                return None;
            }
        }
    }
    let mut entries = Entries(Fields(list));
    while let Some(entry) = entries.next()? {
        if !mapped.is_empty() {
            listed.push(entry);
            if listed.len() > MAX_COMPARED {
                return None;
            }
        }
    }
    if mapped.is_empty() {
        return Some(true);
    }
    // Of several entries with one key, the last one counts in a map.
    mapped.reverse();
    mapped.sort_by_key(|(name, _)| *name);
    mapped.dedup_by_key(|(name, _)| *name);
    listed.sort_unstable();
    Some(mapped == listed)
}

/// The value of a header in a well-formed list.
pub(super) fn find<'a>(list: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (mut entries, mut found) = (Entries(Fields(list)), None);
    while let Some(Some((key, value))) = entries.next() {
        if key == name {
            found = Some(if found.is_some() { SEVERAL } else { value });
        }
    }
    found
}

struct Entries<'a>(Fields<'a>);

impl<'a> Entries<'a> {
    /// As [`Fields::next`].
    #[expect(clippy::option_option, reason = "`?` for what is malformed, `while let` for the end")]
    fn next(&mut self) -> Option<Option<Pair<'a>>> {
        while let Some(field) = self.0.next()? {
            match field {
                (ENTRY, Value::Bytes(header)) => return Some(Some(header_value(header)?)),
                (ENTRY, Value::Number) => return None,
                _ => {}
            }
        }
        Some(None)
    }
}

/// A `HeaderValue`, which has its value as text or as bytes.
fn header_value(header: &[u8]) -> Option<Pair<'_>> {
    let (mut key, mut text, mut raw): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    let mut fields = Fields(header);
    while let Some(field) = fields.next()? {
        match field {
            (KEY, Value::Bytes(bytes)) => key = bytes,
            (VALUE, Value::Bytes(bytes)) => text = bytes,
            (RAW_VALUE, Value::Bytes(bytes)) => raw = bytes,
            (KEY | VALUE | RAW_VALUE, Value::Number) => return None,
            _ => {}
        }
    }
    match (text, raw) {
        (value, []) | ([], value) => Some((key, value)),
        _ => None,
    }
}
