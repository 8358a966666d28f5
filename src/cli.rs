//! The command line: `patgate serve` and the operator's commands.
//!
//! A secret never arrives as an argument, which every user of a machine can read. Results go to
//! standard output, everything else to standard error.

mod api;
mod arguments;
mod audit;
mod backend;
mod check;
mod doctor;
mod domain;
mod installation;
mod keyring;
mod output;
mod policy;
mod provider;
mod role;
mod routes;
mod secret_input;
mod session;
mod settings;
mod shadow;
mod token;
mod user;
mod warnings;
mod why;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory, Parser, Subcommand};

use self::{output::Format, session::Session};
use crate::{
    admin::{self, Actor, StoreError},
    api::TableErrors,
    app,
    config::{Config, ConfigErrors, ConfigPurpose, KeyRingFileError},
    domain::DomainRef,
    postgres::{self, SchemaError},
    process::secrecy,
    telemetry,
};

/// Envoy external authorization for Personal Access Tokens.
#[derive(Parser)]
#[command(
    name = "patgate",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not found, 4 denied, or \
                  findings of `doctor` or `export --strict`."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Global {
    /// The YAML configuration file [env: PATGATE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides a setting, such as `--set log.format=text`; not for secrets
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The output format
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// The actor in the audit log; by default `cli:` and the operating system's user
    #[arg(long, global = true)]
    actor: Option<Actor>,
}

#[derive(Subcommand)]
enum Command {
    /// Answers Envoy's checks until SIGTERM
    Serve,
    /// Serves the API and the pages with which people manage their tokens, until SIGTERM
    ///
    /// It listens at web.listen, and needs a login of patgate_web in web.postgres.url. `patgate config
    /// check --self-service` checks its settings.
    Admin,
    /// Creates or upgrades the database schema; does nothing when it is up to date
    ///
    /// Needs a direct connection, not one through a connection pooler. The login needs CREATEROLE
    /// and CREATE on the database the first time; afterwards, membership in patgate_migrate.
    Migrate,
    /// Manages the keys that sign tokens and seal cached entries
    #[command(subcommand)]
    Keyring(keyring::Command),
    /// Manages users
    #[command(subcommand)]
    User(user::Command),
    /// Manages domains, which are the tenants
    #[command(subcommand)]
    Domain(domain::Command),
    /// Manages backends, which serve the domains
    #[command(subcommand)]
    Backend(backend::Command),
    /// Manages roles, which say what users may do in a domain
    #[command(subcommand)]
    Role(role::Command),
    /// Manages Personal Access Tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Shows and sets the limits of self-service and of new tokens
    #[command(subcommand)]
    Policy(policy::Command),
    /// Manages the OpenID providers whose users may sign in to self-service
    #[command(subcommand)]
    Provider(provider::Command),
    /// Checks API tables, which describe the protected APIs
    #[command(subcommand)]
    Api(api::Command),
    /// Explains step by step how the service would answer a request
    Check(Box<check::Arguments>),
    /// Finds the decision about a request in a decision log
    Why(why::Arguments),
    /// Reads what an Envoy was told, and names what is unsafe, wrong or slow
    ///
    /// It needs no database and no settings. It exits with 4 if a finding is at least as severe as
    /// --fail-on. docs/doctor.md lists the rules.
    Doctor(doctor::Arguments),
    /// Prints what a gateway needs to reach the backends: clusters, or custom resources
    ///
    /// It reads the names, addresses and kinds of all backends from the database. A backend whose address
    /// is not within routes.networks and routes.hosts is left out and reported. docs/routes.md says what
    /// is written for each gateway.
    Export(routes::Export),
    /// Keeps the routes of a gateway in step with the backends in the database, until SIGTERM
    ///
    /// Writes into a folder that an Envoy watches, or into a Kubernetes cluster. It removes nothing while
    /// the database does not answer, or if no backend would be left. docs/routes.md says more.
    Sync(routes::Sync),
    /// Reports what patgate would refuse during a rollout
    #[command(subcommand)]
    Shadow(shadow::Command),
    /// Shows or renews the installation's identity in the database
    #[command(subcommand)]
    Installation(installation::Command),
    /// Shows the log of administrative changes
    #[command(subcommand)]
    Audit(audit::Command),
    /// Checks and documents the configuration
    #[command(subcommand)]
    Config(settings::Command),
    /// Prints a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const USAGE: u8 = 2;

/// Wrong usage that the parser of arguments does not see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// How long tasks may still run after the server has ended, such as the lookup of a host name.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Runs the command that the arguments of this process name.
pub fn run() -> ExitCode {
    secrecy::hide_memory();
    let cli = match arguments::parse::<Cli>() {
        Ok(cli) => cli,
        Err(Some(help)) => help.exit(),
        Err(None) => return ExitCode::from(USAGE),
    };
    let cli = match cli {
        Cli { global, command: Command::Serve } => {
            return serve(global, ConfigPurpose::Serve, app::serve);
        }
        Cli { global, command: Command::Admin } => {
            return serve(global, ConfigPurpose::SelfService, app::serve_self_service);
        }
        Cli { global, command: Command::Sync(arguments) } => {
            return serve(global, ConfigPurpose::Admin, |config| arguments.run(config));
        }
        cli => cli,
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The result has already said that the request would be refused, or what was found.
            let is_said = error.is::<check::RequestRefused>()
                || error.is::<doctor::Unsound>()
                || error.is::<routes::SomeRefused>();
            if !is_said {
                output::complain(&output::causes(&error));
            }
            exit_code(&error)
        }
    }
}

/// Does not wait for standard error, which may be a pipe that no process reads.
fn serve<E: Into<anyhow::Error>, F: Future<Output = Result<(), E>>>(
    global: Global,
    purpose: ConfigPurpose,
    run: impl FnOnce(Config) -> F,
) -> ExitCode {
    let served = || {
        let config = Session::new(global)?.config(purpose)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let served = runtime.block_on(run(config));
        runtime.shutdown_timeout(LAST_TASKS);
        served.map_err(Into::into)
    };
    match served() {
        Ok(()) => {
            telemetry::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            telemetry::last_words(&output::complaint(&output::causes(&error)));
            exit_code(&error)
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let session = Session::new(cli.global)?;
    // The server has its own way of logging; here warnings are for the person in front of it.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // It would report what it cannot write with `eprintln!`, which panics there.
        .log_internal_errors(false)
        .with_target(false)
        .without_time()
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let outcome = administer(&session, cli.command).await;
        session.close().await;
        outcome
    })
}

async fn administer(session: &Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve | Command::Admin | Command::Sync(_) => Ok(()),
        Command::Migrate => migrate(session).await,
        Command::Keyring(command) => keyring::run(session, command).await,
        Command::User(command) => user::run(session, command).await,
        Command::Domain(command) => domain::run(session, command).await,
        Command::Backend(command) => backend::run(session, command).await,
        Command::Role(command) => role::run(session, command).await,
        Command::Token(command) => token::run(session, command).await,
        Command::Policy(command) => policy::run(session, command).await,
        Command::Provider(command) => provider::run(session, command).await,
        Command::Api(command) => api::run(session, command),
        Command::Check(arguments) => check::run(session, *arguments).await,
        Command::Why(arguments) => why::run(session, &arguments),
        Command::Doctor(arguments) => doctor::run(session, &arguments).await,
        Command::Export(arguments) => routes::export(session, &arguments).await,
        Command::Shadow(command) => shadow::run(session, &command).await,
        Command::Installation(command) => installation::run(session, command).await,
        Command::Audit(command) => audit::run(session, command).await,
        Command::Config(command) => settings::run(session, command).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "patgate", &mut script);
            output::write(&String::from_utf8_lossy(&script))
        }
    }
}

async fn migrate(session: &Session) -> anyhow::Result<()> {
    let config: Config = session.config(ConfigPurpose::Admin)?;
    let migrated = postgres::migrate(&config.postgres.address).await?;
    if session.out.is_json() {
        return session.out.json(&migrated);
    }
    let mut lines: Vec<String> = migrated
        .applied
        .iter()
        .map(|(number, description)| format!("applied {number:04} {description}"))
        .collect();
    if lines.is_empty() {
        lines.push("nothing to do".to_owned());
    }
    lines.push(format!("schema version {}", migrated.version));
    output::write(&format!("{}\n", lines.join("\n")))
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    const FAILED: u8 = 1;
    const NOT_FOUND: u8 = 3;
    const DENIED: u8 = 4;
    let started = error.downcast_ref::<app::Error>();
    let administered = error.downcast_ref::<admin::Error>();
    let schema = match started {
        Some(app::Error::Schema(error)) => Some(error),
        _ => error.downcast_ref(),
    };
    let code = if error.is::<UsageError>()
        || error.is::<ConfigErrors>()
        || error.is::<KeyRingFileError>()
        || error.is::<TableErrors>()
        || matches!(
            started,
            Some(
                app::Error::KeyRing(_)
                    | app::Error::Tables(_)
                    | app::Error::FeedElsewhere { .. }
                    | app::Error::PooledRelay
                    | app::Error::NoFeed(SchemaError::MayAdminister { .. })
            )
        )
        || matches!(schema, Some(SchemaError::MayAdminister { .. }))
    {
        USAGE
    } else if let Some(check::RequestRefused { known }) = error.downcast_ref() {
        if *known { DENIED } else { NOT_FOUND }
    } else if error.is::<why::NotLogged>()
        || error.is::<keyring::NoSuchKey>()
        || matches!(
            administered,
            Some(
                admin::Error::Store(StoreError::NotFound { .. })
                    | admin::Error::NotSigned
                    | admin::Error::NoneFound
            )
        )
    {
        NOT_FOUND
    } else if error.is::<doctor::Unsound>()
        || error.is::<routes::SomeRefused>()
        || matches!(administered, Some(admin::Error::Store(StoreError::Denied(_))))
        || matches!(
            schema,
            Some(
                SchemaError::Denied(_)
                    | SchemaError::MayNotMigrate(_)
                    | SchemaError::NoMigrator { .. }
                    | SchemaError::KeysOff { .. }
            )
        )
    {
        DENIED
    } else {
        FAILED
    };
    ExitCode::from(code)
}

/// Parses an argument that names a domain.
fn domain_ref(text: &str) -> Result<DomainRef, String> {
    DomainRef::parse(text).ok_or_else(|| DomainRef::EXPECTED.to_owned())
}

/// The error of a command that cannot be undone and lacks `--yes`.
fn unconfirmed(consequence: &str) -> anyhow::Error {
    UsageError(format!("{consequence}; add --yes")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
