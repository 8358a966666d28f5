//! Exports spans to an OTLP receiver, from a thread of its own.
//!
//! The queue is bounded: a span that finds it full is dropped and counted. So a receiver that is
//! down, slow or silent costs spans, and nothing else. The library batches and sends, and repeats
//! what the receiver could not accept, a few times within the timeout of a batch.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Relaxed},
        },
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor},
};
use prometheus_client::metrics::counter::Counter;
use secrecy::ExposeSecret;
use tonic::{
    metadata::MetadataMap,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};
use uuid::Uuid;

use super::span::FinishedSpan;
use crate::{clock, config, files::trusted, telemetry::Store, throttle::Throttle};

/// Spans that may wait, those of a batch that is being sent included.
const MAX_QUEUED: usize = 4096;
/// Spans that are sent together.
const MAX_BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// Time for the last spans, at the end of the process.
const LAST_SPANS: Duration = Duration::from_secs(1);
/// How often a failing export is logged.
const WARN_EVERY: Duration = Duration::from_secs(10 * 60);
/// The conventions to which names and attributes keep.
const CONVENTIONS: &str = "https://opentelemetry.io/schemas/1.42.0";

/// Why spans cannot be exported with these settings.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The file of authorities cannot be read.
    #[error("telemetry.otlp.ca_file: {0}")]
    Authorities(String),
    /// The connection cannot be prepared.
    #[error("telemetry.otlp.endpoint: {0}")]
    Endpoint(String),
    /// A header cannot be sent.
    #[error("telemetry.otlp.headers: {0}")]
    Headers(String),
}

/// The counters of spans by what became of them.
#[derive(Clone, Debug)]
pub(in crate::telemetry) struct SpanCounters {
    /// The receiver accepted them.
    pub(crate) exported: Counter,
    /// The receiver did not accept them, or did not answer.
    pub(crate) failed: Counter,
    /// The queue was full.
    pub(crate) dropped: Counter,
}

/// The end of the queue that accepts spans.
pub(super) struct SpanQueue {
    processor: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    dropped: Counter,
    scope: InstrumentationScope,
    redis: Vec<KeyValue>,
    postgres: Vec<KeyValue>,
}

impl SpanQueue {
    /// Starts the thread that exports. Must be called within a runtime, which drives the connection.
    pub(super) fn start(
        settings: &config::TraceSettings,
        counters: SpanCounters,
    ) -> Result<Self, TracesError> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_channel(endpoint(settings)?.connect_lazy())
            .with_metadata(metadata(settings)?)
            .with_timeout(settings.timeout)
            .build()
            .map_err(|error| TracesError::Endpoint(error.to_string()))?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let dropped = counters.dropped.clone();
        let exporter = CountingExporter {
            exporter,
            waiting: Arc::clone(&waiting),
            counters,
            is_failing: AtomicBool::new(false),
            warnings: Throttle::default(),
        };
        let batches = BatchConfigBuilder::default()
            // Never reached, because `end` counts those that are being sent as well.
            .with_max_queue_size(MAX_QUEUED)
            .with_max_export_batch_size(MAX_BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let mut processor = BatchSpanProcessor::new(exporter, batches);
        processor.set_resource(&resource(settings.service_name.as_deref()));
        let scope = InstrumentationScope::builder("patgate")
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(CONVENTIONS)
            .build();
        let address = |of: &Option<config::StoreAddress>| {
            of.as_ref().map_or_else(Vec::new, attributes_of_address)
        };
        let (redis, postgres) = (address(&settings.redis), address(&settings.postgres));
        Ok(Self { processor, waiting, dropped, scope, redis, postgres })
    }

    /// Queues a span, or drops it. Does not wait. A span for which there is no room is not made.
    pub(super) fn end(&self, span: impl FnOnce() -> FinishedSpan) {
        if self.waiting.fetch_add(1, AcqRel) >= MAX_QUEUED {
            self.waiting.fetch_sub(1, AcqRel);
            self.dropped.inc();
            return;
        }
        self.processor.on_end(span().into_data(self.scope.clone()));
    }

    /// Returns the attributes that say where a store is.
    pub(super) fn address_of(&self, store: Store) -> &[KeyValue] {
        match store {
            Store::Redis => &self.redis,
            Store::Postgres => &self.postgres,
        }
    }

    /// Exports what is queued, for a second at most.
    pub(super) fn shut_down(&self) {
        if let Err(error) = self.processor.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

fn endpoint(settings: &config::TraceSettings) -> Result<Endpoint, TracesError> {
    let wrong = |error: tonic::transport::Error| TracesError::Endpoint(error.to_string());
    let endpoint = Endpoint::from_shared(settings.endpoint.clone())
        .map_err(wrong)?
        // Without it, a receiver whose packets are lost would hold an export for minutes.
        .connect_timeout(settings.timeout)
        .timeout(settings.timeout)
        // Finds a connection that is dead without an error.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(settings.timeout)
        .user_agent(concat!("patgate/", env!("CARGO_PKG_VERSION")))
        .map_err(wrong)?;
    if !settings.uses_tls() {
        return Ok(endpoint);
    }
    let tls = match &settings.authorities {
        None => ClientTlsConfig::new().with_native_roots(),
        Some(path) => {
            let unreadable = |why: &dyn std::fmt::Display| {
                TracesError::Authorities(format!("{}: {why}", path.display()))
            };
            let pem = trusted::read_to_string(path).map_err(|error| unreadable(&error))?;
            if !pem.contains("-----BEGIN CERTIFICATE-----") {
                return Err(unreadable(&"it holds no certificate in PEM"));
            }
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
        }
    };
    endpoint.tls_config(tls).map_err(wrong)
}

/// The headers of each call. Their values are not shown, not even by `Debug`.
fn metadata(settings: &config::TraceSettings) -> Result<MetadataMap, TracesError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| TracesError::Headers(format!("the value of {name} cannot be sent")))?;
        value.set_sensitive(true);
        headers.append(name.clone(), value);
    }
    Ok(MetadataMap::from_headers(headers))
}

/// Describes this process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are read by the
/// library; the setting has precedence.
fn resource(service_name: Option<&str>) -> Resource {
    let found = Resource::builder().build();
    let of_environment = |key: &'static str| found.get(&Key::new(key));
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if of_environment("service.instance.id").is_none() {
        let id = Uuid::new_v4().to_string();
        resource = resource.with_attribute(KeyValue::new("service.instance.id", id));
    }
    // What the library says if nothing names the service.
    let is_unnamed = of_environment("service.name")
        .is_none_or(|name| name.as_str().starts_with("unknown_service"));
    match service_name {
        Some(name) => resource.with_service_name(name.to_owned()).build(),
        None if is_unnamed => resource.with_service_name("patgate").build(),
        None => resource.build(),
    }
}

fn attributes_of_address(address: &config::StoreAddress) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("server.address", address.host.clone())];
    attributes.extend(address.port.map(|port| KeyValue::new("server.port", i64::from(port))));
    let namespace = address.namespace.clone();
    attributes.extend(namespace.map(|name| KeyValue::new("db.namespace", name)));
    attributes
}

/// Counts what becomes of each batch, and logs when exporting fails and when it works again.
#[derive(Debug)]
struct CountingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    waiting: Arc<AtomicUsize>,
    counters: SpanCounters,
    is_failing: AtomicBool,
    warnings: Throttle,
}

impl SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let exported = self.exporter.export(batch).await;
        self.waiting.fetch_sub(count, AcqRel);
        let spans = u64::try_from(count).unwrap_or(u64::MAX);
        match &exported {
            Ok(()) => {
                self.counters.exported.inc_by(spans);
                if self.is_failing.swap(false, Relaxed) {
                    tracing::info!("spans are exported again");
                }
            }
            Err(error) => {
                self.counters.failed.inc_by(spans);
                let begins = !self.is_failing.swap(true, Relaxed);
                if self.warnings.passes(clock::now(), WARN_EVERY) || begins {
                    tracing::warn!(%error, "spans cannot be exported and are lost");
                }
            }
        }
        exported
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
