//! `patgate config …`

use super::{output, session::Session};
use crate::{
    api::Apis,
    config::{self, Config, Purpose},
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Reports every mistake; without any, shows the effective settings and where they come from
    Check {
        /// Check what the administrator's commands need, not what serving needs
        #[arg(long)]
        admin: bool,
    },
    /// Prints all keys with their defaults, as a Markdown table
    Reference,
}

pub(super) fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Reference => output::write(&config::reference()),
        Command::Check { admin } => {
            let purpose = if admin { Purpose::Admin } else { Purpose::Serve };
            let config = session.config(purpose)?;
            if config.keyring_file.is_some() {
                config.key_ring()?;
            }
            Apis::load(&config.apis)?;
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
