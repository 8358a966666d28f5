//! Runs the administrator's commands: the real binary.

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{Replica, Suite, Token, World, outcome, previous};

/// No command takes this long, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The length of a token with the prefix `pat`.
const TOKEN_LEN: usize = 77;

/// How to run the binary: as which login, and with which settings.
#[derive(Clone)]
pub(crate) struct Cli<'s> {
    suite: &'s Suite,
    program: String,
    env: BTreeMap<String, String>,
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl CommandOutput {
    /// Whether it succeeded, and standard error says only what was done.
    pub(crate) fn is_without_warning(&self) -> bool {
        let warns = ["WARN", "warning"].iter().any(|word| self.stderr.contains(word));
        self.code == 0 && !warns
    }
}

impl<'s> Cli<'s> {
    /// As an administrator of a world.
    pub(crate) fn of(world: &World<'s>) -> Self {
        let program = env!("CARGO_BIN_EXE_patgate").to_owned();
        let bare = Self { suite: world.suite, program, env: BTreeMap::new() };
        bare.with("postgres.url", &world.url("administrator", world.port))
            .with("redis.url", &world.redis_url)
            .with("keyring_file", &world.keyring_file.display().to_string())
            // A busy test machine must not cause a timeout.
            .with("postgres.query_timeout", "5s")
            .with("redis.timeout", "4s")
    }

    /// The commands of the previous release.
    pub(crate) fn previous(&self) -> Self {
        Self { program: previous::program(), ..self.clone() }
    }

    /// With another value for a setting; an empty one removes it.
    pub(crate) fn with(&self, key: &str, value: &str) -> Self {
        let mut changed = self.clone();
        let variable = format!("PATGATE_{}", key.replace('.', "_").to_uppercase());
        match value {
            "" => drop(changed.env.remove(&variable)),
            _ => drop(changed.env.insert(variable, value.to_owned())),
        }
        changed
    }

    /// With another value for a variable that is not patgate's.
    pub(crate) fn with_variable(&self, name: &str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.env.insert(name.to_owned(), value.to_owned());
        changed
    }

    /// With other values for settings, each as `key=value`.
    pub(crate) fn with_all(&self, settings: &[&str]) -> Self {
        settings.iter().fold(self.clone(), |cli, setting| {
            let (key, value) = setting.split_once('=').unwrap();
            cli.with(key, value)
        })
    }

    /// With another login for Postgres.
    pub(crate) fn login(&self, world: &World<'_>, user: &str) -> Self {
        self.with("postgres.url", &world.url(user, world.port))
    }

    pub(crate) fn run(&self, command: &str) -> CommandOutput {
        self.feed(command, "")
    }

    /// Runs a command with a text on its standard input. The words of `command` are separated by
    /// spaces.
    pub(crate) fn feed(&self, command: &str, stdin: &str) -> CommandOutput {
        self.feed_words(&command.split_whitespace().collect::<Vec<_>>(), stdin)
    }

    /// The same, for words that contain spaces or are empty.
    pub(crate) fn feed_words(&self, words: &[&str], stdin: &str) -> CommandOutput {
        let mut process = assert_cmd::Command::from_std(self.process(words));
        let output = process.write_stdin(stdin).timeout(PATIENCE).output().unwrap();
        self.finish(&words.join(" "), output)
    }

    /// Starts a command; [`Self::finish`] takes its result.
    pub(crate) fn spawn(&self, command: &str) -> Child {
        let mut process = self.process(&command.split_whitespace().collect::<Vec<_>>());
        let process = process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process.spawn().unwrap()
    }

    pub(crate) fn finish(&self, command: &str, output: Output) -> CommandOutput {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap_or_else(|| panic!("killed: {command}"));
        let ran = CommandOutput { code, stdout: text(output.stdout), stderr: text(output.stderr) };
        self.keep_secrets(command, &ran);
        ran
    }

    fn process(&self, words: &[&str]) -> Command {
        let mut process = Command::new(&self.program);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("PATGATE_") {
                process.env_remove(name);
            }
        }
        process.envs(&self.env).args(words);
        process
    }

    /// Registers every token for the search for leaks. No token may be on standard error. A key may
    /// be shown only by the command that makes it; a backend's credential by none.
    fn keep_secrets(&self, command: &str, ran: &CommandOutput) {
        assert_eq!(tokens_in(&ran.stderr).next(), None, "a token on standard error: {command}");
        let shown = tokens_in(&ran.stdout).map(str::to_owned);
        self.suite.minted.lock().unwrap().extend(shown);
        if command.starts_with("user invite") {
            // The code is shown once, and kept nowhere.
            self.suite.keep_sessions(&ran.stdout);
        }
        for credential in self.suite.credentials.lock().unwrap().iter() {
            let outputs = [&ran.stdout, &ran.stderr];
            let shown = outputs.iter().any(|text| text.contains(credential));
            assert!(!shown, "a credential shown: {command}");
        }
        let ring = self.keyring_file().and_then(|path| fs::read_to_string(path).ok());
        for secret in ring.iter().flat_map(|ring| ring.lines()).filter_map(|l| l.split(':').nth(1))
        {
            let outputs = [&ran.stdout, &ran.stderr];
            assert!(outputs.iter().all(|text| !text.contains(secret)), "a key shown: {command}");
        }
    }

    fn keyring_file(&self) -> Option<PathBuf> {
        self.env.get("PATGATE_KEYRING_FILE").map(PathBuf::from)
    }

    /// Returns the standard output of a command that must succeed.
    pub(crate) fn ok(&self, command: &str) -> String {
        let ran = self.run(command);
        assert_eq!(ran.code, 0, "{command}: {ran:#?}");
        ran.stdout
    }

    pub(crate) fn json(&self, command: &str) -> Value {
        let text = self.ok(&format!("{command} --output json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"))
    }

    /// Runs a command that makes a token.
    pub(crate) fn mint(&self, command: &str) -> Token {
        let made = self.json(command);
        let text = made["token"].as_str().unwrap().to_owned();
        assert_eq!(tokens_in(&text).collect::<Vec<_>>(), [&text]);
        Token { id: serde_json::from_value(made["id"].clone()).unwrap(), text }
    }

    /// Runs a command that must fail with this code, and give this reason.
    pub(crate) fn refused(&self, command: &str, code: i32, reason: &str) {
        let ran = self.run(command);
        assert_eq!(ran.code, code, "{command}: {ran:#?}");
        assert!(ran.stderr.contains(reason), "{command}: no `{reason}` in {ran:#?}");
        assert_eq!(ran.stdout, "", "{command}");
    }
}

/// Returns the parts of a text that look like tokens.
pub(crate) fn tokens_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c != '_' && !c.is_ascii_alphanumeric())
        .filter(|word| word.len() == TOKEN_LEN && word.starts_with("pat_"))
}

/// The answer to a request for a domain's models.
pub(crate) async fn ask(replica: &Replica, token: &Token, domain: &str) -> (u16, String) {
    get(replica, token, &format!("/proxy/{domain}/v1/models")).await
}

pub(crate) async fn get(replica: &Replica, token: &Token, path: &str) -> (u16, String) {
    let bearer = token.bearer();
    outcome(&replica.check("GET", path, &[("authorization", &bearer)]).await)
}

pub(crate) fn answer(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The settings with which `serve` would run.
pub(crate) fn server<'s>(world: &World<'s>) -> Cli<'s> {
    Cli::of(world).login(world, "server")
}

/// Returns the finding about one setting, and the exit code.
pub(crate) fn found(cli: &Cli<'_>, key: &str) -> (i32, String, String) {
    found_by(cli, "config check --connect", key)
}

/// The same by a command with other options.
pub(crate) fn found_by(cli: &Cli<'_>, command: &str, key: &str) -> (i32, String, String) {
    let ran: CommandOutput = cli.run(&format!("{command} --output json"));
    let findings: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:#?}"));
    let finding = findings.as_array().unwrap().iter().find(|finding| finding["key"] == key);
    let finding = finding.unwrap_or_else(|| panic!("no {key}: {findings:#}"));
    let text = |name: &str| finding[name].as_str().unwrap().to_owned();
    (ran.code, text("outcome"), text("detail"))
}

/// Makes a backend, a domain, a user and a token with the administrator's commands, and uses the
/// token at a replica with these settings.
pub(crate) async fn walk_through(world: &World<'_>, cli: &Cli<'_>, settings: &[&str]) {
    cli.ok("backend create vllm --url http://127.0.0.1:8000 --kind vllm");
    let domain = cli.json("domain create shop --name Shop --upstream vllm --all-models");
    let id = domain["id"].as_str().unwrap();
    cli.ok("user create Ada@Example.com --name Ada");
    cli.ok("role member add shop admin ada@example.com");
    let scope = "shop:models:*:llm_read,llm_chat_completions";
    let ran = cli.run(&format!(
        "token create laptop --user ada@example.com --expires-in 90d --scope {scope}"
    ));

    assert_eq!(ran.code, 0, "{ran:#?}");
    let text = ran.stdout.strip_suffix('\n').unwrap();
    assert!(!text.contains('\n'), "more than the token: {ran:#?}");
    let token = Token { id: world.tokens.verify(text).unwrap().id(), text: text.to_owned() };
    assert!(ran.stderr.contains(&token.id.to_string()), "{ran:#?}");
    assert!(!ran.stderr.contains("warning"), "{ran:#?}");

    let replica = world.serve(settings).await;
    assert_eq!(ask(&replica, &token, "shop").await, answer(200, "ok"));
    assert_eq!(ask(&replica, &token, id).await, answer(200, "ok"));
    assert_eq!(ask(&replica, &token, "acme").await, answer(403, "permission_denied"));

    cli.ok(&format!("token revoke {}", token.id));
    let next = world.serve(settings).await;
    assert_eq!(ask(&next, &token, "shop").await, answer(401, "token_revoked"));
}
