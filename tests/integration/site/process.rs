//! `patgate admin` as in production: a separate process.

use std::net::SocketAddr;

use patgate_testing::{
    http::{self, Reply},
    stack::Server,
};
use serde_json::json;

use crate::support::{World, process::program};

pub(crate) struct AdminProcess {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

impl AdminProcess {
    /// Waits until the process is ready.
    pub(crate) fn start(world: &World<'_>, settings: &[&str]) -> Self {
        let port = patgate_testing::ports::free_port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listen = format!("web.listen={address}");
        let login = format!("web.postgres.url={}", world.url("web", world.port));
        let usual = [&*listen, &*login, "web.requests_per_second=1000"];
        let usual = [&usual[..], &["web.sign_ins_per_minute=6000"], settings].concat();
        let arguments = json!({
            "argv": [program(), "admin".to_owned()],
            "name": "patgate-admin",
            "env": world.environment(&usual),
            "ready": format!("http://{address}/readyz"),
        });
        let server = world.suite.stack.start("process", arguments);
        Self { server, address }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let host = self.address.to_string();
        http::send_to(&host, self.address.port(), method, path, headers, body).await
    }
}
