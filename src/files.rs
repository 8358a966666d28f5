//! Files that the operator writes.

pub(crate) mod api_files;
pub(crate) mod trusted_file;
