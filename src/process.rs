//! What belongs to the process as a whole: its tasks, and the files and sockets it may open.

pub(crate) mod descriptors;
pub(crate) mod tasks;
