//! The basis of the tests that knows patgate: worlds of users and tokens, replicas, the
//! administrator's commands, and checks that several tests share. Servers, proxies and clients are
//! in `crates/testing`.

pub(crate) mod authority;
pub(crate) mod cli;
pub(crate) mod clock;
pub(crate) mod credentials;
pub(crate) mod decision_log;
pub(crate) mod domains;
pub(crate) mod durations;
pub(crate) mod entries;
pub(crate) mod envoy;
pub(crate) mod error_form;
pub(crate) mod explained;
pub(crate) mod fleet;
pub(crate) mod front;
pub(crate) mod leaks;
pub(crate) mod load;
pub(crate) mod previous;
pub(crate) mod process;
pub(crate) mod processes;
pub(crate) mod receiver;
pub(crate) mod redis_groups;
pub(crate) mod relay;
pub(crate) mod replica;
pub(crate) mod secrets;
pub(crate) mod settings;
pub(crate) mod standby;
pub(crate) mod suite;
pub(crate) mod tables;
pub(crate) mod tls_files;
pub(crate) mod tls_front;
pub(crate) mod tokens;
pub(crate) mod withdrawals;
pub(crate) mod world;

pub(crate) use self::{
    replica::{Replica, http_of, outcome, request},
    suite::{Suite, connect, execute, redis_at},
    world::{Scope, Token, World, value},
};
