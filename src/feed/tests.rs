//! Readers that race with the feed. The model takes a use of an entry for one step; here it is not.

use std::thread;

use super::*;
use crate::installation::tests::OURS;
use crate::snapshot::Xid;

const ROUNDS: u64 = 3_000;

fn at(second: u64) -> Tick {
    Tick::from_micros(0).after(Duration::from_secs(second))
}

fn stamp(timeline: u32, xmax: u64) -> Stamp {
    let server = Server { installation: OURS, timeline, life: 1 };
    Stamp { server, snapshot: format!("{xmax}:{xmax}:").parse().unwrap() }
}

/// The answer to a poll that was sent in second `sent`.
fn poll(feed: &Feed, timeline: u32, sent: u64, xmax: u64, changes: Vec<(Xid, Change)>) -> Poll {
    let horizon = "1:1:".parse().unwrap();
    let triggers = Triggers { state: 1, switched: Xid(0) };
    let (stamp, after) = (stamp(timeline, xmax), feed.polled_to());
    Poll { sent: at(sent), stamp, triggers, horizon, after, changes }
}

fn holds(feed: &Feed, stamp: &Stamp, checked: &Checked) -> Option<Tick> {
    feed.holds_as_of(stamp, checked, at(0), |visit| visit(Subject::Slug("aa".parse().unwrap())))
}

/// What is found while `change` happens in another thread, until it is over.
fn meanwhile(
    feed: &Feed,
    stamp: &Stamp,
    checked: &Checked,
    change: impl FnOnce() + Send,
) -> Vec<Tick> {
    thread::scope(|scope| {
        let changing = scope.spawn(change);
        let mut found = Vec::new();
        while !changing.is_finished() {
            found.extend(holds(feed, stamp, checked));
        }
        found
    })
}

#[test]
fn who_sees_a_watermark_sees_its_changes() {
    let change = Change::To(Subject::Slug("aa".parse().unwrap()));
    for _ in 0..ROUNDS {
        let (feed, entry, checked) = (Feed::of(OURS), stamp(1, 10), Checked::default());
        feed.meet(&entry, Tick::now()).unwrap();
        assert!(feed.apply(poll(&feed, 1, 1, 10, Vec::new())));
        let next = poll(&feed, 1, 2, 11, vec![(Xid(10), change.clone())]);
        let found = meanwhile(&feed, &entry, &checked, || assert!(feed.apply(next)));
        assert!(found.iter().all(|known| *known == at(1)), "{found:?}");
        assert_eq!(holds(&feed, &entry, &checked), None);
    }
}

#[test]
fn a_watermark_says_nothing_about_another_server() {
    for _ in 0..ROUNDS {
        let (feed, entry, checked) = (Feed::of(OURS), stamp(2, 10), Checked::default());
        feed.meet(&stamp(1, 10), Tick::now()).unwrap();
        assert!(feed.apply(poll(&feed, 1, 1, 10, Vec::new())));
        let found = meanwhile(&feed, &entry, &checked, || feed.meet(&entry, Tick::now()).unwrap());
        assert!(found.iter().all(|known| *known == at(0)), "{found:?}");
        assert_eq!(holds(&feed, &entry, &checked), Some(at(0)));
    }
}

#[test]
fn a_poll_that_meets_another_server_takes_the_watermark_away() {
    let feed = Feed::of(OURS);
    assert!(feed.apply(poll(&feed, 1, 1, 10, Vec::new())));
    assert!(!feed.apply(poll(&feed, 2, 2, 20, Vec::new())), "after what another server saw");
    assert_eq!(feed.watermark_age(at(3)), None);
    assert_eq!(holds(&feed, &stamp(2, 20), &Checked::default()), Some(at(0)));
    assert!(feed.apply(Poll { after: None, ..poll(&feed, 2, 4, 20, Vec::new()) }));
    assert_eq!(feed.watermark_age(at(5)), Some(Duration::from_secs(1)));
}
