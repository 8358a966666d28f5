//! Connections to Redis, and what is wrong with one.

pub(crate) mod connections;
pub(crate) mod fault;
