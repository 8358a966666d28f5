//! The planted and the legitimate configurations are given to the real Envoy, and what its admin
//! interface dumps has the same verdict as the file. So the corpus plants what Envoy accepts, and a
//! bootstrap and a dump are read alike.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "corpus/corpus.rs"]
mod corpus;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

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

/// How many Envoys run at a time.
const AT_ONCE: usize = 3;

#[test]
fn a_dump_of_the_real_envoy_has_the_verdict_of_its_file() {
    let silent = SILENT.iter().map(|name| ((*name).to_owned(), base(name)));
    let changes = legitimate().into_iter().map(|one| (one.change.clone(), one.configuration()));
    let planted = faults().into_iter().filter(|fault| fault.only.as_deref() != Some("read"));
    let planted =
        planted.map(|fault| (format!("{} ({})", fault.fault, fault.on), fault.configuration()));
    let all: Vec<_> = silent.chain(changes).chain(planted).collect();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let (all, next, wrong) = (&all, &next, &wrong);
            scope.spawn(move || {
                let folder =
                    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("doctor-{worker}"));
                fs::create_dir_all(&folder).unwrap();
                while let Some((name, configuration)) =
                    all.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(error) = compare(configuration, &folder) {
                        wrong.lock().unwrap().push(format!("{name}: {error}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    println!("{} configurations were run by the real Envoy", all.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn compare(configuration: &Value, folder: &Path) -> Result<(), String> {
    // An Envoy of the tests listens on loopback only, so what is said of the admin address differs.
    let configuration = with_free_ports(configuration);
    let envoy = Envoy::start(&project(), &configuration, folder)?;
    let dump = envoy.dump().ok_or("no dump")?;
    let (of_file, of_dump) = (verdict(&configuration), verdict(&dump));
    if of_file != of_dump {
        return Err(format!("\n  file {of_file:#?}\n  dump {of_dump:#?}"));
    }
    Ok(())
}
