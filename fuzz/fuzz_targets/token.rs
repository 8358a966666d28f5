//! Fuzzes tokens: no text makes the parser panic, a verified text verifies again, and every change
//! of a genuine token is refused.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use patgate::{
    keyring::KeyRing,
    token::{Prefixes, Tokens},
};

/// A fixed key, so that a finding can be replayed, and the token that it signed in the unit tests.
const RING: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const GENUINE: &str =
    "pat_02wxpeI44b04ZkwANxcuvY_rKFCcw823OrBm12M1O8e6ZQf99v6mMY5fuWb9v97FWB5nVcYks";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let tokens = Tokens::new(
        Prefixes::new(["acme_prod", "pat"]).expect("prefixes"),
        KeyRing::parse(RING).expect("a ring"),
    );
    assert!(tokens.verify(GENUINE).is_some(), "the genuine token is none");
    tokens
});

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let read = || TOKENS.verify(text).map(|token| (token.id(), token.digest().clone()));
        assert_eq!(read(), read());
        // Only the holder of the key can make another token.
        assert!(text == GENUINE || read().is_none(), "forged: {text}");
    }
    if let Ok(text) = std::str::from_utf8(&mutated(data))
        && text != GENUINE
    {
        assert!(TOKENS.verify(text).is_none(), "a mutation verifies: {text}");
    }
});

/// The genuine token after edits, three bytes each: what to do, where, with which byte.
fn mutated(edits: &[u8]) -> Vec<u8> {
    let mut text = GENUINE.as_bytes().to_vec();
    for edit in edits.as_chunks().0 {
        let [what, at, byte] = *edit;
        let at = usize::from(at) % (text.len() + 1);
        match what % 5 {
            // Most edits stay in the alphabet, to get past the first checks.
            0 | 1 if at < text.len() => text[at] = BASE62[usize::from(byte) % BASE62.len()],
            2 if at < text.len() => text[at] = byte,
            3 => text.insert(at, byte),
            4 if at < text.len() => drop(text.remove(at)),
            _ => {}
        }
    }
    text
}
