//! A connection to one server, or to the nodes of a cluster.

use redis::{
    Cmd, Pipeline, RedisFuture, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
};

/// A connection over which commands can be sent.
pub(crate) struct RedisConnection {
    /// Which logins and certificates it was made with.
    pub(super) generation: u64,
    pub(crate) nodes: RedisNodes,
}

/// The server, or the nodes of a cluster, to which a connection leads.
pub(crate) enum RedisNodes {
    /// One server.
    One(MultiplexedConnection),
    /// Each command goes to the node that has the slot of its keys. Clones share the connections.
    Cluster(ClusterConnection),
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.nodes {
            RedisNodes::One(node) => node.req_packed_command(command),
            RedisNodes::Cluster(nodes) => nodes.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.nodes {
            RedisNodes::One(node) => node.req_packed_commands(pipeline, offset, count),
            RedisNodes::Cluster(nodes) => nodes.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.nodes {
            RedisNodes::One(node) => node.get_db(),
            RedisNodes::Cluster(nodes) => nodes.get_db(),
        }
    }
}
