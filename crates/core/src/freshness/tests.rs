//! Readers that race with changes. In the model, the use of an entry is one step; here it is not.

use std::thread;

use super::*;
use crate::{keyring::KeyRing, snapshot::Xid, testing::OURS};

const ROUNDS: u64 = 3_000;

fn at(second: u64) -> Tick {
    Tick::from_micros(0).after(Duration::from_secs(second))
}

fn stamp(timeline: u32, xmax: u64) -> Stamp {
    let lineage = Lineage { installation: OURS, timeline, life: 1 };
    Stamp { lineage, snapshot: format!("{xmax}:{xmax}:").parse().unwrap() }
}

/// Returns the answer to a poll that was sent in second `sent`.
fn poll(
    known: &KnownChanges,
    timeline: u32,
    sent: u64,
    xmax: u64,
    changes: Vec<(Xid, Change)>,
) -> Poll {
    let horizon = "1:1:".parse().unwrap();
    let triggers = Triggers { state: 1, switched: Xid(0) };
    let stamp = stamp(timeline, xmax);
    let after = known.polled_to();
    Poll { sent: at(sent), stamp, triggers, horizon, after, changes }
}

fn holds(known: &KnownChanges, stamp: &Stamp, checked: &CheckedVersion) -> Option<Tick> {
    known.holds_as_of(stamp, checked, at(0), |visit| visit(Dependency::Slug("aa".parse().unwrap())))
}

/// Returns what readers find while `change` runs in another thread.
fn meanwhile(
    known: &KnownChanges,
    stamp: &Stamp,
    checked: &CheckedVersion,
    change: impl FnOnce() + Send,
) -> Vec<Tick> {
    thread::scope(|scope| {
        let changing = scope.spawn(change);
        let mut found = Vec::new();
        while !changing.is_finished() {
            found.extend(holds(known, stamp, checked));
        }
        found
    })
}

#[test]
fn who_sees_a_watermark_sees_its_changes() {
    let change = Change::To(Dependency::Slug("aa".parse().unwrap()));
    for _ in 0..ROUNDS {
        let known = KnownChanges::of(OURS);
        let entry = stamp(1, 10);
        let checked = CheckedVersion::default();
        known.meet(&entry, at(0)).unwrap();
        assert!(known.apply(poll(&known, 1, 1, 10, Vec::new())).joined);
        let next = poll(&known, 1, 2, 11, vec![(Xid(10), change.clone())]);
        let found = meanwhile(&known, &entry, &checked, || assert!(known.apply(next).joined));
        assert!(found.iter().all(|known| *known == at(1)), "{found:?}");
        assert_eq!(holds(&known, &entry, &checked), None);
    }
}

#[test]
fn a_watermark_says_nothing_about_another_server() {
    for _ in 0..ROUNDS {
        let known = KnownChanges::of(OURS);
        let entry = stamp(2, 10);
        let checked = CheckedVersion::default();
        known.meet(&stamp(1, 10), at(0)).unwrap();
        assert!(known.apply(poll(&known, 1, 1, 10, Vec::new())).joined);
        let found = meanwhile(&known, &entry, &checked, || known.meet(&entry, at(0)).unwrap());
        assert!(found.iter().all(|known| *known == at(0)), "{found:?}");
        assert_eq!(holds(&known, &entry, &checked), Some(at(0)));
    }
}

#[test]
fn a_poll_that_meets_another_server_takes_the_watermark_away() {
    let known = KnownChanges::of(OURS);
    assert!(known.apply(poll(&known, 1, 1, 10, Vec::new())).joined);
    assert!(
        !known.apply(poll(&known, 2, 2, 20, Vec::new())).joined,
        "after what another server saw"
    );
    assert_eq!(known.watermark_age(at(3)), None);
    assert_eq!(holds(&known, &stamp(2, 20), &CheckedVersion::default()), Some(at(0)));
    assert!(known.apply(Poll { after: None, ..poll(&known, 2, 4, 20, Vec::new()) }).joined);
    assert_eq!(known.watermark_age(at(5)), Some(Duration::from_secs(1)));
}

/// One line of a ring; the digit is part of the secret.
fn key(id: &str, digit: u8) -> String {
    format!("{id}:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdH{digit}8=")
}

/// Another replica's polls arrive while the key that sealed them leaves the ring. Whichever comes
/// first, afterwards there is no watermark that rests on them.
#[test]
fn a_poll_that_races_with_its_key_leaves_no_watermark() {
    // Making a ring takes much longer than all else.
    for _ in 0..ROUNDS / 20 {
        let ring = LiveRing::new(KeyRing::parse(&[key("a", 1), key("b", 2)].join("\n")).unwrap());
        let seal = ring.load().current().serial();
        let known = KnownChanges::of(OURS);
        known.meet(&stamp(1, 10), at(0)).unwrap();
        assert!(known.apply(poll(&known, 1, 1, 10, Vec::new())).joined);
        known.observe(&stamp(1, 20), at(5));
        let forged = poll(&known, 1, 2, 30, Vec::new());
        thread::scope(|scope| {
            scope.spawn(|| known.follow(forged, seal, &ring));
            ring.replace(KeyRing::parse(&key("b", 2)).unwrap(), Tick::from_micros(0));
            known.distrust_keys_outside(&ring);
        });
        // The poll of this replica counts, if it is all that there is.
        let reached = known.watermark().map(|tick| tick == at(1));
        assert_ne!(reached, Some(false));
        assert_eq!(
            holds(&known, &stamp(1, 10), &CheckedVersion::default()).map(|as_of| as_of <= at(1)),
            Some(true)
        );
    }
}
