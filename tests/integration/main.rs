//! Tests over the wire: real Envoy, real Postgres, real Redis-compatible server.
//!
//! The servers are started once; each test has a database and a Redis database of its own. Tests
//! are plain async functions, registered below; the names are those of the functions.

mod harness;
mod http;
mod stack;

mod cases;

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
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    conclusion.exit_code()
}
