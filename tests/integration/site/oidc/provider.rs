//! A real provider, and a browser that goes from the site to it and back.

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
};

use patgate_testing::{
    http::{self, Reply},
    ports::free_port,
    stack::project,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
};
use uuid::Uuid;

use crate::{site::AdminSite, support::World};

const AUDIENCE: &str = "https://tokens.example.com";
const SECRET: &str = "secret";

/// Whether the provider is installed. Otherwise the test says so and ends; `make test` installs nothing
/// that needs Node.
pub(crate) fn is_installed() -> bool {
    let home = project(".clients/oidc-node");
    let is_installed = Path::new(&home).join("installed").is_file();
    if !is_installed {
        let skipped = format!("skipped: {home} is missing; tools/install_clients.sh installs it");
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "{skipped}");
        println!("{skipped}");
    }
    is_installed
}

/// A provider, and with which settings it and patgate know one another.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    port: u16,
    secret: String,
    /// Holds the file of the secret, and goes with it: what remains is searched for secrets.
    dir: TempDir,
    settings: Value,
    process: Option<Child>,
}

impl Provider {
    /// One that is yet to start. It signs with RS256, and takes the client's secret in a header.
    pub(crate) fn new(world: &World<'_>) -> Self {
        let port = free_port();
        let issuer = format!("http://127.0.0.1:{port}");
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        world.suite.credentials.lock().unwrap().push(secret.clone());
        let dir = TempDir::new().unwrap();
        let file = dir.path().join(SECRET);
        fs::write(&file, format!("{secret}\n")).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let settings = json!({
            "port": port, "issuer": issuer, "secret": secret,
            "alg": "RS256", "auth": "client_secret_basic",
            "accounts": {
                "s-bob": { "email": "Bob@Example.com", "email_verified": true },
                "s-liar": { "email": "bob@example.com", "email_verified": false },
                "s-root": { "email": "root@example.com", "email_verified": true },
            },
        });
        Self { issuer, port, secret, dir, settings, process: None }
    }

    /// The same with some settings of its own replaced.
    pub(crate) fn with(mut self, changes: Value) -> Self {
        let changes = changes.as_object().unwrap().clone();
        self.settings.as_object_mut().unwrap().extend(changes);
        self
    }

    /// What patgate must know of it.
    pub(crate) fn known(&self) -> Vec<String> {
        let issuer = self.settings["issuer"].as_str().unwrap();
        let mut known = vec![
            format!("web.oidc.issuer={issuer}"),
            "web.oidc.client_id=patgate".to_owned(),
            format!("web.oidc.api_audience={AUDIENCE}"),
            // The tests come as fast as they can.
            "web.sign_ins_per_minute=600000".to_owned(),
        ];
        if self.settings["auth"] != "none" {
            let file = self.dir.path().join(SECRET);
            known.push(format!("web.oidc.client_secret_file={}", file.display()));
        }
        known
    }

    /// The site of a world that knows this provider.
    pub(crate) async fn site<'w, 's>(&self, world: &'w World<'s>) -> AdminSite<'w, 's> {
        let known = self.known();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        AdminSite::with(world, &known).await
    }

    /// Starts it for a site.
    pub(crate) async fn start(&mut self, site: &AdminSite<'_, '_>) {
        self.settings["callback"] = format!("{}/sign-in/callback", site.origin()).into();
        let mut command = Command::new(project(".clients/node/bin/node"));
        command
            .arg(project("tests/clients/oidc_provider.mjs"))
            .arg(project(".clients/oidc-node"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap_or_else(|error| {
            panic!("{command:?}: {error}; run tools/install_clients.sh first")
        });
        let line = format!("{}\n", self.settings);
        process.stdin.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line == "listening" {
                self.process = Some(process);
                // Or it would end with a broken pipe.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return;
            }
        }
        panic!("the provider did not start: {:?}", process.wait().await);
    }

    pub(crate) async fn stop(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    /// Links one of its subjects to a user, as an administrator does.
    pub(crate) async fn link(&self, world: &World<'_>, subject: &str, user: &str) {
        let (issuer, id) = (&self.issuer, world.id(user));
        world
            .sql(&format!(
                "INSERT INTO patgate.issuers (issuer) VALUES ('{issuer}') ON CONFLICT DO NOTHING;
                 INSERT INTO patgate.identities (issuer, subject, user_id)
                 VALUES ('{issuer}', '{subject}', '{id}')"
            ))
            .await;
    }

    /// Changes it while it runs; see tests/clients/oidc_provider.mjs.
    pub(crate) async fn change(&self, wanted: Value) -> Value {
        let reply = self.send("POST", "/test", &[], &wanted.to_string()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// An access token for the API, of the client `s-robot`.
    pub(crate) async fn access_token(&self) -> String {
        let form = format!(
            "grant_type=client_credentials&scope=api&resource={}",
            AUDIENCE.replace(':', "%3A").replace('/', "%2F")
        );
        let basic = {
            use base64::Engine as _;
            base64::prelude::BASE64_STANDARD.encode(format!("s-robot:{}", self.secret))
        };
        let basic = format!("Basic {basic}");
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let headers = [kind, ("authorization", &*basic)];
        let reply = self.send("POST", "/token", &headers, &form).await;
        let answer = reply.json();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned()
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let host = format!("127.0.0.1:{}", self.port);
        http::send_to(&host, self.port, method, path, headers, body).await
    }

    /// What a browser does at the provider, where it signs in as `account`. Returns the path of the
    /// site to which it is sent back.
    pub(crate) async fn visit(
        &self,
        site: &AdminSite<'_, '_>,
        to: &str,
        account: Option<&str>,
    ) -> String {
        let mut jar: Vec<(String, String)> = Vec::new();
        let mut to = to.to_owned();
        for _ in 0..8 {
            if let Some(path) = to.strip_prefix(&site.origin()) {
                return path.to_owned();
            }
            let path = to.strip_prefix(&self.issuer).unwrap_or(&to).to_owned();
            let cookies: Vec<_> =
                jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let cookies = cookies.join("; ");
            let mut headers = vec![("cookie", &*cookies)];
            headers.extend(account.map(|account| ("x-account", account)));
            let reply = self.send("GET", &path, &headers, "").await;
            for (_, line) in reply.headers.iter().filter(|(name, _)| name == "Set-Cookie") {
                let (name, rest) = line.split_once('=').unwrap();
                let value = rest.split(';').next().unwrap();
                jar.retain(|(known, _)| known != name);
                jar.push((name.to_owned(), value.to_owned()));
            }
            let next = reply.header("location").unwrap_or_else(|| panic!("{path}: {reply:?}"));
            to = next.to_owned();
        }
        panic!("the provider leads in circles: {to}");
    }
}

/// A sign-in that has begun in a browser.
pub(crate) struct Departure {
    pub(crate) to: String,
    pub(crate) cookie: String,
}

pub(crate) async fn depart(site: &AdminSite<'_, '_>) -> Departure {
    let reply = site.send("GET", "/sign-in/provider", &[], "").await;
    assert_eq!(reply.status, 302, "{reply:?}");
    let cookie = crate::site::cookie(&reply);
    Departure { to: reply.header("location").unwrap().to_owned(), cookie }
}

/// Brings the provider's answer back.
pub(crate) async fn bring(site: &AdminSite<'_, '_>, path: &str, cookie: &str) -> Reply {
    site.send("GET", path, &[("cookie", cookie)], "").await
}

/// A whole sign-in.
pub(crate) async fn sign_in(site: &AdminSite<'_, '_>, provider: &Provider, account: &str) -> Reply {
    let Departure { to, cookie } = depart(site).await;
    let back = provider.visit(site, &to, Some(account)).await;
    bring(site, &back, &cookie).await
}

/// The cookie of the session that has begun.
pub(crate) fn session(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    let given = reply.headers.iter().filter(|(name, _)| name == "set-cookie");
    let mut given = given.filter_map(|(_, line)| line.split(';').next());
    given.find(|line| line.starts_with("patgate-session=")).unwrap().to_owned()
}
