//! Tests over the wire: real Envoy, real Postgres, real Redis-compatible server.
//!
//! The servers are started once; each test has a database and a Redis database of its own. Tests
//! are plain async functions, registered below. When all have run, every token that they made is
//! looked for in the logs and in what the stores hold.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test without libtest's harness, for which clippy makes its exceptions"
)]

mod harness;
mod http;
mod leaks;
mod stack;

mod cases;
mod proxy;
mod tiers;

use std::{process::ExitCode, sync::Arc};

use harness::Suite;
use libtest_mimic::{Arguments, Failed, Trial};

macro_rules! tests {
    ($suite:expr, $($module:ident :: $name:ident),+ $(,)?) => {
        vec![$({
            let suite = Arc::clone($suite);
            Trial::test(concat!(stringify!($module), "::", stringify!($name)), move || {
                suite.clone().run($module::$name(suite));
                Ok::<(), Failed>(())
            })
        }),+]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests wait for servers more than they compute.
    arguments.test_threads.get_or_insert(4);
    let suite = Arc::new(Suite::launch());
    let trials = tests![
        &suite,
        cases::over_grpc,
        cases::through_envoy,
        cases::every_mutation_of_a_token_is_refused,
        tiers::each_tier_spares_the_next,
        tiers::a_forged_token_reaches_no_store,
        tiers::a_thousand_first_uses_are_one_query,
        tiers::unknown_tokens_are_remembered_apart,
        tiers::redis_may_fail_in_any_way,
        tiers::a_late_reply_has_no_reader,
        tiers::what_redis_holds_is_sealed,
        tiers::postgres_may_be_away,
        tiers::nothing_is_older_than_max_staleness,
        tiers::without_the_feed_entries_are_refreshed_ahead,
        tiers::an_outage_is_told_in_our_words,
        tiers::one_bad_row_spoils_no_other,
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    let leaks = Arc::into_inner(suite).map(leaks::search).unwrap_or_default();
    for leak in &leaks {
        println!("a plaintext token was found in {leak}");
    }
    if leaks.is_empty() { conclusion.exit_code() } else { ExitCode::FAILURE }
}
