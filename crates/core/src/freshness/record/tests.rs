//! Cases outside the model: those of a foreign database, and those that take only a few steps.

use std::hash::{Hash, Hasher};

use super::*;
use crate::{freshness::OtherInstallation, keyring::KeyRing, testing::OURS};

impl ChangeRecord {
    /// Makes a record that forgets changes early.
    pub(in crate::freshness) fn retaining(age: Duration, count: usize) -> Self {
        Self { retention: Retention { age, count }, ..Self::of(OURS) }
    }

    /// Adds all versions that the record distinguishes.
    pub(in crate::freshness) fn versions(&self, to: &mut Vec<u64>) {
        to.push(self.version);
        let Some(history) = &self.history else { return };
        to.push(history.floor_version);
        to.extend(history.arrivals.iter().map(|arrival| arrival.version));
    }

    /// Equal for records that behave alike, with the versions by their order.
    pub(in crate::freshness) fn hash(&self, to: &mut impl Hasher, order: impl Fn(u64) -> usize) {
        order(self.version).hash(to);
        let Some(history) = &self.history else { return };
        history.lineage.hash(to);
        history.met.as_micros().hash(to);
        for (sent, snapshot) in &history.observations {
            (sent.as_micros(), snapshot).hash(to);
        }
        history.floor.hash(to);
        order(history.floor_version).hash(to);
        history.seen.hash(to);
        history.polled.hash(to);
        history.triggers.hash(to);
        history.count.hash(to);
        let mut all = |changes: &VecDeque<(Xid, u64)>| {
            changes.len().hash(to);
            changes.iter().for_each(|(xid, version)| (xid, order(*version)).hash(to));
        };
        // The model knows one dependency, so that there is no order to mind.
        assert!(history.changes.len() <= 1);
        history.changes.values().for_each(&mut all);
        all(&history.everything);
        for arrival in &history.arrivals {
            order(arrival.version).hash(to);
            arrival.at.as_micros().hash(to);
            arrival.seen.hash(to);
            arrival.changes.hash(to);
        }
    }
}

const A_KEY: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// As they were made, long before.
const ON: Triggers = Triggers { state: 1, switched: Xid(1) };

fn lineage() -> Lineage {
    Lineage { installation: OURS, timeline: 1, life: 1 }
}

fn stamp(snapshot: &str) -> Stamp {
    Stamp { lineage: lineage(), snapshot: snapshot.parse().unwrap() }
}

fn slug(name: &str) -> Dependency {
    Dependency::Slug(name.parse().unwrap())
}

/// At second `sent`: from nothing, or from where `record` stands.
fn poll(record: &ChangeRecord, sent: u64, snapshot: &str, changes: &[(u64, Change)]) -> Poll {
    Poll {
        sent: Tick::from_micros(0).after(Duration::from_secs(sent)),
        stamp: stamp(snapshot),
        triggers: ON,
        horizon: "10:10:".parse().unwrap(),
        after: record.polled_to(),
        changes: changes.iter().map(|(xid, change)| (Xid(*xid), change.clone())).collect(),
    }
}

fn apply(record: &mut ChangeRecord, sent: u64, snapshot: &str, changes: &[(u64, Change)]) {
    let poll = poll(record, sent, snapshot, changes);
    assert!(record.apply(poll));
}

fn holds(record: &ChangeRecord, snapshot: &str, dependency: &Dependency) -> bool {
    record.judge(&stamp(snapshot), None, |visit| visit(dependency.clone())).is_some()
}

#[test]
fn a_change_outdates_what_rests_on_it_and_nothing_else() {
    let (mut record, [a, b]) = (ChangeRecord::of(OURS), ["aa", "bb"].map(slug));
    assert!(!holds(&record, "11:11:", &a), "nothing is known of any server");
    apply(&mut record, 0, "12:12:", &[(11, Change::To(a.clone()))]);
    assert_eq!([holds(&record, "11:11:", &a), holds(&record, "11:11:", &b)], [false, true]);
    assert!(holds(&record, "12:12:", &a));
    assert!(!holds(&record, "9:9:", &b), "below the horizon");
    apply(&mut record, 1, "14:14:", &[(13, Change::Everything)]);
    assert_eq!([holds(&record, "12:12:", &a), holds(&record, "12:12:", &b)], [false, false]);
    assert!(holds(&record, "14:14:", &b));
}

#[test]
fn an_earlier_result_counts_for_what_it_was_compared_with() {
    let mut record = ChangeRecord::retaining(Duration::from_secs(2), 9);
    let a = slug("aa");
    let change = Change::To(a.clone());
    let judge = |record: &ChangeRecord, since| {
        record.judge(&stamp("12:12:"), since, |visit| visit(a.clone()))
    };
    apply(&mut record, 0, "12:12:", &[(11, change.clone())]);
    let first = judge(&record, None);
    assert!(first.is_some());
    apply(&mut record, 1, "13:13:", &[(12, Change::To(slug("bb")))]);
    let second = judge(&record, first);
    assert!(second > first);
    // The first two are forgotten: the snapshot is below the floor, and the later result above.
    apply(&mut record, 4, "14:14:", &[(13, Change::To(slug("bb")))]);
    assert_eq!(judge(&record, None), None);
    assert_eq!(judge(&record, first), None);
    assert!(judge(&record, second).is_some());
    apply(&mut record, 4, "15:15:", &[(14, change)]);
    assert_eq!(judge(&record, second), None);
}

#[test]
fn what_is_forgotten_is_gone() {
    let mut record = ChangeRecord::retaining(Duration::from_secs(2), 9);
    for second in 0..9 {
        let xid = 10 + second;
        let next = 11 + second;
        let changes = [(xid, Change::To(slug("aa"))), (xid, Change::Everything)];
        apply(&mut record, second, &format!("{next}:{next}:"), &changes);
    }
    let history = record.history.as_ref().unwrap();
    let changes: usize = history.changes.values().map(VecDeque::len).sum();
    assert_eq!((changes, history.everything.len(), history.arrivals.len()), (3, 3, 3));
    assert_eq!((history.count, history.floor.to_string().as_str()), (6, "16:16:"));
    apply(&mut record, 20, "19:19:", &[]);
    let history = record.history.as_ref().unwrap();
    assert_eq!((history.count, history.changes.len(), history.everything.len()), (0, 0, 0));
}

#[test]
fn more_than_can_be_remembered_raises_the_floor() {
    let mut record = ChangeRecord::retaining(Duration::from_secs(2), 1);
    let a = slug("aa");
    let change = Change::To(a.clone());
    apply(&mut record, 0, "13:13:", &[(11, change.clone()), (12, change)]);
    assert_eq!([holds(&record, "12:12:", &a), holds(&record, "13:13:", &a)], [false, true]);
}

#[test]
fn what_does_not_see_triggers_switched_is_refused() {
    let mut record = ChangeRecord::of(OURS);
    let a = slug("aa");
    apply(&mut record, 0, "20:20:", &[]);
    assert!(holds(&record, "15:15:", &a));
    // By 25, or by a part of 22: while that is running, 25 counts as ended.
    let triggers = Triggers { state: 2, switched: Xid(25) };
    let switched = Poll { triggers, ..poll(&record, 1, "19:30:19", &[]) };
    assert!(!record.apply(switched.clone()), "its changes may leave a gap");
    assert!(record.apply(Poll { after: None, ..switched }));
    assert_eq!(record.triggers(), Some(triggers));
    for (snapshot, holds) in
        [("20:20:", false), ("22:27:22", false), ("26:26:", true), ("19:30:19", true)]
    {
        assert_eq!(super::tests::holds(&record, snapshot, &a), holds, "{snapshot}");
    }
    // What was found to hold does so until they are switched again.
    let holding = record.judge(&stamp("26:26:"), None, |visit| visit(a.clone()));
    let next = Poll { triggers, ..poll(&record, 2, "31:31:", &[]) };
    assert!(record.apply(next));
    assert!(record.judge(&stamp("26:26:"), holding, |visit| visit(a.clone())).is_some());
}

#[test]
fn a_gap_is_noticed() {
    let mut record = ChangeRecord::of(OURS);
    apply(&mut record, 0, "20:20:", &[]);
    let good = poll(&record, 1, "30:30:", &[]);
    let after = |text: &str| Some(text.parse().unwrap());
    for bad in [
        Poll { after: after("21:21:"), ..good.clone() },
        Poll { horizon: "21:21:".parse().unwrap(), ..good.clone() },
        Poll { stamp: stamp("19:19:"), ..good.clone() },
        Poll { stamp: stamp("19:30:19"), ..good.clone() },
    ] {
        assert!(!record.apply(bad.clone()), "{bad:?}");
    }
    assert!(record.apply(good));
}

#[test]
fn what_a_dump_brings_from_another_cluster_does_no_harm() {
    let mut record = ChangeRecord::of(OURS);
    let a = slug("aa");
    let foreign = [(9_000, Change::To(a.clone()))];
    for second in 0..9 {
        apply(&mut record, second, "20:20:", &foreign);
        assert!(holds(&record, "20:20:", &a));
    }
    assert_eq!(record.history.as_ref().unwrap().count, 0);
    let horizon = "8000:8000:".parse().unwrap();
    let poll = Poll { horizon, after: None, ..poll(&record, 9, "21:21:", &foreign) };
    assert!(record.apply(poll));
    assert_eq!([holds(&record, "20:20:", &a), holds(&record, "21:21:", &a)], [false, true]);
}

#[test]
fn another_history_begins_anew_and_an_earlier_one_is_refused() {
    let mut record = ChangeRecord::of(OURS);
    let a = slug("aa");
    let at = |timeline, life| Stamp {
        lineage: Lineage { installation: OURS, timeline, life },
        snapshot: "20:20:".parse().unwrap(),
    };
    apply(&mut record, 0, "20:20:", &[]);
    let second = |second| Tick::from_micros(0).after(Duration::from_secs(second));
    for (sent, next) in [(1, at(2, 1)), (2, at(2, 0)), (3, at(3, 0))] {
        let before = record.version();
        assert_eq!(record.meet(&next, second(sent)), Ok(()));
        assert!(record.version() > before && record.polled_to().is_none());
        assert!(record.judge(&next, Some(before), |visit| visit(a.clone())).is_some());
        assert!(!holds(&record, "30:30:", &a), "of what was left behind");
    }
    let [old, late] = [at(7, 1), at(6, 9)];
    record.meet(&old, second(6)).unwrap();
    assert_eq!(record.meet(&late, second(7)), Err(SupersededServer(6).into()));
    // An answer that was on its way since before the crash.
    assert_eq!(record.meet(&at(7, 0), second(5)), Err(SupersededServer(7).into()));
    assert!(!record.apply(Poll { stamp: late, ..poll(&ChangeRecord::of(OURS), 1, "30:30:", &[]) }));
    assert_eq!(record.lineage(), Some(old.lineage));
}

#[test]
fn nothing_of_another_installation_is_used() {
    let mut record = ChangeRecord::of(OURS);
    let a = slug("aa");
    let theirs = "7/16385/00000000-0000-0000-0000-000000000001".parse().unwrap();
    let later = |second| Tick::from_micros(0).after(Duration::from_secs(second));
    // A later timeline, a later sending and all that could be seen make no difference.
    let lineage = Lineage { installation: theirs, timeline: 9, life: 9 };
    let stamp = Stamp { lineage, snapshot: "900:900:".parse().unwrap() };
    let elsewhere = Err(OtherInstallation { expected: OURS, found: theirs }.into());
    assert_eq!(record.meet(&stamp, later(1)), elsewhere);
    assert_eq!(record.lineage(), None);
    apply(&mut record, 2, "20:20:", &[]);
    let version = record.version();
    assert_eq!(record.meet(&stamp, later(3)), elsewhere);
    for after in [None, record.polled_to()] {
        let poll = Poll { stamp: stamp.clone(), after, ..poll(&record, 4, "20:20:", &[]) };
        assert!(!record.apply(poll.clone()));
        assert!(!record.follow(poll, seal()));
    }
    record.observe(&stamp, later(5));
    assert_eq!((record.version(), record.reaches()), (version, None));
    assert!(record.judge(&stamp, None, |visit| visit(a.clone())).is_none());
    assert!(holds(&record, "20:20:", &a));
}

/// A key that is in force.
fn seal() -> KeySerial {
    KeyRing::parse(A_KEY).unwrap().current().serial()
}

fn follow(record: &mut ChangeRecord, poll: Poll) -> bool {
    record.follow(poll, seal())
}

#[test]
fn polls_of_others_join_on_and_are_dated_by_our_own_statements() {
    let mut record = ChangeRecord::of(OURS);
    let a = slug("aa");
    let second = |second| Tick::from_micros(0).after(Duration::from_secs(second));
    let change = |xid| vec![(Xid(xid), Change::To(a.clone()))];
    let theirs = |after: &str, snapshot: &str, changes| Poll {
        after: Some(after.parse().unwrap()),
        changes,
        ..poll(&ChangeRecord::of(OURS), 9, snapshot, &[])
    };
    assert!(!follow(&mut record, theirs("10:10:", "11:11:", Vec::new())), "nothing to join on to");
    apply(&mut record, 0, "13:13:", &[(12, Change::To(a.clone()))]);
    assert_eq!(record.reaches(), None);
    record.observe(&stamp("14:14:"), second(3));
    record.observe(&stamp("16:16:"), second(4));

    let before = record.clone();
    let version = record.version();
    assert!(follow(&mut record, theirs("10:10:", "12:12:", change(11))), "of the past");
    assert_eq!(record.version(), version);
    assert_eq!(record.reaches(), None);
    // It overlaps with what is known, which is not recorded twice.
    let both = [change(12), change(14)].concat();
    assert!(follow(&mut record, theirs("11:11:", "15:15:", both)));
    assert_eq!(record.history.as_ref().unwrap().count, 2);
    assert_eq!(record.reaches(), Some(second(3)), "it does not include the second statement");
    assert_eq!([holds(&record, "14:14:", &a), holds(&record, "15:15:", &a)], [false, true]);

    assert!(!follow(&mut record, theirs("16:16:", "17:17:", Vec::new())), "one is missing");
    let mut other = theirs("15:15:", "17:17:", Vec::new());
    other.stamp.lineage.timeline = 2;
    assert!(!follow(&mut record, other), "of a server that we have not met");
    assert_eq!(record.lineage(), before.lineage());
    let anew = Poll { after: None, ..theirs("10:10:", "30:30:", Vec::new()) };
    assert!(follow(&mut record, Poll { stamp: stamp("12:12:"), ..anew.clone() }), "of the past");
    assert!(holds(&record, "15:15:", &a));
    assert!(follow(&mut record, Poll { horizon: "30:30:".parse().unwrap(), ..anew }));
    assert!(!holds(&record, "15:15:", &a), "everything is read again");
}

/// The thief of a key hides changes: in a poll that brings none, and in one that begins again.
#[test]
fn what_a_key_that_left_has_sealed_says_nothing() {
    let a = slug("aa");
    let second = |second| Tick::from_micros(0).after(Duration::from_secs(second));
    for anew in [false, true] {
        let mut record = ChangeRecord::of(OURS);
        apply(&mut record, 0, "13:13:", &[(12, Change::To(a.clone()))]);
        let [theirs, good] = [seal(), seal()];
        let poll_of = |record: &ChangeRecord, snapshot: &str| poll(record, 9, snapshot, &[]);
        let forged = poll_of(&record, "20:20:");
        let forged = match anew {
            false => forged,
            true => Poll { after: None, horizon: "1:1:".parse().unwrap(), ..forged },
        };
        assert!(record.follow(forged, theirs));
        // What another key has sealed continues from there.
        let next = poll_of(&record, "21:21:");
        assert!(record.follow(next, good));
        record.observe(&stamp("21:21:"), second(3));
        assert_eq!(record.reaches(), Some(second(3)));
        assert!(!record.distrust(|_| true) && record.polled_to().is_some(), "nothing has left");

        assert!(record.distrust(|seal| seal != theirs), "{anew}");
        assert_eq!((record.reaches(), record.polled_to()), (None, None), "{anew}");
        assert!(!record.distrust(|seal| seal != theirs), "it rests on it no more");
        assert!(!holds(&record, "12:12:", &a), "a change that is known stays known, {anew}");
        // Until this replica has polled, no other poll counts, and no statement dates the record.
        let late = Poll { after: Some("21:21:".parse().unwrap()), ..poll_of(&record, "22:22:") };
        assert!(!record.follow(late.clone(), good) && !record.apply(late));
        record.observe(&stamp("23:23:"), second(4));
        assert_eq!(record.reaches(), None);
        // The change that was hidden.
        apply(
            &mut record,
            5,
            "25:25:",
            &[(12, Change::To(a.clone())), (15, Change::To(a.clone()))],
        );
        assert!(!holds(&record, "14:14:", &a) && holds(&record, "16:16:", &a), "{anew}");
        assert!(!record.distrust(|seal| seal != theirs));
    }
}

#[test]
fn a_record_that_rests_on_no_seal_of_a_key_does_not_mind_that_it_left() {
    let mut record = ChangeRecord::of(OURS);
    apply(&mut record, 0, "13:13:", &[]);
    let gone = seal();
    // It brought nothing.
    let past = Poll { stamp: stamp("12:12:"), ..poll(&record, 9, "12:12:", &[]) };
    assert!(record.follow(past, gone));
    assert!(!record.distrust(|seal| seal != gone) && record.polled_to().is_some());
    let next = poll(&record, 9, "14:14:", &[]);
    assert!(record.follow(next, gone));
    // A poll of this replica that asked for everything rests on nothing else.
    let own = Poll { after: None, ..poll(&record, 10, "15:15:", &[]) };
    assert!(record.apply(own));
    assert!(!record.distrust(|seal| seal != gone) && record.polled_to().is_some());
}
