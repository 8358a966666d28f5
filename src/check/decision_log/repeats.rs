//! Repeated denials of verified tokens: one line of each per second, and the rest as a number.
//!
//! A client with a revoked token may continue to ask thousands of times a second. The log needs one
//! line for what these requests have in common, and one for their number.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Record, line::RepeatedSummary};
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
    pace: Pace,
    last: Tick,
    /// Repetitions since the last summary.
    repeated: u64,
    owner: UserId,
    treatment: Treatment,
    status: u16,
    slug: Option<String>,
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
    groups: Mutex<HashMap<RepeatKey, RepeatGroup>>,
}

impl Repeats {
    /// Permits `per_second` lines per second for each group.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, groups: Mutex::default() }
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
        let mut groups = self.lock();
        if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
            return Admission::Unknown;
        }
        let group = groups.entry(key).or_insert_with(|| RepeatGroup {
            pace: Pace::new(self.per_second, self.per_second),
            last: record.at,
            repeated: 0,
            owner,
            treatment: record.treatment,
            status: record.status,
            slug: record.domain.as_ref().map(|domain| domain.slug.to_string()),
            named: record.requested.domain.clone(),
        });
        group.last = group.last.max(record.at);
        if group.pace.admits(record.at) {
            return Admission::Logged;
        }
        group.repeated += 1;
        if group.named != record.requested.domain {
            group.named = None;
        }
        Admission::Repetition
    }

    /// Returns the counts since the last call, and resets them.
    pub(super) fn take(&self, now: Tick, time: &str) -> Vec<RepeatedSummary> {
        let mut groups = self.lock();
        let mut counted = Vec::new();
        for (key, group) in &mut *groups {
            let repeated = std::mem::take(&mut group.repeated);
            if repeated > 0 {
                counted.push(RepeatedSummary {
                    time: time.to_owned(),
                    repeated,
                    code: key.code.to_owned(),
                    enforced: key.enforced,
                    mode: group.treatment.as_str().to_owned(),
                    status: group.status,
                    pat_id: key.token.0,
                    user_id: group.owner.0,
                    domain: group.named.as_ref().map(|it| without_secrets(&it.to_string())),
                    domain_id: key.domain.map(|domain| domain.0),
                    domain_slug: group.slug.clone(),
                    operation: key.operation.map(|operation| operation.as_str().to_owned()),
                });
            }
        }
        groups.retain(|_, group| now.since(group.last) < IDLE);
        if groups.is_empty() {
            // Releases the memory that a flood has taken.
            groups.shrink_to_fit();
        }
        counted
    }

    /// No code that can panic runs under this lock, so a poisoned lock is still consistent.
    fn lock(&self) -> MutexGuard<'_, HashMap<RepeatKey, RepeatGroup>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert!(repeats.lock().is_empty());
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
