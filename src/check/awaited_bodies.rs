//! Counts, per token, the bodies that patgate has asked Envoy to hold.
//!
//! In the form of two steps, the first answer to a request whose model is in its body makes Envoy
//! collect that body. A token may cause only a limited amount of this at a time.
//!
//! A body counts from the first answer until the second check, which brings it, has ended. If that
//! check never comes, because the client has gone away, or if it goes to another replica, the body
//! counts for as long as Envoy may wait for it ([`AwaitedBodyLimits::timeout`]). The count is never
//! too low. Envoy as shipped sends both checks of a request to the same replica.
//!
//! Two requests of a token must not count as one. So a request is identified by Envoy's own id of it,
//! and not by its `x-request-id`: some gateways keep the one that a client sends.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{clock::Tick, config::AwaitedBodyLimits, telemetry::Metrics, token::TokenId};

/// Distinguishes the decoded copy of a body from the body itself.
const DECODED: &str = "decoded";
/// Limit for all tokens together, which bounds the memory of this table to some MiB. Above it, a
/// token that has less than an equal share is still admitted.
const MAX_IN_ALL: usize = 100_000;

/// The bodies that patgate waits for.
pub(crate) struct AwaitedBodies {
    limits: AwaitedBodyLimits,
    /// [`MAX_IN_ALL`], except in tests.
    in_all: usize,
    /// Hashes what identifies a request: see [`RequestParts::in_progress`].
    ///
    /// [`RequestParts::in_progress`]: crate::request::RequestParts::in_progress
    ids: RandomState,
    state: Mutex<AwaitedByToken>,
    metrics: Metrics,
}

#[derive(Default)]
struct AwaitedByToken {
    tokens: HashMap<TokenId, Vec<AwaitedBody>>,
    bodies: usize,
    bytes: u64,
    /// When to look through the bodies of all tokens again.
    sweep_at: Option<Tick>,
}

struct AwaitedBody {
    request: u64,
    /// The number of bodies; 0 for the decoded copy of a body.
    bodies: usize,
    bytes: u64,
    forgotten: Tick,
}

impl AwaitedBodies {
    pub(crate) fn new(limits: AwaitedBodyLimits, metrics: Metrics) -> Self {
        let in_all = MAX_IN_ALL;
        let ids = RandomState::new();
        Self { limits, in_all, ids, state: Mutex::default(), metrics }
    }

    /// Counts a body of up to `bytes`. Returns false if that would be too much for this token, or
    /// if all tokens together hold too many.
    pub(crate) fn admit(&self, token: TokenId, request: impl Hash, bytes: u64, now: Tick) -> bool {
        let request = self.ids.hash_one(request);
        let mut state = self.lock();
        let AwaitedBodyLimits { per_token, bytes_per_token, timeout } = self.limits;
        state.forget(token, now, now.after(timeout / 8));
        let is_full = state.bodies >= self.in_all;
        let share = self.in_all / (state.tokens.len() + 1);
        // Envoy asked before, and did not receive the answer.
        state.uncount(token, request);
        let awaited = state.tokens.entry(token).or_default();
        let held: u64 = awaited.iter().map(|one| one.bytes).sum();
        // A token may always have one body, even one that is larger than its limit.
        let fits = held == 0 || held.saturating_add(bytes) <= bytes_per_token;
        let bodies: usize = awaited.iter().map(|one| one.bodies).sum();
        let admitted = bodies < per_token && fits && !(is_full && bodies >= share);
        if admitted {
            let forgotten = now.after(timeout);
            state.count(token, AwaitedBody { request, bodies: 1, bytes, forgotten });
        } else if awaited.is_empty() {
            state.tokens.remove(&token);
        }
        self.show(&state);
        admitted
    }

    /// Counts the decoded copy of this request's body, in addition to the body itself, until the
    /// returned value is dropped. Returns `None` if that would be too much for this token.
    pub(crate) fn decoded(
        &self,
        token: TokenId,
        request: impl Hash,
        bytes: u64,
        now: Tick,
    ) -> Option<HeldBody<'_>> {
        let held =
            HeldBody { bodies: self, token, request: self.ids.hash_one((DECODED, &request)) };
        let own = self.ids.hash_one(&request);
        let timeout = self.limits.timeout;
        let mut state = self.lock();
        // Not of all tokens: this runs on a thread of low priority, and others wait for the lock.
        state.forget_of(token, now);
        let awaited = state.tokens.entry(token).or_default();
        let others: u64 =
            awaited.iter().filter(|one| one.request != own).map(|one| one.bytes).sum();
        // As above: one is always accepted, even if it is larger than the limit.
        if others > 0 && others.saturating_add(bytes) > self.limits.bytes_per_token {
            return None;
        }
        let forgotten = now.after(timeout);
        state.count(token, AwaitedBody { request: held.request, bodies: 0, bytes, forgotten });
        self.show(&state);
        drop(state);
        Some(held)
    }

    /// Notes that the body of this request has arrived. It counts until the returned value is
    /// dropped.
    pub(crate) fn held(&self, token: TokenId, request: impl Hash) -> HeldBody<'_> {
        HeldBody { bodies: self, token, request: self.ids.hash_one(request) }
    }

    fn release(&self, token: TokenId, request: u64) {
        let mut state = self.lock();
        if !state.uncount(token, request) {
            return self.metrics.unasked_body();
        }
        self.show(&state);
    }

    fn show(&self, state: &AwaitedByToken) {
        self.metrics.bodies_awaited(state.bodies, state.bytes);
    }

    fn lock(&self) -> MutexGuard<'_, AwaitedByToken> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that has arrived, and still counts.
pub(crate) struct HeldBody<'b> {
    bodies: &'b AwaitedBodies,
    token: TokenId,
    request: u64,
}

impl Drop for HeldBody<'_> {
    fn drop(&mut self) {
        self.bodies.release(self.token, self.request);
    }
}

impl AwaitedByToken {
    fn count(&mut self, token: TokenId, one: AwaitedBody) {
        self.bodies += one.bodies;
        self.bytes += one.bytes;
        self.tokens.entry(token).or_default().push(one);
    }

    /// Returns false if this body is not counted.
    fn uncount(&mut self, token: TokenId, request: u64) -> bool {
        let Some(awaited) = self.tokens.get_mut(&token) else { return false };
        let Some(at) = awaited.iter().position(|one| one.request == request) else { return false };
        let one = awaited.swap_remove(at);
        if awaited.is_empty() {
            self.tokens.remove(&token);
        }
        self.bodies -= one.bodies;
        self.bytes -= one.bytes;
        true
    }

    /// Drops expired bodies of this token, and from time to time those of all tokens; the next time
    /// at `next`.
    fn forget(&mut self, token: TokenId, now: Tick, next: Tick) {
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.sweep_at = Some(next);
            let mut tokens = mem::take(&mut self.tokens);
            tokens.retain(|_, awaited| {
                self.retain(awaited, now);
                !awaited.is_empty()
            });
            self.tokens = tokens;
        } else {
            self.forget_of(token, now);
        }
    }

    /// Drops what is forgotten of this token.
    fn forget_of(&mut self, token: TokenId, now: Tick) {
        if let Some(mut awaited) = self.tokens.remove(&token) {
            self.retain(&mut awaited, now);
            if !awaited.is_empty() {
                self.tokens.insert(token, awaited);
            }
        }
    }

    fn retain(&mut self, awaited: &mut Vec<AwaitedBody>, now: Tick) {
        awaited.retain(|one| {
            let stays = one.forgotten > now;
            if !stays {
                self.bodies -= one.bodies;
                self.bytes -= one.bytes;
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::{encoding::text::encode, registry::Registry};
    use uuid::Uuid;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);
    const LIMITS: AwaitedBodyLimits =
        AwaitedBodyLimits { per_token: 3, bytes_per_token: 100, timeout: TIMEOUT };

    fn token(number: u128) -> TokenId {
        TokenId(Uuid::from_u128(number))
    }

    fn awaited() -> (AwaitedBodies, Registry) {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        (AwaitedBodies::new(LIMITS, metrics), registry)
    }

    fn shown(registry: &Registry) -> (u64, u64) {
        let mut page = String::new();
        encode(&mut page, registry).unwrap();
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        (value("patgate_bodies_awaited "), value("patgate_bodies_awaited_bytes "))
    }

    #[test]
    fn a_token_has_so_many_and_so_much_and_others_lose_none() {
        let (awaited, registry) = awaited();
        let now = Tick::from_micros(7);
        for request in ["a", "b", "c"] {
            assert!(awaited.admit(token(1), request, 10, now), "{request}");
        }
        assert!(!awaited.admit(token(1), "d", 10, now), "a fourth");
        assert!(awaited.admit(token(2), "a", 60, now));
        assert!(!awaited.admit(token(2), "b", 41, now), "101 bytes");
        assert!(awaited.admit(token(2), "b", 40, now));
        assert_eq!(shown(&registry), (5, 130));
        drop(awaited.held(token(1), "d"));
        drop(awaited.held(token(3), "a"));
        assert_eq!(shown(&registry), (5, 130), "neither was counted");
        drop(awaited.held(token(1), "b"));
        drop(awaited.held(token(2), "a"));
        assert_eq!(shown(&registry), (3, 60));
        assert!(awaited.admit(token(1), "d", 10, now));
        // One body may be larger than the limit, if it is the only one.
        assert!(awaited.admit(token(3), "a", 1000, now));
        assert!(!awaited.admit(token(3), "b", 1, now));
    }

    #[test]
    fn what_a_body_becomes_counts_beside_it() {
        let (awaited, registry) = awaited();
        let now = Tick::from_micros(7);
        for request in ["a", "b", "c"] {
            assert!(awaited.admit(token(1), request, 10, now), "{request}");
        }
        assert!(awaited.decoded(token(1), "a", 81, now).is_none(), "101 bytes beside b and c");
        assert_eq!(shown(&registry), (3, 30));
        let decoded = awaited.decoded(token(1), "a", 80, now).unwrap();
        assert_eq!(shown(&registry), (3, 110), "no further body");
        assert!(awaited.decoded(token(1), "b", 1, now).is_none());
        drop(awaited.held(token(1), "a"));
        assert_eq!(shown(&registry), (2, 100));
        drop(decoded);
        assert_eq!(shown(&registry), (2, 20));
        // Like a body, it may be larger than the limit if it is the only one.
        assert!(awaited.decoded(token(2), "a", 1000, now).is_some());
        assert!(
            awaited.admit(token(2), "a", 1, now)
                && awaited.decoded(token(2), "a", 1000, now).is_some()
        );
        assert!(awaited.lock().tokens.keys().all(|of| [token(1), token(2)].contains(of)));
    }

    #[test]
    fn what_never_comes_is_forgotten() {
        let (awaited, registry) = awaited();
        let start = Tick::from_micros(7);
        let second = Duration::from_secs(1);
        assert!((0..3).all(|n| awaited.admit(token(1), n.to_string(), 1, start)));
        assert!(awaited.admit(token(2), "a", 1, start.after(second)));
        let late = start.after(TIMEOUT - second);
        assert!(!awaited.admit(token(1), "x", 1, late));
        assert!(awaited.admit(token(1), "x", 1, start.after(TIMEOUT)));
        assert_eq!(shown(&registry), (2, 2));
        // Token 2 asks for nothing more, and is dropped nevertheless.
        assert!(awaited.admit(token(3), "x", 1, start.after(TIMEOUT * 3)));
        assert_eq!(shown(&registry), (1, 1));
        assert_eq!(awaited.lock().tokens.len(), 1);
    }

    /// The first answers to such requests came from another replica.
    #[test]
    fn bodies_that_were_not_asked_for_here_are_counted() {
        let (awaited, registry) = awaited();
        let now = Tick::from_micros(7);
        assert!(awaited.admit(token(1), "a", 1, now));
        for (number, request) in [(1, "a"), (1, "a"), (1, "b"), (2, "a")] {
            drop(awaited.held(token(number), request));
        }
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        assert!(page.contains("\npatgate_bodies_unasked_total 3\n"), "{page}");
        assert!(awaited.lock().tokens.is_empty());
    }

    #[test]
    fn a_body_that_is_asked_for_twice_counts_once() {
        let (awaited, registry) = awaited();
        let now = Tick::from_micros(7);
        assert!((0..5).all(|_| awaited.admit(token(1), "a", 90, now)));
        assert_eq!(shown(&registry), (1, 90));
        drop(awaited.held(token(1), "a"));
        assert_eq!(shown(&registry), (0, 0));
    }

    #[test]
    fn tokens_that_fill_the_count_leave_others_their_share() {
        const FLOODS: usize = 4;
        const IN_ALL: usize = 200;
        let mut registry = Registry::default();
        let limits = AwaitedBodyLimits { per_token: 1000, bytes_per_token: 1000, timeout: TIMEOUT };
        let mut awaited = AwaitedBodies::new(limits, Metrics::new(&mut registry));
        awaited.in_all = IN_ALL;
        let now = Tick::from_micros(7);
        let admitted = |number: usize, request: usize| {
            awaited.admit(token(number as u128), request.to_string(), 1, now)
        };
        let flooded = (0..FLOODS * IN_ALL).filter(|n| admitted(n % FLOODS, *n)).count();
        assert_eq!(flooded, IN_ALL);
        let share = (0..IN_ALL).filter(|n| admitted(FLOODS, *n)).count();
        assert!((IN_ALL / (FLOODS + 2)..IN_ALL / FLOODS).contains(&share), "{share}");
        assert!(!admitted(0, 0), "a flood has its share already");
    }
}
