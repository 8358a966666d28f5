//! Reads secrets, which never arrive as arguments.

use std::io::{self, Read as _};

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

/// Reads a secret from standard input, at most `max_len` bytes of it.
pub(super) fn secret_from_standard_input(max_len: usize) -> anyhow::Result<Zeroizing<String>> {
    // Its full capacity is reserved at once: a reallocation would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(max_len));
    let mut input = io::stdin().lock().take(max_len as u64);
    input.read_to_string(&mut text).context("standard input")?;
    Ok(text)
}

/// Reads a text that may hold secrets from standard input. It need not be UTF-8.
///
/// # Errors
///
/// If it is longer than `max_len` bytes, or cannot be read.
pub(super) fn text_from_standard_input(max_len: usize) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    // Its full capacity is reserved at once, as above.
    let mut text = Zeroizing::new(Vec::with_capacity(max_len + 1));
    io::stdin().lock().take(max_len as u64 + 1).read_to_end(&mut text).context("standard input")?;
    if text.len() > max_len {
        bail!(
            "standard input is longer than {} MiB, and nothing was revoked; give the command the \
             lines with tokens only, such as `grep -a pat_ FILE`",
            max_len >> 20
        );
    }
    Ok(text)
}
