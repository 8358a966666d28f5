//! Follows where a Postgres address leads while patgate serves: to other files, or to another
//! primary.

use std::{future::pending, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    files::{
        certificate::{self, Validity},
        patient::{HANGS, PatientReader},
        pem,
        settled::Settled,
    },
    postgres::{Address, ReadServers, Servers},
    telemetry::{Metrics, OwnCertificate},
};

/// How often the files are read. They are few and small, and their content is compared.
const EVERY: Duration = Duration::from_secs(1);

/// How often a login that Postgres has refused is tried again, so that its success is noticed although
/// no other connection is needed.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Watches one address of Postgres: the files of its settings, its primary, and its login.
pub(crate) struct PostgresWatch {
    address: Address,
    files: Option<WatchedFiles>,
    look_every: Duration,
}

struct WatchedFiles {
    address: Address,
    reads: ReadServers,
    /// Half a URL may lead elsewhere.
    content: Settled<Result<Servers, String>>,
    certificate: OwnCertificate,
    metrics: Metrics,
}

impl PostgresWatch {
    /// One for each address. A server that was left behind by a failover, and still answers, is
    /// noticed within `max_staleness`.
    pub(crate) fn of(config: &Config, metrics: &Metrics) -> Vec<Self> {
        let addresses = [
            (OwnCertificate::Postgres, Some(&config.postgres.address)),
            (OwnCertificate::Feed, config.feed.as_ref()),
        ];
        let watch = |(certificate, address): (_, Option<&Address>)| {
            Some(Self::of_one(address?, certificate, config.max_staleness, metrics))
        };
        addresses.into_iter().filter_map(watch).collect()
    }

    /// Of one address.
    pub(crate) fn of_one(
        address: &Address,
        certificate: OwnCertificate,
        look_every: Duration,
        metrics: &Metrics,
    ) -> Self {
        metrics.took_up_certificate(certificate, validity(&address.current()));
        let files = address.reads().map(|reads| WatchedFiles {
            address: address.clone(),
            reads,
            content: Settled::new(Ok(address.current())),
            certificate,
            metrics: metrics.clone(),
        });
        Self { address: address.clone(), files, look_every }
    }

    /// Runs until `stop`, or until a part of it ends, which none should: the process ends with it.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let files = async {
            match self.files {
                Some(files) => files.run().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = files => {}
            () = try_again(self.address.clone()) => {}
            () = look(self.address, self.look_every) => {}
        }
    }
}

impl WatchedFiles {
    async fn run(mut self) {
        let mut reader = PatientReader::new();
        loop {
            sleep(EVERY).await;
            let reads = ReadServers::clone(&self.reads);
            let Ok(read) = reader.read(move || reads()).await else { return };
            let settled = match read {
                Some(read) => self.content.take(read),
                None => self.content.take_at_once(Err(HANGS.to_owned())),
            };
            match settled {
                None => {}
                Some(Ok(servers)) => {
                    self.metrics.took_up_certificate(self.certificate, validity(&servers));
                    let leads_elsewhere = self.address.take_up(servers);
                    if leads_elsewhere {
                        // Not only when a connection is needed. Its outcome is noted in the address.
                        let _ = self.address.try_login().await;
                    }
                }
                Some(Err(error)) => {
                    self.address.refuse_files();
                    tracing::error!(
                        error,
                        "the login for Postgres was not reloaded; the previous one stays in use"
                    );
                }
            }
        }
    }
}

/// When the client's certificate is valid. That it can be read was checked when it was.
fn validity(servers: &Servers) -> Option<Validity> {
    let chain = pem::certificates(servers.certificate()?).ok()?;
    certificate::first_to_end(&chain).ok()
}

async fn try_again(address: Address) {
    loop {
        sleep(TRY_AGAIN).await;
        if address.is_refused_by_postgres() {
            // What comes of it is noted in the address.
            let _ = address.try_login().await;
        }
    }
}

/// Asks all servers from time to time, if there are several. The known primary may still answer
/// although another server was promoted.
async fn look(address: Address, every: Duration) {
    loop {
        // Not all replicas at once.
        sleep(every.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        if address.has_several()
            && let Err(error) = address.find(&address.current()).await
        {
            tracing::debug!(%error, "looking for the primary");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::postgres::Timelines;

    /// Otherwise, the files are never read again, and nothing says so.
    #[tokio::test(start_paused = true)]
    async fn a_reader_of_files_that_panics_ends_the_task() {
        let servers = Servers::new(Vec::new(), "".into(), None);
        let reads: ReadServers = Arc::new(|| panic!("on purpose"));
        let timelines = Timelines::default();
        let address =
            Address::new("postgres.url", servers.clone(), Some(reads.clone()), &timelines);
        let content = Settled::new(Ok(servers));
        let files = WatchedFiles {
            address: address.clone(),
            reads,
            content,
            certificate: OwnCertificate::Postgres,
            metrics: Metrics::new(&mut Registry::default()),
        };
        let watch = PostgresWatch { address, files: Some(files), look_every: EVERY };
        let ends = watch.run(CancellationToken::new());
        tokio::time::timeout(10 * EVERY, ends).await.unwrap();
    }
}
