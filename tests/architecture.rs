//! Checks which room uses which, by the imports. It needs no servers.
//!
//! Each module that `src/lib.rs` declares belongs to a room; `crates/core/src/lib.rs` is one room.
//! If a file has an import that the tables below forbid, this test fails with the name of the file
//! and the reason.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Modules that belong together.
struct Room {
    name: &'static str,
    modules: &'static [&'static str],
    /// The other rooms that it may use.
    uses: &'static [&'static str],
}

/// The order of this room's modules counts: each may use only those before it.
const CORE: &str = "core";

/// In order, from the inside out: a room may use only rooms before it.
const ROOMS: &[Room] = &[
    Room {
        name: CORE,
        modules: &[
            "base62",
            "percent",
            "legible",
            "yaml",
            "clock",
            "vocabulary",
            "operation",
            "keyring",
            "token",
            "credential",
            "backend",
            "domain_ref",
            "rollout",
            "domain",
            "principal",
            "model_list",
            "refusal",
            "provenance",
            "trace_context",
            "installation",
            "seal",
            "cookie_seal",
            "snapshot",
            "freshness",
            "pace",
            "throttle",
            "body",
            "api",
            "request",
            "wording",
            "decide",
            "stages",
            "enforce",
            "decision",
            "answer",
            "explain",
        ],
        uses: &[],
    },
    Room { name: "files", modules: &["files"], uses: &[CORE] },
    Room { name: "process", modules: &["process"], uses: &[CORE] },
    Room { name: "wire", modules: &["wire"], uses: &[CORE] },
    Room { name: "postgres", modules: &["postgres"], uses: &[CORE, "process"] },
    Room { name: "config", modules: &["config"], uses: &[CORE, "files", "postgres"] },
    Room { name: "telemetry", modules: &["telemetry"], uses: &[CORE, "config", "files"] },
    Room {
        name: "redis",
        modules: &["redis_client"],
        uses: &[CORE, "config", "files", "telemetry"],
    },
    Room {
        name: "feed",
        modules: &["feed"],
        uses: &[CORE, "config", "postgres", "process", "redis", "telemetry"],
    },
    Room {
        name: "resolve",
        modules: &["resolve"],
        uses: &[CORE, "config", "feed", "postgres", "process", "redis", "telemetry"],
    },
    Room {
        name: "check",
        modules: &["check"],
        uses: &[CORE, "config", "postgres", "process", "resolve", "telemetry"],
    },
    Room { name: "edge", modules: &["edge"], uses: &[CORE, "check", "telemetry", "wire"] },
    Room {
        name: "server",
        modules: &["server"],
        uses: &[CORE, "config", "edge", "files", "postgres", "process", "telemetry", "wire"],
    },
    Room {
        name: "routes",
        modules: &["routes"],
        uses: &[CORE, "config", "files", "postgres", "process", "server", "telemetry"],
    },
    Room {
        name: "admin",
        modules: &["admin"],
        uses: &[CORE, "config", "postgres", "process", "redis", "resolve", "telemetry"],
    },
    Room { name: "web", modules: &["web"], uses: &[CORE, "admin", "config", "telemetry"] },
    Room {
        name: "app",
        modules: &["app"],
        uses: &[
            CORE,
            "admin",
            "check",
            "config",
            "edge",
            "feed",
            "files",
            "postgres",
            "process",
            "redis",
            "resolve",
            "routes",
            "server",
            "telemetry",
            "web",
            "wire",
        ],
    },
    Room {
        name: "cli",
        modules: &["cli"],
        uses: &[
            CORE,
            "admin",
            "app",
            "check",
            "config",
            "edge",
            "feed",
            "files",
            "postgres",
            "process",
            "redis",
            "resolve",
            "routes",
            "server",
            "telemetry",
            "wire",
        ],
    },
];

/// Crates that only some rooms, or some modules of a room, may name.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("anyhow", &["cli"]),
    // In the core, only the key ring is swapped; all else takes what is current as an argument.
    ("arc_swap", &["app", "check", "edge", "keyring", "redis_client", "server"]),
    ("axum", &["app", "server", "telemetry", "web"]),
    ("clap", &["cli"]),
    ("deadpool", &["postgres", "redis_client", "resolve"]),
    ("h2", &["cli", "edge"]),
    ("hyper", &["server"]),
    // The only place that asks a server on the web.
    ("hyper_rustls", &["web::oidc"]),
    ("kube", &["routes::cluster"]),
    ("opentelemetry", &["telemetry::traces"]),
    ("opentelemetry_otlp", &["telemetry::traces"]),
    ("opentelemetry_sdk", &["telemetry::traces"]),
    ("patgate_doctor", &["cli::doctor"]),
    ("patgate_routes", &["app::route_sync", "cli::routes", "config", "routes"]),
    ("prost", &["wire"]),
    ("prost_types", &["wire"]),
    (
        "prometheus_client",
        &["app", "check", "cli", "edge", "postgres", "resolve", "server", "telemetry"],
    ),
    ("redis", &["admin", "app", "cli", "config", "feed", "redis_client", "resolve"]),
    ("rustix", &["clock", "feed", "files", "process", "telemetry"]),
    (
        "sqlx",
        &[
            "admin",
            "app::canary",
            "check::last_use",
            "cli",
            "config",
            "feed",
            "postgres",
            "resolve",
            "routes::reader",
            "server::ring_fit",
        ],
    ),
    ("tonic", &["edge", "server", "telemetry::traces", "wire"]),
    ("utoipa", &["admin::web", "web"]),
    ("utoipa_axum", &["web"]),
    // A client's certificate is verified in one place, and read in one.
    ("webpki", &["server::tls"]),
    ("x509_parser", &["files::certificate"]),
];

/// Crates and items that the core must not name: it does no I/O, logs nothing and reads no clock.
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "tokio_util",
    "futures_util",
    "tracing",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
];

/// Modules that start tasks or threads without [`Tasks`], which ends the process if a task dies. A
/// background task must be a variant of `Task`, so that `tests/integration/supervision.rs` tries its
/// death; what is here ends with the call that it is for, or says itself that it has ended.
///
/// [`Tasks`]: ../src/process/tasks.rs
const SPAWNS: &[(&str, &str)] = &[
    ("admin::store::lock_watch", "belongs to one transaction of a command"),
    ("admin::web::password", "hashes a password; its caller waits for it"),
    ("app::api_reload", "compiles tables; the reader of API tables waits for it"),
    ("check::decision_log::writer", "a thread; the writer of the decision log ends with it"),
    ("cli::check::replica", "one connection of a command"),
    ("edge::grpc", "one check that waits; if it dies, Envoy's stream is reset"),
    ("files::patient", "reads files; the task that watches them waits for it"),
    ("postgres::address", "reads files; its caller waits for it"),
    ("postgres::primary", "one search; if it dies, its callers get an error"),
    ("process::low_priority", "a thread that its caller waits for, and whose panic it gets"),
    ("process::tasks", "the supervisor"),
    ("redis_client::access", "reads files; its caller waits for it"),
    ("resolve::batch", "one batch of lookups; if it dies, its callers answer 503"),
    ("resolve::flight", "one lookup; if it dies, its callers answer 503"),
    ("server", "the connections of Envoy; if one dies, Envoy makes another"),
    ("server::acceptor", "one connection of Envoy"),
    ("server::http", "one connection, or one answer"),
    ("telemetry::logs", "a thread that catches its panics"),
    (
        "telemetry::traces",
        "exports the last spans; the end of the process waits for it, not for long",
    ),
];

/// Names that start a task or a thread, or something that does.
const SPAWNERS: &[&str] = &["JoinSet", "TaskTracker", "spawn_scoped", "thread::Builder"];

/// A module of the core for tests only.
const TESTING: &str = "testing";

/// A source file, without comments and tests.
struct Source {
    path: PathBuf,
    /// The top-level module to which it belongs.
    module: String,
    /// The path of modules from the crate's root.
    place: Vec<String>,
    text: String,
}

#[test]
fn each_module_is_in_one_room() {
    let roots = roots().map(|root| fs::read_to_string(root.join("lib.rs")).unwrap()).concat();
    let declared: BTreeSet<_> = roots
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .filter_map(|rest| rest.strip_suffix(';'))
        .filter(|module| *module != TESTING)
        .collect();
    let mut placed = BTreeMap::new();
    for room in ROOMS {
        for module in room.modules {
            let before = placed.insert(*module, room.name);
            assert_eq!(before, None, "`{module}` stands in two rooms of {}", file!());
        }
    }
    for module in &declared {
        assert!(placed.contains_key(module), "`{module}` has no room: give it one in {}", file!());
    }
    for module in placed.keys() {
        assert!(declared.contains(module), "`{module}` of {} is not in src/lib.rs", file!());
    }
    for (at, room) in ROOMS.iter().enumerate() {
        for used in room.uses {
            let inner = ROOMS[..at].iter().any(|before| before.name == *used);
            assert!(inner, "the room `{}` may not use `{used}`, which is outside it", room.name);
        }
    }
}

#[test]
fn a_module_uses_only_the_rooms_that_its_own_may_use() {
    let mut forbidden = Vec::new();
    for source in sources() {
        for used in source.modules() {
            if is_allowed(&source.module, &used) {
                continue;
            }
            forbidden.push(format!(
                "{}: `crate::{used}`, which {}",
                source.path.display(),
                why_not(&source.module, &used)
            ));
        }
    }
    assert!(forbidden.is_empty(), "forbidden imports:\n{}", forbidden.join("\n"));
}

#[test]
fn a_crate_is_named_only_where_it_belongs() {
    let mut forbidden = Vec::new();
    for source in sources() {
        let module = source.module.as_str();
        for (name, modules) in OUTSIDE {
            if !modules.iter().any(|module| source.is_in(module)) && source.names(name) {
                forbidden.push(format!(
                    "{}: `{name}`, which only {modules:?} may name",
                    source.path.display()
                ));
            }
        }
        let in_core = room(module).is_some_and(|room| room.name == CORE);
        for name in NOT_IN_CORE.iter().filter(|name| in_core && source.names(name)) {
            forbidden.push(format!(
                "{}: `{name}`: the core takes what it needs as arguments",
                source.path.display()
            ));
        }
    }
    assert!(forbidden.is_empty(), "forbidden names:\n{}", forbidden.join("\n"));
}

/// What the doctor says follows from the configuration that it is given, and from nothing else. What
/// gateways are told follows from the backends and the rules.
#[test]
fn the_doctor_and_the_routes_do_no_io() {
    for (name, least) in [("doctor", 10), ("routes", 5)] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates").join(name).join("src");
        does_no_io(root, least);
    }
}

fn does_no_io(root: PathBuf, least: usize) {
    let mut directories = vec![root];
    let mut files = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            files += 1;
            let text = fs::read_to_string(&path).unwrap();
            let io = ["std::env", "std::fs", "std::process", "std::thread", "std::time", "tokio"];
            for name in io {
                assert!(!text.contains(name), "{}: `{name}`", path.display());
            }
        }
    }
    assert!(files > least, "{files} files: the sources are elsewhere");
}

/// The diagram has an arrow only where a room may use another one, and every use follows from its
/// arrows.
#[test]
fn the_diagram_shows_the_rooms() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## The rooms\n").expect("a section about the rooms");
    let (_, diagram) = section.split_once("```mermaid\nflowchart TB\n").expect("a diagram");
    let (diagram, _) = diagram.split_once("```").expect("an end of the diagram");
    let mut arrows: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in diagram.lines() {
        let (from, to) = line.trim().split_once(" --> ").expect("an arrow");
        arrows.entry(from).or_default().extend(to.split(" & "));
    }
    let shown: BTreeSet<_> = arrows.iter().flat_map(|(from, to)| to.iter().chain([from])).collect();
    let rooms: BTreeSet<_> = ROOMS.iter().map(|room| &room.name).collect();
    assert_eq!(shown, rooms, "the rooms of the diagram in docs/architecture.md");
    for room in ROOMS {
        let direct = arrows.get(room.name).cloned().unwrap_or_default();
        for to in &direct {
            assert!(room.uses.contains(to), "the diagram: `{}` may not use `{to}`", room.name);
        }
        let mut reached = BTreeSet::new();
        let mut next = direct;
        while let Some(to) = next.pop() {
            if reached.insert(to) {
                next.extend(arrows.get(to).into_iter().flatten());
            }
        }
        for used in room.uses {
            let name = room.name;
            assert!(
                reached.contains(used),
                "the diagram: no arrows lead from `{name}` to `{used}`"
            );
        }
    }
}

/// A task that is not supervised could die unnoticed.
#[test]
fn tasks_are_started_where_their_death_is_noticed() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources().iter().filter(|source| source.spawns()) {
        let place = source.place.join("::");
        if SPAWNS.iter().any(|(listed, _)| *listed == place) {
            used.insert(place);
        } else {
            wrong.push(format!(
                "{}: start it with `Tasks::spawn`, as a variant of `Task`, or add it to SPAWNS",
                source.path.display()
            ));
        }
    }
    for (listed, _) in SPAWNS.iter().filter(|(listed, _)| !used.contains(*listed)) {
        wrong.push(format!("`{listed}` starts nothing: remove it from SPAWNS"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How long a comparison takes cannot be measured on a machine that does other things as well. So this
/// reads how the secret of a call is compared: whole, by a function that takes the same time for every
/// content, and with each secret in force, whichever is equal.
#[test]
fn the_secret_of_a_call_is_compared_in_constant_time() {
    const COMPARED: &str = ".expose_secret().as_bytes().ct_eq(";
    let sources = sources();
    let place = |source: &&Source| source.place.join("::") == "edge::grpc::secret";
    let text = &sources.iter().find(place).unwrap().text;
    let count = |part: &str| text.matches(part).count();
    assert_eq!((count(COMPARED), count(".expose_secret()")), (1, 1), "compared in another way");
    let (_, admit) = text.split_once("fn admit(").unwrap();
    let admit = admit.split("\n    }\n").next().unwrap();
    assert!(admit.contains(COMPARED) && admit.contains(".fold(Choice::from(0),"), "{admit}");
    for early in ["==", "!=", "&&", "||", ".any(", ".find(", ".position(", ".contains("] {
        assert!(!admit.contains(early), "`{early}` ends a comparison early: {admit}");
    }
}

fn room(module: &str) -> Option<&'static Room> {
    ROOMS.iter().find(|room| room.modules.contains(&module))
}

fn is_allowed(from: &str, to: &str) -> bool {
    let (Some(own), Some(other)) = (room(from), room(to)) else { return false };
    if own.name != other.name {
        return own.uses.contains(&other.name);
    }
    let place = |module| own.modules.iter().position(|known| *known == module);
    own.name != CORE || place(to) < place(from)
}

fn why_not(from: &str, to: &str) -> String {
    match (room(from), room(to)) {
        (Some(own), Some(other)) if own.name == other.name => {
            format!("comes after `{from}` in the order of the room `{CORE}`")
        }
        (Some(own), Some(other)) => format!(
            "is in the room `{}`; the room `{}` may use {:?}",
            other.name, own.name, own.uses
        ),
        _ => "is in no room".to_owned(),
    }
}

/// The directories with the sources of the packages.
fn roots() -> [PathBuf; 2] {
    ["src", "crates/core/src"].map(|root| Path::new(env!("CARGO_MANIFEST_DIR")).join(root))
}

/// Returns all files except the two roots and files of tests.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for root in roots() {
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    found.extend(Source::read(&root, &path));
                }
            }
        }
    }
    assert!(found.len() > 100, "{} files: the sources are elsewhere", found.len());
    found
}

impl Source {
    fn read(root: &Path, file: &Path) -> Option<Self> {
        let path = file.strip_prefix(root).unwrap();
        let relative = path.with_extension("");
        let parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if ["lib", "main", TESTING].contains(&parts[0].as_str())
            || parts.iter().any(|part| part == "tests")
        {
            return None;
        }
        let text = fs::read_to_string(file).unwrap();
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let code = lines.collect::<Vec<_>>().join("\n");
        // Test modules come last in their files; a lint checks this.
        let end = code.match_indices("#[cfg(test)]").find(|(at, attribute)| {
            let item = code[at + attribute.len()..].trim_start().trim_start_matches("pub(crate) ");
            item.starts_with("mod ") && item.lines().next().unwrap().ends_with('{')
        });
        let text = end.map_or(&*code, |(at, _)| &code[..at]).to_owned();
        Some(Self {
            module: parts[0].clone(),
            place: parts,
            path: file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned(),
            text,
        })
    }

    /// Returns whether it is the module at this path, or inside it.
    fn is_in(&self, module: &str) -> bool {
        let mut place = self.place.iter();
        module.split("::").all(|part| place.next().is_some_and(|own| own == part))
    }

    /// Returns whether it starts a task or a thread without `Tasks`.
    fn spawns(&self) -> bool {
        let calls = ["spawn(", "spawn_blocking(", "spawn_local("].iter().any(|call| {
            self.text.match_indices(call).any(|(at, _)| {
                let before = &self.text[..at];
                let bare = !before.ends_with(|c: char| c.is_alphanumeric() || "_.:".contains(c));
                let of = ["tokio::", "task::", "thread::"];
                (bare && !before.ends_with("fn ")) || of.iter().any(|path| before.ends_with(path))
            })
        });
        calls || SPAWNERS.iter().any(|name| words(&self.text, name).next().is_some())
    }

    /// Returns the other top-level modules that it names.
    fn modules(&self) -> BTreeSet<String> {
        let root = "super::".repeat(self.place.len());
        let mut modules = first_names(&self.text, "crate::");
        modules.extend(first_names(&self.text, &root));
        modules.retain(|module| *module != self.module && room(module).is_some());
        modules
    }

    /// Returns whether it names `path`: a crate, a part of `std`, or the end of a path.
    fn names(&self, path: &str) -> bool {
        match path.split_once("std::") {
            Some((_, part)) => first_names(&self.text, "std::").contains(part),
            None if path.contains("::") || path.starts_with(char::is_uppercase) => {
                words(&self.text, path).next().is_some()
            }
            None => words(&self.text, path).any(|at| {
                let before = &self.text[..at];
                let after = &self.text[at + path.len()..];
                // The crate itself, not one of our modules or types with the same name.
                !before.ends_with("::") && (after.starts_with("::") || before.ends_with("use "))
            }),
        }
    }
}

/// Returns where `word` occurs in a text as a whole word.
fn words<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = &text[..*at];
        let after = &text[at + word.len()..];
        !before.ends_with(part) && (word.ends_with("::") || !after.starts_with(part))
    })
}

/// Returns the names that follow `prefix` in the paths of a text: for `crate::{a::B, c}`, `a` and
/// `c`.
fn first_names(text: &str, prefix: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        let text = text.trim_start();
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut names = BTreeSet::new();
    for at in words(text, prefix) {
        let rest = &text[at + prefix.len()..];
        if !rest.starts_with('{') {
            names.insert(name(rest));
            continue;
        }
        let mut depth = 0;
        for (at, character) in rest.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && (character == '{' || character == ',') {
                names.insert(name(&rest[at + 1..]));
            }
        }
    }
    names.retain(|name| !name.is_empty() && name != "super");
    names
}

#[test]
fn the_first_names_of_paths_are_found() {
    let text =
        "use crate::{\n    a::{B, c::D},\n    e,\n};\nfn f() { crate::g::h(); notcrate::i(); }";
    let names = ["a", "e", "g"].map(str::to_owned);
    assert_eq!(first_names(text, "crate::"), BTreeSet::from(names));
    assert_eq!(first_names("use super::super::a;", "super::super::").len(), 1);
    assert!(first_names("use super::super::super::a;", "super::super::").is_empty());
}
