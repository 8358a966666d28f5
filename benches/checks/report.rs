//! What comes out: a table, the same as JSON, and what of it was promised.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use serde_json::json;

use crate::{instructions, stack::project, statistics::Spread};

/// Figures by their names, which docs/performance.md explains.
#[derive(Default)]
pub(crate) struct Report {
    ratios: BTreeMap<String, Spread>,
    /// Measured in rounds.
    measured: BTreeMap<String, Spread>,
    /// Counted once.
    counted: BTreeMap<String, f64>,
    /// Rounds of the ratio that had the fewest, as far as it was not counted once.
    pub(crate) fewest: Option<usize>,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Of the upper end of the interval: the ratio may be that high.
    MayReach(f64),
}

const PROMISES: [(&str, Bound); 15] = [
    ("grpc_100_streams_vs_allow_all", Bound::AtLeast(1.5)),
    ("grpc_1_stream_vs_allow_all", Bound::MayReach(1.0)),
    ("cpu_per_check_vs_allow_all", Bound::AtMost(0.67)),
    ("envoy_uds_vs_allow_all", Bound::MayReach(0.97)),
    ("envoy_tcp_vs_allow_all", Bound::MayReach(0.97)),
    (instructions::VS_ALLOW_ALL, Bound::AtMost(instructions::MOST_VS_ALLOW_ALL)),
    ("cold_postgres_1m_vs_1k", Bound::AtMost(1.3)),
    // Of a token whose domain is known, and of one whose domain is not.
    ("redis_round_trips", Bound::AtMost(1.0)),
    ("redis_round_trips_cold_domain", Bound::AtMost(2.0)),
    ("postgres_queries", Bound::AtMost(2.0)),
    ("rss_idle_mib", Bound::AtMost(20.0)),
    ("rss_100k_tokens_mib", Bound::AtMost(80.0)),
    ("rss_after_flood_mib", Bound::AtMost(80.0)),
    ("rss_flood_vs_before", Bound::AtMost(1.02)),
    ("ready_ms", Bound::AtMost(150.0)),
];

/// What DOCS=1 fills in.
const DOCUMENT: &str = "docs/performance.md";
const BEGIN: &str = "<!-- results:begin -->\n";
const END: &str = "<!-- results:end -->";

impl Report {
    /// Of pairs that were measured in the same round, the first to the second.
    pub(crate) fn ratio(&mut self, name: &str, rounds: impl IntoIterator<Item = (f64, f64)>) {
        let ratios: Vec<_> = rounds.into_iter().map(|(ours, theirs)| ours / theirs).collect();
        let spread = Spread::of(&ratios);
        if ratios.len() > 1 {
            let fewest = self.fewest.map_or(ratios.len(), |fewest| fewest.min(ratios.len()));
            self.fewest = Some(fewest);
        }
        eprintln!("  {name}: {}", text(spread));
        self.ratios.insert(name.to_owned(), spread);
    }

    /// What was measured anew in each round.
    pub(crate) fn rounds(&mut self, name: impl Into<String>, rounds: &[f64]) {
        let (name, spread) = (name.into(), Spread::of(rounds));
        eprintln!("  {name}: {}", text(spread));
        self.measured.insert(name, spread);
    }

    /// What was counted once.
    pub(crate) fn value(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        eprintln!("  {name}: {}", figure(value));
        self.counted.insert(name, value);
    }

    /// Writes both files, with `docs` the document, too, prints the table, and tells which promises
    /// it does not keep.
    pub(crate) fn finish(&self, head: &str, docs: bool) -> Vec<&'static str> {
        let dir = project("target/bench");
        fs::create_dir_all(&dir).unwrap();
        let mut values = self.counted.clone();
        for (name, spread) in &self.measured {
            let ends = [("", spread.median), ("_from", spread.min), ("_to", spread.max)];
            values.extend(ends.map(|(end, value)| (format!("{name}{end}"), value)));
        }
        let json = json!({ "ratios": self.ratios, "values": values });
        fs::write(format!("{dir}/results.json"), format!("{json:#}\n")).unwrap();
        let text = self.markdown(head);
        fs::write(format!("{dir}/results.md"), &text).unwrap();
        println!("{text}\nWritten to target/bench/results.md and results.json.");
        if docs {
            document(&text);
        }
        let short = PROMISES
            .iter()
            .filter(|(name, bound)| self.judged(name, bound).is_some_and(|judged| !judged.holds));
        short.map(|(name, _)| *name).collect()
    }

    fn markdown(&self, head: &str) -> String {
        let mut text = format!(
            "{head}\n\nMedians over the rounds, with the bootstrap interval that holds the median \
             at 95 %.\n"
        );
        // Writing to a string does not fail.
        for (title, spreads) in [("ratio", &self.ratios), ("value", &self.measured)] {
            let _ =
                writeln!(text, "\n| {title} | median | from | to |\n| --- | ---: | ---: | ---: |");
            for (name, Spread { median, min, max }) in spreads {
                let [median, min, max] = [median, min, max].map(|end| figure(*end));
                let _ = writeln!(text, "| `{name}` | {median} | {min} | {max} |");
            }
        }
        text.push_str("\n| counted once | |\n| --- | ---: |\n");
        for (name, value) in &self.counted {
            let _ = writeln!(text, "| `{name}` | {} |", figure(*value));
        }
        text.push_str("\n| promised | measured | |\n| --- | ---: | --- |\n");
        for (name, bound) in &PROMISES {
            let _ = match self.judged(name, bound) {
                None => writeln!(text, "| `{name}` | not measured | |"),
                Some(Judged { promised, measured, holds }) => {
                    let (measured, verdict) =
                        (figure(measured), if holds { "holds" } else { "falls short" });
                    writeln!(text, "| `{name}` {promised} | {measured} | {verdict} |")
                }
            };
        }
        text
    }

    /// Nothing where it was not measured.
    fn judged(&self, name: &str, bound: &Bound) -> Option<Judged> {
        let spread = self.ratios.get(name).or(self.measured.get(name));
        let middle = spread.map(|spread| spread.median).or(self.counted.get(name).copied())?;
        let (promised, measured, holds) = match *bound {
            Bound::AtLeast(least) => (format!("≥ {least}"), middle, middle >= least),
            Bound::AtMost(most) => (format!("≤ {most}"), middle, middle <= most),
            Bound::MayReach(least) => {
                let upper = spread.map_or(middle, |spread| spread.max);
                (format!("may reach {least}"), upper, upper >= least)
            }
        };
        Some(Judged { promised, measured, holds })
    }
}

struct Judged {
    promised: String,
    measured: f64,
    holds: bool,
}

/// Puts the table in the place of the one before.
fn document(table: &str) {
    let path = project(DOCUMENT);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("where results begin");
    let (_, after) = rest.split_once(END).expect("where results end");
    fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    println!("{DOCUMENT} shows it.");
}

fn text(Spread { median, min, max }: Spread) -> String {
    let [median, min, max] = [median, min, max].map(figure);
    format!("{median} ({min} to {max})")
}

/// As many digits as mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
