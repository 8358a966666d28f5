//! Draws the main comparisons of docs/performance.md, from the table there: the pictures show what
//! the document says, digit by digit. `tests/charts.rs` compares them.

use std::{collections::BTreeMap, fmt::Write as _};

/// The folder of the pictures, beside the document.
pub(crate) const DIR: &str = "docs/performance";
/// Where the document shows them.
pub(crate) const BEGIN: &str = "<!-- pictures:begin -->\n";
pub(crate) const END: &str = "<!-- pictures:end -->\n";

/// One picture: bars from zero, or ratios beside the line at 1.
struct Chart {
    file: &'static str,
    title: &'static str,
    /// Says what is compared, and which end is the better one.
    subtitle: &'static str,
    scale: Scale,
    rows: &'static [Row],
}

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    /// Each value is a bar, with its unit.
    Bars(&'static str),
    /// Each ratio is a dot. The line in the middle is at 1.
    Ratios,
}

struct Row {
    /// The name of the figure in the table.
    figure: &'static str,
    label: &'static str,
    /// Whether to draw it in patgate's colour.
    ours: bool,
}

const fn ours(figure: &'static str, label: &'static str) -> Row {
    Row { figure, label, ours: true }
}

const fn theirs(figure: &'static str, label: &'static str) -> Row {
    Row { figure, label, ours: false }
}

const CHARTS: [Chart; 6] = [
    Chart {
        file: "processor-time.svg",
        title: "Processor time per check",
        subtitle: "100 checks at a time, one core, microseconds; less is better",
        scale: Scale::Bars("µs"),
        rows: &[
            ours("cpu_per_check_patgate_us", "patgate"),
            theirs("cpu_per_check_allow_all_us", "a server that allows everything"),
        ],
    },
    Chart {
        file: "checks-per-second.svg",
        title: "Checks per second on one core",
        subtitle: "100 checks at a time over one TCP connection; more is better",
        scale: Scale::Bars(""),
        rows: &[
            ours("grpc_100_streams_patgate_per_second", "patgate"),
            theirs("grpc_100_streams_allow_all_per_second", "a server that allows everything"),
        ],
    },
    Chart {
        file: "through-envoy.svg",
        title: "Requests per second through Envoy",
        subtitle: "32 connections, Envoy and the server together on one core; more is better",
        scale: Scale::Bars(""),
        rows: &[
            theirs("envoy_no_auth_per_second", "Envoy without any check"),
            theirs("envoy_api_key_auth_per_second", "Envoy's own api_key_auth"),
            ours("envoy_patgate_uds_per_second", "patgate, Unix socket"),
            ours("envoy_patgate_tcp_per_second", "patgate, TCP"),
            theirs("envoy_allow_all_uds_per_second", "allows everything, Unix socket"),
            theirs("envoy_allow_all_tcp_per_second", "allows everything, TCP"),
        ],
    },
    Chart {
        file: "tiers.svg",
        title: "Median time of a check, by the place of its token",
        subtitle: "one check at a time, microseconds; less is better",
        scale: Scale::Bars("µs"),
        rows: &[
            ours("grpc_1_stream_patgate_p50_us", "in memory"),
            ours("cold_redis_p50_us", "in Redis"),
            ours("cold_postgres_p50_us", "in Postgres only"),
        ],
    },
    Chart {
        file: "revocation.svg",
        title: "From the commit of a revocation to its first refusal",
        subtitle: "three replicas, 5,000 checks per second meanwhile, milliseconds; less is better",
        scale: Scale::Bars("ms"),
        rows: &[
            ours("revocation_listening_commit_to_refusal_ms", "notified, as by the commands"),
            ours("revocation_relay_commit_to_refusal_ms", "relayed through Redis"),
            ours("revocation_polling_commit_to_refusal_ms", "by bare SQL, found by polling"),
        ],
    },
    Chart {
        file: "growth.svg",
        title: "The cost of more",
        subtitle: "time of a check with much, compared with little; 1 is no difference, less is better",
        scale: Scale::Ratios,
        rows: &[
            ours("cold_postgres_10m_vs_1k", "10 million tokens in Postgres, not 1,000"),
            ours("cold_postgres_1m_vs_1k", "1 million tokens in Postgres, not 1,000"),
            ours("hot_100k_tokens_vs_1_cpu", "100,000 tokens in use, not 1"),
            ours("domains_1000_vs_1_cpu", "1,000 domains, not 1"),
            ours("rules_10000_vs_10_cpu", "10,000 rules and their paths, not 10"),
            ours("rules_10000_vs_10_same_paths_cpu", "10,000 rules, the same 10 paths"),
            ours("scopes_1000_vs_1_cpu", "1,000 scopes of a token, not 1"),
        ],
    },
];

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 24.0;
/// Where bars begin, right of the labels, and where they end, left of the longest value.
const LEFT: f64 = 300.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 84.0;
const ROW: f64 = 34.0;
const THICK: f64 = 18.0;

/// Readable in light and dark, also where the page's own colours are the other ones.
const STYLE: &str = "\
text{font:14px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#1f2328}
.title{font-weight:600;font-size:17px}
.muted{fill:#59636e}
.value{font-variant-numeric:tabular-nums}
.page{fill:#ffffff;stroke:#d1d9e0}
.axis{stroke:#818b98}
.ours{fill:#0969da}
.theirs{fill:#818b98}
.interval{stroke:#1f2328;stroke-width:1.5;fill:none}
@media (prefers-color-scheme:dark){
text{fill:#f0f6fc}
.muted{fill:#9198a1}
.page{fill:#0d1117;stroke:#3d444d}
.axis{stroke:#656c76}
.ours{fill:#4493f8}
.theirs{fill:#656c76}
.interval{stroke:#f0f6fc}
}
";

/// A figure of the table: the median, and its interval if it was measured in rounds.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    from: f64,
    to: f64,
}

/// A drawn chart.
pub(crate) struct Picture {
    pub(crate) file: &'static str,
    pub(crate) svg: String,
    /// How the document shows it.
    pub(crate) markdown: String,
}

/// Returns each picture whose figures the table has. Rows without a figure are left out: only `make
/// bench-large` measures all.
pub(crate) fn draw(table: &str) -> Vec<Picture> {
    let figures = figures(table);
    let charts = CHARTS.iter().filter_map(|chart| {
        let known = |row: &'static Row| Some((row, *figures.get(row.figure)?));
        let rows: Vec<_> = chart.rows.iter().filter_map(known).collect();
        let Chart { file, title, subtitle, .. } = chart;
        let markdown = format!("![{title}: {subtitle}](performance/{file})\n");
        (!rows.is_empty()).then(|| Picture { file, svg: chart.svg(&rows), markdown })
    });
    charts.collect()
}

/// Reads the rows of a Markdown table that begin with a figure's name.
pub(crate) fn figures(table: &str) -> BTreeMap<&str, Figure> {
    let rows = table.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` |")?;
        let cells = rest.split('|').map(|cell| cell.trim().parse().ok());
        let cells: Vec<Option<f64>> = cells.collect();
        match cells[..] {
            [Some(median), Some(from), Some(to), ..] => Some((name, Figure { median, from, to })),
            [Some(median), ..] => Some((name, Figure { median, from: median, to: median })),
            _ => None,
        }
    });
    rows.collect()
}

impl Chart {
    fn svg(&self, rows: &[(&Row, Figure)]) -> String {
        let height = TOP + ROW * rows.len() as f64 + MARGIN;
        let place = self.places(rows);
        let bottom = height - MARGIN;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-labelledby=\"title desc\">\n\
             <title id=\"title\">{}</title>\n<desc id=\"desc\">{}</desc>\n<style>{STYLE}</style>\n\
             <rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n\
             <text class=\"title\" x=\"{MARGIN}\" y=\"36\">{}</text>\n\
             <text class=\"muted\" x=\"{MARGIN}\" y=\"58\">{}</text>\n",
            self.title,
            self.described(rows),
            WIDTH - 1.0,
            height - 1.0,
            self.title,
            self.subtitle,
        );
        let zero = if self.scale == Scale::Ratios { 1.0 } else { 0.0 };
        let axis = place(zero);
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{axis:.1}\" y1=\"{TOP}\" x2=\"{axis:.1}\" y2=\"{bottom}\"/>\n\
             <text class=\"muted\" x=\"{axis:.1}\" y=\"{}\" text-anchor=\"middle\">{zero}</text>",
            TOP - 5.0
        );
        for (number, (row, figure)) in rows.iter().enumerate() {
            let middle = TOP + ROW * (number as f64 + 0.5);
            let _ = self.row(&mut svg, row, *figure, middle, &place);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// Returns where a value is on the scale from left to right.
    fn places(&self, rows: &[(&Row, Figure)]) -> impl Fn(f64) -> f64 {
        let all = || rows.iter().flat_map(|(_, figure)| [figure.from, figure.to]);
        let (low, high) = match self.scale {
            Scale::Bars(_) => (0.0, all().fold(0.0, f64::max)),
            Scale::Ratios => {
                let away = all().map(|ratio| (ratio - 1.0).abs()).fold(0.1, f64::max);
                (1.0 - away, 1.0 + away)
            }
        };
        move |value| LEFT + (RIGHT - LEFT) * (value - low) / (high - low)
    }

    fn row(
        &self,
        svg: &mut String,
        row: &Row,
        figure: Figure,
        middle: f64,
        place: &impl Fn(f64) -> f64,
    ) -> std::fmt::Result {
        let Figure { median, from, to } = figure;
        let class = if row.ours { "ours" } else { "theirs" };
        let base = middle + 5.0;
        writeln!(svg, "<text x=\"{MARGIN}\" y=\"{base}\">{}</text>", row.label)?;
        let at = place(median);
        match self.scale {
            Scale::Bars(_) => writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"{THICK}\" \
                 rx=\"2\"/>",
                middle - THICK / 2.0,
                at - LEFT,
            )?,
            Scale::Ratios => {
                writeln!(svg, "<circle class=\"{class}\" cx=\"{at:.1}\" cy=\"{middle}\" r=\"6\"/>")?
            }
        }
        if from < to {
            let [left, right] = [from, to].map(place);
            let [upper, lower] = [middle - 4.0, middle + 4.0];
            writeln!(
                svg,
                "<path class=\"interval\" d=\"M{left:.1} {upper}V{lower}M{left:.1} {middle}\
                 H{right:.1}M{right:.1} {upper}V{lower}\"/>"
            )?;
        }
        let end = match self.scale {
            Scale::Bars(_) => place(to.max(median)),
            Scale::Ratios => RIGHT,
        };
        let value = self.value(median);
        writeln!(svg, "<text class=\"value\" x=\"{:.1}\" y=\"{base}\">{value}</text>", end + 10.0)
    }

    /// Says in words what the picture shows.
    fn described(&self, rows: &[(&Row, Figure)]) -> String {
        let said = rows.iter().map(|(row, figure)| {
            let Figure { median, from, to } = *figure;
            let [median, from, to] = [median, from, to].map(|value| self.value(value));
            format!("{}: {median}, interval {from} to {to}.", row.label)
        });
        format!("{}. {}", self.subtitle, said.collect::<Vec<_>>().join(" "))
    }

    fn value(&self, value: f64) -> String {
        match self.scale {
            Scale::Ratios => format!("{value:.2}"),
            Scale::Bars("") => digits(value),
            Scale::Bars(unit) => format!("{} {unit}", digits(value)),
        }
    }
}

/// Writes three digits, or all before the point, with commas between thousands.
pub(crate) fn digits(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => {
            let whole = format!("{value:.0}");
            let (first, rest) = whole.split_at((whole.len() - 1) % 3 + 1);
            rest.as_bytes().chunks(3).fold(first.to_owned(), |text, three| {
                format!("{text},{}", String::from_utf8_lossy(three))
            })
        }
    }
}
