//! For each alert an event that must cause it, on replicas of its own.

mod configuration;
mod revocation;
mod stores;
mod traffic;

use std::{future::Future, pin::Pin};

use futures_util::future::join_all;

use super::stage::Stage;

/// An event, under the name of the job that scrapes its replicas.
pub(super) struct Story {
    pub(super) job: &'static str,
    /// The alerts that it has to cause.
    pub(super) fires: &'static [&'static str],
    /// Those that it may cause as well.
    pub(super) may: &'static [&'static str],
    happen: for<'a> fn(&'a Stage<'a>, &'a Story) -> Told<'a>,
}

type Told<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A story by the function that tells it.
macro_rules! story {
    ($job:literal, $happen:path, fires: [$($fires:literal),+], may: [$($may:literal),*]) => {
        Story {
            job: $job,
            fires: &[$($fires),+],
            may: &[$($may),*],
            happen: |stage, story| Box::pin($happen(stage, story)),
        }
    };
}

pub(super) const STORIES: &[Story] = &[
    story!("patgate-down", traffic::one_of_two_ends, fires: ["PatgateDown"], may: []),
    story!("patgate-all-down", traffic::the_only_one_ends,
        fires: ["PatgateDown", "PatgateAllDown"], may: []),
    story!("patgate-slow", traffic::postgres_is_slow, fires: ["PatgateChecksSlow"],
        may: ["PatgateInvalidTokens", "PatgateUnavailable", "PatgateLookupsShed"]),
    story!("patgate-flood", traffic::unknown_tokens_are_many,
        fires: ["PatgateLookupsShed", "PatgateUnavailable"], may: ["PatgateInvalidTokens", "PatgateChecksSlow"]),
    story!("patgate-invalid", traffic::tokens_are_tried, fires: ["PatgateInvalidTokens"], may: []),
    story!("patgate-secret", traffic::calls_come_without_the_secret,
        fires: ["PatgateCallsWithoutSecret"], may: []),
    story!("patgate-denied", traffic::a_client_repeats_what_it_is_refused,
        fires: ["PatgateRateLimited"], may: []),
    story!("envoy", traffic::the_gateway_asks_nobody,
        fires: ["PatgateBypassed", "PatgateUnreachable"], may: []),
    story!("patgate-postgres", stores::postgres_is_away,
        fires: ["PatgatePostgresFailing", "PatgateUnavailable", "PatgateFeedStale"],
        may: ["PatgateChecksSlow", "PatgateLookupsShed"]),
    // Asked about tokens that do not exist.
    story!("patgate-redis", stores::redis_is_away, fires: ["PatgateRedisFailing"],
        may: ["PatgateInvalidTokens"]),
    story!("patgate-elsewhere", stores::the_feed_leads_elsewhere,
        fires: ["PatgateOtherInstallation", "PatgateFeedStale"], may: ["PatgatePostgresFailing"]),
    story!("patgate-credential", stores::a_credential_was_changed,
        fires: ["PatgateCredentialUnopened"], may: ["PatgateUnavailable"]),
    story!("patgate-seals", stores::a_stranger_writes_to_redis, fires: ["PatgateSealsRefused"],
        may: []),
    story!("patgate-feed", revocation::the_feed_is_away_for_a_while,
        fires: ["PatgateFeedStale", "PatgateRevocationSlow", "PatgateFeedLagged"],
        may: ["PatgatePostgresFailing", "PatgateRevocationUnseen"]),
    story!("patgate-triggers", revocation::triggers_are_off,
        fires: ["PatgateTriggersOff", "PatgateFeedStale"], may: ["PatgatePostgresFailing"]),
    story!("patgate-pooler", revocation::the_feed_is_behind_a_pooler,
        fires: ["PatgateFeedPooled"], may: ["PatgateFeedStale"]),
    story!("patgate-canary", revocation::a_revocation_has_no_effect,
        fires: ["PatgateRevocationUnseen"], may: []),
    story!("patgate-leaderless", revocation::a_stranger_holds_the_relays_lock,
        fires: ["PatgateRelayLeaderless"], may: []),
    story!("patgate-frames", revocation::a_stranger_sends_frames,
        fires: ["PatgateRelayFramesRefused"], may: []),
    // It reads the feed only once its ring has been checked.
    story!("patgate-ring", configuration::another_ring, fires: ["PatgateNotReady"],
        may: ["PatgateFeedStale"]),
    story!("patgate-tables", configuration::a_table_is_broken, fires: ["PatgateApiTablesRefused"],
        may: []),
    story!("patgate-certificates", configuration::a_certificate_is_broken,
        fires: ["PatgateCertificatesRefused"], may: []),
    story!("patgate-expiry", configuration::a_certificate_is_not_renewed,
        fires: ["PatgateCertificateExpires"], may: []),
    story!("patgate-passwords", configuration::a_password_file_is_emptied,
        fires: ["PatgateStoreCredentialsRefused"], may: []),
    story!("patgate-ring-file", configuration::a_ring_is_broken, fires: ["PatgateKeyRingRefused"],
        may: []),
    story!("patgate-settings", configuration::settings_are_broken,
        fires: ["PatgateSettingsRefused"], may: []),
    // The file is one of those that hold settings.
    story!("patgate-login", configuration::a_login_is_broken,
        fires: ["PatgateStoreCredentialsRefused"], may: ["PatgateSettingsRefused"]),
    story!("patgate-shadow", configuration::nothing_is_enforced, fires: ["PatgateNotEnforced"],
        may: []),
    story!("patgate-decisions", configuration::decisions_go_to_a_full_disk,
        fires: ["PatgateDecisionsUnlogged"], may: []),
    story!("patgate-log", configuration::the_log_goes_to_a_full_disk,
        fires: ["PatgateLogLinesLost", "PatgateApiTablesRefused"], may: []),
    story!("patgate-spans", configuration::the_receiver_of_traces_is_down,
        fires: ["PatgateSpansLost"], may: []),
];

/// All of them, at the same time.
pub(super) async fn all(stage: &Stage<'_>) {
    join_all(STORIES.iter().map(|story| (story.happen)(stage, story))).await;
}
