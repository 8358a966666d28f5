//! Bodies that are compressed, and what is read of them.
//!
//! A backend may decode a body or not. Compressed with gzip or zstd, it begins with bytes that begin
//! neither JSON nor a form: a backend that does not decode refuses it, and one that does reads what
//! is read here. That is so because nothing is left to a decoder's choice: one encoding, one member
//! or frame with nothing optional in it and nothing behind it, and a checksum that is right.
//!
//! What decoding costs is bounded before it begins: by the length of what was sent, of what it says
//! it becomes, and by the number of its blocks, each of which may bring tables of its own.

mod gzip;
mod zstd;

use crate::decision::{Compressed, NoModel};

/// Bytes of a decoded body at most: as many as of one that is sent as it is.
pub(crate) const MAX_DECODED: usize = 32 * 1024 * 1024;
/// How many times as long as what was sent it may be. JSON of chats has a tenth of that.
pub(crate) const MAX_RATIO: usize = 100;

/// Encodings that are read.
#[derive(Clone, Copy)]
pub(super) enum Encoding {
    Gzip,
    Zstd,
}

/// What decoding asks for before it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// So many bytes of memory, until the body has been read.
    Memory(usize),
    /// More time.
    Time,
}

/// Answers what decoding asks for.
pub type Leave<'l> = &'l mut dyn FnMut(Ask) -> Result<(), NoModel>;

impl Encoding {
    /// What a `Content-Encoding` says; `None` if the body is sent as it is.
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

    pub(super) fn decode(self, sent: &[u8], leave: Leave<'_>) -> Result<Vec<u8>, NoModel> {
        let limits = Limits::of(sent);
        match self {
            Self::Gzip => gzip::decode(sent, &limits, leave),
            Self::Zstd => zstd::decode(sent, &limits, leave),
        }
    }
}

/// Of one body.
struct Limits {
    /// Bytes that it may become.
    bytes: usize,
    /// What it is if it becomes more.
    beyond: Compressed,
    blocks: usize,
}

impl Limits {
    /// Of a block in the middle, over all blocks of a body. Encoders end one after some kilobytes.
    const BYTES_A_BLOCK: usize = 128;
    const FEW_BLOCKS: usize = 64;

    fn of(sent: &[u8]) -> Self {
        let by_ratio = sent.len().saturating_mul(MAX_RATIO);
        let beyond =
            if by_ratio < MAX_DECODED { Compressed::TooDense } else { Compressed::TooLong };
        Self {
            bytes: by_ratio.min(MAX_DECODED),
            beyond,
            blocks: Self::FEW_BLOCKS + sent.len() / Self::BYTES_A_BLOCK,
        }
    }

    fn beyond(&self) -> NoModel {
        NoModel::Compressed(self.beyond)
    }
}

const MALFORMED: NoModel = NoModel::Compressed(Compressed::Malformed);
const OPTIONAL: NoModel = NoModel::Compressed(Compressed::Optional);
const TOO_MANY_BLOCKS: NoModel = NoModel::Compressed(Compressed::TooManyBlocks);

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
