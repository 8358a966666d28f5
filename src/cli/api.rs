//! `patgate api …`

use std::path::PathBuf;

use serde::Serialize;

use super::{output, session::Session};
use crate::{api::schema, files::api_tables};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Reports all errors in API tables; if there are none, lists the tables
    Check {
        /// Files, or directories of `.yaml` files, checked together as one replica would load them
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Prints the JSON Schema of an API table
    Schema,
}

/// A table of an API, for the list.
#[derive(Serialize)]
struct ListedApi {
    name: String,
    rules: usize,
    /// The backends that the table and its rules name. If empty, each domain's own backend is used.
    upstreams: Vec<String>,
}

pub(super) fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Schema => output::write(&schema::text()),
        Command::Check { files } => {
            let apis = api_tables::load(&files)?;
            let listed =
                apis.list().zip(apis.upstreams()).map(|((name, rules), (_, upstreams))| {
                    let upstreams = upstreams.into_iter().map(ToString::to_string).collect();
                    ListedApi { name: name.to_owned(), rules, upstreams }
                });
            session.out.list(
                &listed.collect::<Vec<_>>(),
                &[
                    ("NAME", |api| api.name.clone()),
                    ("RULES", |api| api.rules.to_string()),
                    ("UPSTREAMS", |api| {
                        if api.upstreams.is_empty() {
                            return "each domain's".to_owned();
                        }
                        api.upstreams.join(" ")
                    }),
                ],
            )
        }
    }
}
