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
    time::Duration,
};

use patgate_doctor::{Hints, examine};
use serde_json::{Value, json};

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
/// After how many dumps a test gives up, 20 ms apart.
const TRIES: usize = 6000;

#[test]
fn a_dump_of_the_real_envoy_has_the_verdict_of_its_file() {
    let silent = SILENT.iter().map(|name| ((*name).to_owned(), base(name)));
    let changes = legitimate().into_iter().map(|one| (one.change.clone(), one.configuration()));
    let planted = faults().into_iter().filter(|fault| fault.only.is_none());
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

/// Waits for a dump in which something is so.
fn awaited(envoy: &Envoy, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..TRIES {
        if let Some(dump) = envoy.dump().filter(&is_so) {
            return dump;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}: not in {TRIES} dumps")
}

fn dynamic(dump: &Value) -> impl Iterator<Item = &Value> {
    let parts = dump["configs"].as_array().into_iter().flatten();
    parts.filter_map(|part| part["dynamic_listeners"].as_array()).flatten()
}

/// A control plane sends a listener, and then one that Envoy refuses.
#[test]
fn what_envoy_has_refused_is_found_without_its_secrets() {
    const SECRET: &str = "5b1f6d6e4c2a4f0c9a7e0f1d2c3b4a59";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("doctor-refused");
    fs::create_dir_all(&folder).unwrap();
    let update = folder.join("listeners.json");
    let send = |listener: &Value| {
        let next = folder.join("next.json");
        fs::write(&next, json!({ "resources": [listener] }).to_string()).unwrap();
        // Envoy reads a file again if another one is moved in its place.
        fs::rename(&next, &update).unwrap();
    };
    let mut configuration = with_free_ports(&base("envoy.yaml"));
    let resources = &mut configuration["static_resources"];
    let mut listener = resources["listeners"][0].clone();
    resources["listeners"] = json!([]);
    listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
    let source = json!({ "path_config_source": { "path": update }, "resource_api_version": "V3" });
    configuration["dynamic_resources"] = json!({ "lds_config": source });
    send(&listener);
    let envoy = Envoy::start(&project(), &configuration, &folder).unwrap();
    let good = awaited(&envoy, "the listener", |dump| {
        dynamic(dump).any(|one| one["active_state"].is_object())
    });
    assert_eq!(verdict(&good), BTreeSet::new());

    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let mut filters = manager["http_filters"].as_array_mut().unwrap().iter_mut();
    let authz = filters.find(|one| one["name"] == "envoy.filters.http.ext_authz").unwrap();
    let authz = &mut authz["typed_config"];
    authz["status_on_error"]["code"] = 999.into();
    let metadata = authz["grpc_service"]["initial_metadata"].as_array_mut().unwrap();
    metadata.push(json!({ "key": "patgate-secret", "value": SECRET }));
    send(&listener);
    let refused = awaited(&envoy, "the refusal", |dump| {
        dynamic(dump).any(|one| one["error_state"].is_object())
    });
    let mut errors = dynamic(&refused).filter_map(|one| one["error_state"]["details"].as_str());
    assert!(errors.any(|details| details.contains(SECRET)), "Envoy's reason has no secret");
    let report = examine(&refused, &Hints::default()).unwrap();
    let [finding] = report.findings.as_slice() else { panic!("{:#?}", verdict(&refused)) };
    assert_eq!(finding.rule.id, "PG-CONFIG-REFUSED");
    assert_eq!(
        finding.places[0].to_string(),
        format!("listener {}", listener["name"].as_str().unwrap())
    );
    assert!(finding.found.contains("an older one is in use"), "{}", finding.found);
    assert!(finding.found.contains("HttpStatusValidationError.Code"), "{}", finding.found);
    let text = patgate_doctor::report::reported(&report);
    assert!(!text.contains(SECRET), "{text}");
    println!("{}", finding.found);
}
