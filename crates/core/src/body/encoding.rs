//! Decodes compressed bodies.
//!
//! A backend may decode a body or not. A body that is compressed with gzip or zstd begins with
//! bytes that begin neither JSON nor a form: a backend that does not decode refuses it, and one
//! that decodes reads the same as patgate. This holds because decoders have no choice: one
//! encoding, one member or frame with nothing optional in it and nothing after it, and a correct
//! checksum.
//!
//! The cost of decoding is bounded before it begins: by the length of the compressed body, by the
//! length that it states, and by the number of its blocks, each of which may bring its own tables.

mod gzip;
mod zstd;

use crate::refusal::{CompressionFault, NoModel};

/// Most bytes of a decoded body: the same limit as for a body that is not compressed.
pub const MAX_DECODED: usize = 32 * 1024 * 1024;
/// How many times as long as the compressed body the decoded body may be. JSON of chats needs a
/// tenth of this.
pub const MAX_RATIO: usize = 100;

/// The encodings that patgate reads.
#[derive(Clone, Copy)]
pub(super) enum Encoding {
    Gzip,
    Zstd,
}

/// What decoding asks for before it continues.
#[derive(Clone, Copy, Debug)]
pub enum ResourceNeed {
    /// Memory in bytes, until the body has been read.
    Memory(usize),
    /// Time to decode another piece.
    Time,
}

/// Grants or refuses what decoding asks for.
pub type ResourceGate<'l> = &'l mut dyn FnMut(ResourceNeed) -> Result<(), NoModel>;

impl Encoding {
    /// Returns the encoding that a `Content-Encoding` names; `None` if the body is not compressed.
    pub(super) fn of(value: Option<&str>) -> Result<Option<Self>, NoModel> {
        let said = |name: &str| value.is_some_and(|value| value.eq_ignore_ascii_case(name));
        match value {
            None => Ok(None),
            _ if said("identity") => Ok(None),
            _ if said("gzip") => Ok(Some(Self::Gzip)),
            _ if said("zstd") => Ok(Some(Self::Zstd)),
            Some(_) => Err(NoModel::Encoded),
        }
    }

    pub(super) fn decode(self, sent: &[u8], gate: ResourceGate<'_>) -> Result<Vec<u8>, NoModel> {
        let limits = DecodeLimits::of(sent);
        match self {
            Self::Gzip => gzip::decode(sent, &limits, gate),
            Self::Zstd => zstd::decode(sent, &limits, gate),
        }
    }
}

/// Decodes one member of gzip that is no body but a message, up to a length of `longest`.
///
/// # Errors
///
/// Why it cannot be decoded, or what `gate` says.
pub fn gunzip(sent: &[u8], longest: usize, gate: ResourceGate<'_>) -> Result<Vec<u8>, NoModel> {
    let limits = DecodeLimits {
        bytes: longest,
        beyond: CompressionFault::TooLong,
        blocks: DecodeLimits::blocks(sent),
    };
    gzip::decode(sent, &limits, gate)
}

/// The limits of one body.
struct DecodeLimits {
    /// Most bytes of the decoded body.
    bytes: usize,
    /// The error if there are more.
    beyond: CompressionFault,
    blocks: usize,
}

impl DecodeLimits {
    /// Minimum average of compressed bytes per block, over all blocks of a body. Encoders end a
    /// block after some kilobytes.
    const BYTES_A_BLOCK: usize = 128;
    const FEW_BLOCKS: usize = 64;

    fn of(sent: &[u8]) -> Self {
        let by_ratio = sent.len().saturating_mul(MAX_RATIO);
        let beyond = if by_ratio < MAX_DECODED {
            CompressionFault::TooDense
        } else {
            CompressionFault::TooLong
        };
        Self { bytes: by_ratio.min(MAX_DECODED), beyond, blocks: Self::blocks(sent) }
    }

    fn blocks(sent: &[u8]) -> usize {
        Self::FEW_BLOCKS + sent.len() / Self::BYTES_A_BLOCK
    }

    fn beyond(&self) -> NoModel {
        NoModel::Compressed(self.beyond)
    }
}

const MALFORMED: NoModel = NoModel::Compressed(CompressionFault::Malformed);
const OPTIONAL: NoModel = NoModel::Compressed(CompressionFault::Optional);
const TOO_MANY_BLOCKS: NoModel = NoModel::Compressed(CompressionFault::TooManyBlocks);

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
