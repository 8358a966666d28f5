//! What became of a lookup in one tier.

/// What one tier said, or why it said nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupResult {
    /// It has a value.
    Hit,
    /// It knows that there is no such thing.
    Negative,
    /// It has no entry.
    Miss,
    /// Its entry is too old, or a change has made it outdated.
    Stale,
    /// Its entry is not sealed by this key ring for this key.
    Refused,
    /// It was not asked, because it failed several times in a row.
    Open,
    /// It was not asked, because the answer would have come too late.
    Shed,
    /// It failed, or did not answer in time.
    Unavailable,
}

impl LookupResult {
    /// The word in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Negative => "negative",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Refused => "refused",
            Self::Open => "open",
            Self::Shed => "shed",
            Self::Unavailable => "unavailable",
        }
    }
}
