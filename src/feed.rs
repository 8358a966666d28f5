//! Reads the change feed, and hands it to the rule in `freshness`.
//!
//! Either each replica polls Postgres for itself, or one replica does and relays its polls to the
//! others through Redis. This module drives: it polls, listens, relays, keeps the lease of this
//! replica, and logs and counts what happens. Whether an entry may be used is not decided here.

mod follower;
mod lease;
mod listener;
mod poll;
mod reader;
mod recording;
mod relay;

pub(crate) use self::{
    lease::Lease, listener::notifications_arrive, reader::FeedReader, recording::triggers_off,
    relay::Relay,
};

/// What to say if `feed.url` leads through a connection pooler in transaction mode.
pub(crate) const POOLED_FEED: &str = "feed.url leads through a connection pooler in transaction \
                                      mode, where notifications do not arrive: changes are noticed \
                                      by polling, every 400 ms. Point feed.url at Postgres \
                                      directly, or at a pooler in session mode";

/// The error if the feed must be relayed in that case.
pub(crate) const POOLED_RELAY: &str = "feed.url leads through a connection pooler in transaction \
                                       mode, where the replica that relays cannot hold its lock. \
                                       Point feed.url at Postgres directly, or at a pooler in \
                                       session mode, or set feed.relay to `off`";
