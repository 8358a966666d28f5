//! Kinds of tokens, and the legal answers to each.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TokenKind {
    /// Valid, and used all the time.
    Hot,
    /// Valid, and used once.
    Cold,
    /// Revoked, and known to be revoked before any fault.
    Revoked,
    /// Used all the time; the test revokes it at some point.
    Turning,
    /// Signed by another key ring.
    Forged,
}

/// The legal answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllowedStatuses {
    pub(crate) hot: &'static [u16],
    pub(crate) cold: &'static [u16],
    pub(crate) revoked: &'static [u16],
    pub(crate) turning: &'static [u16],
    pub(crate) forged: &'static [u16],
}

/// Without a fault.
pub(crate) const WELL: AllowedStatuses =
    AllowedStatuses { hot: &[200], cold: &[200], revoked: &[401], turning: &[200], forged: &[401] };

/// Anything may be lost in transit, and no answer is wrong.
pub(crate) const FALTERING: AllowedStatuses = AllowedStatuses {
    hot: &[200, 503],
    cold: &[200, 503],
    revoked: &[401, 503],
    turning: &[200, 503],
    forged: &[401, 503],
};

impl AllowedStatuses {
    pub(super) fn allows(&self, kind: TokenKind, status: u16) -> bool {
        let legal = match kind {
            TokenKind::Hot => self.hot,
            TokenKind::Cold => self.cold,
            TokenKind::Revoked => self.revoked,
            TokenKind::Turning => self.turning,
            TokenKind::Forged => self.forged,
        };
        legal.contains(&status)
    }
}

pub(crate) const CHANGING: AllowedStatuses = AllowedStatuses { cold: &[200, 503], ..WELL };

/// Postgres cannot be read.
pub(crate) const UNREAD: AllowedStatuses = AllowedStatuses { cold: &[503], ..WELL };
