//! `patgate backend credential …`

use zeroize::Zeroizing;

use super::{
    super::{UsageError, secret_input::secret_from_standard_input, session::Session},
    show,
};
use crate::{
    admin::{Admin, BackendName, BackendSummary, ResealedCredentials},
    credential::{Credential, CredentialHeader, CredentialScheme},
};

#[derive(clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Sets a backend's credential, read from standard input; it is never shown again
    Set {
        /// The name of its Envoy cluster
        name: BackendName,
        /// The header that carries it: `authorization`, `x-api-key` or `api-key`
        #[arg(long, default_value = "authorization")]
        header: CredentialHeader,
        /// The scheme in `authorization`: `bearer` (the default), `basic` or `api-key`
        #[arg(long)]
        scheme: Option<CredentialScheme>,
    },
    /// Removes a backend's credential
    Remove {
        /// The name of its Envoy cluster
        name: BackendName,
    },
    /// Seals all credentials with the current key of the ring
    Reseal,
}

pub(super) async fn run(session: &Session, admin: Admin, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Set { name, header, scheme } => {
            if let (CredentialHeader::XApiKey | CredentialHeader::ApiKey, Some(_)) =
                (header, scheme)
            {
                let why =
                    format!("--scheme is only for `authorization`: `{header}` holds the bare key");
                return Err(UsageError(why).into());
            }
            let admin = session.with_keys(admin)?;
            let credential = credential_from_standard_input(header, scheme)?;
            let outcome = admin.set_credential(&name, &credential).await?;
            let done = format!("set the credential of backend {name}, for its header `{header}`");
            show(session.out, &session.changed(outcome, &done, admin.backend(&name)).await?)
        }
        Command::Remove { name } => {
            let outcome = admin.remove_credential(&name).await?;
            let done = format!("removed the credential of backend {name}");
            show(session.out, &session.changed(outcome, &done, admin.backend(&name)).await?)
        }
        Command::Reseal => {
            let outcome = session.with_keys(admin)?.reseal_credentials().await?;
            let ResealedCredentials { key, backends } = &outcome.value;
            let done = if backends.is_empty() {
                format!("every credential is under key {key} already")
            } else {
                format!("resealed under key {key}: {}", backends.join(" "))
            };
            session.report(outcome, &done)
        }
    }
}

fn credential_from_standard_input(
    header: CredentialHeader,
    scheme: Option<CredentialScheme>,
) -> anyhow::Result<Credential> {
    let key = key_from_standard_input()?;
    if key.is_empty() {
        return Err(UsageError("expected a credential on standard input".to_owned()).into());
    }
    let credential = match header {
        CredentialHeader::Authorization => {
            Credential::new(scheme.unwrap_or(CredentialScheme::Bearer), &key)
        }
        CredentialHeader::XApiKey | CredentialHeader::ApiKey => Credential::bare(header, &key),
    };
    Ok(credential.map_err(|error| UsageError(error.to_string()))?)
}

/// What may be shown of a backend's credential.
pub(super) fn note(backend: &BackendSummary) -> String {
    let note = backend.credential.as_ref();
    note.map_or_else(|| "-".to_owned(), |note| format!("set {} ({})", note.set_at, note.key_id))
}

/// Reads one line. Only its line ending is removed: a space in it is an error, which must be reported.
fn key_from_standard_input() -> anyhow::Result<Zeroizing<String>> {
    // More than a credential may have, so that a longer one is refused and not cut.
    const MAX_LEN: usize = 16 * 1024;
    let mut text = secret_from_standard_input(MAX_LEN)?;
    for ending in ['\n', '\r'] {
        let end = text.strip_suffix(ending).map_or(text.len(), str::len);
        text.truncate(end);
    }
    Ok(text)
}
