//! The properties that must hold in every state.

use std::{collections::HashSet, rc::Rc, time::Duration};

use super::{
    MAX_STALENESS, WorldState, fingerprint,
    replica::{CachedEntry, SimulatedReplica, tick},
};
use crate::{freshness::UNCHECKED, testing::OURS};

impl WorldState {
    /// Returns the property that the state violates, if there is one.
    pub(super) fn violation(&self, unstuck: &mut HashSet<u64>) -> Option<&'static str> {
        for (replica, _) in &self.replicas {
            let in_memory = replica.memory.as_ref().map(|(entry, version)| (entry, *version));
            let in_redis = self.redis.as_ref().map(|entry| (entry, UNCHECKED));
            let mut violations =
                in_memory.into_iter().chain(in_redis).filter_map(|(entry, version)| {
                    let (admitted, _) = replica.admits(entry, version, self.now);
                    admitted.then(|| self.harm_in(entry, replica)).flatten()
                });
            if let Some(violation) = violations.next().or_else(|| self.stuck(replica, unstuck)) {
                return Some(violation);
            }
        }
        None
    }

    /// Returns why it is wrong to use the entry.
    fn harm_in(&self, entry: &CachedEntry, replica: &SimulatedReplica) -> Option<&'static str> {
        if entry.stamp.lineage.installation != OURS {
            return Some("an entry of another installation is used");
        }
        if replica.met.is_some_and(|(met, _)| met != entry.stamp.lineage) {
            return Some("an entry of a server that was left behind is used");
        }
        if replica.told & !entry.knows != 0 {
            return Some("an entry is used in spite of a known change");
        }
        // A replica that has not met the new primary cannot distinguish an old primary that still
        // answers from it. So the entries of such a replica must include the old primary's changes. Once
        // the old primary is dead, they must include those of the new one.
        let held_to = self.servers.iter().find(|server| server.lineage == entry.stamp.lineage);
        let held_to = held_to.map_or(self.primary(), |server| server);
        let old = held_to.committed_before(self.now - MAX_STALENESS);
        (old & !entry.knows != 0).then_some("an entry is used on knowledge that is too old")
    }

    /// Checks that the rule does not refuse an entry that was just read, before and after the next poll.
    fn stuck(
        &self,
        replica: &SimulatedReplica,
        unstuck: &mut HashSet<u64>,
    ) -> Option<&'static str> {
        let mut replica = replica.clone();
        let primary = self.primary();
        (replica.memory, replica.fill, replica.poll) = (None, None, None);
        if !unstuck.insert(fingerprint(&(&replica, primary, self.now))) {
            return None;
        }
        let knows = primary.visible();
        let fresh = CachedEntry { stamp: primary.stamp(), as_of: self.now, knows };
        for order in ["fill", "poll", "fill"] {
            if order == "fill" {
                replica.fill_arrives(&Rc::new(fresh.clone()));
            } else {
                replica.poll(primary, self.now);
                let poll = replica.poll.take().unwrap();
                replica.poll_arrives(poll);
                if replica.again {
                    replica.poll(primary, self.now);
                    let poll = replica.poll.take().unwrap();
                    replica.poll_arrives(poll);
                }
                if replica.again
                    || replica.changes.watermark_age(tick(self.now)) != Some(Duration::ZERO)
                {
                    return Some("the feed does not come back");
                }
            }
            if !replica.admits(&fresh, UNCHECKED, self.now).0 {
                return Some("what was just read is refused");
            }
        }
        None
    }
}
