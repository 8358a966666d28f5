//! The commands of the runbook, run as written but for names and addresses.

use std::{path::Path, process::Command, sync::Arc};

use patgate_testing::stack::project;

use super::files;
use crate::support::{Suite, cli::Cli, tokens::reader};

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
