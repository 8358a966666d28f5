//! The administrator's commands: the real binary, with real stores.

pub(crate) mod audit;
pub(crate) mod caches;
pub(crate) mod check;
pub(crate) mod connect;
pub(crate) mod demo;
pub(crate) mod errors;
pub(crate) mod keyring;
pub(crate) mod keys;
pub(crate) mod memory;
pub(crate) mod revocation;
pub(crate) mod self_service;
pub(crate) mod settings;
pub(crate) mod shapes;
pub(crate) mod tokens;
pub(crate) mod unaudited;
pub(crate) mod updates;
