//! Checks the rule by search: every order of events in a small world, with the real
//! [`KnownChanges`](super::KnownChanges) in it.
//!
//! The world: a primary whose transactions commit in any order, late or never, whose table of
//! changes is pruned, whose triggers are switched off and on again, which crashes, and which fails over to a standby that lost its latest
//! transactions, dead or still answering; two replicas that share a Redis, with statements whose
//! answers arrive late or never, and that relay their polls through it, where these are held up,
//! lost, repeated and mixed up; and another installation, to which any statement may be led, and
//! whose entries and frames lie in the same Redis. A tick is the smallest time there is.

mod replica;
mod world;

use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    rc::Rc,
    time::Duration,
};

use self::{
    replica::{CachedEntry, SimulatedReplica, of_poll, tick},
    world::{SimulatedPostgres, Writes},
};
use super::{Lineage, Poll, UNCHECKED};
use crate::testing::OURS;

const TICK: Duration = Duration::from_secs(1);
const MAX_STALENESS: i64 = 1;

/// How often what may happen, and what is remembered.
#[derive(Clone, Copy, Debug, Hash)]
struct Budget {
    replicas: usize,
    ticks: u8,
    writes: u8,
    /// Of these, those that no trigger records.
    switches: u8,
    aborts: u8,
    prunes: u8,
    fills: u8,
    polls: u8,
    restarts: u8,
    crashes: u8,
    failovers: u8,
    zombie: bool,
    /// Another installation may answer, and has been at Redis.
    elsewhere: bool,
    redis: bool,
    /// The first replica only relays its polls, and the last one, which has polled once, follows: so
    /// many arrive, and so many statements of its own date them.
    relay: bool,
    frames: u8,
    observations: u8,
    remembered: usize,
}

#[derive(Clone)]
struct WorldState {
    now: i64,
    left: Budget,
    /// The last one is the primary; one before it may still answer.
    servers: Vec<Rc<SimulatedPostgres>>,
    elsewhere: Option<Rc<SimulatedPostgres>>,
    redis: Option<Rc<CachedEntry>>,
    /// All polls that were ever relayed.
    relayed: Vec<Rc<(Poll, Writes)>>,
    /// With their fingerprints.
    replicas: Vec<(Rc<SimulatedReplica>, u64)>,
}

/// With the index of a transaction, replica or server, where there are several.
#[derive(Clone, Copy, Debug)]
enum WorldEvent {
    Tick,
    Begin,
    /// Switches triggers off and on again, around what it writes.
    BeginSwitching,
    Commit(usize),
    Abort(usize),
    Prune,
    /// Crash recovery: what was logged is kept, what only was running or aborted never was.
    Crash,
    /// The standby knows as much of the log.
    Failover(usize),
    Of(usize, ReplicaEvent),
}

/// What one replica does, or what befalls it.
#[derive(Clone, Copy, Debug)]
enum ReplicaEvent {
    Fill(usize),
    FillArrives,
    RedisIsRead,
    Use,
    Poll(usize),
    PollArrives,
    /// The one for all that is retained. Whatever else is lost may as well never have been sent.
    PollIsLost,
    FrameArrives(usize),
    Observe(usize),
    Restart,
}

impl WorldState {
    fn new(budget: Budget) -> Self {
        let lineage = Lineage { installation: OURS, timeline: 1, life: 1 };
        let replica = Rc::new(SimulatedReplica::new(budget.remembered));
        let hash = fingerprint(&replica);
        let mut state = Self {
            now: 0,
            left: budget,
            servers: vec![Rc::new(SimulatedPostgres::new(lineage))],
            elsewhere: budget.elsewhere.then(|| Rc::new(SimulatedPostgres::elsewhere(lineage))),
            redis: None,
            relayed: Vec::new(),
            replicas: vec![(replica, hash); budget.replicas],
        };
        if budget.relay {
            state.left.polls += 1;
            state.act(1, ReplicaEvent::Poll(0));
            state.act(1, ReplicaEvent::PollArrives);
            state.relayed.clear();
        }
        if let Some(elsewhere) = state.elsewhere.clone() {
            let entry =
                CachedEntry { stamp: elsewhere.stamp(), as_of: 0, knows: elsewhere.visible() };
            state.redis = Some(Rc::new(entry));
            state.relayed.push(Rc::new(elsewhere.answer(tick(0), None)));
        }
        state
    }

    fn steps(&self) -> Vec<WorldEvent> {
        use WorldEvent::*;
        let (left, primary) = (&self.left, self.primary());
        let mut steps = Vec::new();
        let mut may = |possible: bool, step| steps.extend(possible.then_some(step));
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
        steps
    }

    fn after(&self, step: WorldEvent) -> Self {
        let mut next = self.clone();
        let WorldState { now, left, servers, .. } = &mut next;
        // Copied even when it is not changed; it is small.
        let primary = Rc::make_mut(servers.last_mut().unwrap());
        match step {
            WorldEvent::Tick => {
                left.ticks -= 1;
                *now += 1;
            }
            WorldEvent::Begin => {
                left.writes -= 1;
                primary.begin(1 << left.writes, false);
            }
            WorldEvent::BeginSwitching => {
                left.switches -= 1;
                primary.begin(1 << (8 + left.switches), true);
            }
            WorldEvent::Commit(index) => primary.commit(index, *now),
            WorldEvent::Abort(index) => {
                left.aborts -= 1;
                primary.abort(index);
            }
            WorldEvent::Prune => {
                left.prunes -= 1;
                primary.prune();
            }
            WorldEvent::Crash => {
                left.crashes -= 1;
                let life = primary.lineage.life + 1;
                let recovered = Lineage { life, ..primary.lineage };
                *primary = primary.recovered(recovered, primary.logged());
            }
            WorldEvent::Failover(logged) => {
                left.failovers -= 1;
                let timeline = primary.lineage.timeline + 1;
                let standby = Lineage { timeline, ..primary.lineage };
                let promoted = Rc::new(primary.recovered(standby, logged));
                if !left.zombie {
                    servers.clear();
                }
                servers.push(promoted);
            }
            WorldEvent::Of(at, act) => next.act(at, act),
        }
        next
    }

    /// By its index; past the last one is the other installation's.
    fn server(&self, index: usize) -> Rc<SimulatedPostgres> {
        Rc::clone(self.servers.get(index).or(self.elsewhere.as_ref()).unwrap())
    }

    fn act(&mut self, at: usize, act: ReplicaEvent) {
        let asked = match act {
            ReplicaEvent::Fill(server)
            | ReplicaEvent::Poll(server)
            | ReplicaEvent::Observe(server) => Some(self.server(server)),
            _ => None,
        };
        let (replica, hash) = &mut self.replicas[at];
        let replica = Rc::make_mut(replica);
        match act {
            ReplicaEvent::Fill(_) => {
                self.left.fills -= 1;
                let server = asked.unwrap();
                let (stamp, knows) = (server.stamp(), server.visible());
                replica.fill = Some(Rc::new(CachedEntry { stamp, as_of: self.now, knows }));
            }
            ReplicaEvent::FillArrives => {
                let fill = replica.fill.take().unwrap();
                if replica.fill_arrives(&fill) && self.left.redis {
                    self.redis = Some(fill);
                }
            }
            ReplicaEvent::RedisIsRead => {
                let entry = self.redis.clone().unwrap();
                let (admitted, version) = replica.admits(&entry, UNCHECKED, self.now);
                if admitted {
                    replica.memory = Some((entry, version));
                }
            }
            ReplicaEvent::Use => {
                let (entry, version) = replica.memory.clone().unwrap();
                let (_, version) = replica.admits(&entry, version, self.now);
                replica.memory = Some((entry, version));
            }
            ReplicaEvent::Poll(_) => {
                self.left.polls -= 1;
                replica.poll(&asked.unwrap(), self.now);
            }
            ReplicaEvent::PollArrives => {
                let poll = replica.poll.take().unwrap();
                if replica.poll_arrives(poll.clone()) && self.left.relay {
                    self.relayed.push(Rc::new(poll));
                }
            }
            ReplicaEvent::FrameArrives(frame) => {
                self.left.frames -= 1;
                replica.frame_arrives(&self.relayed[frame], self.now);
            }
            ReplicaEvent::Observe(_) => {
                self.left.observations -= 1;
                replica.observe(&asked.unwrap(), self.now);
            }
            ReplicaEvent::PollIsLost => replica.again = false,
            ReplicaEvent::Restart => {
                self.left.restarts -= 1;
                *replica = SimulatedReplica::new(self.left.remembered);
            }
        }
        *hash = fingerprint(replica);
    }

    fn primary(&self) -> &SimulatedPostgres {
        self.servers.last().unwrap()
    }

    /// What must not be, if it is.
    fn violation(&self, unstuck: &mut HashSet<u64>) -> Option<&'static str> {
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

    /// Why it is wrong to use the entry.
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
        // An old primary that answers cannot be told from the real one by those who have not met
        // that: they are held to the old one's changes. Nobody is, once it is dead.
        let held_to = self.servers.iter().find(|server| server.lineage == entry.stamp.lineage);
        let held_to = held_to.map_or(self.primary(), |server| server);
        let old = held_to.committed_before(self.now - MAX_STALENESS);
        (old & !entry.knows != 0).then_some("an entry is used on knowledge that is too old")
    }

    /// The rule must not refuse what was just read, nor once a poll has gone over it.
    fn stuck(
        &self,
        replica: &SimulatedReplica,
        unstuck: &mut HashSet<u64>,
    ) -> Option<&'static str> {
        let (mut replica, primary) = (replica.clone(), self.primary());
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

    /// Equal for states that behave alike. In 64 bits, a million states collide with a chance of
    /// one in ten millions.
    fn fingerprint(&self) -> u64 {
        let mut replicas: Vec<u64> = self.replicas.iter().map(|(_, hash)| *hash).collect();
        if !self.left.relay {
            // They are alike, so it does not matter which is which.
            replicas.sort_unstable();
        }
        let relayed: Vec<u64> = self.relayed.iter().map(|frame| of_poll(frame)).collect();
        fingerprint(&(self.now, &self.left, &self.servers, &self.redis, relayed, replicas))
    }
}

fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Visits all that can be reached; panics with the steps to a state that must not be.
fn search(name: &str, budget: Budget) -> usize {
    let start = WorldState::new(budget);
    let mut came_from: HashMap<u64, Option<(u64, WorldEvent)>> = HashMap::new();
    came_from.insert(start.fingerprint(), None);
    let mut unstuck = HashSet::new();
    let mut open = vec![(start.fingerprint(), start)];
    while let Some((from, state)) = open.pop() {
        if let Some(violation) = state.violation(&mut unstuck) {
            let mut steps = Vec::new();
            let mut at = from;
            while let Some(Some((before, step))) = came_from.get(&at) {
                steps.push(*step);
                at = *before;
            }
            steps.reverse();
            panic!("{name}: {violation}, after {steps:?}");
        }
        for step in state.steps() {
            let next = state.after(step);
            let to = next.fingerprint();
            came_from.entry(to).or_insert_with(|| {
                open.push((to, next));
                Some((from, step))
            });
        }
    }
    println!("{name}: {} states", came_from.len());
    came_from.len()
}

const NOTHING: Budget = Budget {
    replicas: 1,
    ticks: 0,
    writes: 0,
    switches: 0,
    aborts: 0,
    prunes: 0,
    fills: 0,
    polls: 0,
    restarts: 0,
    crashes: 0,
    failovers: 0,
    zombie: false,
    elsewhere: false,
    redis: false,
    relay: false,
    frames: 0,
    observations: 0,
    remembered: usize::MAX,
};

/// Transactions out of order, late and lost answers, pruned changes.
#[test]
fn a_busy_primary() {
    let budget = Budget { ticks: 2, writes: 2, prunes: 1, fills: 1, polls: 2, ..NOTHING };
    search("a busy primary", budget);
}

#[test]
fn a_record_that_forgets() {
    let few = Budget { ticks: 2, writes: 2, fills: 1, polls: 3, remembered: 1, ..NOTHING };
    search("a record that forgets", few);
}

#[test]
fn two_replicas_share_redis() {
    let one = Budget { replicas: 2, redis: true, ticks: 2, writes: 1, fills: 1, ..NOTHING };
    search("a replica restarts", Budget { polls: 2, prunes: 1, restarts: 1, ..one });
    search("both read and write", Budget { polls: 1, fills: 2, ..one });
}

#[test]
fn polls_are_relayed() {
    let one = Budget { replicas: 2, relay: true, ticks: 2, fills: 1, observations: 1, ..NOTHING };
    search("frames are mixed up", Budget { writes: 1, polls: 2, frames: 3, ..one });
    search("a frame is missing", Budget { ticks: 1, writes: 2, polls: 2, frames: 1, ..one });
    let one = Budget { ticks: 1, writes: 1, polls: 2, frames: 2, ..one };
    search("a crash under a relay", Budget { crashes: 1, ..one });
    let one = Budget { frames: 1, ..one };
    search("a relay from an old primary", Budget { failovers: 1, zombie: true, ..one });
}

#[test]
fn a_standby_is_promoted() {
    let one = Budget { redis: true, ticks: 2, fills: 1, polls: 2, failovers: 1, ..NOTHING };
    search("the old primary is dead", Budget { writes: 2, ..one });
    search("the old primary answers", Budget { writes: 1, fills: 2, zombie: true, ..one });
}

#[test]
fn triggers_are_switched() {
    let one = Budget { switches: 1, writes: 1, ticks: 2, fills: 1, polls: 3, ..NOTHING };
    search("what is not recorded", one);
    let two = Budget { replicas: 2, redis: true, polls: 1, ..one };
    search("another replica starts after it", two);
    let relayed = Budget { replicas: 2, relay: true, frames: 2, observations: 1, ticks: 1, ..one };
    search("a relay goes on", Budget { writes: 0, polls: 2, ..relayed });
}

/// By a wrong `feed.url`, or an address that leads elsewhere by now.
#[test]
fn another_installation_answers() {
    let one = Budget { elsewhere: true, redis: true, ticks: 2, writes: 1, fills: 2, ..NOTHING };
    search("statements are led elsewhere", Budget { polls: 3, ..one });
    let one = Budget { replicas: 2, relay: true, elsewhere: true, writes: 1, ..NOTHING };
    let one = Budget { ticks: 2, fills: 1, polls: 1, ..one };
    search("a relay that is led elsewhere", Budget { frames: 2, observations: 1, ..one });
}

#[test]
fn a_crash_takes_what_was_not_on_disk() {
    let budget =
        Budget { ticks: 2, writes: 2, aborts: 1, fills: 1, polls: 2, crashes: 1, ..NOTHING };
    search("a crash", budget);
}
