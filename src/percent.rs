//! Percentages as people write them.

use std::str::FromStr;

/// The number before the sign, which is insisted on: nobody shall have to guess what `1` is.
pub(crate) fn number<N: FromStr>(text: &str) -> Option<N> {
    text.strip_suffix('%')
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
        .and_then(|digits| digits.parse().ok())
}
