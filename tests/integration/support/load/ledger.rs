//! Counts the answers.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use super::TokenKind;

/// Answers by kind and status.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Counts>);

#[derive(Default)]
struct Counts {
    counts: Mutex<BTreeMap<(TokenKind, u16), u64>>,
    wrong_allows: AtomicU64,
}

impl Ledger {
    pub(crate) fn add(&self, kind: TokenKind, status: u16, wrong_allow: bool) {
        *self.0.counts.lock().unwrap().entry((kind, status)).or_default() += 1;
        self.0.wrong_allows.fetch_add(u64::from(wrong_allow), SeqCst);
    }

    /// How often a kind got one of these answers.
    pub(crate) fn count(&self, kind: TokenKind, legal: impl Fn(u16) -> bool) -> u64 {
        let counts = self.0.counts.lock().unwrap();
        counts.iter().filter(|((k, s), _)| *k == kind && legal(*s)).map(|(_, count)| count).sum()
    }

    /// The number of 200 answers that are not legal.
    pub(crate) fn wrong_allows(&self) -> u64 {
        self.0.wrong_allows.load(SeqCst)
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for ((kind, status), count) in &*self.0.counts.lock().unwrap() {
            if last.replace(*kind) != Some(*kind) {
                write!(f, "{kind:?} ")?;
            }
            write!(f, "{status} × {count}, ")?;
        }
        write!(f, "wrong allows {}", self.wrong_allows())
    }
}
