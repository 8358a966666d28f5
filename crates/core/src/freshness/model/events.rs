//! The events of the world, and which of them can happen in a state.

use super::WorldState;

/// One event in the world, with the index of the transaction, replica or server if there are several.
#[derive(Clone, Copy, Debug)]
pub(super) enum WorldEvent {
    Tick,
    Begin,
    /// Switches triggers off and on again, around what it writes.
    BeginSwitching,
    Commit(usize),
    Abort(usize),
    Prune,
    /// The primary crashes and recovers: what was logged is kept, and transactions that were running or
    /// aborted never existed.
    Crash,
    /// A standby that has this many entries of the log is promoted.
    Failover(usize),
    Of(usize, ReplicaEvent),
}

/// What one replica does, or what happens to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReplicaEvent {
    Fill(usize),
    FillArrives,
    RedisIsRead,
    Use,
    Poll(usize),
    PollArrives,
    /// The poll for everything that is retained is lost. Any other loss is the same as never sending.
    PollIsLost,
    FrameArrives(usize),
    Observe(usize),
    Restart,
}

impl WorldState {
    /// Returns every event that can happen next.
    pub(super) fn events(&self) -> Vec<WorldEvent> {
        use WorldEvent::*;
        let left = &self.left;
        let primary = self.primary();
        let mut events = Vec::new();
        let mut may = |possible: bool, event| events.extend(possible.then_some(event));
        may(left.ticks > 0, Tick);
        may(left.writes > 0, Begin);
        may(left.switches > 0, BeginSwitching);
        may(left.prunes > 0, Prune);
        may(left.crashes > 0, Crash);
        for index in 0..primary.running() {
            may(true, Commit(index));
            may(left.aborts > 0, Abort(index));
        }
        for logged in 0..=primary.logged() {
            may(left.failovers > 0, Failover(logged));
        }
        for (at, (replica, _)) in self.replicas.iter().enumerate() {
            let leads = left.relay && at == 0;
            let follows = left.relay && at > 0;
            let mut may = |possible: bool, act| may(possible, Of(at, act));
            for server in 0..self.servers.len() + usize::from(self.elsewhere.is_some()) {
                may(left.fills > 0 && replica.fill.is_none() && !leads, ReplicaEvent::Fill(server));
                may(left.polls > 0 && replica.poll.is_none(), ReplicaEvent::Poll(server));
                may(left.observations > 0 && follows, ReplicaEvent::Observe(server));
            }
            for frame in 0..self.relayed.len() {
                may(left.frames > 0 && follows, ReplicaEvent::FrameArrives(frame));
            }
            may(replica.fill.is_some(), ReplicaEvent::FillArrives);
            may(self.redis.is_some(), ReplicaEvent::RedisIsRead);
            may(replica.memory.is_some(), ReplicaEvent::Use);
            may(replica.poll.is_some(), ReplicaEvent::PollArrives);
            may(replica.again, ReplicaEvent::PollIsLost);
            may(left.restarts > 0 && replica.met.is_some(), ReplicaEvent::Restart);
        }
        events
    }
}
