//! patgate answers Envoy's question about each request: may it pass, and as whom?
//!
//! ```text
//! client ─HTTPS─▶ Envoy: ext_authz ──────────────▶ router ─▶ upstream cluster of the domain
//!                   │  Check (gRPC over TCP or a Unix socket)
//!                   ▼
//!   check     parse ───▶ resolve ──────────────────────────▶ decide ──▶ enforce ─▶ respond
//!             request    resolve: memory ▸ redis ▸ postgres  stages     enforce    response
//!             token      one flight per key, one clock rule  decide     pure       the only
//!             api, body                                      pure                  constructor
//! ```
//!
//! # Invariants
//!
//! - Nothing is allowed unless everything was checked. Each of these is made in one place: a
//!   [`decide::Permit`] in `decide::authorize`; an [`enforce::UnenforcedVerdict`] in `enforce.rs`;
//!   a [`decide::AwaitsBody`], which is no decision at all, in [`decide::NeedsModel::await_body`]; a
//!   [`decide::AnsweredList`], which reaches no backend, in [`decide::Listing::answer`]; an answer in
//!   `response.rs`, which alone may name Envoy's `CheckResponse`, because its default is an ALLOW.
//! - "Not found" is a value, "cannot know" is an error, and an outage never looks like a denial.
//! - No answer rests on knowledge older than `max_staleness`; ages are measured in one clock,
//!   moments written in another, and [`clock`] is the only code that reads either.
//! - A malformed or forged token causes no I/O. An answer from memory causes none, either.
//! - A stage does not import another: `stages` chains them, and `check` gives them what they need.
//!   They share the plain types of the second group below. `tests/architecture.rs` sees to it.
//! - Protobuf stops at the edge: `grpc`, [`codec`], `response` and `proto`.
//!
//! # Modules, in reading order
//!
//! The package [`patgate_core`] has what needs neither I/O nor a clock, and this package all that
//! drives it. Its modules are re-exported here under the same names.
//!
//! The way of a request: `check`, [`stages`], [`request`], [`api`], `resolve`, [`decide`] (and
//! [`body`], where the model decides; [`model_list`], where patgate lists models itself),
//! [`enforce`], `response`.
//!
//! What it is about: [`token`], [`keyring`], [`principal`], [`domain`] and [`domain_ref`] (how
//! requests name it), [`backend`] and its [`credential`], [`operation`], [`rollout`] (how far denials
//! are enforced), [`refusal`], [`grounds`] and [`decision`]. [`mod@vocabulary`] makes their words.
//!
//! How fresh it is: [`clock`], `freshness` (the rule, and why it is enough), `snapshot`, `feed`
//! (reads changes and hands them to the rule), [`postgres`] (connects, asks, writes, migrates),
//! [`installation`] (whose knowledge it is), `seal` (what passes through Redis), `throttle` (once in a
//! while), `pace` (so many per second), `redis_connections` (makes them all), `redis_fault` (what is
//! wrong with a Redis).
//!
//! What is written behind the answers: `decision_log`, `last_use`, `canary`.
//!
//! Around it: [`app`] wires, `api_files` reads tables and `api_reload` takes up changed ones, `server` listens and drains,
//! `grpc` is the edge, [`telemetry`] names every metric, [`config`] reads settings (`yaml` is how
//! they and the tables are written, `percent` how shares are), [`admin`] is
//! the administrator's service and `store` what it reads and writes in Postgres, [`explain`] says
//! why something was refused, and [`cli`] holds the commands.
//! `ring_watch` keeps a replica with another key ring from being ready. `tasks` ends the process
//! if one of its tasks ends, `descriptors` shares out what may be open, `outlet` writes to
//! outputs that may fail or block, `trusted_file` refuses files that others may write to, `legible`
//! escapes characters that show a text as another.

pub mod admin;
mod api_files;
mod api_reload;
pub mod app;
mod canary;
mod check;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
mod decision_log;
mod descriptors;
pub mod explain;
mod feed;
mod grpc;
mod last_use;
mod outlet;
pub mod postgres;
mod proto;
mod redis_connections;
mod redis_fault;
mod resolve;
mod response;
mod ring_watch;
mod server;
mod store;
mod tasks;
pub mod telemetry;
mod trusted_file;

pub use patgate_core::{
    api, backend, body, credential, decide, decision, domain, domain_ref, enforce, grounds,
    installation, keyring, model_list, operation, principal, refusal, request, rollout, stages,
    token, vocabulary,
};
use patgate_core::{freshness, legible, pace, percent, seal, snapshot, throttle, yaml};
