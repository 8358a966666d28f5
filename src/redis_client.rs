//! Connections to Redis, and the description of their faults.

pub(crate) mod connections;
pub(crate) mod fault;
pub(crate) mod fault_log;
pub(crate) mod probe;
