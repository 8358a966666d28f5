//! `patgate admin` as in production: a separate process.

use std::net::SocketAddr;

use patgate_testing::{
    http::{self, Reply},
    stack::Server,
};
use serde_json::json;

use super::{keep_sessions, metrics::value_of};
use crate::support::{World, previous, process::program};

pub(crate) struct AdminProcess<'w, 's> {
    world: &'w World<'s>,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    /// Where it shows its metrics, unless it is of the previous release.
    pub(crate) metrics: Option<SocketAddr>,
}

impl<'w, 's> AdminProcess<'w, 's> {
    /// Waits until the process is ready.
    pub(crate) fn start(world: &'w World<'s>, settings: &[&str]) -> Self {
        let metrics = SocketAddr::from(([127, 0, 0, 1], patgate_testing::ports::free_port()));
        let shown = format!("web.metrics.listen={metrics}");
        let started = Self::start_by(world, &program(), &[&[&*shown][..], settings].concat());
        Self { metrics: Some(metrics), ..started }
    }

    /// The same of the previous release.
    pub(crate) fn previous(world: &'w World<'s>) -> Self {
        Self::start_by(world, &previous::program(), &[])
    }

    fn start_by(world: &'w World<'s>, program: &str, settings: &[&str]) -> Self {
        let port = patgate_testing::ports::free_port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listen = format!("web.listen={address}");
        let login = format!("web.postgres.url={}", world.url("web", world.port));
        let usual = [&*listen, &*login, "web.requests_per_second=1000"];
        let usual = [&usual[..], &["web.sign_ins_per_minute=6000"], settings].concat();
        let arguments = json!({
            "argv": [program, "admin"],
            "name": "patgate-admin",
            "env": world.environment(&usual),
            "ready": format!("http://{address}/readyz"),
        });
        let server = world.suite.stack.start("process", arguments);
        Self { world, server, address, metrics: None }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let host = self.address.to_string();
        let port = self.address.port();
        let reply = http::send_to(&host, port, method, path, headers, body).await;
        keep_sessions(self.world, &reply);
        reply
    }

    /// The value of a series of its metrics.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        value_of(self.metrics.unwrap().port(), series).await
    }
}
