//! Counts instructions per byte of the costliest bodies and queries. callgrind counts this program
//! itself, inside the one function that reads.

use std::{fs, hint::black_box, process::Command};

use patgate::{
    body,
    request::{self, RequestParts},
};
use patgate_testing::costly_bodies::{self, Form};

use crate::bench::Bench;

/// The limit for any content. The costliest content that is read takes 57; a zstd bomb that is
/// refused takes 111 for each of its few bytes.
pub(crate) const MOST_PER_BYTE: f64 = 128.0;
const BODY: usize = 100_000;
const QUERY: usize = 30_000;

struct Costly {
    name: String,
    form: Form,
    target: String,
    body: Vec<u8>,
    encoding: Option<&'static str>,
    /// Bytes of the decoded body.
    decoded: usize,
}

fn all() -> Vec<Costly> {
    let bodies = costly_bodies::bodies(BODY).into_iter().map(|costly| {
        let costly_bodies::Costly { name, form, bytes, encoding, decoded, good } = costly;
        let name = if good { name.to_owned() } else { format!("{name}, which is refused") };
        Costly { name, form, target: "/a".to_owned(), body: bytes, encoding, decoded }
    });
    let queries = costly_bodies::targets(QUERY).into_iter().map(|(name, target)| Costly {
        name: format!("a query of {name}"),
        form: Form::Json,
        target,
        body: Vec::new(),
        encoding: None,
        decoded: 0,
    });
    bodies.chain(queries).collect()
}

/// The part of this program whose instructions are counted.
#[inline(never)]
fn read_costly(costly: &Costly) {
    let media_type = costly.form.media_type();
    let form = match costly.form {
        Form::Json => body::BodyForm::Json,
        Form::Multipart => body::BodyForm::Multipart,
    };
    let header = |name: &str| match name {
        "content-type" => Some(media_type),
        "content-encoding" => costly.encoding,
        "x-envoy-auth-partial-body" => Some("false"),
        _ => None,
    };
    let parts = RequestParts {
        method: "POST",
        authority: "gateway",
        target: &costly.target,
        header,
        body: &costly.body,
        stream: b"",
    };
    let model = request::model(&costly.target, parts.shown(), form, &mut |_| Ok(()));
    let _ = black_box(model);
}

/// Reads one of them, once.
pub(crate) fn read(number: usize) {
    read_costly(&all()[number]);
}

/// Returns what costs more per byte than the limit.
pub(crate) fn too_costly(bench: &Bench) -> Vec<String> {
    let mut mistakes = Vec::new();
    let this = std::env::current_exe().unwrap();
    for (number, costly) in all().iter().enumerate() {
        let out = bench.site.dir.path().join(format!("costly.{number}"));
        let done = Command::new("valgrind")
            .args(["--tool=callgrind", "--toggle-collect=checks::costly::read_costly*"])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(&this)
            .args(["read-costly", &number.to_string()])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let profile = fs::read_to_string(&out).unwrap();
        let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
        let total: f64 = total.expect("a profile's total").trim().parse().unwrap();
        assert!(total > 0.0, "no instructions of {} were counted", costly.name);
        let bytes = costly.body.len() + costly.decoded + costly.target.len();
        let per_byte = total / bytes as f64;
        println!("{per_byte:.1} instructions a byte: {}", costly.name);
        if per_byte > MOST_PER_BYTE {
            mistakes.push(format!(
                "{} costs {per_byte:.1} instructions a byte, more than {MOST_PER_BYTE}",
                costly.name
            ));
        }
    }
    mistakes
}
