//! Checks the rule by search: every order of events in a small world, with the real
//! [`KnownChanges`](super::KnownChanges) in it.
//!
//! The world consists of
//!
//! - a primary whose transactions commit in any order, late or never. Its table of changes is pruned,
//!   its triggers are switched off and on again, it crashes, and it fails over to a standby that lost
//!   its latest transactions. After a failover, the old primary is dead or still answers;
//! - two replicas that share a Redis. The answers to their statements arrive late or never. They relay
//!   their polls through Redis, where these are delayed, lost, repeated and reordered;
//! - another installation. Any statement may reach it, and its entries and frames are in the same Redis.
//!
//! A tick is the smallest unit of time.

mod events;
mod properties;
mod replica;
mod world;

use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    rc::Rc,
    time::Duration,
};

use self::{
    events::{ReplicaEvent, WorldEvent},
    replica::{CachedEntry, SimulatedReplica, of_poll, tick},
    world::{SimulatedPostgres, Writes},
};
use super::{Lineage, Poll, UNCHECKED};
use crate::testing::OURS;

const TICK: Duration = Duration::from_secs(1);
const MAX_STALENESS: i64 = 1;

/// How often each event may happen, and how much a record remembers.
#[derive(Clone, Copy, Debug, Hash)]
struct Budget {
    replicas: usize,
    ticks: u8,
    writes: u8,
    /// Writes around which triggers are switched off and on again, so that no trigger records them.
    switches: u8,
    aborts: u8,
    prunes: u8,
    fills: u8,
    polls: u8,
    restarts: u8,
    crashes: u8,
    failovers: u8,
    zombie: bool,
    /// Another installation may answer, and has written to Redis.
    elsewhere: bool,
    redis: bool,
    /// The first replica only relays its polls. The last one has polled once, and follows: `frames`
    /// polls reach it, and `observations` statements of its own date them.
    relay: bool,
    frames: u8,
    observations: u8,
    remembered: usize,
}

#[derive(Clone)]
struct WorldState {
    now: i64,
    left: Budget,
    /// The last server is the primary. Earlier ones may still answer.
    servers: Vec<Rc<SimulatedPostgres>>,
    elsewhere: Option<Rc<SimulatedPostgres>>,
    redis: Option<Rc<CachedEntry>>,
    /// All polls that were ever relayed.
    relayed: Vec<Rc<(Poll, Writes)>>,
    /// The replicas, each with its fingerprint.
    replicas: Vec<(Rc<SimulatedReplica>, u64)>,
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

    fn after(&self, event: WorldEvent) -> Self {
        let mut next = self.clone();
        let WorldState { now, left, servers, .. } = &mut next;
        // The primary is copied even if it does not change; it is small.
        let primary = Rc::make_mut(servers.last_mut().unwrap());
        match event {
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

    /// Returns a server by its index. The index after the last one is the other installation's server.
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
                let stamp = server.stamp();
                let knows = server.visible();
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

    /// Returns a number that is equal for states that behave in the same way. With 64 bits, the chance that
    /// two of a million states collide is one in ten million.
    fn fingerprint(&self) -> u64 {
        let mut replicas: Vec<u64> = self.replicas.iter().map(|(_, hash)| *hash).collect();
        if !self.left.relay {
            // The replicas are interchangeable, so their order does not matter.
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

/// Visits every state that can be reached. Panics with the events that lead to a state that violates a
/// property.
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
        for event in state.events() {
            let next = state.after(event);
            let to = next.fingerprint();
            came_from.entry(to).or_insert_with(|| {
                open.push((to, next));
                Some((from, event))
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
