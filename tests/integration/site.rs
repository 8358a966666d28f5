//! `patgate admin` over HTTP: what its API and its pages answer.

pub(crate) mod accounts;
pub(crate) mod administration;
pub(crate) mod browser;
pub(crate) mod floods;
pub(crate) mod guards;
pub(crate) mod likeness;
pub(crate) mod metrics;
pub(crate) mod oidc;
pub(crate) mod openapi;
pub(crate) mod operation;
pub(crate) mod pages;
pub(crate) mod pats;
pub(crate) mod process;
pub(crate) mod secrets;
pub(crate) mod supermq;

use std::net::SocketAddr;

use patgate::{
    app::SelfServiceApp,
    config::{Config, ConfigPurpose, ConfigSources},
};
use patgate_testing::http::{self, Reply};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{support::World, web::Site};

/// The server of self-service on a world, in this process; it ends when it is dropped.
pub(crate) struct AdminSite<'w, 's> {
    pub(crate) world: &'w World<'s>,
    /// The service behind it, for accounts and invitations.
    pub(crate) site: Site<'w, 's>,
    pub(crate) address: SocketAddr,
    /// Where it shows its metrics, if a setting says so.
    pub(crate) metrics: Option<SocketAddr>,
    _stop: DropGuard,
}

impl<'w, 's> AdminSite<'w, 's> {
    pub(crate) async fn of(world: &'w World<'s>) -> Self {
        Self::with(world, &[]).await
    }

    /// The same with settings, `key=value`.
    pub(crate) async fn with(world: &'w World<'s>, settings: &[&str]) -> Self {
        let site = Site::of(world).await;
        // Browsers need to know the port in `web.url`.
        let port = patgate_testing::ports::free_port();
        let listen = format!("web.listen=127.0.0.1:{port}");
        let login = format!("web.postgres.url={}", world.url("web", world.port));
        // All tests come from one address.
        let usual = [&*listen, &*login, "web.requests_per_second=1000"];
        let usual = [&usual[..], &["web.sign_ins_per_minute=6000"], settings].concat();
        let sources = ConfigSources {
            file: None,
            env: world.environment(&usual).into_iter().collect(),
            flags: Vec::new(),
            read: |path| std::fs::read_to_string(path),
        };
        let config = Config::load(&sources, ConfigPurpose::SelfService);
        let config = config.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let app = SelfServiceApp::build(&config).await.unwrap_or_else(|error| panic!("{error}"));
        let address = app.address().unwrap();
        let metrics = app.metrics_address();
        let stop = CancellationToken::new();
        tokio::spawn(app.run(stop.clone()));
        Self { world, site, address, metrics, _stop: stop.drop_guard() }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a request as it is given.
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

    /// A client of the API in a new session of a user, who gets a new account.
    pub(crate) async fn client(&self, user: &str) -> Client<'_> {
        let caller = self.site.signed_in(user).await;
        let secret = caller.session.expose().to_string();
        Client { site: self, secret }
    }

    /// The same for a platform administrator who has just proven the password.
    pub(crate) async fn administrator(&self) -> Client<'_> {
        let caller = self.site.elevated().await;
        let secret = caller.session.expose().to_string();
        Client { site: self, secret }
    }
}

/// A program that uses the API with the secret of a session.
pub(crate) struct Client<'a> {
    site: &'a AdminSite<'a, 'a>,
    pub(crate) secret: String,
}

impl Client<'_> {
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    /// Sends JSON; `Null` for no body.
    pub(crate) async fn json(&self, method: &str, path: &str, body: Value) -> Reply {
        if body.is_null() {
            return self.send(method, path, &[], "").await;
        }
        let kind = ("content-type", "application/json");
        self.send(method, path, &[kind], &body.to_string()).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let bearer = format!("Bearer {}", self.secret);
        let headers = [&[("authorization", &*bearer)], headers].concat();
        self.site.send(method, path, &headers, body).await
    }
}

/// Keeps the secrets that an answer gives, for the search for leaks.
fn keep_sessions(world: &World<'_>, reply: &Reply) {
    world.suite.keep_sessions(&reply.body);
    reply.headers.iter().for_each(|(_, value)| world.suite.keep_sessions(value));
}

/// The name and value of the cookie that an answer gives.
pub(crate) fn cookie(reply: &Reply) -> String {
    let given = reply.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {reply:?}"));
    given.split_once(';').unwrap().0.to_owned()
}

pub(crate) fn credentials(user: &str, password: &str) -> String {
    json!({ "email": format!("{user}@example.com"), "password": password }).to_string()
}
