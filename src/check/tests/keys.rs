//! Keys that leave the ring while a check waits.

use tokio::sync::Notify;

use super::*;

const OTHER: &str = "b:HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn both() -> KeyRing {
    KeyRing::parse(&format!("{RING}\n{OTHER}")).unwrap()
}

/// The key that signed the token leaves while its body is read.
#[tokio::test]
async fn a_token_whose_key_leaves_while_its_check_waits_is_refused() {
    for (next, code) in [(both(), "ok"), (KeyRing::parse(OTHER).unwrap(), "invalid_token")] {
        let replaced = |checker: &Checker, _: &PlainToken| {
            checker.tokens.ring().replace(next, clock::now());
        };
        assert_eq!(code_of_a_long_body(replaced).await, code);
    }
}

/// A lookup has opened an entry before the key that sealed it leaves, and ends after that. There is no
/// Postgres that could answer instead.
#[tokio::test]
async fn a_lookup_that_began_before_its_key_left_gives_nothing_to_a_check() {
    for leaves in [false, true] {
        let (checker, tokens, _) = hot(&mut Registry::default());
        tokens.ring().replace(both(), clock::now());
        let sealed_by = tokens.ring().load().serial_of("b").unwrap();
        let plain = tokens.mint(TokenId(Uuid::from_u128(8))).unwrap().plain;
        let token = tokens.verify(plain.expose()).unwrap();
        let principals = &checker.stores.stores().unwrap().resolver.principals;
        let known = principals.remembered(&TokenId(Uuid::from_u128(7))).unwrap();
        let value = principal(&token, 0);
        let result = found(value, known.as_of, known.verified, &known.stamp);
        let lands = Arc::new(Notify::new());
        let result = Found { seal: Some(sealed_by), ..result };
        principals.let_fly(&token.id(), result, Arc::clone(&lands));

        let bearer = format!("Bearer {}", plain.expose());
        let header = only_token(&bearer);
        let parts = get("/proxy/acme/api/version", header);
        let apis = checker.apis.load();
        let mut check = pin!(checker.check(&parts, &apis, CheckStep::Only, clock::now(), None));
        assert!(poll!(check.as_mut()).is_pending());
        if leaves {
            tokens.ring().replace(KeyRing::parse(RING).unwrap(), clock::now());
        }
        lands.notify_one();
        let expected = if leaves { "unavailable" } else { "ok" };
        assert_eq!(decided(check.await).0.code(), expected);
    }
}
