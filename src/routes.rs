//! Keeps the routes of a gateway equal to the backends in the database: as a file in a folder, or as
//! objects in Kubernetes.
//!
//! What to write is decided by [`patgate_routes`]. This room reads the backends, writes what has
//! changed, and says what it did. It never reads a credential, and it removes nothing unless the
//! database has just answered and something is left.

mod cluster;
mod folder;
mod keeper;
mod reader;
mod status;

pub(crate) use self::{
    cluster::{ApiError, Cluster, ClusterError},
    folder::{Folder, FolderError},
    keeper::{Keeper, RoundError, Sink},
    reader::{BackendReader, ReadError},
    status::Status,
};
