//! The planted and the legitimate configurations are given to the real Envoy, and what its admin
//! interface dumps has the same verdict as the file. So the corpus plants what Envoy accepts, and a
//! bootstrap and a dump are read alike.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test")]

mod corpus;

use std::{collections::BTreeSet, fs, path::Path};

use patgate_doctor::{Hints, examine};
use serde_json::Value;

use self::corpus::{
    SILENT, base,
    envoy::{Envoy, with_free_ports},
    faults, legitimate, project,
};

/// Rule, severity, what was found, and where.
fn verdict(configuration: &Value) -> BTreeSet<String> {
    let report = examine(configuration, &Hints::default()).unwrap();
    let findings = report.findings.iter().map(|one| {
        let places: Vec<_> = one.places.iter().map(ToString::to_string).collect();
        format!("{} {} {} at {}", one.rule.id, one.severity, one.found, places.join("; "))
    });
    findings.collect()
}

#[test]
fn a_dump_of_the_real_envoy_has_the_verdict_of_its_file() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("doctor");
    fs::create_dir_all(&folder).unwrap();
    let silent = SILENT.iter().map(|name| ((*name).to_owned(), base(name)));
    let changes = legitimate().into_iter().map(|one| (one.change.clone(), one.configuration()));
    let planted = faults().into_iter().filter(|fault| fault.only.as_deref() != Some("read"));
    let planted =
        planted.map(|fault| (format!("{} ({})", fault.fault, fault.on), fault.configuration()));
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (name, configuration) in silent.chain(changes).chain(planted) {
        // An Envoy of the tests listens on loopback only, so what is said of the admin address differs.
        let configuration = with_free_ports(&configuration);
        match Envoy::start(&project(), &configuration, &folder) {
            Err(error) => wrong.push(format!("{name}: refused: {error}")),
            Ok(envoy) => {
                compared += 1;
                let dump = envoy.dump().unwrap();
                let (of_file, of_dump) = (verdict(&configuration), verdict(&dump));
                if of_file != of_dump {
                    wrong.push(format!("{name}:\n  file {of_file:#?}\n  dump {of_dump:#?}"));
                }
            }
        }
    }
    println!("{compared} configurations were run by the real Envoy");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
