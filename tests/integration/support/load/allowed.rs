//! Kinds of tokens, and what may be answered to each.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TokenKind {
    /// Used all the time, and good.
    Hot,
    /// Good, and used once.
    Cold,
    /// Revoked, and known to be, before anything goes wrong.
    Revoked,
    /// Used all the time; the test revokes it at some point.
    Turning,
    /// Of another key ring.
    Forged,
}

/// What may be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllowedStatuses {
    pub(crate) hot: &'static [u16],
    pub(crate) cold: &'static [u16],
    pub(crate) revoked: &'static [u16],
    pub(crate) turning: &'static [u16],
    pub(crate) forged: &'static [u16],
}

/// When all is well.
pub(crate) const WELL: AllowedStatuses =
    AllowedStatuses { hot: &[200], cold: &[200], revoked: &[401], turning: &[200], forged: &[401] };

/// Anything may be lost on its way, and nothing is answered wrongly.
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
