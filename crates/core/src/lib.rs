//! What patgate decides, and the rules by which it decides: no I/O, no clock, no protocol.
//!
//! Every function here depends on its arguments alone. Time is an argument ([`clock::Tick`],
//! [`clock::Moment`]), as is what was looked up. So a decision can be made, tested and explained
//! without a server, and the compiler refuses code that would ask a store: this package depends on
//! nothing that could.
//!
//! # In reading order
//!
//! A request: [`request`] parses it by the tables of [`api`]; [`stages`] say what to look up next;
//! [`decide`] authenticates and authorizes it; [`body`] reads the model, if that matters;
//! [`model_list`] lists models; [`enforce`] applies the [`rollout`]; [`decision`] is the result;
//! [`wording`] says it to the client.
//!
//! What it is about: [`token`], [`keyring`], [`principal`], [`domain`], [`domain_ref`],
//! [`backend`], [`credential`], [`operation`], [`refusal`], [`provenance`].
//!
//! How fresh it is, and of which installation: [`clock`], [`snapshot`], [`installation`], [`seal`].
//!
//! Texts: [`mod@vocabulary`], [`yaml`], [`percent`], [`base62`], [`legible`].

pub mod api;
pub mod backend;
pub mod base62;
pub mod body;
pub mod clock;
pub mod credential;
pub mod decide;
pub mod decision;
pub mod domain;
pub mod domain_ref;
pub mod enforce;
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
pub mod vocabulary;
pub mod wording;
pub mod yaml;
