//! Reads secrets, which never arrive as arguments.

use std::io::{self, Read as _};

use anyhow::Context as _;
use zeroize::Zeroizing;

/// Reads a secret from standard input, at most `max_len` bytes of it.
pub(super) fn secret_from_standard_input(max_len: usize) -> anyhow::Result<Zeroizing<String>> {
    // Its full capacity is reserved at once: a reallocation would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(max_len));
    let mut input = io::stdin().lock().take(max_len as u64);
    input.read_to_string(&mut text).context("standard input")?;
    Ok(text)
}
