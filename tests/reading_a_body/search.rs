//! Looks for the costliest body: changes the pieces of one that is repeated, and keeps what costs
//! more. It climbs from a few places, because the way up from one of them may end early.

use crate::bodies::object;

/// Of what a name is made.
const NAMES: [&str; 12] = [
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
const VALUES: [&str; 14] = [
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
const SPACES: [&str; 4] = ["", " ", "\n\t\r ", "        "];
const SIZE: usize = 10_000;
const CLIMBS: usize = 4;
const STEPS: usize = 60;

/// Members that are repeated: of each, what its name and value are made of, and the space between.
#[derive(Clone)]
struct Body(Vec<[usize; 4]>);

impl Body {
    fn text(&self) -> String {
        let members = self.0.iter().map(|[begin, end, value, space]| {
            let (begin, end) = (NAMES[*begin], NAMES[*end]);
            let (value, space) = (VALUES[*value], SPACES[*space]);
            // So that it names neither the model nor a rival.
            format!("\"{begin}{end}!\"{space}:{value}{space},")
        });
        object(SIZE, &members.collect::<String>())
    }
}

/// SplitMix64: every run looks at the same bodies.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((n ^ n >> 31) % bound as u64) as usize
    }

    fn member(&mut self) -> [usize; 4] {
        [NAMES.len(), NAMES.len(), VALUES.len(), SPACES.len()].map(|bound| self.below(bound))
    }
}

/// The body that costs most by `cost` of those that were looked at, and what it costs.
pub(crate) fn costliest(cost: impl Fn(&str) -> f64) -> (f64, String) {
    let mut random = Random(1);
    let climbs = (0..CLIMBS).map(|_| {
        let mut body = Body(vec![random.member()]);
        let mut most = cost(&body.text());
        for _ in 0..STEPS {
            let mut changed = body.clone();
            let at = random.below(changed.0.len());
            let fresh = random.member();
            match random.below(6) {
                0 if changed.0.len() < 4 => changed.0.push(fresh),
                0 => drop(changed.0.remove(at)),
                _ => {
                    let part = random.below(4);
                    changed.0[at][part] = fresh[part];
                }
            }
            let found = cost(&changed.text());
            if found > most {
                (most, body) = (found, changed);
            }
        }
        (most, body.text())
    });
    climbs.max_by(|one, other| one.0.total_cmp(&other.0)).unwrap_or_default()
}
