//! Files that the operator writes.

pub(crate) mod api_tables;
pub(crate) mod settled;
pub(crate) mod trusted;
