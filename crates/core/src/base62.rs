//! Base62 (`0-9A-Za-z`, big-endian, zero-padded to a fixed width) with one spelling per value.
//!
//! The alphabet is in ASCII order, so texts of one width compare as their values do.

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Writes the big-endian number `value` into `out`, which must be wide enough for it.
pub(crate) fn encode<const N: usize>(mut value: [u8; N], out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        let mut remainder = 0;
        for byte in &mut value {
            let dividend = remainder << 8 | u32::from(*byte);
            *byte = (dividend / 62) as u8;
            remainder = dividend % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    debug_assert_eq!(value, [0; N], "the text is too narrow for the value");
}

/// Reads a number of up to 128 bits; `None` for a byte outside the alphabet or a value of 2^128 and
/// above.
pub(crate) fn decode_u128(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0u128, |value, byte| {
        value.checked_mul(62)?.checked_add(u128::from(digit(*byte)?))
    })
}

/// Whether every byte belongs to the alphabet.
pub(crate) fn is_base62(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_alphanumeric)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'Z' => Some(byte - b'A' + 10),
        b'a'..=b'z' => Some(byte - b'a' + 36),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_it_wrote(value: u128) {
            let mut text = [0; 22];
            encode(value.to_be_bytes(), &mut text);
            prop_assert_eq!(decode_u128(&text), Some(value));
        }

        #[test]
        fn texts_compare_as_values(a: u128, b: u128) {
            let mut x = [0; 22];
            let mut y = [0; 22];
            encode(a.to_be_bytes(), &mut x);
            encode(b.to_be_bytes(), &mut y);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut text = [0; 22];
        encode(u128::MAX.to_be_bytes(), &mut text);
        assert_eq!(decode_u128(&text), Some(u128::MAX));
        text[21] += 1;
        assert_eq!(decode_u128(&text), None);
        assert_eq!(decode_u128(b"zzzzzzzzzzzzzzzzzzzzzz"), None);
        assert_eq!(decode_u128(b"00000000000000000000_0"), None);
    }
}
