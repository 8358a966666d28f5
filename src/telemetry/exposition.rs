//! The two text formats of `/metrics`: the classic one of Prometheus, and OpenMetrics for clients
//! that prefer it.
//!
//! The library writes OpenMetrics only. The classic text is made from it, line by line. Both have the
//! same samples under the same names and labels: `le` keeps the spelling `1.0` in both, so that a
//! query does not depend on the format in which Prometheus asked.
//!
//! Only OpenMetrics has exemplars. They are added to the text, because the library accepts no
//! exemplars but those of its own histogram.

use axum::{
    http::{
        HeaderMap,
        header::{ACCEPT, CONTENT_TYPE, VARY},
    },
    response::IntoResponse,
};
use prometheus_client::{encoding::text, registry::Registry};

use super::histogram::{Durations, Exemplar};
use crate::clock::WallClock;

const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The exemplars of a histogram.
pub(crate) struct Exemplars {
    /// The lines of the page that may have one begin with this.
    prefix: String,
    durations: Durations,
}

impl Exemplars {
    /// Takes the full name of the histogram on the page.
    pub(super) fn new(name: &str, durations: Durations) -> Self {
        Self { prefix: format!("{name}_bucket{{"), durations }
    }

    /// Adds each to the line of its bucket.
    fn add_to(&self, page: &str) -> String {
        let wall_clock = WallClock::read();
        let mut exemplars = self.durations.exemplars().into_iter();
        let mut with_exemplars = String::with_capacity(page.len());
        for line in page.lines() {
            with_exemplars.push_str(line);
            if line.starts_with(&self.prefix)
                && let Some(Some(Exemplar { trace, took, at })) = exemplars.next()
            {
                let took = took.as_secs_f64();
                let at = wall_clock.at(at).as_millisecond();
                let (seconds, rest) = (at / 1000, at % 1000);
                let exemplar = format!(" # {{trace_id=\"{trace}\"}} {took} {seconds}.{rest:03}");
                with_exemplars.push_str(&exemplar);
            }
            with_exemplars.push('\n');
        }
        with_exemplars
    }
}

/// Returns the registry as an HTTP response, in the format that the request's headers prefer.
pub(crate) fn metrics_page(
    registry: &Registry,
    exemplars: &Exemplars,
    request: &HeaderMap,
) -> impl IntoResponse + use<> {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut page, registry);
    let accept = request.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (format, page) = if prefers_openmetrics(accept) {
        (OPENMETRICS_TYPE, exemplars.add_to(&page))
    } else {
        (CLASSIC_TYPE, classic(&page))
    };
    ([(CONTENT_TYPE, format), (VARY, "Accept")], page)
}

/// Returns whether a client prefers OpenMetrics, by the values of its `Accept` headers. The classic
/// text is the answer to a client that does not mention OpenMetrics, or not in a version that it could
/// read here.
fn prefers_openmetrics<'a>(accept: impl Iterator<Item = &'a str>) -> bool {
    let (mut openmetrics, mut classic) = (0.0_f32, 0.0_f32);
    for range in accept.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let (mut quality, mut version) = (1.0_f32, None);
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                // An unreadable quality is no preference.
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        if media_type.eq_ignore_ascii_case(OPENMETRICS) {
            if version.is_none_or(|version| version == "1.0.0") {
                openmetrics = openmetrics.max(quality);
            }
        } else if media_type.eq_ignore_ascii_case("text/plain") {
            classic = classic.max(quality);
        }
    }
    openmetrics > 0.0 && openmetrics >= classic
}

/// Converts a page in OpenMetrics into the classic text.
fn classic(openmetrics: &str) -> String {
    let mut page = String::with_capacity(openmetrics.len());
    // The name of a counter's HELP line depends on the TYPE line after it.
    let mut help = "";
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), text) => help = text.unwrap_or_default(),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    same => ("", same),
                };
                page.push_str(&format!("# HELP {name}{suffix} {help}\n"));
                page.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            // UNIT and EOF, which the classic text does not have.
            (Some("#"), ..) => {}
            _ => {
                // Without the exemplar. No label value holds its mark.
                page.push_str(line.split_once(" # ").map_or(line, |(sample, _)| sample));
                page.push('\n');
            }
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU128, time::Duration};

    use prometheus_client::{
        metrics::{counter::Counter, gauge::Gauge, histogram::Histogram, info::Info},
        registry::Unit,
    };

    use super::*;
    use crate::{clock, trace_context::TraceId};

    #[test]
    fn a_client_gets_openmetrics_only_if_it_prefers_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, preferred) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["text/plain"], false),
            (&["text/html, */*;q=0.1"], false),
            (&["application/openmetrics-text"], true),
            (&["Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8"], true),
            (&["application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4"], true),
            (&[prometheus], true),
            (&["text/plain;q=0.3", "application/openmetrics-text;q=0.5"], true),
            (&["text/plain;q=0.9,application/openmetrics-text;q=0.5"], false),
            (&["application/openmetrics-text;q=0"], false),
            (&["application/openmetrics-text;q=much"], false),
            (&["application/openmetrics-text;version=0.0.1"], false),
            (&["application/openmetrics-text;version=2.0.0"], false),
        ] {
            assert_eq!(prefers_openmetrics(accept.iter().copied()), preferred, "{accept:?}");
        }
    }

    /// In the bucket of the observation, and in no other.
    #[test]
    fn an_exemplar_is_in_its_bucket() {
        let mut registry = Registry::default();
        let durations = Durations::default();
        registry.register("took", "Duration", durations.clone());
        registry.register("took_too", "Duration", Durations::default());
        let exemplars = Exemplars::new("took", durations.clone());
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        assert_eq!(exemplars.add_to(&page), page);

        let trace = TraceId(NonZeroU128::new(0xab).unwrap());
        for micros in [15, 17, 2_000_000] {
            let took = Duration::from_micros(micros);
            durations.exemplify(Exemplar { trace, took, at: clock::now() });
        }
        let shown = exemplars.add_to(&page);
        let found: Vec<_> = shown.lines().filter_map(|line| line.split_once(" # ")).collect();
        let of = |took: &str| format!("{{trace_id=\"{:032x}\"}} {took} ", 0xab);
        for ((sample, exemplar), (le, took)) in
            found.iter().zip([("0.00002", "0.000017"), ("+Inf", "2")])
        {
            assert_eq!(*sample, format!("took_bucket{{le=\"{le}\"}} 0"));
            let (_, time) = exemplar.split_at(of(took).len());
            assert!(exemplar.starts_with(&of(took)), "{exemplar}");
            assert!(time.parse::<f64>().unwrap() > 1e9, "{exemplar}");
        }
        assert_eq!(found.len(), 2);
        assert_eq!(classic(&shown), classic(&page));
    }

    #[test]
    fn the_classic_text_names_counters_in_full_and_has_no_units() {
        let mut registry = Registry::default();
        registry.register("asked", "Questions", Counter::<u64>::default());
        registry.register_with_unit("age", "Age", Unit::Seconds, Gauge::<i64>::default());
        let took = Histogram::new([0.5, 1.0]);
        took.observe(0.7);
        registry.register("took", "Duration", took);
        registry.register("build", "Version", Info::new([("version", "1")]));
        let mut openmetrics = String::new();
        text::encode(&mut openmetrics, &registry).unwrap();
        let expected = "# HELP asked_total Questions.\n\
                        # TYPE asked_total counter\n\
                        asked_total 0\n\
                        # HELP age_seconds Age.\n\
                        # TYPE age_seconds gauge\n\
                        age_seconds 0\n\
                        # HELP took Duration.\n\
                        # TYPE took histogram\n\
                        took_sum 0.7\n\
                        took_count 1\n\
                        took_bucket{le=\"0.5\"} 0\n\
                        took_bucket{le=\"1.0\"} 1\n\
                        took_bucket{le=\"+Inf\"} 1\n\
                        # HELP build_info Version.\n\
                        # TYPE build_info gauge\n\
                        build_info{version=\"1\"} 1\n";
        assert_eq!(classic(&openmetrics), expected);
        let exemplar = "took_bucket{le=\"1.0\"} 1 # {trace_id=\"ab\"} 0.7\n# EOF\n";
        assert_eq!(classic(exemplar), "took_bucket{le=\"1.0\"} 1\n");
    }
}
