//! Headers as Envoy sends them with `encode_raw_headers`: in a list, each value as bytes, instead
//! of in a map.
//!
//! A check that has both, which Envoy never sends, must say the same in both: another reader of the
//! message may read the other one.

use super::{Fields, HEADERS, KEY, VALUE, Value, pair};

/// Number of the only field of `HeaderMap`.
const ENTRY: u32 = 1;
/// Number of the field of `HeaderValue` that holds the value as bytes, in addition to key and value
/// as text.
const RAW_VALUE: u32 = 3;
/// Most headers that are compared, if both are there; Envoy lets a client send 100.
pub(super) const MAX_COMPARED: usize = 1024;
/// The value of a header that occurs several times. Envoy joins such values with a comma also.
pub(super) const SEVERAL: &[u8] = b",";

type Pair<'a> = (&'a [u8], &'a [u8]);

/// Returns whether `list`, a `HeaderMap`, is well-formed, and says the same as the map of the
/// message around it, if there is one.
#[cold]
pub(super) fn agrees(message: &[u8], list: &[u8]) -> bool {
    check(message, list).unwrap_or(false)
}

fn check(message: &[u8], list: &[u8]) -> Option<bool> {
    let mut fields = Fields(message);
    let mut mapped = Vec::new();
    let mut listed = Vec::new();
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
    // If several entries of a map have one key, the last one counts.
    mapped.reverse();
    mapped.sort_by_key(|(name, _)| *name);
    mapped.dedup_by_key(|(name, _)| *name);
    listed.sort_unstable();
    Some(mapped == listed)
}

/// Returns the value of a header in a well-formed list.
pub(super) fn find<'a>(list: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut entries = Entries(Fields(list));
    let mut found = None;
    while let Some(Some((key, value))) = entries.next() {
        if key == name {
            found = Some(if found.is_some() { SEVERAL } else { value });
        }
    }
    found
}

struct Entries<'a>(Fields<'a>);

impl<'a> Entries<'a> {
    /// Returns the next field, as [`Fields::next`] does.
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

/// Reads a `HeaderValue`, which has its value as text or as bytes.
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
