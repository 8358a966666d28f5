//! `patgate backend credential …`

use std::io::{self, Read as _};

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::super::{Usage, output::Output, session::Admin};
use crate::{
    credential::{Credential, Place, Scheme, Sealed},
    store::{Backend, BackendName, Error},
};

#[derive(clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Sets a backend's credential, read from standard input; it is never shown again
    Set {
        /// The name of its Envoy cluster
        name: BackendName,
        /// The header that carries it: `authorization`, `x-api-key` or `api-key`
        #[arg(long, default_value = "authorization")]
        header: Place,
        /// The scheme in `authorization`: `bearer` (the default), `basic` or `api-key`
        #[arg(long)]
        scheme: Option<Scheme>,
    },
    /// Removes a backend's credential
    Remove {
        /// The name of its Envoy cluster
        name: BackendName,
    },
    /// Seals all credentials with the current key of the ring
    Reseal,
}

pub(super) async fn run(admin: &Admin, out: Output, command: Command) -> anyhow::Result<()> {
    let store = &admin.store;
    match command {
        Command::Set { name, header, scheme } => {
            if let (Place::XApiKey | Place::ApiKey, Some(_)) = (header, scheme) {
                let why =
                    format!("--scheme is for `authorization`: `{header}` holds the key alone");
                return Err(Usage(why).into());
            }
            let ring = admin.config.key_ring()?;
            let key = key_from_standard_input()?;
            if key.is_empty() {
                return Err(Usage("expected a credential on standard input".to_owned()).into());
            }
            let credential = match header {
                Place::Authorization => Credential::new(scheme.unwrap_or(Scheme::Bearer), &key),
                Place::XApiKey | Place::ApiKey => Credential::bare(header, &key),
            };
            let credential = credential.map_err(|error| Usage(error.to_string()))?;
            let sealed = Sealed::seal(&ring, name.as_str(), &credential)?;
            admin.settle(store.set_credential(&name, header, &sealed).await?).await;
            out.message(&format!("set the credential of backend {name}, for its header `{header}`"))
        }
        Command::Remove { name } => {
            admin.settle(store.remove_credential(&name).await?).await;
            out.message(&format!("removed the credential of backend {name}"))
        }
        Command::Reseal => {
            let ring = admin.config.key_ring()?;
            let current = ring.ids().next().map_or("", |id| id.as_str());
            let mut resealed = Vec::new();
            for before in store.credentials_not_under(current).await? {
                let sealed = before.sealed();
                let Some(credential) = sealed.open(&ring, &before.name) else {
                    return Err(Error::Refused(format!(
                        "the credential of backend `{}` cannot be opened with this key ring; it \
                         needs key `{}`. Or set it again",
                        before.name, sealed.key_id
                    ))
                    .into());
                };
                let after = Sealed::seal(&ring, &before.name, &credential)?;
                admin.settle(store.reseal_credential(&before, &after).await?).await;
                resealed.push(before.name);
            }
            out.message(&match resealed.is_empty() {
                true => format!("every credential is under key {current} already"),
                false => format!("resealed under key {current}: {}", resealed.join(" ")),
            })
        }
    }
}

/// What may be shown of it.
pub(super) fn note(backend: &Backend) -> String {
    let note = backend.credential.as_ref();
    note.map_or_else(|| "-".to_owned(), |note| format!("set {} ({})", note.set_at, note.key_id))
}

/// One line. Only its end is cut off: a space in it is a mistake to be told, not mended.
fn key_from_standard_input() -> anyhow::Result<Zeroizing<String>> {
    // More than a credential may have, so that a longer one is refused and not cut.
    const MAX_INPUT: usize = 16 * 1024;
    // Its room is there from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_INPUT));
    let input = io::stdin().lock().take(MAX_INPUT as u64);
    { input }.read_to_string(&mut text).context("standard input")?;
    let end = text.strip_suffix('\n').map_or(text.len(), str::len);
    text.truncate(end);
    let end = text.strip_suffix('\r').map_or(text.len(), str::len);
    text.truncate(end);
    Ok(text)
}
