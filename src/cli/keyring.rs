//! `patgate keyring …`

mod file;

use std::{
    io::{self, Read as _},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use zeroize::Zeroizing;

use self::file::KeyRingFile;
use super::{
    output::{complain, write},
    session::Session,
};
use crate::{
    config::Config,
    keyring::{KeyId, new_line},
    store::{self, KeyUse},
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Prints a new line for a key-ring file
    New {
        /// The key's name [default: a random one]
        #[arg(long)]
        id: Option<KeyId>,
    },
    /// Lists the keys of the ring by name
    List {
        /// The key-ring file [default: keyring_file of the configuration]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Counts the live tokens and the credentials of backends that need each key
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

/// A key as people may see it.
#[derive(Serialize)]
struct Listed {
    id: String,
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
            let uses = match count {
                true => Some(session.admin().await?.store.key_uses().await?),
                false => None,
            };
            let count = |id: &str, of: fn(&KeyUse) -> i64| {
                let found = uses.as_ref()?.iter().find(|entry| entry.key_id == id);
                Some(found.map_or(0, of))
            };
            let keys: Vec<Listed> = ring
                .ids()
                .enumerate()
                .map(|(at, id)| Listed {
                    id: id.to_owned(),
                    mints: at == 0,
                    live_tokens: count(id, |entry| entry.live_tokens),
                    credentials: count(id, |entry| entry.credentials),
                })
                .collect();
            session.out.list(
                &keys,
                &[
                    ("KEY", |key| key.id.clone()),
                    ("USE", |key| {
                        if key.mints { "mints and verifies" } else { "verifies" }.to_owned()
                    }),
                    ("LIVE TOKENS", |key| counted(key.live_tokens)),
                    ("CREDENTIALS", |key| counted(key.credentials)),
                ],
            )
        }
        Command::Add { file, id, stdin } => {
            let line = if stdin { line_from_standard_input()? } else { new_key(id)? };
            let path = path(file)?;
            let id = KeyRingFile::open_or_begin(&path)?.add(&line)?;
            // The only key of a new file mints already.
            if KeyRingFile::open(&path)?.ids().count() > 1 {
                complain(&format!(
                    "once every replica has key {id}, let it mint: `patgate keyring promote {id}`"
                ));
            }
            session.out.message(&format!("added key {id}"))
        }
        Command::Promote { id, file } => {
            KeyRingFile::open(&path(file)?)?.promote(&id)?;
            session.out.message(&format!("key {id} mints and seals from now on"))
        }
        Command::Drop { id, file } => {
            let ring = KeyRingFile::open(&path(file)?)?;
            // Not a token signed by the current key, but the next one would be lost.
            if ring.ids().next() == Some(id.as_str()) {
                bail!("key `{id}` is the one that mints; promote another one first");
            }
            let uses = session.admin().await?.store.key_uses().await?;
            if let Some(needed) = uses.iter().find(|entry| entry.key_id == id.as_str()) {
                return Err(store::Error::Refused(needs(needed)).into());
            }
            ring.drop_key(&id)?;
            session.out.message(&format!("dropped key {id}"))
        }
    }
}

fn counted(count: Option<i64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// Why a key is not dropped.
fn needs(KeyUse { key_id, live_tokens, credentials }: &KeyUse) -> String {
    if *live_tokens > 0 {
        return format!(
            "key `{key_id}` has signed {live_tokens} live tokens, which would stop working; rotate \
             or revoke them first, or wait until they have expired"
        );
    }
    format!(
        "key `{key_id}` seals the credentials of {credentials} backends, which nobody could open; \
         `patgate backend credential reseal` seals them with the current key"
    )
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

fn line_from_standard_input() -> anyhow::Result<Zeroizing<String>> {
    const MAX_INPUT: u64 = 1024;
    let mut text = Zeroizing::new(String::new());
    io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text).context("standard input")?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}
