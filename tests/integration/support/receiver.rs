//! A real receiver of traces: `rotel`, which writes every span that it receives.

use std::{env, fs, path::PathBuf};

use patgate_testing::{
    eventually,
    stack::{Server, project},
};
use serde_json::json;

use super::Suite;

/// A receiver, and the file into which it writes.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    server: Server,
}

/// A span as the receiver has written it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for the first span of a trace.
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) status: String,
    /// Each as `key=Type(value)`, those of the process first.
    pub(crate) attributes: Vec<String>,
    /// The ids of the linked spans.
    pub(crate) links: Vec<String>,
}

impl Receiver {
    /// Returns `None` if there is no `rotel` for this machine.
    pub(crate) fn start(suite: &Suite) -> Option<Self> {
        let Some(program) = program() else {
            let skipped = "no rotel for this machine: no traces were received";
            assert_ne!(env::var("CI").as_deref(), Ok("true"), "{skipped}");
            println!("skipped: {skipped}");
            return None;
        };
        let port = suite.stack.free_port();
        let http = suite.stack.free_port();
        let file = |name: &str| suite.dir.path().join(format!("rotel-{port}.{name}"));
        let at = |port: u16| format!("127.0.0.1:{port}");
        let server = suite.stack.start(
            "process",
            json!({
                "name": "rotel",
                "argv": [
                    program, "start", "--exporter", "blackhole", "--otlp-grpc-endpoint", at(port),
                    "--otlp-http-endpoint", at(http), "--debug-log", "traces",
                    "--debug-log-verbosity", "detailed", "--batch-timeout", "50ms",
                    "--pid-file", file("pid"), "--log-file", file("log"),
                ],
                "ready": at(port),
            }),
        );
        Some(Self { port, server })
    }

    /// The settings of a replica that sends its traces here.
    pub(crate) fn settings(&self) -> String {
        format!("telemetry.otlp.endpoint=http://127.0.0.1:{}", self.port)
    }

    /// Returns everything that it has written.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.server.log).unwrap()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        read(&self.text())
    }

    /// Waits until the spans of a trace are as `expected` says, and returns them.
    pub(crate) async fn trace(&self, trace: &str, expected: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let spans = || -> Vec<Span> {
            self.spans().into_iter().filter(|span| span.trace == trace).collect()
        };
        eventually("the spans of a trace", async || expected(&spans())).await;
        spans()
    }
}

impl Span {
    /// Returns whether it has this attribute, as `key=Type(value)`.
    pub(crate) fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|known| known == attribute)
    }

    pub(crate) fn is_of_patgate(&self) -> bool {
        self.has("service.name=Str(patgate)")
    }
}

/// The program, if its wheel is installed.
fn program() -> Option<PathBuf> {
    let packages = fs::read_dir(project(".venv/lib")).ok()?;
    let paths =
        packages.map(|python| python.unwrap().path().join("site-packages/rotel/rotel-agent"));
    paths.into_iter().find(|path| path.exists())
}

/// Reads what the receiver has written. A span that is only begun is left out.
fn read(text: &str) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut resource: Vec<String> = Vec::new();
    let mut of_resource = false;
    let mut of_link = false;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("ResourceSpans #") {
            resource.clear();
            of_resource = true;
        } else if line.starts_with("Span #") {
            (of_resource, of_link) = (false, false);
            spans.push(Span { attributes: resource.clone(), ..Span::default() });
        } else if line.starts_with("SpanLink #") {
            of_link = true;
        }
        let attribute = line.strip_prefix("->");
        let Some((key, value)) = attribute.unwrap_or(line).split_once(':') else { continue };
        let (key, value) = (key.trim(), value.trim());
        if of_resource {
            if attribute.is_some() {
                resource.push(format!("{key}={value}"));
            }
            continue;
        }
        let Some(span) = spans.last_mut() else { continue };
        match (attribute, key) {
            (Some(_), "ID") if of_link => span.links.push(value.to_owned()),
            (Some(_), _) if of_link => {}
            (Some(_), _) => span.attributes.push(format!("{key}={value}")),
            (None, "Trace ID") => span.trace = value.to_owned(),
            (None, "Parent ID") => span.parent = value.to_owned(),
            (None, "ID") => span.id = value.to_owned(),
            (None, "Name") => span.name = value.to_owned(),
            (None, "Kind") => span.kind = value.to_owned(),
            (None, "Status code") => span.status = value.to_owned(),
            (None, _) => {}
        }
    }
    spans
}
