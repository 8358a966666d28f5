//! The document of the API: that it is what is served and kept, and that schemathesis, which makes
//! requests from it, finds no answer that it does not promise.

use std::{collections::BTreeSet, process::Command, sync::Arc};

use patgate_testing::stack::project;
use serde_json::Value;

use super::{
    AdminSite,
    guards::{is, password},
};
use crate::support::{Suite, value};

const KEPT: &str = include_str!("../../../docs/openapi.json");

pub(crate) async fn the_document_is_served_as_it_is_kept(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let served = site.send("GET", "/api/openapi.json", &[], "").await;
    assert_eq!(
        (served.status, served.header("content-type")),
        (200, Some("application/json")),
        "{served:?}"
    );
    let renew = "UPDATE=1 cargo test --lib the_document_is_kept";
    assert!(served.body == KEPT, "docs/openapi.json is not what is served; renew it: {renew}");

    // Each path takes the methods of the document, and no others.
    let document: Value = serde_json::from_str(KEPT).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        let named = path.replace(['{', '}'], "");
        let refused = site.send("TRACE", &format!("/api{named}"), &[], "").await;
        is(&refused, 405, "method-not-allowed");
        let allowed: BTreeSet<String> =
            refused.header("allow").unwrap().split(',').map(str::to_lowercase).collect();
        let mut documented: BTreeSet<String> = item.as_object().unwrap().keys().cloned().collect();
        if documented.contains("get") {
            documented.insert("head".to_owned());
        }
        assert_eq!(allowed, documented, "{path}");
    }
}

/// Runs schemathesis as a platform administrator, with the same requests each time.
pub(crate) async fn schemathesis_finds_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    // It tries many passwords.
    world
        .sql("UPDATE patgate.policy SET failed_attempts = 100000, attempts_per_minute = 100000")
        .await;
    let passwords = [password(&site, "root").await, password(&site, "ann").await];
    let origin = site.origin();
    // What hypothesis learns about Python.
    let notes = tempfile::tempdir().unwrap();
    let run = move || {
        let folder = project("tests/clients/schemathesis");
        Command::new(project(".clients/schemathesis/bin/schemathesis"))
            .current_dir(&folder)
            .args(["run", "--no-color", &format!("{origin}/api/openapi.json")])
            .env("SELF_SERVICE", &origin)
            .env("ADMINISTRATOR_PASSWORD", &passwords[0])
            .env("USER_PASSWORD", &passwords[1])
            .env("HYPOTHESIS_STORAGE_DIRECTORY", notes.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap_or_else(|error| panic!("{error}; run tools/install_clients.sh python first"))
    };
    let ran = tokio::task::spawn_blocking(run).await.unwrap();
    let report = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{report}\n{}", String::from_utf8_lossy(&ran.stderr));
    // What was tried is worth something: it has created what it then changed.
    let made = "SELECT count(DISTINCT action) FROM patgate.audit_log
                WHERE actor = 'web:root@example.com'";
    let made: i64 = value(&world, made).await;
    assert!(made >= 20, "only {made} kinds of changes came to anything:\n{report}");
}
