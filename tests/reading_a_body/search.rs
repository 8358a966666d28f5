//! Searches for the costliest body or query of each kind: changes the pieces of a repeated unit,
//! and keeps what costs more. It climbs from several starting points, because the way up from one
//! of them may end early.

use patgate_testing::costly_bodies::{Form, object};

/// The repeated unit is made of pieces, one from each of these lists.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pieces: &'static [&'static [&'static str]],
    /// Writes one unit.
    unit: fn(&[&str]) -> String,
    /// Repeats the unit, and completes it so that it is read to its end: target and body.
    whole: fn(&str) -> (String, String),
}

pub(crate) const KINDS: [Kind; 3] = [
    Kind { name: "JSON", form: Form::Json, pieces: JSON, unit: member, whole: json },
    Kind { name: "a form", form: Form::Multipart, pieces: FORM, unit: part, whole: form },
    Kind { name: "a query", form: Form::Json, pieces: QUERY, unit: parameter, whole: query },
];

const JSON: &[&[&str]] = &[NAMES, NAMES, VALUES, WHITE_SPACE];
const FORM: &[&[&str]] = &[HEADERS, SPACES, PART_NAMES, FILES, MORE_HEADERS, CONTENTS];
const QUERY: &[&[&str]] = &[KEYS, KEYS, QUERY_VALUES, SEPARATORS];

/// The pieces of a name.
const NAMES: &[&str] = &[
    "",
    "m",
    "mode",
    "model_",
    "context_window_fallback_dic",
    "x",
    "é",
    "ſ",
    "\\u006d",
    "\\n",
    "\\ud83d\\ude00",
    "lora_",
];
const VALUES: &[&str] = &[
    "0",
    "-0.0e-0",
    "\"\"",
    "\"x\"",
    "\"\\\\\"",
    "[]",
    "{}",
    "[0,0]",
    "[[[[]]]]",
    "{\"\":0}",
    "null",
    "false",
    "\"\\u00e9\"",
    "{\"\":{\"\":0}}",
];
const WHITE_SPACE: &[&str] = &["", " ", "\n\t\r ", "        "];
const SPACES: &[&str] = &["", " ", "\t", "        "];

const HEADERS: &[&str] = &["content-disposition", "Content-Disposition"];
const PART_NAMES: &[&str] = &[
    "a",
    "m",
    "mode",
    "model_",
    "m[]",
    "a.b[c].d",
    "context_window_fallback_dicx",
    "a[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];
const FILES: &[&str] =
    &["", ";filename=f", ";filename=\"f\"", ";filename*=utf-8''f", ";filename=f;filename*=f"];
const MORE_HEADERS: &[&str] = &[
    "",
    "\r\ncontent-type:text/plain",
    "\r\ncontent-type:application/octet-stream",
    "\r\ncontent-transfer-encoding:binary",
    "\r\ncontent-type:a\r\ncontent-transfer-encoding:7bit",
];
const CONTENTS: &[&str] =
    &["", "x", "\r\n", "\r\n-", "\r\n--", "\r\n--\r\n--\r\n--", "--", "\r\n\r\n\r\n\r\n"];

const KEYS: &[&str] =
    &["", "m", "mode", "model_", "context_window_fallback_dic", "x", "lora_", "[", "]", ".", "M"];
const QUERY_VALUES: &[&str] = &["", "=", "=m", "==", "=model", "=xxxxxxxx"];
const SEPARATORS: &[&str] = &["&", ";", "?", "&&", "&;?"];

const SIZE: usize = 10_000;
/// A body with more parts is refused before all are read.
const MOST_PARTS: usize = 990;
const CLIMBS: usize = 4;
const STEPS: usize = 60;

/// Its name has one more character, so that it is neither the model's nor a rival's.
fn member(pieces: &[&str]) -> String {
    let &[begin, end, value, space] = pieces else { return String::new() };
    format!("\"{begin}{end}!\"{space}:{value}{space},")
}

fn json(members: &str) -> (String, String) {
    ("/a".to_owned(), object(SIZE, members))
}

fn part(pieces: &[&str]) -> String {
    let &[header, space, name, file, more, content] = pieces else { return String::new() };
    format!(
        "--b\r\n{header}:{space}form-data;{space}name=\"{name}\"{file}{more}\r\n\r\n{content}\r\n"
    )
}

fn form(parts: &str) -> (String, String) {
    let count = parts.matches("form-data").count().max(1);
    let all = parts.repeat((SIZE / parts.len().max(1)).min(MOST_PARTS / count));
    let model = "--b\r\ncontent-disposition:form-data;name=model\r\n\r\nm\r\n--b--\r\n";
    ("/a".to_owned(), all + model)
}

fn parameter(pieces: &[&str]) -> String {
    let &[begin, end, value, separator] = pieces else { return String::new() };
    format!("{begin}{end}{value}{separator}")
}

fn query(parameters: &str) -> (String, String) {
    let count = parameters.matches(['&', ';']).count().max(1);
    let all = parameters.repeat((SIZE / parameters.len().max(1)).min(MOST_PARTS / count));
    // The rest costs what it costs, and is one parameter.
    let rest = "x".repeat(SIZE.saturating_sub(all.len()));
    (format!("/a?{all}{rest}"), String::new())
}

/// The repeated units: for each, the pieces of which it is made.
type Units = Vec<Vec<usize>>;

impl Kind {
    fn text(&self, units: &Units) -> (String, String) {
        let unit = |chosen: &Vec<usize>| {
            let pieces: Vec<_> = self.pieces.iter().zip(chosen).map(|(of, at)| of[*at]).collect();
            (self.unit)(&pieces)
        };
        (self.whole)(&units.iter().map(unit).collect::<String>())
    }

    fn draw(&self, random: &mut Random) -> Vec<usize> {
        self.pieces.iter().map(|of| random.below(of.len())).collect()
    }

    /// Returns the target and body with the highest `cost` among those that were tried, and the
    /// cost.
    pub(crate) fn costliest(&self, cost: impl Fn(&str, &str) -> f64) -> (f64, (String, String)) {
        let mut random = Random(1);
        let cost = |units: &Units| {
            let (target, body) = self.text(units);
            cost(&target, &body)
        };
        let climbs = (0..CLIMBS).map(|_| {
            let mut units = vec![self.draw(&mut random)];
            let mut most = cost(&units);
            for _ in 0..STEPS {
                let mut changed = units.clone();
                let at = random.below(changed.len());
                let fresh = self.draw(&mut random);
                match random.below(6) {
                    0 if changed.len() < 4 => changed.push(fresh),
                    0 => drop(changed.remove(at)),
                    _ => {
                        let piece = random.below(fresh.len());
                        changed[at][piece] = fresh[piece];
                    }
                }
                let found = cost(&changed);
                if found > most {
                    (most, units) = (found, changed);
                }
            }
            (most, units)
        });
        let climbs: Vec<_> = climbs.collect();
        let (most, units) =
            climbs.into_iter().max_by(|one, other| one.0.total_cmp(&other.0)).unwrap_or_default();
        (most, self.text(&units))
    }
}

/// SplitMix64: every run tries the same bodies.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((n ^ n >> 31) % bound as u64) as usize
    }
}
