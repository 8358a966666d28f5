//! Programs that read one text and answer with JSON.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde::de::DeserializeOwned;

/// Runs a program to its end with `input` on its standard input, and reads its answer from its
/// standard output. Secrets belong into `input`: every user of the machine can read arguments.
pub fn answer_of<T: DeserializeOwned>(program: &mut Command, input: &str) -> T {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}
