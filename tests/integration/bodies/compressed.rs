//! Compressed bodies: as clients send them, in unsupported encodings, damaged, and bombs.

use miniz_oxide::deflate::compress_to_vec;

use super::table::{
    ABSENT, AUDIO, BAD_JSON, Case, ENDS_EARLY, Expected, M, MODEL, REPEATED, UNSCOPED, json, parts,
};

const NOT_READ: Expected = Err("encoded in a way that is not read");
const DAMAGED: Expected = Err("not exactly one gzip member or one zstd frame");
const OPTIONAL: Expected = Err("uses an option that is not read");
const TOO_DENSE: Expected = Err("more than 100 times as long");
const TOO_LONG: Expected = Err("longer than 32 MiB");
const SMALL_BLOCKS: Expected = Err("very many small blocks");
const NO_LENGTH: Expected = Err("no Content-Length");
const GOOD: &[u8] =
    br#"{"model":"m","messages":[{"role":"user","content":"Hello, hello, hello."}]}"#;

/// Makes a gzip member around `deflated`, which it declares as `text`.
fn member(flags: u8, optional: &[u8], deflated: &[u8], text: &[u8]) -> Vec<u8> {
    let checksum = crc32fast::hash(text).to_le_bytes();
    let length = (text.len() as u32).to_le_bytes();
    let head = [0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3];
    [&head, optional, deflated, &checksum, &length].concat()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    member(0, b"", &compress_to_vec(text, 6), text)
}

fn zstd(text: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(text.len()));
    let mut context = zstd_safe::CCtx::create();
    context.set_parameter(zstd_safe::CParameter::ChecksumFlag(true)).unwrap();
    context.compress2(&mut frame, text).unwrap();
    frame
}

/// Returns JSON of this length, mostly blanks.
fn blanks(length: usize) -> Vec<u8> {
    [&br#"{"model":"m""#[..], &vec![b' '; length - 13], b"}"].concat()
}

/// Returns JSON of this length without repetitions.
fn noise(length: usize) -> Vec<u8> {
    let mut text = br#"{"model":"m","a":""#.to_vec();
    let mut state = 1_u64;
    while text.len() < length - 2 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push(b'a' + (state >> 59) as u8 % 26);
    }
    [&text, &b"\"}"[..]].concat()
}

fn coded(encoding: &str, name: &str, body: Vec<u8>, expected: Expected) -> Case {
    json(&format!("{encoding}: {name}"), body, expected).header("content-encoding", encoding)
}

pub(super) fn compressed() -> Vec<Case> {
    let mut cases = in_both();
    cases.extend(in_gzip());
    cases.extend(in_zstd());
    for encoding in
        ["br", "deflate", "x-gzip", "compress", "gzip, gzip", "identity, gzip", "zstd,gzip"]
    {
        cases.push(coded(encoding, "not read", gzip(GOOD), NOT_READ));
    }
    cases.push(json("gzip that does not say so", gzip(GOOD), BAD_JSON));
    cases.push(json("zstd that does not say so", zstd(GOOD), BAD_JSON));
    let form =
        Case::new("a form in zstd", AUDIO, zstd(&parts(&[MODEL])), Err("form is compressed"));
    let form = form.header("content-type", "multipart/form-data; boundary=b1");
    cases.push(form.header("content-encoding", "zstd"));
    let ollama = Case::new("zstd for Ollama", "/proxy/acme/api/show", zstd(GOOD), M);
    cases.push(ollama.header("content-encoding", "zstd"));
    cases
}

type Encoder = fn(&[u8]) -> Vec<u8>;

fn in_both() -> Vec<Case> {
    let both: [(&str, Encoder); 2] = [("gzip", gzip), ("zstd", zstd)];
    let cases = both.into_iter().flat_map(|(encoding, encode)| {
        let case =
            |name: &str, text: &[u8], expected| coded(encoding, name, encode(text), expected);
        let as_sent = |name: &str, body, expected| coded(encoding, name, body, expected);
        let sent = encode(GOOD);
        let mut changed = sent.clone();
        changed[sent.len() / 2] ^= 0x10;
        vec![
            case("as clients send it", GOOD, M),
            case("in chunks", GOOD, M).chunked(),
            case("another model", br#"{"model":"n"}"#, UNSCOPED),
            case("no model", b"{}", ABSENT),
            case("two models", br#"{"model":"m","model":"n"}"#, REPEATED),
            case("a byte order mark", "\u{feff}{\"model\":\"m\"}".as_bytes(), M),
            case("nothing", b"", ENDS_EARLY),
            case("twice", &encode(GOOD), BAD_JSON),
            case("100 KB of noise", &noise(100_000), M),
            case("50 times as long", &[&noise(10_000)[..], &vec![b' '; 300_000]].concat(), M),
            case("a bomb of 20 MB", &blanks(20_000_000), TOO_DENSE),
            as_sent("said to be", GOOD.to_vec(), DAMAGED),
            as_sent("a bit of it changed", changed, DAMAGED),
            as_sent("without its end", sent[..sent.len() - 9].to_vec(), Err("The compressed body")),
            as_sent("a byte behind it", [&sent, &b"\0"[..]].concat(), Err("The compressed body")),
            as_sent("twice in a row", [&*sent, &sent].concat(), DAMAGED),
            as_sent("then another model", [sent, encode(br#"{"model":"n"}"#)].concat(), DAMAGED),
        ]
    });
    cases.collect()
}

fn in_gzip() -> Vec<Case> {
    let deflated = compress_to_vec(GOOD, 6);
    let with = |flags, optional| member(flags, optional, &deflated, GOOD);
    let case = |name, body, expected| coded("gzip", name, body, expected);
    let long = [&gzip(b"")[..10], &noise(400_000), &(33_u32 << 20).to_le_bytes()].concat();
    let stored = [&[1][..], &4073_u16.to_le_bytes(), &(!4073_u16).to_le_bytes()].concat();
    let whole = member(0, b"", &[stored, noise(4073)].concat(), &noise(4073));
    let empty = [b"\0\0\0\xff\xff".repeat(5000), deflated.clone()].concat();
    vec![
        case("with a name", with(8, b"a.json\0"), OPTIONAL),
        case("with a comment", with(16, b"a\0"), OPTIONAL),
        case("with an extra field", with(4, b"\x01\0x"), OPTIONAL),
        case("with a checksum of its header", with(2, b"\0\0"), OPTIONAL),
        case("said to be text", with(1, b""), OPTIONAL),
        case("with a reserved flag", with(0x20, b""), DAMAGED),
        case(
            "longer than it says",
            member(0, b"", &compress_to_vec(&blanks(1 << 20), 6), GOOD),
            DAMAGED,
        ),
        case("33 MiB", long, TOO_LONG),
        case("small blocks", member(0, b"", &empty, GOOD), SMALL_BLOCKS),
        case("where showing may have ended", whole.clone(), NO_LENGTH).chunked(),
        case("where showing may have ended, with its length", whole, M),
    ]
}

fn in_zstd() -> Vec<Case> {
    let case = |name, body, expected| coded("zstd", name, body, expected);
    let header = |kind: u32, size: usize, last: u32| {
        ((size as u32) << 3 | kind << 1 | last).to_le_bytes()[..3].to_vec()
    };
    let frame = |head: &[u8], blocks: &[u8]| [b"\x28\xb5\x2f\xfd", head, blocks].concat();
    let raw = |text: &[u8]| [&header(0, text.len(), 1), text].concat();
    let skipped = b"\x50\x2a\x4d\x18\x02\0\0\0ab";
    let repeated = [header(1, 128 << 10, 0), b" ".to_vec()].concat();
    let bomb = [repeated.repeat(64), header(1, 128 << 10, 1), b" ".to_vec()].concat();
    let empty = [header(0, 0, 0).repeat(5000), raw(GOOD)].concat();
    vec![
        case("without a length or a checksum", frame(&[0, 0], &raw(GOOD)), M),
        case("with a dictionary", frame(&[1, 0, 7], &raw(GOOD)), OPTIONAL),
        case("a window of 8 MiB", frame(&[0, 13 << 3], &raw(GOOD)), M),
        case("a window of 9 MiB", frame(&[0, 13 << 3 | 1], &raw(GOOD)), OPTIONAL),
        case("a frame to skip before it", [skipped, &*zstd(GOOD)].concat(), DAMAGED),
        case("a frame to skip behind it", [&*zstd(GOOD), skipped].concat(), DAMAGED),
        case("8 MiB out of 300 bytes", frame(&[0, 0x68], &bomb), TOO_DENSE),
        case("small blocks", frame(&[0, 0], &empty), SMALL_BLOCKS),
    ]
}
