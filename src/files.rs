//! Files that the operator writes.

pub(crate) mod api_tables;
pub(crate) mod certificate;
pub(crate) mod patient;
pub(crate) mod pem;
pub(crate) mod secret;
pub(crate) mod settled;
pub(crate) mod trusted;
