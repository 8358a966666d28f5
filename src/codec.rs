//! How a check travels: the bytes of a `CheckRequest` in, without a copy or an allocation.
//!
//! Envoy's message holds some fifteen headers in a map; a check needs two. Those are noticed while
//! the message is stepped through once; another one is looked for when it is asked for.
//!
//! Where the wire format leaves a choice, there is one meaning or none: a message that occurs twice
//! would be merged by other decoders, and is refused here, as groups are.

/// The HTTP request that Envoy asks about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HttpRequest<'a> {
    pub(crate) method: &'a str,
    /// The authority that the client asked for.
    pub(crate) host: &'a str,
    /// Path and query.
    pub(crate) path: &'a str,
    /// As bytes, as far as Envoy shows it.
    pub(crate) body: &'a [u8],
    authorization: Option<&'a [u8]>,
    request_id: Option<&'a [u8]>,
    /// The message itself, in which every field has been stepped over once.
    message: &'a [u8],
}

/// Field numbers of `CheckRequest`, `AttributeContext` and `AttributeContext.Request`.
const ATTRIBUTES: u32 = 1;
const REQUEST: u32 = 4;
const HTTP: u32 = 2;
/// Those of `AttributeContext.HttpRequest`.
const METHOD: u32 = 2;
const HEADERS: u32 = 3;
const PATH: u32 = 4;
const HOST: u32 = 5;
const RAW_BODY: u32 = 12;
/// Those of an entry of a map.
const KEY: u32 = 1;
const VALUE: u32 = 2;

impl<'a> HttpRequest<'a> {
    /// Nothing where `bytes` is not a `CheckRequest` with an HTTP request in it.
    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut at = bytes;
        for number in [ATTRIBUTES, REQUEST, HTTP] {
            at = only(at, number)?;
        }
        let (mut method, mut host, mut path) = ("", "", "");
        let mut body: &[u8] = &[];
        let (mut authorization, mut request_id) = (None, None);
        let mut fields = Fields(at);
        while let Some(field) = fields.next()? {
            match field {
                (HEADERS, Value::Bytes(entry)) => match pair(entry)? {
                    (b"authorization", value) => authorization = Some(value),
                    (b"x-request-id", value) => request_id = Some(value),
                    _ => {}
                },
                (METHOD, Value::Bytes(text)) => method = str::from_utf8(text).ok()?,
                (HOST, Value::Bytes(text)) => host = str::from_utf8(text).ok()?,
                (PATH, Value::Bytes(text)) => path = str::from_utf8(text).ok()?,
                (RAW_BODY, Value::Bytes(bytes)) => body = bytes,
                (METHOD | HOST | PATH | HEADERS | RAW_BODY, Value::Number) => return None,
                _ => {}
            }
        }
        Some(Self { method, host, path, body, authorization, request_id, message: at })
    }

    /// A header by its lower-case name. Of several, as nobody sends them, the last one counts.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        let value = match name {
            "authorization" => self.authorization,
            "x-request-id" => self.request_id,
            _ => self.find(name.as_bytes()),
        };
        str::from_utf8(value?).ok()
    }

    fn find(&self, name: &[u8]) -> Option<&'a [u8]> {
        let (mut fields, mut found) = (Fields(self.message), None);
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

/// What a field holds, as far as it matters here.
#[derive(Clone, Copy)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Number,
}

/// The message under `number`, which must be there once. What else there is must be well-formed.
fn only(bytes: &[u8], number: u32) -> Option<&[u8]> {
    let (mut fields, mut found) = (Fields(bytes), None);
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

/// The key and the value of an entry of a map of strings.
#[inline]
fn pair(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    usual_pair(entry).or_else(|| any_pair(entry))
}

/// As every encoder writes it: a short key, then the value, then nothing.
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

/// What is left of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next field and its number, `None` at the end; nothing at all where it is malformed.
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

    /// Seven bits a byte, the lowest first, in at most ten bytes.
    fn long_varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for (index, byte) in self.0.iter().enumerate().take(10) {
            // The tenth holds the highest bit alone.
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
mod tests {
    use envoy_types::pb::envoy::service::auth::v3 as envoy;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn message(http: envoy::attribute_context::HttpRequest) -> Vec<u8> {
        let request = envoy::attribute_context::Request { http: Some(http), ..Default::default() };
        let attributes = envoy::AttributeContext {
            source: Some(envoy::attribute_context::Peer::default()),
            request: Some(request),
            context_extensions: [("a".to_owned(), "b".to_owned())].into(),
            ..Default::default()
        };
        envoy::CheckRequest { attributes: Some(attributes) }.encode_to_vec()
    }

    /// What Envoy's own definitions encode is read, and what is not named is stepped over.
    #[test]
    fn reads_what_envoy_writes() {
        let headers = [("authorization", "Bearer x"), ("x-request-id", "7")];
        let bytes = message(envoy::attribute_context::HttpRequest {
            id: "1".into(),
            method: "POST".into(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            path: "/a?b".into(),
            host: "h".into(),
            scheme: "https".into(),
            size: -7,
            protocol: "HTTP/2".into(),
            body: "as text".into(),
            raw_body: b"\xff{}".to_vec(),
            ..Default::default()
        });
        let http = HttpRequest::decode(&bytes).unwrap();
        assert_eq!((http.method, http.host, http.path), ("POST", "h", "/a?b"));
        assert_eq!(http.body, b"\xff{}");
        assert_eq!(http.header("authorization"), Some("Bearer x"));
        assert_eq!(http.header("x-request-id"), Some("7"));
        assert_eq!([http.header("Authorization"), http.header("")], [None, None]);
    }

    #[test]
    fn nothing_is_merged_or_guessed() {
        let http = envoy::attribute_context::HttpRequest { path: "/".into(), ..Default::default() };
        let once = message(http);
        assert!(HttpRequest::decode(&once).is_some());
        assert_eq!(HttpRequest::decode(&[&once[..], &once].concat()), None);
        assert_eq!(HttpRequest::decode(&[]), None);
        let empty = envoy::CheckRequest { attributes: Some(Default::default()) }.encode_to_vec();
        assert_eq!(HttpRequest::decode(&empty), None);
        for cut in 0..once.len() {
            assert_eq!(HttpRequest::decode(&once[..cut]), None, "{cut}");
        }
    }

    /// What the generated decoder makes of the same bytes.
    fn generated(bytes: &[u8]) -> Option<envoy::attribute_context::HttpRequest> {
        envoy::CheckRequest::decode(bytes).ok()?.attributes?.request?.http
    }

    fn agree(bytes: &[u8]) {
        let Some(http) = HttpRequest::decode(bytes) else { return };
        // It may refuse more: text that is not UTF-8 in fields that we step over.
        let Some(theirs) = generated(bytes) else { return };
        assert_eq!((http.method, http.path), (&*theirs.method, &*theirs.path));
        assert_eq!((http.host, http.body), (&*theirs.host, &*theirs.raw_body));
        for (name, value) in &theirs.headers {
            assert_eq!(http.header(name), Some(&**value), "{name}");
        }
        assert_eq!(http.header("not-there"), theirs.headers.get("not-there").map(|v| &**v));
    }

    prop_compose! {
        fn any_request()(
            method in "[A-Z]{0,8}",
            path in "/[a-z/?]{0,20}",
            headers in proptest::collection::hash_map("[a-z-]{1,12}", "[a-zA-Zé ]{0,12}", 0..6),
            host in "[a-z.]{0,9}",
            size: i64,
            body in proptest::collection::vec(any::<u8>(), 0..40),
        ) -> Vec<u8> {
            let raw_body = body;
            message(envoy::attribute_context::HttpRequest {
                method, path, headers, host, size, raw_body, ..Default::default()
            })
        }
    }

    /// Together 200,000 inputs, or as many times 20 as a variable says.
    fn config() -> ProptestConfig {
        let cases = std::env::var("DECODER_CASES").ok().and_then(|cases| cases.parse().ok());
        ProptestConfig::with_cases(cases.unwrap_or(10_000))
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn agrees_with_the_generated_decoder(
            bytes in any_request(),
            changes in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 9),
        ) {
            prop_assert!(HttpRequest::decode(&bytes).is_some());
            agree(&bytes);
            for (at, byte) in changes {
                let mut changed = bytes.clone();
                changed[at.index(bytes.len())] = byte;
                agree(&changed);
            }
        }

        #[test]
        fn garbage_agrees_too(
            inputs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 10)
        ) {
            inputs.iter().for_each(|bytes| agree(bytes));
        }
    }
}
