//! A replica: the real feed, and around it what a look-up and the reader do, in their steps.

use std::{
    hash::{Hash, Hasher},
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
};

use super::{
    super::*,
    MAX_STALENESS, OURS, TICK, fingerprint,
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
    /// The latest server that it has met, and by a statement sent when; and the writes there that it
    /// was told of.
    pub(super) met: Option<(Server, i64)>,
    pub(super) told: Writes,
}

pub(super) fn tick(at: i64) -> Tick {
    Tick::from_micros(0).after(TICK * u32::try_from(at).unwrap())
}

fn checked(version: u64) -> Checked {
    Checked(AtomicU64::new(version))
}

impl Replica {
    pub(super) fn new(remembered: usize) -> Self {
        let record = Record::retaining(TICK, remembered);
        let feed = Feed { record: RwLock::new(record), ..Feed::of(OURS) };
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
        let met = self.meets(&entry.stamp, entry.as_of);
        if met && self.memory.as_ref().is_none_or(|(held, _)| held.as_of <= entry.as_of) {
            self.memory = Some((Rc::clone(entry), UNCHECKED));
        }
        met
    }

    /// Whether it joins on.
    pub(super) fn poll_arrives(&mut self, (poll, writes): (Poll, Writes)) -> bool {
        // A fill may meet another server between these two.
        let met = self.meets(&poll.stamp, poll.sent.since(tick(0)).as_secs().cast_signed());
        let joined = self.feed.apply(poll);
        self.again = met && !joined;
        if joined {
            self.told |= writes;
        }
        joined
    }

    /// A poll of another replica, perhaps an old one, arrives by the relay.
    pub(super) fn frame_arrives(&mut self, (poll, writes): &(Poll, Writes), now: i64) {
        if self.feed.follow(Poll { sent: tick(now), ..poll.clone() }) {
            self.told |= writes;
        }
    }

    /// Asks only what the server sees.
    pub(super) fn visit(&mut self, server: &Postgres, now: i64) {
        let stamp = server.stamp();
        if self.meets(&stamp, now) {
            self.feed.visit(&stamp, tick(now));
        }
    }

    fn meets(&mut self, stamp: &Stamp, sent: i64) -> bool {
        // Not what the feed says, lest it were taken at its word.
        let left_behind = |(met, at): (Server, i64)| {
            met.timeline > stamp.server.timeline
                || (met.timeline == stamp.server.timeline && met != stamp.server && sent < at)
        };
        let known = self.met.is_some_and(|(met, _)| met == stamp.server);
        let ours = stamp.server.installation == OURS;
        if ours && !known && !self.met.is_some_and(left_behind) {
            self.met = Some((stamp.server, sent));
            self.told = 0;
        }
        self.feed.meet(stamp, tick(sent)).is_ok()
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
        self.poll.as_ref().map(of_poll).hash(to);
        (self.again, self.met, self.told).hash(to);
    }
}

pub(super) fn of_poll((poll, writes): &(Poll, Writes)) -> u64 {
    let (sent, changes) = (poll.sent.as_micros(), &poll.changes);
    fingerprint(&(sent, &poll.stamp, poll.triggers, &poll.horizon, &poll.after, changes, writes))
}
