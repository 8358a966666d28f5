//! `patgate shadow …`: reports from a decision log which requests enforcing would have refused, and
//! whose they are.

mod report;
mod row;
mod text;

use anyhow::Context as _;
use serde::Serialize;

use self::{
    report::Report,
    row::{Names, Row},
};
use super::{output::write, session::Session, why::LogArguments};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Counts denials that were not enforced: which requests, and whose
    ///
    /// A request is its operation, or method and path if no rule names it. The command needs only the
    /// log, and with --names a login for the database.
    Report(Arguments),
}

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    log: LogArguments,
    /// The tables to print; JSON has all of them
    #[arg(
        long,
        value_enum,
        value_name = "TABLE",
        value_delimiter = ',',
        default_values = ["request", "token"]
    )]
    by: Vec<GroupBy>,
    /// The most rows of each table; 0 prints all, as JSON does
    #[arg(long, default_value_t = 20, value_name = "ROWS")]
    limit: usize,
    /// Reads the owners' addresses and the names of tokens from the database; the log has only ids
    #[arg(long)]
    names: bool,
}

/// What is one row.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum GroupBy {
    /// Domain, code and request, whoever sent it
    #[value(alias = "path")]
    Request,
    /// The same for each owner
    Owner,
    /// The same for each token
    Token,
}

/// The report for programs.
#[derive(Serialize)]
struct Printed<'r> {
    #[serde(flatten)]
    report: &'r Report,
    /// By request.
    not_enforced: &'r [Row],
    by_owner: &'r [Row],
    by_token: &'r [Row],
}

pub(super) async fn run(session: &Session, command: &Command) -> anyhow::Result<()> {
    let Command::Report(Arguments { log, by, limit, names }) = command;
    let mut report = Report::default();
    for entry in log.lines()? {
        report.take(entry.context("the decision log")?);
    }
    let names = if *names { read_names(session, &report).await? } else { Names::default() };
    if session.out.is_json() {
        return session.out.json(&Printed {
            report: &report,
            not_enforced: &report.rows(GroupBy::Request, &names),
            by_owner: &report.rows(GroupBy::Owner, &names),
            by_token: &report.rows(GroupBy::Token, &names),
        });
    }
    let limit = if *limit == 0 { usize::MAX } else { *limit };
    let tables = by.iter().map(|by| (*by, report.rows(*by, &names)));
    write(&text::text(&report, &tables.collect::<Vec<_>>(), limit))
}

async fn read_names(session: &Session, report: &Report) -> anyhow::Result<Names> {
    let admin = session.admin().await?;
    let (owners, tokens) = report.subjects();
    Ok(Names {
        owners: admin.addresses(&owners).await?.into_iter().collect(),
        tokens: admin.token_names(&tokens).await?.into_iter().collect(),
    })
}
