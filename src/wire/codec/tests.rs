//! The decoder of checks.

mod generated;

use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    service::auth::v3 as envoy,
};
use prost::{Message, encoding::WireType};

use self::generated::Random;
pub(crate) use self::generated::generated;
use super::{
    expected::{DecodeRefusal, WAY, agree, any_field},
    *,
};
use crate::{
    body::BodyForm,
    refusal::NoModel,
    request::{RequestParts, model},
};

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

fn with_headers(headers: &[(&str, &str)]) -> envoy::attribute_context::HttpRequest {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    envoy::attribute_context::HttpRequest { headers: headers.collect(), ..Default::default() }
}

/// The decoder reads what Envoy's own definitions encode, and skips unknown fields.
#[test]
fn each_header_that_is_noticed_has_its_place() {
    for (at, name) in NOTICED.iter().enumerate() {
        assert_eq!(noticed(name.as_bytes()), Some(at), "{name}");
        let other = name.replacen(|_| true, "_", 1);
        assert_eq!(noticed(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn reads_what_envoy_writes() {
    let bytes = message(envoy::attribute_context::HttpRequest {
        id: "1".into(),
        method: "POST".into(),
        path: "/a?b".into(),
        host: "h".into(),
        scheme: "https".into(),
        size: -7,
        protocol: "HTTP/2".into(),
        body: "as text".into(),
        raw_body: b"\xff{}".to_vec(),
        ..with_headers(&[("authorization", "Bearer x"), ("x-request-id", "7")])
    });
    let http = HttpRequest::decode(&bytes).unwrap();
    assert_eq!((http.method, http.host, http.path), ("POST", "h", "/a?b"));
    assert_eq!(http.body, b"\xff{}");
    assert_eq!(http.header("authorization"), Some("Bearer x"));
    assert_eq!(http.header("x-request-id"), Some("7"));
    assert_eq!([http.header("Authorization"), http.header("")], [None, None]);
}

#[test]
fn reads_what_is_written_here() {
    let headers = [("authorization", "Bearer x".to_owned()), ("other", "x".repeat(200))];
    let bytes = encode("POST", "h", "/a?b", &headers, b"\xff");
    agree(&bytes).unwrap();
    let http = HttpRequest::decode(&bytes).unwrap();
    assert_eq!((http.method, http.host, http.path, http.body), ("POST", "h", "/a?b", &b"\xff"[..]));
    for (name, value) in &headers {
        assert_eq!(http.header(name), Some(&**value));
    }
}

fn in_a_list(headers: &[(&str, &[u8])]) -> HeaderMap {
    let headers = headers.iter().map(|(key, value)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.to_vec(),
        ..Default::default()
    });
    HeaderMap { headers: headers.collect() }
}

/// Headers as Envoy sends them with `encode_raw_headers`.
#[test]
fn headers_in_a_list_are_read_and_must_not_contradict_those_in_a_map() {
    let listed: [(&str, &[u8]); 4] = [
        ("authorization", b"Bearer x"),
        ("content-type", b"\xff"),
        ("accept", b"a"),
        ("accept", b"b"),
    ];
    let http = envoy::attribute_context::HttpRequest {
        path: "/".into(),
        header_map: Some(in_a_list(&listed)),
        ..Default::default()
    };
    let bytes = message(http.clone());
    agree(&bytes).unwrap();
    let read = HttpRequest::decode(&bytes).unwrap();
    assert_eq!(read.header("authorization"), Some("Bearer x"));
    assert_eq!(read.header("content-type"), Some(UNREADABLE));
    assert_eq!(read.header("accept"), Some(","));
    assert_eq!([read.header("x-request-id"), read.header("")], [None, None]);

    let both = |mapped: &[(&str, &str)], listed: &[(&str, &[u8])]| {
        let bytes = message(envoy::attribute_context::HttpRequest {
            header_map: Some(in_a_list(listed)),
            ..with_headers(mapped)
        });
        assert_eq!(agree(&bytes).is_ok(), HttpRequest::decode(&bytes).is_some());
        HttpRequest::decode(&bytes).is_some()
    };
    let x: (&str, &[u8]) = ("authorization", b"Bearer x");
    assert!(both(&[("authorization", "Bearer x"), ("a", "b")], &[("a", b"b"), x]));
    assert!(!both(&[("authorization", "Bearer y")], &[x]), "another token");
    assert!(!both(&[("authorization", "Bearer x")], &[]), "only in the map");
    assert!(!both(&[("a", "b")], &[x, ("a", b"b")]), "only in the list");
    assert!(!both(&[("authorization", "Bearer x")], &[x, x]), "twice in the list");
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

#[test]
fn debug_shows_nothing() {
    let http = envoy::attribute_context::HttpRequest {
        method: "secret".into(),
        path: "/secret".into(),
        host: "secret".into(),
        raw_body: b"secret".to_vec(),
        ..with_headers(&[("authorization", "Bearer secret"), ("secret", "secret")])
    };
    let bytes = message(http);
    let shown = format!("{:?}", HttpRequest::decode(&bytes).unwrap());
    assert_eq!(shown, "HttpRequest(…)");
}

/// If such a header counted as absent, a compressed body would be read as a plain one.
#[test]
fn a_header_that_is_not_utf_8_only_ever_refuses() {
    let good = [
        ("x-envoy-auth-partial-body", "false"),
        ("content-length", "13"),
        ("content-encoding", "identity"),
        ("content-type", "application/json"),
    ];
    let read = |spoilt: Option<&str>| {
        let headers = good.map(|(name, value)| match spoilt {
            // One byte, so that its place can be found again.
            Some(spoilt) if spoilt == name => (name, "\u{1}"),
            _ => (name, value),
        });
        let raw_body = br#"{"model":"m"}"#.to_vec();
        let mut bytes =
            message(envoy::attribute_context::HttpRequest { raw_body, ..with_headers(&headers) });
        if spoilt.is_some() {
            let at = bytes.windows(3).position(|window| window == [0x12, 1, 1]).unwrap();
            bytes[at + 2] = 0xff;
        }
        let http = HttpRequest::decode(&bytes).unwrap();
        let method = http.method;
        let authority = http.host;
        let target = http.path;
        let parts = RequestParts {
            method,
            authority,
            target,
            header: |name: &str| http.header(name),
            body: http.body,
            stream: http.stream,
        };
        let model = model(target, parts.shown(), BodyForm::Json, &mut |_| Ok(()));
        model.map(|name| name.as_str().to_owned())
    };
    assert_eq!(read(None).as_deref(), Ok("m"));
    let refused = [NoModel::NotShown, NoModel::Cut, NoModel::Encoded, NoModel::NotJson];
    for ((name, _), why) in good.iter().zip(refused) {
        assert_eq!(read(Some(name)), Err(why), "{name}");
    }
}

/// Compares the decoder with Envoy's definitions on many messages that an encoder or an attacker
/// could write: `DECODER_CASES`, or 200,000. Our decoder reads the same, or refuses a message for
/// an intended reason.
#[test]
fn agrees_with_the_generated_decoders() {
    let cases = std::env::var("DECODER_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases: usize = cases.unwrap_or(200_000);
    let mut random = Random::new(1);
    let mut made = 0;
    let mut compared = 0;
    let mut lenient = 0;
    let mut mistyped = 0;
    let mut malformed = 0;
    let mut absent = 0;
    let mut repeated = 0;
    let mut groups = 0;
    let mut disagreeing = 0;
    while compared < cases {
        made += 1;
        assert!(made < 1000 + cases * 3, "{compared} of {made} could be compared");
        let bytes = random.message();
        let ours = agree(&bytes);
        if any_field(&bytes, &WAY, &is_mistyped_map) {
            mistyped += 1;
            continue;
        }
        // Envoy's own definitions, with all of their fields.
        let theirs = envoy::CheckRequest::decode(&bytes[..]);
        let theirs = theirs.ok().and_then(|message| message.attributes?.request?.http);
        match (ours, theirs) {
            (Ok(()), Some(theirs)) => {
                compared += 1;
                same(&HttpRequest::decode(&bytes).unwrap(), &theirs, &bytes);
            }
            // A field that patgate does not read is malformed, or a header is not UTF-8, which a
            // caller that reads it learns.
            (Ok(()), None) => lenient += 1,
            (Err(DecodeRefusal::Repeated), _) => repeated += 1,
            (Err(DecodeRefusal::Group), _) => groups += 1,
            (Err(DecodeRefusal::Disagreeing), _) => disagreeing += 1,
            (Err(DecodeRefusal::Malformed), None) => malformed += 1,
            (Err(DecodeRefusal::Absent), None) => absent += 1,
            (Err(why), Some(_)) => panic!("refused, as {why:?}: {bytes:?}"),
        }
    }
    println!(
        "{made} messages: {compared} read alike; refused: {malformed} malformed, {absent} without \
         a request, {repeated} with a repeated message, {groups} with a group, {disagreeing} with \
         headers that disagree; {lenient} read, \
         though something beside is malformed; {mistyped} with a map that is none"
    );
    for seen in [mistyped, malformed, absent, repeated, groups, disagreeing, lenient] {
        assert!(seen >= cases / 1000, "hardly any of a kind");
    }
}

/// `context_extensions` or `headers` with another wire type than bytes: prost 0.14 does not check
/// the type of a map, and reads whatever follows as a length.
fn is_mistyped_map(steps_left: usize, number: u32, kind: WireType) -> bool {
    matches!((steps_left, number), (3, 10) | (1, HEADERS)) && kind != WireType::LengthDelimited
}

fn same(ours: &HttpRequest<'_>, theirs: &envoy::attribute_context::HttpRequest, bytes: &[u8]) {
    assert_eq!((ours.method, ours.path), (&*theirs.method, &*theirs.path), "{bytes:?}");
    assert_eq!((ours.host, ours.body), (&*theirs.host, &*theirs.raw_body), "{bytes:?}");
    for (name, value) in &theirs.headers {
        assert_eq!(ours.header(name), Some(&**value), "{name}: {bytes:?}");
    }
    let listed = theirs.header_map.iter().flat_map(|list| &list.headers);
    for header in listed.clone() {
        let said = match (&*header.raw_value, str::from_utf8(&header.raw_value)) {
            ([], _) => &*header.value,
            (_, said) => said.unwrap_or("\u{fffd}"),
        };
        let several = listed.clone().filter(|other| other.key == header.key).count() > 1;
        let said = if several { "," } else { said };
        assert_eq!(ours.header(&header.key), Some(said), "{}: {bytes:?}", header.key);
    }
    assert_eq!(ours.header("not-there"), None);
}
