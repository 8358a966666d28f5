//! The commands of the runbook, run as written but for names and addresses.

use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

use patgate_testing::{
    shipped::{EXT_AUTHZ, manager, shipped},
    stack::project,
};
use serde_json::Value;

use super::files;
use crate::support::{
    Suite,
    cli::Cli,
    envoy::{Gateway, envoy_patch, patient},
    tokens::reader,
};

/// The filter of the runbook in the shipped configuration, with the address of this client and as it is
/// written.
pub(crate) async fn the_filter_of_the_runbook_blocks_an_address(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let token = reader(&world).await.bearer();
    let config = shipped();
    let with_filter = |address: &str| {
        let filter = files::runbook_filter().replace("203.0.113.7", address);
        let mut filter: Value = serde_saphyr::from_str(&filter).unwrap();
        let filter = filter[0].take();
        let mut listener = config["static_resources"]["listeners"][0].clone();
        let filters = manager(&mut listener)["http_filters"].as_array_mut().unwrap();
        let at = filters.iter().position(|filter| filter["name"] == EXT_AUTHZ).unwrap();
        filters.insert(at, filter);
        listener
    };
    let listeners = BTreeMap::from([
        ("this".to_owned(), with_filter("127.0.0.1")),
        ("other".to_owned(), with_filter("203.0.113.7")),
    ]);
    let patch = envoy_patch(&suite, &[replica.grpc], patient("10s", "10s"));
    let gateway = Gateway::start(&suite, config.clone(), listeners, patch);
    let headers = [("authorization", token.as_str())];
    assert_eq!(gateway.get("other", &headers).await.status, 200);
    let allowed = "patgate_decisions_total{outcome=\"allow\",code=\"ok\",enforced=\"true\"}";
    let before = replica.metric(allowed).await;
    assert_eq!(gateway.get("this", &headers).await.status, 503);
    assert_eq!(replica.metric(allowed).await, before, "patgate was asked");
    assert_eq!(gateway.stat("http.gateway.rbac.patgate_block.denied").await, 1);
    assert_eq!(gateway.stat("http.gateway.rbac.patgate_guard.denied").await, 0);
}

/// Each succeeds where nothing is wrong.
pub(crate) async fn of_the_runbook_succeed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let token = reader(&world).await.id.to_string();
    let (operator, server) = (Cli::of(&world), Cli::of(&world).login(&world, "server"));
    let keyring = world.keyring_file.display().to_string();
    let programs = std::env::var("PATH").unwrap();
    let programs = format!("{}:{programs}", suite.postgres.bin);
    let commands = files::runbook_commands();
    for command in &commands {
        if let Some(arguments) = command.strip_prefix("patgate ") {
            let arguments = arguments
                .replace("--file keyring", &format!("--file {keyring}"))
                .replace("deploy/apis", &suite.shipped_tables)
                .replace("TOKEN_ID", &token);
            // With the settings of a replica, or with those of an administrator.
            let cli = if arguments.starts_with("config check") { &server } else { &operator };
            cli.ok(&arguments);
            continue;
        }
        let shell = command
            .replace("127.0.0.1:9901", &format!("127.0.0.1:{}", envoy.admin_port))
            .replace("sha256sum keyring", &format!("sha256sum {keyring}"));
        let ran = Command::new("sh")
            .args(["-c", &shell])
            .env("PATH", &programs)
            .env("DATABASE_URL", world.url("postgres", world.port))
            .env("REPLICA", replica.http.to_string())
            .current_dir(Path::new(&project(".")))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && !said.is_empty(), "{command}: {said}");
    }
    println!("{} commands of the runbook", commands.len());
}
