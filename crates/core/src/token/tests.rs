use proptest::prelude::*;

use super::*;
use crate::{clock::Tick, keyring::KeyRing};

const RING: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER: &str = "b:HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn tokens(ring: &str) -> Tokens {
    Tokens::new(Prefixes::default(), KeyRing::parse(ring).unwrap())
}

/// A known answer for a second implementation; docs/token.md has the same values.
#[test]
fn known_answer() {
    let id = TokenId(Uuid::from_u128(0x0190_5c2b_8b1e_7c3d_9e4f_a5b6_c7d8_e9f0));
    let secret: [u8; 32] = std::array::from_fn(|i| 0xe0 + i as u8);
    let minted = tokens(RING).assemble(id, &secret);
    insta::assert_snapshot!(minted.plain.expose(), @"pat_02wxpeI44b04ZkwANxcuvY_rKFCcw823OrBm12M1O8e6ZQf99v6mMY5fuWb9v97FWB5nVcYks");
    let digest: String =
        minted.digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!(digest, @"a2ff15ba70232db9c0bd988f7cf5c96bb311cdec71a42dbb92505933c0d9ae01");
}

#[test]
fn the_last_secret_is_the_highest_text() {
    let mut text = [0; SECRET_LEN];
    base62::encode([0xff; 32], &mut text);
    assert_eq!(std::str::from_utf8(&text), std::str::from_utf8(MAX_SECRET));
}

#[test]
fn rotation() {
    let old = tokens(RING);
    let new = tokens(&format!("{OTHER}\n{RING}"));
    let minted = old.mint(TokenId(Uuid::from_u128(7))).unwrap();
    let verified = new.verify(minted.plain.expose()).unwrap();
    assert_eq!((verified.id, &verified.digest), (minted.id, &minted.digest));
    let minted = new.mint(TokenId(Uuid::from_u128(8))).unwrap();
    assert_eq!(minted.key_id.as_str(), "b");
    assert!(old.verify(minted.plain.expose()).is_none());
}

/// Clones share the ring, and a token that was verified before its key left is known by that key.
#[test]
fn a_key_that_leaves_takes_its_tokens_along() {
    let ring = |text: &str| KeyRing::parse(text).unwrap();
    let live = crate::keyring::LiveRing::new(ring(&format!("{RING}\n{OTHER}")));
    let tokens = Tokens::new(Prefixes::default(), live.clone());
    let [by_a, by_b] = [tokens.clone(), self::tokens(OTHER)]
        .map(|tokens| tokens.mint(TokenId(Uuid::from_u128(7))).unwrap());
    let verified = [&by_a, &by_b].map(|minted| tokens.verify(minted.plain.expose()).unwrap());
    let still = || [0, 1].map(|at: usize| tokens.still_verify(&verified[at]));
    assert_eq!(still(), [true, true]);
    live.replace(ring(&format!("{OTHER}\n{RING}")), Tick::from_micros(0));
    assert_eq!(still(), [true, true]);
    live.replace(ring(OTHER), Tick::from_micros(0));
    assert_eq!(still(), [false, true]);
    assert!(tokens.clone().verify(by_a.plain.expose()).is_none());
    assert!(tokens.verify(by_b.plain.expose()).is_some());
    live.replace(ring(&format!("{OTHER}\n{RING}")), Tick::from_micros(0));
    assert_eq!(still(), [false, true], "verified before");
    assert!(tokens.verify(by_a.plain.expose()).is_some());
}

#[test]
fn prefixes_of_ones_own() {
    let ring = KeyRing::parse(RING).unwrap();
    let many = Tokens::new(Prefixes::new(["acme_prod", "pat"]).unwrap(), ring.clone());
    let minted = many.mint(TokenId(Uuid::from_u128(7))).unwrap();
    assert!(minted.plain.expose().starts_with("acme_prod_"));
    assert!(many.verify(minted.plain.expose()).is_some());
    assert!(tokens(RING).verify(minted.plain.expose()).is_none());
    for bad in ["", "Pat", "1a", "a-b", "a_", "abcdefghijklmnopq"] {
        assert!(Prefixes::new([bad]).is_err(), "{bad}");
    }
    assert!(Prefixes::new([]).is_err());
}

#[test]
fn nothing_shows_the_secret() {
    let minted = tokens(RING).mint(TokenId(Uuid::from_u128(7))).unwrap();
    let shown = format!("{minted:?}");
    assert!(!shown.contains(minted.plain.expose()), "{shown}");
    assert!(shown.contains("PlainToken(..)") && shown.contains("TokenDigest(..)"), "{shown}");
}

proptest! {
    #[test]
    fn what_was_minted_verifies(id: u128, secret: [u8; 32]) {
        let tokens = tokens(RING);
        let minted = tokens.assemble(TokenId(Uuid::from_u128(id)), &secret);
        prop_assert_eq!(minted.plain.expose().len(), "pat".len() + REST_LEN);
        let verified = tokens.verify(minted.plain.expose()).unwrap();
        prop_assert_eq!(verified.id, minted.id);
        prop_assert_eq!(verified.digest, minted.digest);
    }

    #[test]
    fn one_changed_character_is_refused(id: u128, secret: [u8; 32], at in 0usize..77, to: char) {
        let tokens = tokens(RING);
        let minted = tokens.assemble(TokenId(Uuid::from_u128(id)), &secret);
        let mut text: Vec<char> = minted.plain.expose().chars().collect();
        prop_assume!(text[at] != to);
        text[at] = to;
        prop_assert!(tokens.verify(&text.into_iter().collect::<String>()).is_none());
    }

    #[test]
    fn any_text_is_read_without_panic(text in ".{0,100}") {
        prop_assert!(tokens(RING).verify(&text).is_none());
    }
}

#[test]
fn finds_each_token_in_a_text_once() {
    let prefixes = Prefixes::new(["pat", "my_pat"]).unwrap();
    let (ours, other) = (Tokens::new(prefixes, KeyRing::parse(RING).unwrap()), tokens(OTHER));
    let id = |number| TokenId(Uuid::from_u128(number));
    let [a, b, cut] = [1, 2, 3].map(|number| ours.mint(id(number)).unwrap());
    let (a, b, cut) = (a.plain.expose(), b.plain.expose(), &cut.plain.expose()[..60]);
    let foreign = other.mint(id(4)).unwrap();
    let foreign = foreign.plain.expose();
    let found = |text: &[u8]| {
        let FoundTokens { whole, unsigned, cut_short } = ours.search(text);
        let whole: Vec<_> = whole.iter().map(VerifiedToken::id).collect();
        (whole, unsigned, cut_short)
    };
    let text = format!("x{a}0{b}\\n{{\"k\":\"{a}\"}} {cut}… {foreign} my_{a} pat_ _ {}", &a[..40]);
    assert_eq!(found(text.as_bytes()), (vec![id(1), id(2)], vec![id(4)], vec![id(3)]));
    assert_eq!(found(b"\xff_\xff"), (vec![], vec![], vec![]));
    for len in 0..a.len() {
        let begins = len > "pat_".len() + ID_LEN;
        let expected = if begins { vec![id(1)] } else { vec![] };
        assert_eq!(found(&a.as_bytes()[..len]), (vec![], vec![], expected), "{len}");
    }
}
