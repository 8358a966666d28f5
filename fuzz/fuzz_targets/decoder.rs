//! Checks on the wire: none makes the decoder panic, and it reads what a generated one reads, or
//! refuses for a reason that is meant.
//!
//! The input is a `CheckRequest`, without the five bytes that gRPC puts before it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use patgate::codec::{HttpRequest, NOTICED};

#[path = "../../src/codec/expected.rs"]
mod expected;

fuzz_target!(|data: &[u8]| {
    // What it is refused for does not matter here.
    let _ = expected::agree(data);
});
