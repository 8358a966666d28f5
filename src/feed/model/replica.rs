//! A replica: the real feed, and around it what a look-up and the reader do, in their steps.

use std::{
    hash::{Hash, Hasher},
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
};

use super::{
    super::*,
    MAX_STALENESS, TICK,
    world::{Postgres, Writes, token},
};

/// What was found about the token, and what the finding truly rests on.
#[derive(Clone, Debug, Hash)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    pub(super) as_of: i64,
    pub(super) knows: Writes,
}

pub(super) struct Replica {
    pub(super) feed: Feed,
    /// With what its `Checked` holds.
    pub(super) memory: Option<(Rc<Entry>, u64)>,
    /// The answer to a fill, on its way.
    pub(super) fill: Option<Rc<Entry>>,
    /// That to a poll, and the writes in it.
    pub(super) poll: Option<(Poll, Writes)>,
    /// The last poll did not join.
    pub(super) again: bool,
    /// The latest server that it has met, and the writes there that it was told of.
    pub(super) met: Option<Server>,
    pub(super) told: Writes,
}

pub(super) fn tick(at: i64) -> Tick {
    Tick::from_micros(0).after(TICK * u32::try_from(at).unwrap())
}

fn checked(version: u64) -> Checked {
    Checked(Arc::new(AtomicU64::new(version)))
}

impl Replica {
    pub(super) fn new(remembered: usize) -> Self {
        let record = Record::retaining(TICK, remembered);
        let feed = Feed { record: RwLock::new(record), ..Feed::default() };
        Self { feed, memory: None, fill: None, poll: None, again: false, met: None, told: 0 }
    }

    /// Whether the entry may be used now, by the rule; and what it was compared with.
    pub(super) fn admits(&self, entry: &Entry, version: u64, now: i64) -> (bool, u64) {
        let checked = checked(version);
        let known = self.feed.holds_as_of(&entry.stamp, &checked, tick(entry.as_of), |visit| {
            visit(token());
        });
        let fresh = |known| tick(now).since(known) <= TICK * u32::try_from(MAX_STALENESS).unwrap();
        (known.is_some_and(fresh), checked.0.load(Relaxed))
    }

    pub(super) fn fill_arrives(&mut self, entry: &Rc<Entry>) -> bool {
        let met = self.meets(&entry.stamp);
        if met && self.memory.as_ref().is_none_or(|(held, _)| held.as_of <= entry.as_of) {
            self.memory = Some((Rc::clone(entry), UNCHECKED));
        }
        met
    }

    pub(super) fn poll_arrives(&mut self, (poll, writes): (Poll, Writes)) {
        // A fill may meet another server between these two.
        let met = self.meets(&poll.stamp);
        let joined = self.feed.apply(poll);
        self.again = met && !joined;
        if joined {
            self.told |= writes;
        }
    }

    fn meets(&mut self, stamp: &Stamp) -> bool {
        let met = self.feed.meet(stamp).is_ok();
        if met && self.met != Some(stamp.server) {
            self.met = Some(stamp.server);
            self.told = 0;
        }
        met
    }

    pub(super) fn poll(&mut self, server: &Postgres, now: i64) {
        let after = if self.again { None } else { self.feed.polled_to() };
        self.again = false;
        self.poll = Some(server.answer(tick(now), after));
    }
}

impl Clone for Replica {
    fn clone(&self) -> Self {
        let record = self.feed.read().clone();
        Self {
            feed: Feed {
                version: AtomicU64::new(self.feed.version.load(Relaxed)),
                watermark: AtomicI64::new(self.feed.watermark.load(Relaxed)),
                record: RwLock::new(record),
            },
            memory: self.memory.clone(),
            fill: self.fill.clone(),
            poll: self.poll.clone(),
            ..*self
        }
    }
}

impl Hash for Replica {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let record = self.feed.read();
        assert_eq!(record.version(), self.feed.version.load(Relaxed));
        let mut versions: Vec<u64> = self.memory.iter().map(|(_, version)| *version).collect();
        record.versions(&mut versions);
        versions.sort_unstable();
        versions.dedup();
        let order = |version| versions.binary_search(&version).unwrap_or(usize::MAX);
        record.hash(to, order);
        self.feed.watermark.load(Relaxed).hash(to);
        self.memory.as_ref().map(|(entry, version)| (entry, order(*version))).hash(to);
        self.fill.hash(to);
        self.poll.is_some().hash(to);
        if let Some((poll, writes)) = &self.poll {
            (poll.sent.as_micros(), &poll.stamp, &poll.horizon, &poll.after).hash(to);
            (&poll.changes, writes).hash(to);
        }
        (self.again, self.met, self.told).hash(to);
    }
}
