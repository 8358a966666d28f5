//! Repeated denials of verified tokens: one line of each per second, and the rest as a number.
//!
//! A client with a revoked token may continue to ask thousands of times a second. The log needs one
//! line for what these requests have in common, and one for their number. If no rule names them, they
//! are told apart by their paths, up to a number of paths.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Record, UnnamedRequest, line::RepeatedSummary};
use crate::{
    clock::Tick,
    domain::{DomainId, DomainRef},
    legible::without_secrets,
    operation::Operation,
    pace::Pace,
    principal::UserId,
    rollout::Treatment,
    token::TokenId,
};

/// Groups that are known at a time; about 1 MiB. Without room, a denial is rate-limited like one
/// that any client can cause.
const MAX_GROUPS: usize = 4096;
/// Different requests that no rule names which one group keeps apart. Their paths are a client's.
const MAX_PATHS: usize = 16;
/// The same in all groups; about 1 MiB.
const MAX_PATHS_OF_ALL: usize = 2048;
/// How long a group is remembered after its last denial.
const IDLE: Duration = Duration::from_secs(5);

/// What denials must have in common to count as repetitions. The domain is the one on which the
/// verdict is based, so no client can make groups by naming domains.
#[derive(Clone, PartialEq, Eq, Hash)]
struct RepeatKey {
    token: TokenId,
    code: &'static str,
    operation: Option<Operation>,
    domain: Option<DomainId>,
    enforced: bool,
}

struct RepeatGroup {
    owner: UserId,
    treatment: Treatment,
    status: u16,
    slug: Option<String>,
    /// The requests that no rule names, each apart.
    paths: Vec<(UnnamedRequest, Repetitions)>,
    /// All other requests: those that a rule names, and those that there was no room to keep apart.
    rest: Repetitions,
}

/// Denials of which one per second is logged.
struct Repetitions {
    pace: Pace,
    last: Tick,
    /// Those since the last summary that were not logged.
    repeated: u64,
    /// The domain as all of these requests name it; `None` if they differ.
    named: Option<DomainRef>,
}

/// What the log does with a record.
#[derive(Debug, PartialEq)]
pub(super) enum Admission {
    Logged,
    Repetition,
    /// There is no room to count it.
    Unknown,
}

/// All groups, and the lines that each may have per second.
pub(super) struct Repeats {
    per_second: u32,
    known: Mutex<KnownGroups>,
}

#[derive(Default)]
struct KnownGroups {
    groups: HashMap<RepeatKey, RepeatGroup>,
    /// The paths of all groups.
    paths: usize,
}

impl Repeats {
    /// Permits `per_second` lines per second for each group, and for each path in it.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, known: Mutex::default() }
    }

    /// Decides whether a record gets its own line.
    pub(super) fn admit(&self, record: &Record) -> Admission {
        let denial = record.decision.denial();
        let Some((denial, (token, owner))) = denial.and_then(|it| Some((it, it.subject?))) else {
            return Admission::Logged;
        };
        let key = RepeatKey {
            token,
            code: denial.refusal.code(),
            operation: record.requested.operation,
            domain: record.domain.as_ref().map(|domain| domain.id),
            enforced: record.decision.is_enforced(),
        };
        let mut known = self.lock();
        let KnownGroups { groups, paths } = &mut *known;
        if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
            return Admission::Unknown;
        }
        let group = groups.entry(key).or_insert_with(|| RepeatGroup {
            owner,
            treatment: record.treatment,
            status: record.status,
            slug: record.domain.as_ref().map(|domain| domain.slug.to_string()),
            paths: Vec::new(),
            rest: Repetitions::new(self.per_second, record),
        });
        group.of(record, self.per_second, paths).admit(record)
    }

    /// Returns the counts since the last call, and resets them.
    pub(super) fn take(&self, now: Tick, time: &str) -> Vec<RepeatedSummary> {
        let mut known = self.lock();
        let KnownGroups { groups, paths } = &mut *known;
        let mut counted = Vec::new();
        for (key, group) in &mut *groups {
            group.take(key, time, &mut counted);
            group.paths.retain(|(_, repetitions)| !repetitions.is_idle(now));
        }
        groups.retain(|_, group| !group.paths.is_empty() || !group.rest.is_idle(now));
        *paths = groups.values().map(|group| group.paths.len()).sum();
        if groups.is_empty() {
            // Releases the memory that a flood has taken.
            groups.shrink_to_fit();
        }
        counted
    }

    /// No code that can panic runs under this lock, so a poisoned lock is still consistent.
    fn lock(&self) -> MutexGuard<'_, KnownGroups> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RepeatGroup {
    /// Returns what a record repeats. `paths` is the number of paths of all groups.
    fn of(&mut self, record: &Record, per_second: u32, paths: &mut usize) -> &mut Repetitions {
        let Some(unnamed) = &record.requested.unnamed else { return &mut self.rest };
        let at = match self.paths.iter().position(|(known, _)| known == unnamed) {
            Some(at) => at,
            None if self.paths.len() < MAX_PATHS && *paths < MAX_PATHS_OF_ALL => {
                *paths += 1;
                self.paths.push((unnamed.clone(), Repetitions::new(per_second, record)));
                self.paths.len() - 1
            }
            None => return &mut self.rest,
        };
        &mut self.paths[at].1
    }

    /// Adds the summaries of its counts, and resets these.
    fn take(&mut self, key: &RepeatKey, time: &str, counted: &mut Vec<RepeatedSummary>) {
        let Self { owner, treatment, status, slug, paths, rest } = self;
        let paths = paths.iter_mut().map(|(unnamed, repetitions)| (Some(&*unnamed), repetitions));
        for (unnamed, repetitions) in paths.chain([(None, rest)]) {
            let repeated = std::mem::take(&mut repetitions.repeated);
            if repeated == 0 {
                continue;
            }
            counted.push(RepeatedSummary {
                time: time.to_owned(),
                repeated,
                code: key.code.to_owned(),
                enforced: key.enforced,
                mode: treatment.as_str().to_owned(),
                status: *status,
                pat_id: key.token.0,
                user_id: owner.0,
                domain: repetitions.named.as_ref().map(|it| without_secrets(&it.to_string())),
                domain_id: key.domain.map(|domain| domain.0),
                domain_slug: slug.clone(),
                operation: key.operation.map(|operation| operation.as_str().to_owned()),
                method: unnamed.map(|unnamed| unnamed.method.to_string()),
                path: unnamed.map(|unnamed| unnamed.path.to_string()),
                paths_left_out: unnamed.is_none() && key.operation.is_none(),
            });
        }
    }
}

impl Repetitions {
    fn new(per_second: u32, first: &Record) -> Self {
        Self {
            pace: Pace::new(per_second, per_second),
            last: first.at,
            repeated: 0,
            named: first.requested.domain.clone(),
        }
    }

    fn admit(&mut self, record: &Record) -> Admission {
        self.last = self.last.max(record.at);
        if self.pace.admits(record.at) {
            return Admission::Logged;
        }
        self.repeated += 1;
        if self.named != record.requested.domain {
            self.named = None;
        }
        Admission::Repetition
    }

    fn is_idle(&self, now: Tick) -> bool {
        now.since(self.last) >= IDLE
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        check::decision_log::RequestedAccess,
        decision::Decision,
        provenance::Tier,
        refusal::{Denial, Refusal},
    };

    fn record(token: u128, refusal: Refusal, named: &str, at: Tick) -> Record {
        let subject = Some((TokenId(Uuid::from_u128(token)), UserId(Uuid::from_u128(1))));
        Record {
            at,
            took: Duration::ZERO,
            request_id: "r-1".to_owned(),
            trace: None,
            decision: Decision::Deny(Denial { subject, ..refusal.into() }),
            treatment: Treatment::Enforce,
            status: 401,
            tier: Tier::Memory,
            domain: None,
            requested: RequestedAccess {
                domain: DomainRef::parse(named),
                ..RequestedAccess::default()
            },
        }
    }

    #[test]
    fn one_line_a_second_and_the_rest_as_a_number() {
        let repeats = Repeats::new(1);
        let start = Tick::from_micros(77);
        let admit = |token, refusal, named, at| repeats.admit(&record(token, refusal, named, at));
        let revoked = Refusal::TokenRevoked;
        assert_eq!(admit(1, revoked, "acme", start), Admission::Logged);
        for _ in 0..100 {
            assert_eq!(admit(1, revoked, "acme", start), Admission::Repetition);
        }
        // Others are the first of theirs.
        assert_eq!(admit(2, revoked, "acme", start), Admission::Logged);
        assert_eq!(admit(1, Refusal::TokenExpired, "acme", start), Admission::Logged);
        let later = start.after(Duration::from_secs(1));
        assert_eq!(admit(1, revoked, "acme", later), Admission::Logged);
        // Whatever the client names, it is the same.
        assert_eq!(admit(1, revoked, "other", later), Admission::Repetition);

        let counted = repeats.take(later, "t");
        assert_eq!(counted.len(), 1);
        let RepeatedSummary { repeated, code, pat_id, domain, .. } = &counted[0];
        assert_eq!((*repeated, code.as_str(), pat_id.as_u128()), (101, "token_revoked", 1));
        assert_eq!(*domain, None, "they did not agree");
        assert_eq!(repeats.take(later, "t"), []);
        assert_eq!(admit(1, revoked, "acme", later), Admission::Repetition);
        repeats.take(later.after(IDLE), "t");
        assert!(repeats.lock().groups.is_empty());
    }

    fn unnamed(token: u128, path: &str, at: Tick) -> Record {
        let record = record(token, Refusal::NotFound, "acme", at);
        let unnamed = Some(UnnamedRequest::new("GET", path));
        Record { requested: RequestedAccess { unnamed, ..record.requested }, ..record }
    }

    #[test]
    fn paths_are_kept_apart_up_to_a_number() {
        let repeats = Repeats::new(1);
        let start = Tick::from_micros(77);
        let admit = |path: &str, at| repeats.admit(&unnamed(1, path, at));
        for number in 0..MAX_PATHS {
            let path = format!("/proxy/acme/{number}");
            assert_eq!(admit(&path, start), Admission::Logged);
            assert_eq!(admit(&path, start), Admission::Repetition);
        }
        // The further ones are one, whose first is logged, too.
        assert_eq!(admit("/further/0", start), Admission::Logged);
        assert!((1..9).all(|number| {
            admit(&format!("/further/{number}"), start) == Admission::Repetition
        }));
        // What is held is still counted apart.
        assert_eq!(admit("/proxy/acme/0", start), Admission::Repetition);

        let counted = repeats.take(start, "t");
        let path = |counted: &RepeatedSummary| counted.path.clone();
        let of = |wanted: Option<&str>| {
            let found: Vec<_> = counted.iter().filter(|it| path(it).as_deref() == wanted).collect();
            assert_eq!(found.len(), 1, "{wanted:?}");
            (found[0].repeated, found[0].method.as_deref(), found[0].paths_left_out)
        };
        assert_eq!(counted.len(), MAX_PATHS + 1);
        assert_eq!(of(Some("/proxy/acme/0")), (2, Some("GET"), false));
        assert_eq!(of(Some("/proxy/acme/9")), (1, Some("GET"), false));
        assert_eq!(of(None), (8, None, true));

        // What is idle makes room.
        let later = start.after(IDLE);
        assert_eq!(admit("/proxy/acme/0", later), Admission::Logged);
        repeats.take(later, "t");
        assert_eq!(repeats.lock().paths, 1);
        assert_eq!(admit("/further/1", later), Admission::Logged);
        assert_eq!(admit("/further/1", later), Admission::Repetition);
        assert_eq!(repeats.take(later, "t")[0].path.as_deref(), Some("/further/1"));
        repeats.take(later.after(IDLE), "t");
        let known = repeats.lock();
        assert!(known.groups.is_empty() && known.paths == 0);
    }

    #[test]
    fn the_paths_of_all_tokens_are_bounded() {
        let repeats = Repeats::new(1);
        let now = Tick::from_micros(77);
        let tokens = 2 * (MAX_PATHS_OF_ALL / MAX_PATHS) as u128;
        for (token, number) in (0..tokens).flat_map(|token| (0..99).map(move |n| (token, n))) {
            repeats.admit(&unnamed(token, &format!("/{number}"), now));
        }
        assert_eq!(repeats.lock().paths, MAX_PATHS_OF_ALL);
        let counted = repeats.take(now, "t");
        let left_out = counted.iter().filter(|it| it.paths_left_out);
        // Of each of these tokens, only the first line says its path.
        assert_eq!(left_out.clone().count() as u128, tokens);
        assert_eq!(left_out.map(|it| it.repeated).max(), Some(98));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let repeats = Repeats::new(1);
        let now = Tick::from_micros(77);
        let admit = |token| repeats.admit(&record(token, Refusal::TokenRevoked, "acme", now));
        let known = MAX_GROUPS as u128;
        assert!((0..known).all(|token| admit(token) == Admission::Logged));
        assert_eq!(admit(known), Admission::Unknown);
        assert_eq!(admit(0), Admission::Repetition);
    }
}
