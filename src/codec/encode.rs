//! Writes a check as Envoy would, to ask a replica. Nothing is decided by it.

use prost::encoding::encode_varint;

use super::{ATTRIBUTES, HEADERS, HOST, HTTP, KEY, METHOD, PATH, RAW_BODY, REQUEST, VALUE};

/// A `CheckRequest` about this request.
pub(crate) fn encode(
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, impl AsRef<str>)],
    body: &[u8],
) -> Vec<u8> {
    let mut http = Vec::new();
    for (number, text) in [(METHOD, method), (PATH, path), (HOST, host)] {
        field(number, text.as_bytes(), &mut http);
    }
    for (name, value) in headers {
        let mut entry = Vec::new();
        field(KEY, name.as_bytes(), &mut entry);
        field(VALUE, value.as_ref().as_bytes(), &mut entry);
        field(HEADERS, &entry, &mut http);
    }
    field(RAW_BODY, body, &mut http);
    [HTTP, REQUEST, ATTRIBUTES].into_iter().fold(http, |inner, number| {
        let mut outer = Vec::new();
        field(number, &inner, &mut outer);
        outer
    })
}

fn field(number: u32, bytes: &[u8], into: &mut Vec<u8>) {
    encode_varint(u64::from(number << 3 | 2), into);
    encode_varint(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}
