//! The process as a whole: its tasks, its threads of low priority, and the files and sockets that it
//! may open.

pub(crate) mod descriptors;
pub(crate) mod low_priority;
pub(crate) mod tasks;
