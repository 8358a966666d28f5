//! Runs patgate as a process that obeys signals.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{App, Error};
use crate::{
    config::Config,
    process::tasks::{Task, Tasks},
    telemetry,
};

/// Runs `patgate serve` until SIGTERM or SIGINT. On SIGHUP, it reads the API tables, the key ring and
/// the settings again at once, and opens the file of the decision log again.
///
/// # Errors
///
/// Returns the error that prevents the start, or names a task that ended while it served.
pub async fn serve(config: Config) -> Result<(), Error> {
    telemetry::init(&config.log).map_err(Error::Logs)?;
    let shutdown = CancellationToken::new();
    let listen = |kind| signal(kind).map_err(Error::Signal);
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    // From now on, SIGHUP no longer ends the process.
    let mut hangup = listen(SignalKind::hangup())?;
    let stop = shutdown.clone();
    let tasks = Tasks::default();
    tasks.spawn_owned(Task::TerminationReceiver, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    let app = App::build_with(&config, tasks).await?;
    let reload = app.reload();
    let reopen_log = app.reopen_log();
    app.tasks.spawn(Task::HangupReceiver, async move {
        while hangup.recv().await.is_some() {
            reload();
            reopen_log();
        }
    });
    tracing::info!(
        grpc = app.grpc_address().map(tracing::field::display),
        uds = config.listen.uds.as_deref().map(|path| tracing::field::display(path.display())),
        http = app.http_address().map(tracing::field::display),
        "listening",
    );
    app.run(shutdown).await
}
