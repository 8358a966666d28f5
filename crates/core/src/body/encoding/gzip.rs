//! Decodes one gzip member (RFC 1952).

use miniz_oxide::inflate::{
    TINFLStatus,
    core::{
        DecompressorOxide, decompress_with_limit,
        inflate_flags::{
            TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
        },
    },
};

use super::{
    DecodeLimits, MALFORMED, OPTIONAL, ResourceGate, ResourceNeed, TOO_MANY_BLOCKS, little_endian,
};
use crate::refusal::NoModel;

const HEAD: usize = 10;
/// Bytes of the checksum and the length at the end.
const TAIL: usize = 8;
const DEFLATE: u8 = 8;
/// Bytes between two requests for time.
const PIECE: usize = 256 * 1024;
/// Blocks between two requests for time: their tables take time even if they produce no bytes.
const BLOCKS: usize = 1024;

/// Decodes a member. Its fields about time and system do not affect its content.
pub(super) fn decode(
    sent: &[u8],
    limits: &DecodeLimits,
    gate: ResourceGate<'_>,
) -> Result<Vec<u8>, NoModel> {
    let (head, rest) = sent.split_at_checked(HEAD).ok_or(MALFORMED)?;
    let flags = head.strip_prefix(&[0x1f, 0x8b, DEFLATE]).and_then(<[u8]>::first);
    match flags.ok_or(MALFORMED)? {
        0 => {}
        1..=0x1f => return Err(OPTIONAL),
        _ => return Err(MALFORMED),
    }
    let end = rest.len().checked_sub(TAIL).ok_or(MALFORMED)?;
    let (deflated, tail) = rest.split_at(end);
    let (checksum, length) = tail.split_at(4);
    // In the last member, this is the length; whatever it is, no more bytes are decoded.
    let length = usize::try_from(little_endian(length)).map_err(|_| MALFORMED)?;
    if length > limits.bytes {
        return Err(limits.beyond());
    }
    gate(ResourceNeed::Memory(length))?;
    // One more byte reveals a longer body.
    let mut decoded = vec![0; length + 1];
    let written = inflate(deflated, &mut decoded, limits.blocks, gate)?;
    if written != length {
        return Err(MALFORMED);
    }
    decoded.truncate(length);
    let right = u64::from(crc32fast::hash(&decoded)) == little_endian(checksum);
    if right { Ok(decoded) } else { Err(MALFORMED) }
}

/// Decodes all of `deflated`. Returns the number of decoded bytes.
fn inflate(
    deflated: &[u8],
    into: &mut [u8],
    mut blocks: usize,
    gate: ResourceGate<'_>,
) -> Result<usize, NoModel> {
    const HOW: u32 = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
    let mut state = Box::<DecompressorOxide>::default();
    let mut read = 0;
    let mut written = 0;
    let mut looked = 0;
    let mut ended = 0;
    loop {
        let rest = deflated.get(read..).ok_or(MALFORMED)?;
        let (status, taken, given) =
            decompress_with_limit(&mut state, rest, into, written, PIECE, HOW);
        read += taken;
        written += given;
        match status {
            TINFLStatus::Done if read == deflated.len() => {
                gate(ResourceNeed::Time)?;
                return Ok(written);
            }
            TINFLStatus::BlockBoundary => {
                blocks = blocks.checked_sub(1).ok_or(TOO_MANY_BLOCKS)?;
                ended += 1;
            }
            TINFLStatus::HasMoreOutput if given > 0 => {}
            _ => return Err(MALFORMED),
        }
        if written - looked >= PIECE || ended >= BLOCKS {
            gate(ResourceNeed::Time)?;
            (looked, ended) = (written, 0);
        }
    }
}
