//! What patgate decides, and the rules by which it decides: no I/O, no clock, no protocol.
//!
//! Every function here depends only on its arguments. Time is an argument ([`clock::Tick`],
//! [`clock::Moment`]), and so is what was looked up. So a decision can be made, tested and explained
//! without a server. The compiler refuses code that would ask a store, because this package depends
//! on no library that could.
//!
//! # 1. The way of a request
//!
//! 1. [`request`] parses the request and finds its token, by the tables of [`api`].
//! 2. [`stages`] has one type per stage of the check, and says what must be looked up for the next.
//! 3. [`decide`] authenticates and authorizes the request.
//! 4. [`body`] reads the model that the body names, if the decision depends on it.
//! 5. [`model_list`] makes the lists of models that patgate answers itself.
//! 6. [`enforce`] decides by the [`rollout`] whether the verdict is enforced.
//! 7. [`decision`] is the result, with its [`provenance`].
//! 8. [`refusal`] has every reason to deny, and [`wording`] says it to the client.
//! 9. [`answer`] is what an edge encodes for the proxy.
//! 10. [`explain`] says to an administrator why.
//!
//! # 2. What a request is about
//!
//! - [`token`], which the keys of a [`keyring`] sign, and [`principal`], to which it resolves.
//! - [`operation`]: the closed vocabulary of operations and entity types.
//! - [`domain`], which a request names with a [`domain_ref`].
//! - [`backend`], with the [`credential`] that patgate sends to it.
//! - [`trace_context`]: the trace of the call that asks.
//! - [`cookie_seal`]: what a browser keeps while a provider signs its user in.
//!
//! # 3. How fresh an answer is
//!
//! - [`clock`]: the two clocks, and how one bounds the other.
//! - [`freshness`]: the rule for the use of cached entries, and the argument why it is enough.
//! - [`snapshot`]: which transactions a statement saw.
//! - [`installation`], and the [`seal`] on everything that passes through Redis.
//!
//! # 4. Small tools
//!
//! - [`pace`] and [`throttle`] limit how often something happens.
//! - [`mod@vocabulary`], [`yaml`], [`percent`] and [`base62`] read texts; [`legible`] makes them safe
//!   to print.

pub mod answer;
pub mod api;
pub mod backend;
pub mod base62;
pub mod body;
pub mod clock;
pub mod cookie_seal;
pub mod credential;
pub mod decide;
pub mod decision;
pub mod domain;
pub mod domain_ref;
pub mod enforce;
pub mod explain;
pub mod freshness;
pub mod installation;
pub mod keyring;
pub mod legible;
pub mod model_list;
pub mod operation;
pub mod pace;
pub mod percent;
pub mod principal;
pub mod provenance;
pub mod refusal;
pub mod request;
pub mod rollout;
pub mod seal;
pub mod snapshot;
pub mod stages;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod throttle;
pub mod token;
pub mod trace_context;
pub mod vocabulary;
pub mod wording;
pub mod yaml;
