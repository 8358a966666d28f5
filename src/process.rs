//! The process as a whole: its tasks, its threads of low priority, the files and sockets that it may
//! open, and who may see its memory.

pub(crate) mod descriptors;
pub(crate) mod low_priority;
pub(crate) mod secrecy;
pub(crate) mod tasks;
