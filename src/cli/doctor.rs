//! `patgate doctor`: reads what an Envoy was told, and names what is unsafe, wrong or slow.

use std::{
    fmt::Write as _,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use patgate_doctor::{Hints, NotEnvoy, Report, Severity, examine, report::reported};
use serde_json::Value;

use super::{
    UsageError,
    output::{aligned, write},
    session::Session,
};

/// The most that is read of a configuration, in bytes: ten thousand routes take some 20 MB.
const LONGEST: usize = 512 << 20;
/// How long the admin interface may take to write a dump.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the path of an admin interface is if the address names none.
const DUMP: &str = "/config_dump?include_eds";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A bootstrap file of Envoy (YAML or JSON), a file with a dump of its admin interface, `-` for
    /// standard input, or the address of the admin interface, such as `http://127.0.0.1:9901`
    source: String,
    /// Where patgate listens, as Envoy's configuration names it: `HOST:PORT` or `unix:PATH`. By default
    /// patgate is found by how the filters are set
    #[arg(long, value_name = "ADDRESS")]
    authorizer: Option<String>,
    /// The least severity of a finding that makes the exit code 4
    #[arg(long, value_enum, default_value_t = FailOn::High, value_name = "SEVERITY")]
    fail_on: FailOn,
    /// Prints for every listener, filter chain, host and route whether patgate is asked, with which
    /// body, and what may leave unasked
    #[arg(long)]
    routes: bool,
    /// Also writes the findings as SARIF 2.1.0, which CI systems show
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum FailOn {
    /// Requests reach a backend without permission, or secrets leave
    High,
    /// Also: answers are wrong, or one more error opens a way
    Medium,
    /// Every finding
    Low,
}

/// The configuration has findings that are severe enough. They have been printed.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has findings")]
pub(super) struct Unsound;

pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let configuration = read(&arguments.source).await?;
    let hints = Hints { authorizer: arguments.authorizer.clone() };
    let report = examine(&configuration, &hints)
        .map_err(|NotEnvoy| UsageError(format!("{}: {NotEnvoy}", arguments.source)))?;
    if let Some(path) = &arguments.sarif {
        let sarif = report.sarif(&arguments.source, env!("CARGO_PKG_VERSION"));
        let text = format!("{}\n", serde_json::to_string_pretty(&sarif)?);
        std::fs::write(path, text).with_context(|| format!("--sarif {}", path.display()))?;
    }
    if session.out.is_json() {
        session.out.json(&report)?;
    } else if arguments.routes {
        write(&routes(&report))?;
    } else {
        session.out.message(&reported(&report))?;
    }
    let least = match arguments.fail_on {
        FailOn::High => Severity::High,
        FailOn::Medium => Severity::Medium,
        FailOn::Low => Severity::Low,
    };
    if report.worst().is_some_and(|worst| worst >= least) {
        return Err(Unsound.into());
    }
    Ok(())
}

async fn read(source: &str) -> anyhow::Result<Value> {
    if source.starts_with("https://") {
        bail!(UsageError(format!(
            "{source}: Envoy's admin interface speaks plain HTTP; save the dump with curl, and name the \
             file"
        )));
    }
    if source.starts_with("http://") {
        return fetch(source).await.with_context(|| source.to_owned());
    }
    let text = if source == "-" {
        let mut text = String::new();
        io::stdin().take(LONGEST as u64).read_to_string(&mut text).context("standard input")?;
        text
    } else {
        std::fs::read_to_string(Path::new(source)).with_context(|| source.to_owned())?
    };
    parse(&text).with_context(|| source.to_owned())
}

/// Reads JSON, or YAML, of which JSON is a part that has a faster reader.
fn parse(text: &str) -> anyhow::Result<Value> {
    if text.trim_start().starts_with('{') {
        return Ok(serde_json::from_str(text)?);
    }
    // An error does not quote the text, which may hold a secret.
    let options = serde_saphyr::options! { with_snippet: false };
    Ok(serde_saphyr::from_str_with_options(text, options)?)
}

async fn fetch(address: &str) -> anyhow::Result<Value> {
    let mut uri: http::Uri = address.parse()?;
    if uri.path_and_query().is_none_or(|path| path.as_str() == "/") {
        uri = format!("{}{DUMP}", address.trim_end_matches('/')).parse()?;
    }
    let client: Client<_, Empty<bytes::Bytes>> =
        Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let asked = async {
        let answer = client.get(uri).await?;
        if !answer.status().is_success() {
            bail!("the answer is {}, not a dump of Envoy's admin interface", answer.status());
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    };
    tokio::time::timeout(PATIENCE, asked).await.context("no answer within a minute")?
}

/// The routes, grouped by listener and chain, as aligned columns.
fn routes(report: &Report) -> String {
    let mut text = String::new();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut current: Option<(&str, &str)> = None;
    let heading = ["HOST", "ROUTE", "REQUESTS", "LEADS TO", "ASKED", "BODY", "UNASKED"];
    for line in &report.routes {
        let of = (line.listener.as_str(), line.chain.as_str());
        if current != Some(of) {
            text.push_str(&aligned(std::mem::take(&mut rows)));
            let title = format!("listener {}, chain {}", line.listener, line.chain);
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = write!(text, "{gap}{}", aligned(vec![vec![title]]));
            rows.push(heading.map(str::to_owned).to_vec());
            current = Some(of);
        }
        let cells = [
            &line.host,
            &line.route,
            &line.matches,
            &line.leads_to,
            &line.asked,
            &line.body,
            &line.unasked,
        ];
        rows.push(cells.map(|cell| cell.clone()).to_vec());
    }
    text.push_str(&aligned(rows));
    text
}
