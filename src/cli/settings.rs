//! `patgate config …`

mod connect;

use super::{UsageError, output, session::Session};
use crate::{
    config::{self, Config, ConfigPurpose, read_keyring},
    files::api_tables,
    server::tls,
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Reports all errors; if there are none, shows the effective settings and their sources
    Check {
        /// Checks the settings for the operator's commands, such as `patgate token create`; those
        /// for `patgate admin` are checked by `--self-service`
        #[arg(long)]
        admin: bool,
        /// Checks the settings for `patgate admin`, which serves self-service
        #[arg(long, conflicts_with = "admin")]
        self_service: bool,
        /// Connects to the services that the settings name, and reports whether each can be used
        #[arg(long)]
        connect: bool,
    },
    /// Prints all settings with their defaults, as a Markdown table
    Reference,
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Reference => output::write(&config::reference()),
        Command::Check { admin, self_service, connect } => {
            let purpose = match (admin, self_service) {
                (true, _) => ConfigPurpose::Admin,
                (_, true) => ConfigPurpose::SelfService,
                _ => ConfigPurpose::Serve,
            };
            let mistakes = mistakes(session, purpose);
            if !mistakes.is_empty() {
                return Err(UsageError(mistakes.join("\n")).into());
            }
            if connect {
                return connect::run(&session.config(purpose)?, purpose, session.out).await;
            }
            session.out.list(
                &Config::effective(&session.sources),
                &[
                    ("KEY", |setting| setting.key.to_owned()),
                    ("VALUE", |setting| setting.value.clone()),
                    ("SOURCE", |setting| setting.source.clone()),
                ],
            )
        }
    }
}

/// Collects the errors in the settings, the key ring and the tables, so that they can be fixed in one
/// pass.
fn mistakes(session: &Session, purpose: ConfigPurpose) -> Vec<String> {
    let mut mistakes = Vec::new();
    if let Err(settings) = session.config(purpose) {
        mistakes.push(settings.to_string());
    }
    let (keyring_file, apis) = Config::files(&session.sources);
    if let Some(Err(ring)) = keyring_file.as_deref().map(read_keyring) {
        mistakes.push(ring.to_string());
    }
    if let Err(tables) = api_tables::load(&apis) {
        mistakes.extend(tables.to_string().lines().map(|mistake| format!("apis: {mistake}")));
    }
    // It has none of the listeners of `patgate serve`.
    if purpose == ConfigPurpose::SelfService {
        return mistakes;
    }
    let listen = session.config(purpose).map(|config| config.listen);
    if let Some(Err(tls)) = listen.ok().map(|listen| tls::check(&listen)) {
        mistakes.push(tls.to_string());
    }
    mistakes
}
