//! Costly compressed bodies: those that decompress to a large size, and those that consist of small
//! blocks, each with its own tables.

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, compress, create_comp_flags_from_zip_params,
};
use zstd_safe::{CCtx, InBuffer, OutBuffer};

use super::{Costly, Form};

/// Returns bodies that decompress to about `size` bytes, or that are about that long if they are
/// refused.
pub(super) fn compressed(size: usize) -> Vec<Costly> {
    let body = |name, encoding, bytes, decoded, good| {
        let form = Form::Json;
        let encoding = Some(encoding);
        Costly { name, form, bytes, encoding, decoded, good }
    };
    let all = |text: &[u8]| vec![text.to_vec()];
    let pieces = |text: &[u8]| text.chunks(PIECE).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let noise = noise(size);
    // Nearly the maximum ratio that is permitted.
    let dense = [&*self::noise(size / 45), &vec![b' '; size - size / 45]].concat();
    let bomb = [&*self::noise(100), &vec![b' '; size]].concat();
    let empty = [&b"\x28\xb5\x2f\xfd\0\0"[..], &b"\0\0\0".repeat(size / 3)].concat();
    let head = &gzip(&[])[..10];
    let flood = b"\0\0\0\xff\xff".repeat(size / 5);
    let flood = [head, &flood, &[0; 8]].concat();
    vec![
        body("gzip, noise", "gzip", gzip(&all(&noise)), noise.len(), true),
        body("gzip, dense", "gzip", gzip(&all(&dense)), dense.len(), true),
        body("gzip, small blocks", "gzip", gzip(&pieces(&noise)), noise.len(), true),
        body("gzip, a bomb", "gzip", gzip(&all(&bomb)), 0, false),
        body("gzip, empty blocks", "gzip", flood, 0, false),
        body("zstd, noise", "zstd", zstd(&all(&noise)), noise.len(), true),
        body("zstd, dense", "zstd", zstd(&all(&dense)), dense.len(), true),
        body("zstd, small blocks", "zstd", zstd(&pieces(&noise)), noise.len(), true),
        body("zstd, a bomb", "zstd", zstd(&all(&bomb)), 0, false),
        body("zstd, empty blocks", "zstd", empty, 0, false),
    ]
}

/// The number of bytes between two ends of a block: the minimum that is permitted.
const PIECE: usize = 420;

/// Returns JSON of letters, some of which are frequent, so that separate tables are worth their
/// cost.
fn noise(length: usize) -> Vec<u8> {
    let mut text = br#"{"model":"m","a":""#.to_vec();
    let mut state = 1_u64;
    while text.len() < length - 2 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let high = (state >> 56) as u8;
        let low = (state >> 48) as u8;
        text.push(b'A' + high.min(low) / 8);
    }
    let text: Vec<_> =
        text.into_iter().map(|byte| if byte == b'\\' { b'x' } else { byte }).collect();
    [&*text, b"\"}"].concat()
}

/// A member with a block per piece.
fn gzip(pieces: &[Vec<u8>]) -> Vec<u8> {
    let text = pieces.concat();
    let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(6, 0, 0));
    let mut deflated = vec![0; text.len() * 2 + 1000];
    let mut written = 0;
    for (number, piece) in pieces.iter().enumerate() {
        let last = number + 1 == pieces.len();
        let flush = if last { TDEFLFlush::Finish } else { TDEFLFlush::Sync };
        let (_, read, more) = compress(&mut compressor, piece, &mut deflated[written..], flush);
        assert_eq!(read, piece.len());
        written += more;
    }
    let checksum = crc32fast::hash(&text);
    let length = text.len() as u32;
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    [&head, &deflated[..written], &checksum.to_le_bytes(), &length.to_le_bytes()].concat()
}

/// A frame with a block per piece.
fn zstd(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut context = CCtx::create();
    let mut frame = vec![0; pieces.concat().len() * 2 + 1000];
    let mut output = OutBuffer::around(&mut frame);
    for piece in pieces {
        let mut input = InBuffer::around(piece);
        while input.pos() < piece.len() {
            assert!(context.compress_stream(&mut output, &mut input).is_ok());
        }
        if pieces.len() > 1 {
            assert!(context.flush_stream(&mut output).is_ok());
        }
    }
    assert!(context.end_stream(&mut output).is_ok());
    let length = output.pos();
    frame.truncate(length);
    frame
}
