//! Writes the results: a table, the same as JSON, and which promises hold.

use std::{collections::BTreeMap, fmt::Write as _, fs, io::ErrorKind};

use patgate_testing::stack::project;
use serde_json::json;

use crate::{
    bench::Plan, chart, instructions, neighbours, revocation, statistics::Spread, summary,
};

/// Figures by their names, which docs/performance.md explains.
#[derive(Default)]
pub(crate) struct Report {
    ratios: BTreeMap<String, Spread>,
    /// Measured in rounds.
    measured: BTreeMap<String, Spread>,
    /// Counted once.
    counted: BTreeMap<String, f64>,
    /// Why a figure could not be measured.
    missing: BTreeMap<&'static str, &'static str>,
    /// The smallest number of rounds of a ratio, except for what was counted once.
    pub(crate) fewest: Option<usize>,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// A bound on the upper end of the interval: the ratio may be that high.
    MayReach(f64),
}

const PROMISES: [(&str, Bound); 18] = [
    ("grpc_100_streams_vs_allow_all", Bound::AtLeast(1.5)),
    ("grpc_1_stream_vs_allow_all", Bound::MayReach(1.0)),
    ("cpu_per_check_vs_allow_all", Bound::AtMost(0.67)),
    ("envoy_uds_vs_allow_all", Bound::MayReach(0.97)),
    ("envoy_tcp_vs_allow_all", Bound::MayReach(0.97)),
    (instructions::VS_ALLOW_ALL, Bound::AtMost(instructions::MOST_VS_ALLOW_ALL)),
    ("cold_postgres_1m_vs_1k", Bound::AtMost(1.3)),
    (OF_A_LARGE_RUN, Bound::AtMost(1.3)),
    // For a token whose domain is known, and for one whose domain is not.
    ("redis_round_trips", Bound::AtMost(1.0)),
    ("redis_round_trips_cold_domain", Bound::AtMost(2.0)),
    ("postgres_queries", Bound::AtMost(2.0)),
    ("rss_idle_mib", Bound::AtMost(20.0)),
    ("rss_100k_tokens_mib", Bound::AtMost(80.0)),
    ("rss_after_flood_mib", Bound::AtMost(80.0)),
    ("rss_flood_vs_before", Bound::AtMost(1.02)),
    ("ready_ms", Bound::AtMost(150.0)),
    (neighbours::P99, Bound::AtMost(2.0)),
    (revocation::LONGEST, Bound::AtMost(1000.0)),
];

/// Only `make bench-large` writes ten million tokens.
const OF_A_LARGE_RUN: &str = "cold_postgres_10m_vs_1k";

const DIR: &str = "target/bench";
/// The first line while measurements are missing.
const PARTIAL: &str = "**Partial**: of a run that has not ended yet, or was ended early.";
/// The document that DOCS=1 updates.
const DOCUMENT: &str = "docs/performance.md";
const BEGIN: &str = "<!-- results:begin -->\n";
const END: &str = "<!-- results:end -->";

impl Report {
    /// Removes the results of an earlier run, so that they cannot be mistaken for those of this
    /// run.
    pub(crate) fn forget_the_last() {
        for file in ["results.json", "results.md"] {
            match fs::remove_file(project(&format!("{DIR}/{file}"))) {
                Err(error) if error.kind() != ErrorKind::NotFound => panic!("{file}: {error}"),
                _ => {}
            }
        }
    }

    /// Adds the ratio of pairs that were measured in the same round.
    pub(crate) fn ratio(&mut self, name: &str, rounds: impl IntoIterator<Item = (f64, f64)>) {
        let ratios: Vec<_> = rounds.into_iter().map(|(ours, theirs)| ours / theirs).collect();
        let spread = Spread::of(&ratios);
        if ratios.len() > 1 {
            let fewest = self.fewest.map_or(ratios.len(), |fewest| fewest.min(ratios.len()));
            self.fewest = Some(fewest);
        }
        eprintln!("  {name}: {}", text(spread));
        self.ratios.insert(name.to_owned(), spread);
        self.write(PARTIAL, false);
    }

    /// Adds a value that was measured in each round.
    pub(crate) fn rounds(&mut self, name: impl Into<String>, rounds: &[f64]) {
        let name = name.into();
        let spread = Spread::of(rounds);
        eprintln!("  {name}: {}", text(spread));
        self.measured.insert(name, spread);
        self.write(PARTIAL, false);
    }

    /// Adds a value that was counted once.
    pub(crate) fn value(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        eprintln!("  {name}: {}", figure(value));
        self.counted.insert(name, value);
        self.write(PARTIAL, false);
    }

    /// Notes a figure that cannot be measured, and the reason.
    pub(crate) fn lacks(&mut self, name: &'static str, why: &'static str) {
        eprintln!("  {name}: {why}");
        self.missing.insert(name, why);
    }

    /// Writes the files and, if requested, the document; prints the table; and returns the promises
    /// that do not hold.
    pub(crate) fn finish(&self, head: &str, plan: &Plan) -> Vec<String> {
        let text = self.write(head, true);
        println!("{text}\nWritten to {DIR}/results.md and results.json.");
        if plan.docs {
            document(&text);
        }
        PROMISES.iter().filter_map(|(name, bound)| self.shortcoming(name, bound, plan)).collect()
    }

    /// Writes both files again with each figure: measured values survive a run that ends early.
    fn write(&self, head: &str, complete: bool) -> String {
        let dir = project(DIR);
        fs::create_dir_all(&dir).unwrap();
        let mut values = self.counted.clone();
        for (name, spread) in &self.measured {
            let ends = [("", spread.median), ("_from", spread.min), ("_to", spread.max)];
            values.extend(ends.map(|(end, value)| (format!("{name}{end}"), value)));
        }
        let json = json!({ "complete": complete, "ratios": self.ratios, "values": values });
        let text = self.markdown(head);
        for (name, text) in [("results.json", &format!("{json:#}\n")), ("results.md", &text)] {
            // The time may end at any moment, and half a file is worse than the previous one.
            fs::write(format!("{dir}/.{name}"), text).unwrap();
            fs::rename(format!("{dir}/.{name}"), format!("{dir}/{name}")).unwrap();
        }
        text
    }

    /// A trial's figures mean nothing, but the trial must produce them.
    fn shortcoming(&self, name: &str, bound: &Bound, plan: &Plan) -> Option<String> {
        match self.judged(name, bound) {
            Some(judged) if judged.holds || plan.quick => None,
            Some(Judged { promised, measured, .. }) => {
                Some(format!("{name} falls short: {} instead of {promised}", figure(measured)))
            }
            None if name == OF_A_LARGE_RUN && !plan.large => None,
            None => {
                let why = self.missing.get(name).unwrap_or(&"nothing came of it");
                Some(format!("{name} is promised, and was not measured: {why}"))
            }
        }
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
                None if *name == OF_A_LARGE_RUN => {
                    writeln!(text, "| `{name}` | measured by `make bench-large` alone | |")
                }
                None => writeln!(text, "| `{name}` | not measured | falls short |"),
                Some(Judged { promised, measured, holds }) => {
                    let measured = figure(measured);
                    let verdict = if holds { "holds" } else { "falls short" };
                    writeln!(text, "| `{name}` {promised} | {measured} | {verdict} |")
                }
            };
        }
        text
    }

    /// Returns `None` if it was not measured.
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

/// Replaces the table in the document, and the pictures and the summary that show its figures.
fn document(table: &str) {
    let path = project(DOCUMENT);
    let text = fs::read_to_string(&path).unwrap();
    let pictures = chart::draw(table);
    let list: Vec<_> = pictures.iter().map(|picture| &*picture.markdown).collect();
    let text = replaced(&text, chart::BEGIN, &list.join("\n"), chart::END);
    let text = replaced(&text, summary::BEGIN, &summary::summary(table), summary::END);
    fs::write(path, replaced(&text, BEGIN, table, END)).unwrap();
    for picture in pictures {
        fs::write(project(&format!("{}/{}", chart::DIR, picture.file)), picture.svg).unwrap();
    }
    println!("{DOCUMENT} shows it.");
}

/// Replaces what is between two lines.
fn replaced(text: &str, begin: &str, by: &str, end: &str) -> String {
    let (before, rest) = text.split_once(begin).expect("where it begins");
    let (_, after) = rest.split_once(end).expect("where it ends");
    format!("{before}{begin}{by}{end}{after}")
}

fn text(Spread { median, min, max }: Spread) -> String {
    let [median, min, max] = [median, min, max].map(figure);
    format!("{median} ({min} to {max})")
}

/// Formats with as many digits as are significant.
fn figure(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
