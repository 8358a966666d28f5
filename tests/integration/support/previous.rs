//! The patgate from before the latest change of the schema, which `make upgrade-test` builds.

use std::{env, process::Command};

use super::{Suite, connect, execute, suite::url};

/// Names that program; `make upgrade-test` and `make test-all` set it.
const PROGRAM: &str = "PREVIOUS_PATGATE";

/// The database from which each world of that release is copied.
pub(super) const TEMPLATE: &str = "patgate_previous_template";

pub(crate) fn is_built() -> bool {
    env::var_os(PROGRAM).is_some()
}

pub(crate) fn program() -> String {
    env::var(PROGRAM).unwrap()
}

impl Suite {
    /// Prepares a database that the previous program has migrated. The cluster has the logins.
    pub(super) async fn prepare_previous_template(&self) {
        let port = self.postgres.port;
        let root = connect(&url(port, "postgres", "postgres")).await;
        execute(&root, &format!("CREATE DATABASE {TEMPLATE}")).await;
        root.close().await;
        let migrated = Command::new(program())
            .arg("migrate")
            .env("PATGATE_POSTGRES_URL", url(port, "postgres", TEMPLATE))
            .output()
            .unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    }
}
