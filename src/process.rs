//! The process as a whole: its tasks, and the files and sockets that it may open.

pub(crate) mod descriptors;
pub(crate) mod tasks;
