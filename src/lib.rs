//! patgate answers Envoy's question about each request: may it pass, and as whom?
//!
//! ```text
//! client ─HTTPS─▶ Envoy: ext_authz ──────────────▶ router ─▶ upstream cluster of the domain
//!                   │  Check (gRPC over TCP or a Unix socket)
//!                   ▼
//!                 check
//! ```
//!
//! A check goes through these modules, in this order:
//!
//! ```text
//! parse    request, token, api, body   the text of the request into types that cannot be wrong
//! resolve  resolve                     what the token, the domain and the backend are: from memory,
//!                                      Redis or Postgres
//! decide   stages, decide              whether all of that permits the request
//! enforce  enforce                     whether a refusal applies, or is only recorded
//! answer   answer, wording             headers, status, body and metadata, as data
//! respond  wire                        the bytes that Envoy gets
//! ```
//!
//! # Invariants
//!
//! - Nothing is allowed unless everything was checked. Each of these is made in one place: a
//!   [`decide::Permit`] in `decide::authorize`; an [`enforce::UnenforcedVerdict`] in `enforce.rs`;
//!   a [`decide::AwaitsBody`], which is no decision at all, in [`decide::NeedsModel::await_body`]; a
//!   [`decide::AnsweredList`], which reaches no backend, in [`decide::Listing::answer`]; an
//!   [`answer::Answer`] in `answer.rs`, from these only; its encoding in `wire/response.rs`, which
//!   alone builds Envoy's `CheckResponse`, because its default is an ALLOW. (`wire/response/decoded.rs`
//!   only decodes one, for `patgate check`.)
//! - "Not found" is a value, "cannot know" is an error, and an outage never looks like a denial.
//! - No answer is based on data older than `max_staleness`. Ages are measured on this machine's
//!   monotonic clock, expiry on Postgres's clock. Only [`clock`] reads a clock.
//! - A malformed or forged token causes no I/O, except to look up the mode of the domain while `mode` is
//!   `per-domain`. An answer from memory causes none, either.
//! - A module of the core uses only the modules before it, in the order of `tests/architecture.rs`,
//!   which enforces it. [`stages`] chains the stages, and `check` gives them the data they need.
//! - Protobuf stops at [`wire`].
//!
//! # Where to find what
//!
//! The package [`patgate_core`] has everything that needs neither I/O nor a clock: the request and its
//! parser, tokens, tables of the API, the stages of a check, the decision, the rule on freshness. Its
//! documentation lists them in reading order. This package drives it, and re-exports its modules
//! under the same names. Each module below is a room of its own, and `tests/architecture.rs` says
//! which room may use which.
//!
//! | room | what it holds |
//! | --- | --- |
//! | `check` | the driver: one function from a request to its record; the decision log and notes of use |
//! | `edge` | where checks come in: gRPC over HTTP/2 |
//! | [`wire`] | protobuf, both ways: the decoder of checks, and the encoder of answers |
//! | `resolve` | memory, Redis and Postgres as tiers of one lookup |
//! | `feed` | polls, listens and relays what changed, and hands it to [`freshness`] |
//! | [`postgres`] | connects, asks, writes and migrates |
//! | `redis_client` | makes every connection to Redis, and says what is wrong with one |
//! | [`config`] | settings from file, environment and flags |
//! | `files` | files that the operator writes: whether to trust them, and the tables of the API |
//! | [`telemetry`] | every metric, the log, traces, and outputs that may fail or block |
//! | `process` | tasks whose end ends the process, and the files and sockets that may be open |
//! | [`clock`] | the only code that reads a clock |
//! | `server` | listens, answers health checks, drains |
//! | `routes` | keeps the routes of a gateway equal to the backends in the database |
//! | `web` | the API and the pages of self-service |
//! | [`app`] | wires all of this together |
//! | [`admin`] | the administrator's service, and what it reads and writes in Postgres |
//! | [`cli`] | the commands |

pub mod admin;
pub mod app;
mod check;
pub mod cli;
pub mod clock;
pub mod config;
mod edge;
mod feed;
mod files;
pub mod postgres;
mod process;
mod redis_client;
mod resolve;
mod routes;
mod server;
pub mod telemetry;
mod web;
pub mod wire;

pub use patgate_core::{
    answer, api, backend, body, credential, decide, decision, domain, domain_ref, enforce, explain,
    installation, keyring, model_list, operation, principal, provenance, refusal, request, rollout,
    stages, token, vocabulary, wording,
};
use patgate_core::{
    cookie_seal, freshness, legible, pace, percent, seal, snapshot, throttle, trace_context, yaml,
};
