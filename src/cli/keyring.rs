//! `patgate keyring …`

mod file;

use std::path::PathBuf;

use anyhow::bail;
use serde::Serialize;
use zeroize::Zeroizing;

use self::file::KeyRingFile;
pub(super) use self::file::NoSuchKey;
use super::{
    output::{complain, write},
    secret_input::secret_from_standard_input,
    session::Session,
};
use crate::{
    admin::KeyUse,
    config::Config,
    keyring::{KeyId, new_line},
};

/// The maximum length of a key-ring line, in bytes. No valid line is that long.
const MAX_LINE_LEN: usize = 1024;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Prints a new line for a key-ring file
    New {
        /// The key's name [default: a random one]
        #[arg(long)]
        id: Option<KeyId>,
    },
    /// Lists the names of the keys of the ring
    List {
        /// The key-ring file [default: keyring_file of the configuration]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Counts the live tokens and the credentials of backends that need each key, also keys that are
        /// not in the file
        #[arg(long)]
        count: bool,
    },
    /// Appends a key, which then verifies tokens; every replica must have it before you promote it
    Add {
        /// The key-ring file [default: keyring_file of the configuration]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The key's name [default: a random one]
        #[arg(long, conflicts_with = "stdin")]
        id: Option<KeyId>,
        /// Reads the line from standard input instead of making a new key
        #[arg(long)]
        stdin: bool,
    },
    /// Moves a key to the top; from then on it signs new tokens and seals entries
    Promote {
        /// The key's name
        id: KeyId,
        /// The key-ring file [default: keyring_file of the configuration]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Removes a key, unless a live token or a backend's credential needs it
    Drop {
        /// The key's name
        id: KeyId,
        /// The key-ring file [default: keyring_file of the configuration]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// What may be shown of a key.
#[derive(Serialize)]
struct ListedKey {
    id: String,
    in_file: bool,
    mints: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials: Option<i64>,
}

pub(super) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let path = |file: Option<PathBuf>| match file {
        Some(path) => Ok(path),
        None => Config::keyring_path(&session.sources),
    };
    match command {
        Command::New { id } => write(&format!("{}\n", new_key(id)?.as_str())),
        Command::List { file, count } => {
            let ring = KeyRingFile::open(&path(file)?)?;
            let uses = if count { Some(session.admin().await?.key_uses().await?) } else { None };
            list(session, &ring, uses.as_deref())
        }
        Command::Add { file, id, stdin } => {
            let line = if stdin { secret_from_standard_input(MAX_LINE_LEN)? } else { new_key(id)? };
            let path = path(file)?;
            let id = KeyRingFile::open_or_begin(&path)?.add(line.trim())?;
            // The only key of a new file signs new tokens already.
            if KeyRingFile::open(&path)?.ids().count() > 1 {
                complain(&format!(
                    "once every replica has key {id}, promote it: `patgate keyring promote {id}`"
                ));
            }
            session.out.message(&format!("added key {id}"))
        }
        Command::Promote { id, file } => {
            KeyRingFile::open(&path(file)?)?.promote(&id)?;
            session.out.message(&format!("key {id} now signs new tokens and seals entries"))
        }
        Command::Drop { id, file } => {
            let ring = KeyRingFile::open(&path(file)?)?;
            // Even if no live token was signed by it, the next one would be.
            if ring.ids().next() == Some(id.as_str()) {
                bail!("key `{id}` signs new tokens; promote another key first");
            }
            session.admin().await?.ensure_unused(&id).await?;
            ring.drop_key(&id)?;
            session.out.message(&format!("dropped key {id}"))
        }
    }
}

/// `uses` is `None` if nothing was counted.
fn list(session: &Session, ring: &KeyRingFile, uses: Option<&[KeyUse]>) -> anyhow::Result<()> {
    let count = |id: &str, of: fn(&KeyUse) -> i64| {
        let uses = uses?.iter().find(|uses| uses.key_id == id);
        Some(uses.map_or(0, of))
    };
    let listed = |id: &str, in_file, mints| ListedKey {
        id: id.to_owned(),
        in_file,
        mints,
        live_tokens: count(id, |uses| uses.live_tokens),
        credentials: count(id, |uses| uses.credentials),
    };
    let mut keys: Vec<ListedKey> =
        ring.ids().enumerate().map(|(index, id)| listed(id, true, index == 0)).collect();
    let missing = uses.unwrap_or_default().iter().map(|uses| &*uses.key_id);
    let missing = missing.filter(|id| ring.ids().all(|held| held != *id));
    keys.extend(missing.map(|id| listed(id, false, false)));
    session.out.list(
        &keys,
        &[
            ("KEY", |key| key.id.clone()),
            ("USE", |key| usage(key).to_owned()),
            ("LIVE TOKENS", |key| counted(key.live_tokens)),
            ("CREDENTIALS", |key| counted(key.credentials)),
        ],
    )
}

fn usage(key: &ListedKey) -> &'static str {
    match (key.in_file, key.mints) {
        (false, _) => "not in the file",
        (true, true) => "mints and verifies",
        (true, false) => "verifies",
    }
}

fn counted(count: Option<i64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

fn new_key(id: Option<KeyId>) -> anyhow::Result<Zeroizing<String>> {
    let id = match id {
        Some(id) => id,
        None => {
            let mut random = [0; 4];
            getrandom::fill(&mut random)?;
            format!("k{:08x}", u32::from_be_bytes(random)).parse()?
        }
    };
    Ok(new_line(&id)?)
}
