//! The basis of patgate's tests and benchmarks: the real servers, a proxy that fails on demand, and
//! clients of HTTP and gRPC that do what no library would.
//!
//! Nothing here knows patgate, so a change of patgate does not compile it again. Code that knows
//! patgate, such as a database with users and tokens, is in `tests/integration/support`.

#![expect(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "used by tests, which end at the first thing that is not as it should be"
)]

pub mod access_log;
pub mod certificates;
pub mod costly_bodies;
mod eventually;
pub mod frames;
pub mod http;
pub mod openai;
pub mod ports;
pub mod prometheus;
pub mod proxy;
pub mod script;
pub mod shipped;
pub mod stack;
pub mod wire;

pub use self::eventually::{PAUSE, eventually};
