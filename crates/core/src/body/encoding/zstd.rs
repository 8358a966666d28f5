//! Decodes one Zstandard frame (RFC 8878).
//!
//! The headers of frame and blocks are read before the library gets the body, because they bound
//! the work of the library.

use zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall;

use super::{
    DecodeLimits, MALFORMED, OPTIONAL, ResourceGate, ResourceNeed, TOO_MANY_BLOCKS, little_endian,
};
use crate::refusal::NoModel;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// RFC 9659: no HTTP encoder uses a larger window.
const MAX_WINDOW: u64 = 8 * 1024 * 1024;
const MAX_BLOCK: u64 = 128 * 1024;

pub(super) fn decode(
    sent: &[u8],
    limits: &DecodeLimits,
    gate: ResourceGate<'_>,
) -> Result<Vec<u8>, NoModel> {
    let ZstdFrame { length, bound } = ZstdFrame::read(sent, limits)?;
    let limit = limits.bytes as u64;
    // One more byte reveals a longer body.
    let room = length.unwrap_or(bound.min(limit + 1));
    let room = usize::try_from(room).map_err(|_| MALFORMED)?;
    gate(ResourceNeed::Memory(room))?;
    let mut decoded = Vec::with_capacity(room);
    let too_small = |code: usize| code.wrapping_neg() == ZSTD_error_dstSize_tooSmall as usize;
    match zstd_safe::decompress(&mut decoded, sent) {
        Ok(written) if written <= limits.bytes => {}
        Ok(_) => return Err(limits.beyond()),
        Err(code) if too_small(code) && bound > limit => return Err(limits.beyond()),
        Err(_) => return Err(MALFORMED),
    }
    gate(ResourceNeed::Time)?;
    Ok(decoded)
}

/// The content of a frame's headers.
#[derive(Debug, PartialEq)]
struct ZstdFrame {
    /// The length of the decoded content, if the header states it.
    length: Option<u64>,
    /// The content has no more bytes than this, whatever is in the blocks.
    bound: u64,
}

impl ZstdFrame {
    /// Reads the headers of a frame that must be all of `sent`.
    fn read(sent: &[u8], limits: &DecodeLimits) -> Result<Self, NoModel> {
        let mut rest = Rest(sent.strip_prefix(&MAGIC).ok_or(MALFORMED)?);
        let descriptor = rest.number(1)?;
        let single_segment = descriptor & 0x20 != 0;
        // A reserved bit, and an unused bit.
        if descriptor & 0x18 != 0 {
            return Err(MALFORMED);
        }
        if descriptor & 3 != 0 {
            return Err(OPTIONAL); // A dictionary.
        }
        let window = if single_segment {
            None
        } else {
            let said = rest.number(1)?;
            let base = 1_u64 << (10 + (said >> 3));
            Some(base + base / 8 * (said & 7))
        };
        let length = match (descriptor >> 6, single_segment) {
            (0, false) => None,
            (0, true) => Some(rest.number(1)?),
            (1, _) => Some(rest.number(2)? + 256),
            (2, _) => Some(rest.number(4)?),
            _ => Some(rest.number(8)?),
        };
        let window = window.or(length).ok_or(MALFORMED)?;
        if window > MAX_WINDOW {
            return Err(OPTIONAL);
        }
        if length.is_some_and(|length| length > limits.bytes as u64) {
            return Err(limits.beyond());
        }
        let bound = rest.blocks(window.min(MAX_BLOCK), limits)?;
        if descriptor & 4 != 0 {
            rest.skip(4)?; // The checksum.
        }
        if rest.0.is_empty() { Ok(Self { length, bound }) } else { Err(MALFORMED) }
    }
}

/// The bytes that have not been read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn skip(&mut self, length: usize) -> Result<&'a [u8], NoModel> {
        let (skipped, rest) = self.0.split_at_checked(length).ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(skipped)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, NoModel> {
        self.skip(bytes).map(little_endian)
    }

    /// Skips the blocks. Returns the most bytes that they may produce.
    fn blocks(&mut self, longest: u64, limits: &DecodeLimits) -> Result<u64, NoModel> {
        const RAW: u64 = 0;
        const REPEATED: u64 = 1;
        const COMPRESSED: u64 = 2;
        let mut bound = 0;
        for _ in 0..=limits.blocks {
            let header = self.number(3)?;
            let last = header & 1 == 1;
            let kind = header >> 1 & 3;
            let size = header >> 3;
            if size > longest {
                return Err(MALFORMED);
            }
            let (stored, becomes) = match kind {
                RAW => (size, size),
                REPEATED => (1, size),
                COMPRESSED => (size, longest),
                _ => return Err(MALFORMED),
            };
            self.skip(usize::try_from(stored).map_err(|_| MALFORMED)?)?;
            bound += becomes;
            if last {
                return Ok(bound);
            }
        }
        Err(if bound > limits.bytes as u64 { limits.beyond() } else { TOO_MANY_BLOCKS })
    }
}
