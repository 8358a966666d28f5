//! Computes what a generated decoder reads from a message, restricted to what patgate reads, and
//! what patgate refuses on purpose. The decoder's test and its fuzz target compare the decoder with
//! it.

use std::collections::BTreeMap;

use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::HttpRequest;

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodeRefusal {
    /// No decoder reads the message.
    Malformed,
    /// The message has no request.
    Absent,
    /// A field occurs twice, which other decoders merge.
    Repeated,
    /// The message has groups, which other decoders skip.
    Group,
    /// Map and list of headers disagree, and another decoder might read the other one.
    Disagreeing,
}

// A message that may occur once is declared as a list, so that it can be counted. Headers are
// bytes, so that a reader can detect a value that is not UTF-8.

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, repeated, tag = "4")]
    request: Vec<Request>,
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "2")]
    http: Vec<Http>,
}

#[derive(Clone, PartialEq, Message)]
struct Http {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(message, repeated, tag = "3")]
    headers: Vec<Header>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(bytes = "vec", tag = "12")]
    raw_body: Vec<u8>,
    #[prost(message, repeated, tag = "13")]
    header_map: Vec<HeaderMap>,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderMap {
    #[prost(message, repeated, tag = "1")]
    headers: Vec<RawHeader>,
}

#[derive(Clone, PartialEq, Message)]
struct RawHeader {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    raw_value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The field numbers from the message down to a header, in which something is read.
pub(super) const WAY: [u32; 4] = [1, 4, 2, 3];
/// The field numbers down to a header in a list.
const RAW_WAY: [u32; 5] = [1, 4, 2, 13, 1];
/// Most headers that are compared.
const MAX_COMPARED: usize = 1024;

fn expected(bytes: &[u8]) -> Result<Http, DecodeRefusal> {
    let message = CheckRequest::decode(bytes).map_err(|_| DecodeRefusal::Malformed)?;
    let is_group = |_, _, kind| kind == WireType::StartGroup;
    if any_field(bytes, &WAY, &is_group) || any_field(bytes, &RAW_WAY, &is_group) {
        return Err(DecodeRefusal::Group);
    }
    let attributes = only(message.attributes)?;
    let http = only(only(attributes.request)?.http)?;
    if http.header_map.len() > 1 {
        return Err(DecodeRefusal::Repeated);
    }
    if http.header_map.iter().any(|list| !agrees(&http.headers, &list.headers)) {
        return Err(DecodeRefusal::Disagreeing);
    }
    Ok(http)
}

fn agrees(map: &[Header], list: &[RawHeader]) -> bool {
    if list.iter().any(|header| !header.value.is_empty() && !header.raw_value.is_empty()) {
        return false;
    }
    if map.is_empty() {
        return true;
    }
    let mapped: BTreeMap<_, _> = map.iter().map(|header| (&header.key, &header.value)).collect();
    let listed: BTreeMap<_, _> = list.iter().map(|header| (&header.key, header.said())).collect();
    map.len().max(list.len()) <= MAX_COMPARED && listed.len() == list.len() && mapped == listed
}

impl RawHeader {
    fn said(&self) -> &Vec<u8> {
        if self.raw_value.is_empty() { &self.value } else { &self.raw_value }
    }
}

impl Http {
    /// Returns the value of a header, in either form.
    fn header(&self, name: &str) -> Option<&[u8]> {
        let name = name.as_bytes();
        let Some(list) = self.header_map.first() else {
            return self.headers.iter().rfind(|header| header.key == name).map(|h| &*h.value);
        };
        let mut named = list.headers.iter().filter(|header| header.key == name);
        let first = named.next()?;
        Some(if named.next().is_some() { b"," } else { first.said() })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let listed = self.header_map.iter().flat_map(|list| &list.headers).map(|h| &h.key);
        let names = self.headers.iter().map(|header| &header.key).chain(listed);
        names.filter_map(|name| str::from_utf8(name).ok())
    }
}

fn only<M>(mut messages: Vec<M>) -> Result<M, DecodeRefusal> {
    let last = messages.pop().ok_or(DecodeRefusal::Absent)?;
    if messages.is_empty() { Ok(last) } else { Err(DecodeRefusal::Repeated) }
}

/// Returns whether `is_such` holds for a field on the path. Its arguments are the remaining steps
/// of the path, the field's number, and its type.
pub(super) fn any_field(
    mut bytes: &[u8],
    way: &[u32],
    is_such: &dyn Fn(usize, u32, WireType) -> bool,
) -> bool {
    while let Ok((number, kind)) = decode_key(&mut bytes) {
        let field = bytes;
        if is_such(way.len(), number, kind) {
            return true;
        }
        if skip_field(kind, number, &mut bytes, DecodeContext::default()).is_err() {
            return false;
        }
        if let (WireType::LengthDelimited, [next, way @ ..]) = (kind, way)
            && *next == number
        {
            let mut inner = &field[..field.len() - bytes.len()];
            if decode_varint(&mut inner).is_ok() && any_field(inner, way, is_such) {
                return true;
            }
        }
    }
    false
}

/// Compares the decoder with this expectation: both read the same, or both refuse.
pub(super) fn agree(bytes: &[u8]) -> Result<(), DecodeRefusal> {
    let expected = expected(bytes);
    let http = match (&expected, HttpRequest::decode(bytes)) {
        (Err(why), None) => return Err(*why),
        (Ok(http), Some(ours)) => {
            assert_eq!((ours.method, ours.path), (&*http.method, &*http.path), "{bytes:?}");
            assert_eq!((ours.host, ours.body), (&*http.host, &*http.raw_body), "{bytes:?}");
            (http, ours)
        }
        (Err(why), Some(_)) => panic!("read, though {why:?}: {bytes:?}"),
        (Ok(_), None) => panic!("refused: {bytes:?}"),
    };
    let (http, ours) = http;
    for name in http.names().chain(super::NOTICED).chain(["not-there"]) {
        let said = http.header(name).map(|said| str::from_utf8(said).unwrap_or("\u{fffd}"));
        assert_eq!(ours.header(name), said, "{name}: {bytes:?}");
    }
    Ok(())
}
