//! Connections to Redis, and what is wrong with one.

pub(crate) mod connections;
pub(crate) mod fault;
pub(crate) mod fault_log;
pub(crate) mod probe;
