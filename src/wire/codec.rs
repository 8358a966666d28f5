//! Decodes a check: reads the bytes of a `CheckRequest` without a copy or an allocation.
//!
//! Envoy's message has some fifteen headers in a map; a check needs a few of them. Those are noted
//! during one pass over the message; any other header is searched for when it is needed.
//!
//! These are a stranger's bytes, as far as Envoy lets them through: `fuzz/` also sends what Envoy
//! would not.
//!
//! If the wire format leaves a choice, there is one meaning or none: other decoders would merge a
//! message that occurs twice; this one refuses it, and also refuses groups. It also refuses a check
//! that has its headers twice, as a map and as a list, unless both say the same.

mod encode;
pub(crate) mod frame;
mod raw;

use std::fmt;

pub(crate) use self::encode::encode;

/// The HTTP request of a check.
#[derive(Clone, Copy, PartialEq)]
pub struct HttpRequest<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The authority that the client asked for.
    pub host: &'a str,
    /// The path with its query.
    pub path: &'a str,
    /// The part of the body that Envoy shows.
    pub body: &'a [u8],
    /// Envoy's own id of the request, which no client can choose.
    pub stream: &'a [u8],
    /// Values of the noted headers, by their place in [`NOTICED`].
    noticed: [Option<&'a [u8]>; NOTICED.len()],
    /// The headers, if they are sent as a list.
    raw: Option<&'a [u8]>,
    /// The message itself, after one pass over every field.
    message: &'a [u8],
}

/// Hides the content: it has a token, and a person's text to a model.
impl fmt::Debug for HttpRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpRequest(…)")
    }
}

/// The value of a header that is not UTF-8. Envoy sends one only with `encode_raw_headers`. If it
/// counted as absent, a compressed body would be read as a plain one. No header that patgate reads
/// may have this value.
const UNREADABLE: &str = "\u{fffd}";

/// The headers that every check needs.
pub const NOTICED: [&str; 9] = [
    "authorization",
    "x-request-id",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "sec-websocket-protocol",
    "cookie",
    "connection",
    "upgrade",
];

/// Returns the place of a header in [`NOTICED`]. It compares the length first: most headers have
/// none of these lengths.
#[inline]
fn noticed(name: &[u8]) -> Option<usize> {
    let at = match name.len() {
        6 => 6,
        7 if name.first() == Some(&b'a') => 3,
        7 => 8,
        9 => 2,
        10 => 7,
        12 => 1,
        13 => 0,
        14 => 4,
        22 => 5,
        _ => return None,
    };
    (NOTICED[at].as_bytes() == name).then_some(at)
}

/// Field numbers of `CheckRequest`, `AttributeContext` and `AttributeContext.Request`.
const ATTRIBUTES: u32 = 1;
const REQUEST: u32 = 4;
const HTTP: u32 = 2;
/// Field numbers of `AttributeContext.HttpRequest`.
const ID: u32 = 1;
const METHOD: u32 = 2;
const HEADERS: u32 = 3;
const PATH: u32 = 4;
const HOST: u32 = 5;
const RAW_BODY: u32 = 12;
const HEADER_MAP: u32 = 13;
/// Field numbers of a map entry.
const KEY: u32 = 1;
const VALUE: u32 = 2;

impl<'a> HttpRequest<'a> {
    /// Returns `None` if `bytes` is not a `CheckRequest` with an HTTP request.
    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut at = bytes;
        for number in [ATTRIBUTES, REQUEST, HTTP] {
            at = only(at, number)?;
        }
        let mut method = "";
        let mut host = "";
        let mut path = "";
        let mut body: &[u8] = &[];
        let mut stream: &[u8] = &[];
        let mut values = [None; NOTICED.len()];
        let mut raw = None;
        let mut fields = Fields(at);
        while let Some(field) = fields.next()? {
            match field {
                (HEADERS, Value::Bytes(entry)) => {
                    let (name, value) = pair(entry)?;
                    if let Some(at) = noticed(name) {
                        values[at] = Some(value);
                    }
                }
                (METHOD, Value::Bytes(text)) => method = str::from_utf8(text).ok()?,
                (HOST, Value::Bytes(text)) => host = str::from_utf8(text).ok()?,
                (PATH, Value::Bytes(text)) => path = str::from_utf8(text).ok()?,
                (RAW_BODY, Value::Bytes(bytes)) => body = bytes,
                (ID, Value::Bytes(bytes)) => stream = bytes,
                (HEADER_MAP, Value::Bytes(_)) if raw.is_some() => return None,
                (HEADER_MAP, Value::Bytes(list)) => raw = Some(list),
                (METHOD | HOST | PATH | HEADERS | RAW_BODY | HEADER_MAP, Value::Number) => {
                    return None;
                }
                _ => {}
            }
        }
        if raw.is_some_and(|list| !raw::agrees(at, list)) {
            return None;
        }
        Some(Self { method, host, path, body, stream, noticed: values, raw, message: at })
    }

    /// Returns a header by its lower-case name. If a map has several, which no client sends, the
    /// last one counts; several in a list give `,`, which no header that patgate reads may have.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let name = name.as_bytes();
        let value = match (self.raw, noticed(name)) {
            (Some(list), _) => raw::find(list, name),
            (None, Some(at)) => self.noticed[at],
            (None, None) => self.find(name),
        };
        value.map(|value| str::from_utf8(value).unwrap_or(UNREADABLE))
    }

    fn find(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut fields = Fields(self.message);
        let mut found = None;
        while let Some(Some((number, value))) = fields.next() {
            if let (HEADERS, Value::Bytes(entry)) = (number, value)
                && let Some((key, value)) = pair(entry)
                && key == name
            {
                found = Some(value);
            }
        }
        found
    }
}

/// The value of a field, in the form that the decoder needs.
#[derive(Clone, Copy)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Number,
}

/// Returns the message in field `number`, which must occur once. The other fields must be
/// well-formed.
fn only(bytes: &[u8], number: u32) -> Option<&[u8]> {
    let mut fields = Fields(bytes);
    let mut found = None;
    while let Some((field, value)) = fields.next()? {
        if field == number {
            match (value, found) {
                (Value::Bytes(message), None) => found = Some(message),
                _ => return None,
            }
        }
    }
    found
}

/// Returns the key and the value of an entry in a map of strings.
#[inline]
fn pair(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    usual_pair(entry).or_else(|| any_pair(entry))
}

/// Reads an entry as every encoder writes it: a short key, then the value, then nothing.
#[inline]
fn usual_pair(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    const TAGS: [u8; 2] = [(KEY << 3 | 2) as u8, (VALUE << 3 | 2) as u8];
    let [key_tag, key_length @ ..0x80, rest @ ..] = entry else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*key_length))?;
    let (value_tag, length, value) = match rest {
        [tag, length @ ..0x80, value @ ..] => (tag, usize::from(*length), value),
        [tag, low, high @ ..0x80, value @ ..] => {
            (tag, usize::from(low & 0x7f) | usize::from(*high) << 7, value)
        }
        _ => return None,
    };
    ([*key_tag, *value_tag] == TAGS && value.len() == length).then_some((key, value))
}

fn any_pair(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut key, mut text): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields(entry);
    while let Some(field) = fields.next()? {
        match field {
            (KEY, Value::Bytes(bytes)) => key = bytes,
            (VALUE, Value::Bytes(bytes)) => text = bytes,
            (KEY | VALUE, Value::Number) => return None,
            _ => {}
        }
    }
    Some((key, text))
}

/// The fields of a message that are still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Returns the next field and its number, `Some(None)` at the end, and `None` if it is
    /// malformed.
    #[expect(clippy::option_option, reason = "`?` for what is malformed, `while let` for the end")]
    #[inline]
    fn next(&mut self) -> Option<Option<(u32, Value<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let key = u32::try_from(self.varint()?).ok()?;
        let number = key >> 3;
        if number == 0 {
            return None;
        }
        let value = match key & 7 {
            0 => {
                self.varint()?;
                Value::Number
            }
            1 => {
                self.take(8)?;
                Value::Number
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Number
            }
            _ => return None,
        };
        Some(Some((number, value)))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Field numbers and most lengths are below 128: one byte.
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        match self.0 {
            [byte @ ..0x80, rest @ ..] => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    /// Reads seven bits per byte, the lowest first, in at most ten bytes.
    fn long_varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for (index, byte) in self.0.iter().enumerate().take(10) {
            // The tenth byte holds only the highest bit.
            if index == 9 && *byte > 1 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.0 = &self.0[index + 1..];
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod expected;
#[cfg(test)]
pub(crate) mod tests;
