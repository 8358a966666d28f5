//! Checks on the wire: none makes the decoder panic, and it reads what a generated one reads, or
//! refuses for a reason that is meant. Compressed, each is the same message.
//!
//! The input is a `CheckRequest`, without the five bytes that gRPC puts before it.

#![no_main]

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use patgate::{
    body::gunzip,
    wire::codec::{HttpRequest, NOTICED},
};

#[path = "../../src/wire/codec/expected.rs"]
mod expected;

/// Bytes that a compressed message may become here.
const LONGEST: usize = 64 * 1024;

fuzz_target!(|data: &[u8]| {
    // What it is refused for does not matter here.
    let _ = expected::agree(data);

    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(data).unwrap();
    let zipped = zipped.finish().unwrap();
    let message = gunzip(&zipped, data.len(), &mut |_| Ok(()));
    assert_eq!(message.as_deref(), Ok(data));
    // As a compressed message it is hardly ever one, and never longer than it may be.
    if let Ok(message) = gunzip(data, LONGEST, &mut |_| Ok(())) {
        assert!(message.len() <= LONGEST);
        let _ = expected::agree(&message);
    }
});
