//! What comes out: a table, the same as JSON, and what of it was promised.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use serde_json::json;

use crate::{stack::project, statistics::Spread};

/// Figures by their names, which docs/performance.md explains.
#[derive(Default)]
pub(crate) struct Report {
    ratios: BTreeMap<String, Spread>,
    values: BTreeMap<String, f64>,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Of the upper end of the interval: the ratio may be that high.
    MayReach(f64),
}

const PROMISES: [(&str, Bound); 13] = [
    ("grpc_100_streams_vs_allow_all", Bound::AtLeast(1.5)),
    ("grpc_1_stream_vs_allow_all", Bound::MayReach(1.0)),
    ("cpu_per_check_vs_allow_all", Bound::AtMost(0.67)),
    ("envoy_uds_vs_allow_all", Bound::MayReach(0.97)),
    ("instructions_per_check_vs_allow_all", Bound::AtMost(0.6)),
    ("cold_postgres_1m_vs_1k", Bound::AtMost(1.3)),
    ("redis_round_trips", Bound::AtMost(1.0)),
    ("postgres_queries", Bound::AtMost(2.0)),
    ("rss_idle_mib", Bound::AtMost(20.0)),
    ("rss_100k_tokens_mib", Bound::AtMost(80.0)),
    ("rss_after_flood_mib", Bound::AtMost(80.0)),
    ("rss_flood_vs_before", Bound::AtMost(1.02)),
    ("ready_ms", Bound::AtMost(150.0)),
];

impl Report {
    /// Of pairs that were measured in the same round, the first to the second.
    pub(crate) fn ratio(&mut self, name: &str, rounds: impl IntoIterator<Item = (f64, f64)>) {
        let ratios: Vec<_> = rounds.into_iter().map(|(ours, theirs)| ours / theirs).collect();
        let spread = Spread::of(&ratios);
        let Spread { median, min, max } = spread;
        eprintln!("  {name}: {median:.3} ({min:.3} to {max:.3})");
        self.ratios.insert(name.to_owned(), spread);
    }

    pub(crate) fn value(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        eprintln!("  {name}: {}", figure(value));
        self.values.insert(name, value);
    }

    /// Writes both files, prints the table, and says which promises it keeps.
    pub(crate) fn finish(&self, head: &str) {
        let dir = project("target/bench");
        fs::create_dir_all(&dir).unwrap();
        let json = json!({ "ratios": self.ratios, "values": self.values });
        fs::write(format!("{dir}/results.json"), format!("{json:#}\n")).unwrap();
        let text = self.markdown(head);
        fs::write(format!("{dir}/results.md"), &text).unwrap();
        println!("{text}\nWritten to target/bench/results.md and results.json.");
    }

    fn markdown(&self, head: &str) -> String {
        let mut text = format!(
            "{head}\n\nRatios are medians over the rounds, with the bootstrap interval that holds \
             the median at 95 %.\n\n| ratio | median | from | to |\n| --- | ---: | ---: | ---: |\n"
        );
        // Writing to a string does not fail.
        for (name, Spread { median, min, max }) in &self.ratios {
            let _ = writeln!(text, "| `{name}` | {median:.3} | {min:.3} | {max:.3} |");
        }
        text.push_str("\n| value | |\n| --- | ---: |\n");
        for (name, value) in &self.values {
            let _ = writeln!(text, "| `{name}` | {} |", figure(*value));
        }
        text.push_str("\n| promised | measured | |\n| --- | ---: | --- |\n");
        for (name, bound) in &PROMISES {
            let _ = writeln!(text, "{}", self.judge(name, bound));
        }
        text
    }

    fn judge(&self, name: &str, bound: &Bound) -> String {
        let ratio = self.ratios.get(name);
        let Some(middle) = ratio.map(|spread| spread.median).or(self.values.get(name).copied())
        else {
            return format!("| `{name}` | not measured | |");
        };
        let (promised, measured, holds) = match *bound {
            Bound::AtLeast(least) => (format!("≥ {least}"), middle, middle >= least),
            Bound::AtMost(most) => (format!("≤ {most}"), middle, middle <= most),
            Bound::MayReach(least) => {
                let upper = ratio.map_or(middle, |spread| spread.max);
                (format!("may reach {least}"), upper, upper >= least)
            }
        };
        let verdict = if holds { "holds" } else { "falls short" };
        format!("| `{name}` {promised} | {} | {verdict} |", figure(measured))
    }
}

/// As many digits as mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
