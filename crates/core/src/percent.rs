//! Parses percentages such as `30%`.

use std::str::FromStr;

/// Returns the number before the sign. The sign is required, so that `1` is never ambiguous.
pub fn number<N: FromStr>(text: &str) -> Option<N> {
    text.strip_suffix('%')
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
        .and_then(|digits| digits.parse().ok())
}
