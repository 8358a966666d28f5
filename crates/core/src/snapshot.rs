//! Postgres snapshots: which transactions a statement saw.
//!
//! Transaction ids are the 64-bit ones (`xid8`), which never wrap. On one timeline of one server
//! what is visible only grows, so snapshots taken one after another are ordered.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A 64-bit transaction id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Xid(pub u64);

/// A snapshot as `pg_current_snapshot()` returns it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Snapshot {
    xmin: Xid,
    /// No transaction with this id or a higher one had ended.
    xmax: Xid,
    /// The transactions in between that had not ended, in order.
    running: Box<[Xid]>,
}

/// The error for a text that is not a snapshot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a snapshot as Postgres writes it: xmin:xmax:xip,xip…")]
pub struct SnapshotError;

impl Snapshot {
    /// Returns a snapshot that sees every transaction that will ever commit. No server reaches it, and
    /// every server can read it.
    pub fn of_all() -> Self {
        let end = Xid(i64::MAX as u64);
        Self { xmin: end, xmax: end, running: Box::default() }
    }

    /// Returns the id below which every transaction had ended.
    pub fn xmin(&self) -> Xid {
        self.xmin
    }

    /// Returns whether the statement saw what `xid` committed, as `pg_visible_in_snapshot` does. An
    /// aborted transaction counts as one that changed nothing.
    pub(crate) fn sees(&self, xid: Xid) -> bool {
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }

    /// Returns whether this snapshot sees everything that `earlier` sees.
    pub(crate) fn includes(&self, earlier: &Self) -> bool {
        self.xmax >= earlier.xmax && !self.running.iter().any(|xid| earlier.sees(*xid))
    }
}

impl FromStr for Snapshot {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        let xid = |text: &str| text.parse().map(Xid).map_err(|_| SnapshotError);
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(running), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SnapshotError);
        };
        let xmin = xid(xmin)?;
        let xmax = xid(xmax)?;
        let running = running.split(',').filter(|text| !text.is_empty());
        let running: Box<[Xid]> = running.map(xid).collect::<Result<_, _>>()?;
        let within = running.iter().all(|xid| (xmin..xmax).contains(xid));
        if xmin > xmax || !within || !running.is_sorted_by(|a, b| a < b) {
            return Err(SnapshotError);
        }
        Ok(Self { xmin, xmax, running })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin.0, self.xmax.0)?;
        for (index, xid) in self.running.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", xid.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    #[test]
    fn as_pg_visible_in_snapshot_has_it() {
        let snapshot = snapshot("10:20:12,15");
        for (xid, seen) in
            [(9, true), (10, true), (12, false), (13, true), (15, false), (19, true), (20, false)]
        {
            assert_eq!(snapshot.sees(Xid(xid)), seen, "{xid}");
        }
    }

    #[test]
    fn reads_what_postgres_writes_and_nothing_else() {
        for text in ["1:1:", "10:20:10,14,15", "10:10:"] {
            assert_eq!(snapshot(text).to_string(), text);
        }
        for text in [
            "", "1", "1:2", "2:1:", "1:3:3", "5:9:4", "1:9:3,2", "1:9:2,2", "1:9:2:3", "a:b:",
            "-1:2:",
        ] {
            assert_eq!(text.parse::<Snapshot>(), Err(SnapshotError), "{text}");
        }
    }

    #[test]
    fn a_long_transaction_keeps_snapshots_in_order() {
        let early = snapshot("10:11:10");
        let late = snapshot("10:30:10,25");
        assert!(late.includes(&early) && !early.includes(&late));
        // 10 has ended in one of them only.
        assert!(!snapshot("10:40:10").includes(&snapshot("30:30:")));
    }

    prop_compose! {
        // The last transaction below xmax has ended: that is how Postgres comes by xmax.
        fn any_snapshot()(xmin in 1u64..8, span in 0u64..8, mask: u8) -> Snapshot {
            let running = (0..span.saturating_sub(1)).filter(|bit| mask & (1 << bit) != 0).map(|bit| Xid(xmin + bit));
            Snapshot { xmin: Xid(xmin), xmax: Xid(xmin + span), running: running.collect() }
        }
    }

    proptest! {
        #[test]
        fn inclusion_is_that_of_what_is_seen(a in any_snapshot(), b in any_snapshot()) {
            let sees_all = (0..20).map(Xid).all(|xid| !b.sees(xid) || a.sees(xid));
            prop_assert_eq!(a.includes(&b), sees_all);
        }

        #[test]
        fn text_and_back(a in any_snapshot()) {
            prop_assert_eq!(a.to_string().parse::<Snapshot>().unwrap(), a);
        }
    }
}
