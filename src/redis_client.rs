//! Connections to Redis, and the description of their faults.

pub(crate) mod access;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod connector;
pub(crate) mod fault;
pub(crate) mod fault_log;
pub(crate) mod file_contents;
pub(crate) mod probe;
pub(crate) mod reloader;
mod sentinels;
