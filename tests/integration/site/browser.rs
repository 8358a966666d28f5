//! The pages in Chromium: tests/clients/calls/pages.mjs does what people do.

use std::{
    env, fs,
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use patgate_testing::{http, stack::project};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{AdminSite, guards};
use crate::{clients::chromium, support::Suite};

/// The directory for pictures of the pages, by `make page-test DOCS=1`.
const PICTURES: &str = "TESTED_PICTURES";

const STEPS: [&str; 14] = [
    "laptop: used through Envoy",
    "laptop: not shown again",
    "laptop: revoked",
    "phone: used through Envoy",
    "phone: not shown again",
    "phone: revoked",
    "reader: used through Envoy",
    "reader: not shown again",
    "reader: revoked",
    "copied",
    "mistakes",
    "a domain is set up",
    "a member's token works",
    "axe",
];

pub(crate) async fn people_make_use_and_revoke_tokens(suite: Arc<Suite>) {
    let Some(chromium) = chromium() else { return };
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let gateway = format!("https://127.0.0.1:{}", http::tls_port(envoy.port));
    let site = AdminSite::with(&world, &[&format!("web.gateway_url={gateway}")]).await;
    let account = async |user: &str| {
        let password = guards::password(&site, user).await;
        json!({ "email": format!("{user}@example.com"), "password": password })
    };
    let job = json!({
        "site": site.origin(),
        "gateway": gateway,
        "ca": suite.dir.path().join(http::CERTIFICATE),
        "chromium": chromium,
        "owner": account("ann").await,
        "administrator": account("root").await,
        "model": "m-7b",
        "pictures": env::var(PICTURES).ok(),
    });
    let lines = tokio::task::spawn_blocking(move || drive(&job)).await.unwrap();
    let of = |name: &str| -> Vec<Value> {
        lines.iter().map(|line| line[name].clone()).filter(|it| !it.is_null()).collect()
    };
    let minted = of("minted").into_iter().map(|token| token.as_str().unwrap().to_owned());
    suite.minted.lock().unwrap().extend(minted);
    assert_eq!(of("step"), STEPS);
    let looked = of("looked")[0].as_array().unwrap().len();
    assert!(looked >= 30, "axe has looked at {looked} pages");
    let [commands, program] = ["commands", "program"].map(|name| of(name)[0].clone());
    let pasted = |program: &str, arguments: &[&str], text: &Value| {
        let ca = suite.dir.path().join(http::CERTIFICATE);
        let mut command = Command::new(program);
        // Those who paste have a certificate that their machine trusts.
        command.args(arguments).env("CURL_CA_BUNDLE", &ca).env("SSL_CERT_FILE", &ca);
        feed(&mut command, text.as_str().unwrap())
    };
    let answer = pasted("sh", &["-s"], &commands);
    assert!(answer.contains("model-acme"), "{answer}");
    let python = project(".clients/openai/bin/python");
    let answer = pasted(&python, &["-"], &program);
    assert!(answer.contains("model-acme"), "{answer}");
}

fn drive(job: &Value) -> Vec<Value> {
    let home = TempDir::new().unwrap();
    let mut command = Command::new(project(".clients/node/bin/node"));
    command.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
    command.arg(project(".clients/pages-node/calls/pages.mjs"));
    command.env_clear().env("HOME", home.path()).env("PATH", env::var_os("PATH").unwrap());
    if let Some(pictures) = job["pictures"].as_str() {
        fs::create_dir_all(pictures).unwrap();
    }
    let output = feed(&mut command, &job.to_string());
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a command with this input, which must succeed, and returns what it writes.
fn feed(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run tools/install_clients.sh first"));
    write!(child.stdin.take().unwrap(), "{input}").unwrap();
    let output = child.wait_with_output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout
}
