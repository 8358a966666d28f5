//! Notices when the content of files has changed, and is whole.

/// The content of files that are read again and again, errors of reading included.
///
/// New content is taken up when it was read twice: the next read may find the rest of a file that is
/// being written.
pub(crate) struct Settled<C> {
    /// What was taken up last: an error is reported once, not at every read.
    taken: C,
    /// What the last read found, if it differs from `taken`.
    seen: Option<C>,
}

impl<C: Clone + PartialEq> Settled<C> {
    /// Begins with the content that is in use.
    pub(crate) fn new(taken: C) -> Self {
        Self { taken, seen: None }
    }

    /// Returns what was read if it differs from what was taken up last, and was read before.
    pub(crate) fn take(&mut self, read: C) -> Option<C> {
        if read == self.taken {
            self.seen = None;
            return None;
        }
        if self.seen.as_ref() != Some(&read) {
            self.seen = Some(read);
            return None;
        }
        self.force(read.clone());
        Some(read)
    }

    /// Returns content for which there is nothing to wait, if it differs from what was taken up last.
    pub(crate) fn take_at_once(&mut self, read: C) -> Option<C> {
        let is_new = read != self.taken;
        self.force(read.clone());
        is_new.then_some(read)
    }

    /// Notes that this content is taken up, however often it was read.
    pub(crate) fn force(&mut self, read: C) {
        self.seen = None;
        self.taken = read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_taken_up_once_and_when_it_was_read_twice() {
        let mut files = Settled::new("a");
        for (read, taken) in [
            ("a", None),
            ("b", None),
            ("bc", None),
            ("bc", Some("bc")),
            ("bc", None),
            ("d", None),
            ("bc", None),
            ("d", None),
            ("d", Some("d")),
            ("a", None),
            ("a", Some("a")),
        ] {
            assert_eq!(files.take(read), taken, "{read}");
        }
    }
}
