//! How long each test took.

use std::{fs, sync::Mutex, time::Duration};

/// Each run writes it. Cargo makes the folder.
const FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/durations.txt");
/// How many of the slowest tests a run prints.
const PRINTED: usize = 10;

/// The tests that have ended so far.
#[derive(Default)]
pub(crate) struct Durations(Mutex<Vec<(Duration, String)>>);

impl Durations {
    pub(crate) fn add(&self, test: &str, took: Duration) {
        self.0.lock().unwrap().push((took, test.to_owned()));
    }

    /// Prints the sum and the slowest tests, and writes all of them to a file, the slowest first.
    pub(crate) fn report(&self) {
        let mut tests = self.0.lock().unwrap();
        tests.sort_by(|one, other| other.cmp(one));
        let sum: Duration = tests.iter().map(|(took, _)| took).sum();
        let lines: Vec<_> = tests.iter().map(|(took, name)| line(*took, name)).collect();
        println!("{} tests took {:.1} s in sum; {FILE} lists them", tests.len(), sum.as_secs_f64());
        print!("{}", lines[..lines.len().min(PRINTED)].concat());
        fs::write(FILE, lines.concat()).unwrap();
    }
}

fn line(took: Duration, name: &str) -> String {
    format!("{:8.1} s  {name}\n", took.as_secs_f64())
}
