//! Fuzzes requests: no method, target or credential makes the parser panic, and an accepted target
//! means the same to every server that decodes, collapses or strips a path before reading it.
//!
//! The input is `method NUL target NUL authorization`. Without an authorization, the target is sent
//! with a genuine token, so that its own result is visible.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use patgate::{
    api::{Apis, Entity},
    keyring::KeyRing,
    refusal::{MalformedPart, Refusal},
    request::{AuthRequest, RejectedRequest, RequestParts, parse},
    token::{Prefixes, Tokens},
};

const RING: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const BEARER: &str =
    "Bearer pat_02wxpeI44b04ZkwANxcuvY_rKFCcw823OrBm12M1O8e6ZQf99v6mMY5fuWb9v97FWB5nVcYks";

static APIS: LazyLock<Apis> = LazyLock::new(|| Apis::embedded().expect("the shipped table"));
static TOKENS: LazyLock<Tokens> =
    LazyLock::new(|| Tokens::new(Prefixes::default(), KeyRing::parse(RING).expect("a ring")));

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == 0).map(std::str::from_utf8);
    let (Some(Ok(method)), Some(Ok(target))) = (parts.next(), parts.next()) else { return };
    match parts.next() {
        Some(Ok(authorization)) => check_credential(method, target, authorization),
        Some(Err(_)) => {}
        None => check_target(method, target),
    }
});

fn read<'a>(
    method: &'a str,
    target: &'a str,
    authorization: &'a str,
) -> Result<AuthRequest<'a>, RejectedRequest<'a>> {
    let header = |name: &str| (name == "authorization").then_some(authorization);
    parse(
        &RequestParts { method, authority: "gateway", target, header, body: b"", stream: b"" },
        &APIS,
        &TOKENS,
    )
}

/// The one good credential, with any spelling of its scheme, is accepted; no other is.
fn check_credential(method: &str, target: &str, authorization: &str) {
    let genuine = authorization.len() == BEARER.len()
        && authorization.is_char_boundary("Bearer".len())
        && authorization["Bearer".len()..] == BEARER["Bearer".len()..]
        && authorization[.."Bearer".len()].eq_ignore_ascii_case("Bearer");
    assert!(genuine || read(method, target, authorization).is_err(), "{authorization:?}");
}

fn check_target(method: &str, target: &str) {
    let request = match read(method, target, BEARER) {
        Ok(request) => request,
        Err(rejected) => {
            assert_eq!(rejected.refusal, Refusal::BadRequest(MalformedPart::Path), "{target:?}");
            return;
        }
    };
    let path = target.split('?').next().unwrap_or_default();
    assert_eq!(normalised(path), path);
    // The query takes no part in the decision.
    let alone = read(method, path, BEARER).expect("an accepted path is accepted again");
    assert_eq!(alone.rule(), request.rule());

    let Some(rule) = request.rule() else { return };
    assert_eq!(path.split('/').nth(2), Some(&*rule.domain), "{path:?}");
    if let Entity::Named(name) = rule.entity {
        assert!(!name.is_empty() && path.ends_with(&format!("/{name}")), "{path:?}");
    }
}

/// Returns what the most lenient server would make of a path.
fn normalised(path: &str) -> String {
    let mut decoded = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |digit: u8| char::from(digit).to_digit(16);
        match rest {
            [b'%', high, low, tail @ ..]
                if let (Some(high), Some(low)) = (hex(*high), hex(*low)) =>
            {
                decoded.push((high * 16 + low) as u8);
                rest = tail;
            }
            [b'\\', ..] => {
                decoded.push(b'/');
                rest = tail;
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    let decoded = String::from_utf8_lossy(&decoded);
    let decoded = decoded.split(['?', '#']).next().unwrap_or_default();
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        // Path parameters.
        match segment.split(';').next().unwrap_or_default().trim() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}
