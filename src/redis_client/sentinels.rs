//! Finds the current master by asking Sentinels.

use std::{io, time::Duration};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, TlsMode,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use tokio::{sync::Mutex, time::timeout};

use super::file_contents::FileContents;
use crate::{clock, config::SentinelSettings};

/// How long asking the Sentinels may take, with a test of the master that they name.
const PATIENCE: Duration = Duration::from_secs(2);
/// If it took longer, another Sentinel is asked first the next time.
const SLOW: Duration = Duration::from_millis(300);

/// The Sentinels of one master.
pub(super) struct Sentinels {
    plan: SentinelPlan,
    asked: Mutex<AskedSentinels>,
}

/// What the Sentinels are asked, and with which logins.
struct SentinelPlan {
    addresses: Vec<ConnectionAddr>,
    settings: SentinelSettings,
    /// Holds the login and the database of the master; its address is that of a Sentinel.
    master: ConnectionInfo,
    files: FileContents,
}

/// The connections to the Sentinels.
struct AskedSentinels {
    client: SentinelClient,
    /// Which one is asked first.
    first: usize,
}

impl Sentinels {
    /// `masters` holds the address of each Sentinel, together with the login of the master.
    ///
    /// # Errors
    ///
    /// If the crate cannot use these settings.
    pub(super) fn new(
        settings: &SentinelSettings,
        masters: Vec<ConnectionInfo>,
        files: &FileContents,
    ) -> Result<Self, RedisError> {
        let addresses = masters.iter().map(|master| master.addr().clone()).collect();
        let Some(master) = masters.into_iter().next() else {
            return Err((ErrorKind::EmptySentinelList, "redis.url names no Sentinel").into());
        };
        let settings = settings.clone();
        let plan = SentinelPlan { addresses, settings, master, files: files.clone() };
        let asked = AskedSentinels { client: plan.client(0)?, first: 0 };
        Ok(Self { plan, asked: Mutex::new(asked) })
    }

    /// Returns a client of the server that the Sentinels name, and that says itself that it is a
    /// master.
    ///
    /// # Errors
    ///
    /// If no Sentinel answers, or none knows a master that is one.
    pub(super) async fn master(&self) -> Result<Client, RedisError> {
        let mut asked = self.asked.lock().await;
        let began = clock::now();
        let found = match timeout(PATIENCE, asked.client.async_get_client()).await {
            Ok(found) => found,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, SILENT).into()),
        };
        if found.is_err() || clock::now().since(began) > SLOW {
            // The crate takes the answers in the order of the Sentinels. One that is frozen must not
            // remain the first.
            let first = (asked.first + 1) % self.plan.addresses.len();
            *asked = AskedSentinels { client: self.plan.client(first)?, first };
        }
        found
    }
}

const SILENT: &str = "the Sentinels, or the master that they name, do not answer";

impl SentinelPlan {
    fn client(&self, first: usize) -> Result<SentinelClient, RedisError> {
        let mut addresses = self.addresses.clone();
        addresses.rotate_left(first);
        let master = self.settings.master.as_str();
        let mut builder =
            SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
        let login = self.master.redis_settings();
        builder = builder.set_client_to_redis_db(login.db());
        builder = builder.set_client_to_redis_protocol(login.protocol());
        if let Some(username) = login.username() {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = login.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(username) = &self.settings.username {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = &self.files.sentinel_password {
            builder = builder.set_client_to_sentinel_password(password.as_str());
        }
        if matches!(self.master.addr(), ConnectionAddr::TcpTls { .. }) {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            if let Some(certificates) = self.files.certificates() {
                builder = builder
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_certificates(certificates);
            }
        }
        builder.build()
    }
}
