//! A program that was written for SuperMQ's auth service manages tokens here.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use patgate_testing::stack::project;
use serde_json::{Value, json};

use super::{AdminSite, guards::password};
use crate::support::Suite;

pub(crate) async fn a_client_of_supermq_finds_its_way(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let job = json!({
        "api": format!("{}/api", site.origin()),
        "gateway": format!("http://127.0.0.1:{}/proxy/acme/v1/models", envoy.port),
        "username": "ann@example.com",
        "password": password(&site, "ann").await,
        "domain": world.id("acme"),
    });
    let run = move || {
        let mut client = Command::new(project(".venv/bin/python"))
            .arg(project("tests/clients/supermq_client.py"))
            // No proxy of the environment.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Not an argument, which every user of the machine could read.
        write!(client.stdin.take().unwrap(), "{job}").unwrap();
        client.wait_with_output().unwrap()
    };
    let ran = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let secrets = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let secrets: Vec<String> =
        secrets.map(|line| line["secret"].as_str().unwrap().to_owned()).collect();
    suite.minted.lock().unwrap().extend(secrets.iter().cloned());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(secrets.len(), 2);
}
