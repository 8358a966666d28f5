use miniz_oxide::deflate::compress_to_vec;
use proptest::prelude::*;
use zstd_safe::{CCtx, CParameter};

use super::{Body, BodyForm, NoModel, told};
use crate::testing::{gzip, gzip_member as member};
use crate::{
    body::{MAX_RATIO, ResourceNeed},
    refusal::CompressionFault,
};

const MALFORMED: NoModel = NoModel::Compressed(CompressionFault::Malformed);
const OPTIONAL: NoModel = NoModel::Compressed(CompressionFault::Optional);
const TOO_DENSE: NoModel = NoModel::Compressed(CompressionFault::TooDense);
const TOO_LONG: NoModel = NoModel::Compressed(CompressionFault::TooLong);
const TOO_MANY_BLOCKS: NoModel = NoModel::Compressed(CompressionFault::TooManyBlocks);
const TEXT: &[u8] = br#"{"messages":[{"role":"user","content":"Say: say, say."}],"model":"m"}"#;

fn zstd_with(text: &[u8], parameters: &[CParameter]) -> Vec<u8> {
    let mut context = CCtx::create();
    for parameter in parameters {
        context.set_parameter(*parameter).unwrap();
    }
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(text.len()));
    context.compress2(&mut frame, text).unwrap();
    frame
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd_with(text, &[CParameter::ChecksumFlag(true)])
}

fn body<'a>(encoding: &'a str, bytes: &'a [u8]) -> Body<'a> {
    let partial = Some("false");
    let media_type = Some("application/json");
    Body { bytes, partial, media_type, encoding: Some(encoding), length: None }
}

fn read(encoding: &str, bytes: &[u8]) -> Result<String, NoModel> {
    told(body(encoding, bytes).model(BodyForm::Json))
}

/// JSON of about this many bytes that compresses as chats do.
fn chat(length: usize) -> Vec<u8> {
    let mut text = br#"{"model":"m","messages":[""#.to_vec();
    let mut number = 1_u32;
    while text.len() < length {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(format!("word{} and ", number >> 20).as_bytes());
    }
    text.extend_from_slice(br#""]}"#);
    text
}

/// JSON with this many blanks.
fn blanks(length: usize) -> Vec<u8> {
    [&br#"{"model":"m""#[..], &vec![b' '; length], b"}"].concat()
}

#[test]
fn one_member_or_frame_is_read() {
    let m = Ok("m".to_owned());
    for text in [TEXT, &chat(1000), &chat(300_000), &blanks(100)] {
        for level in 0..=10 {
            let sent = member(&compress_to_vec(text, level), text);
            assert_eq!(read("gzip", &sent), m, "gzip {level}: {} bytes", text.len());
        }
        for level in [-5, 1, 3, 9] {
            for more in [CParameter::ChecksumFlag(true), CParameter::ContentSizeFlag(false)] {
                let sent = zstd_with(text, &[CParameter::CompressionLevel(level), more]);
                assert_eq!(read("zstd", &sent), m, "zstd {level}: {} bytes", text.len());
            }
        }
    }
    assert_eq!(read("GZip", &gzip(TEXT)), m);
    let untyped =
        Body { media_type: None, ..body("zstd", &zstd(TEXT)) }.model(BodyForm::JsonOfAnyType);
    assert_eq!(told(untyped), m);
    // What is inside is read as it would be without.
    assert_eq!(read("gzip", &gzip(b"{}")), Err(NoModel::Absent));
    assert_eq!(read("zstd", &zstd(br#"{"model":"m","model":"n"}"#)), Err(NoModel::Repeated));
    assert_eq!(read("gzip", &gzip(&gzip(TEXT))), Err(super::BAD_JSON));
    assert_eq!(read("gzip", &gzip(b"")), Err(super::BAD_JSON));
    assert_eq!(read("zstd", &zstd(b"")), Err(super::BAD_JSON));
}

#[test]
fn other_encodings_are_not() {
    for encoding in
        ["", "br", "deflate", "x-gzip", "compress", "gzip, gzip", "gzip,", "zstd,gzip", " gzip"]
    {
        assert_eq!(read(encoding, &gzip(TEXT)), Err(NoModel::Encoded), "{encoding}");
        // Nothing has to be shown for that.
        let body = Body { encoding: Some(encoding), ..Default::default() };
        assert_eq!(body.may_be_read(BodyForm::Json), Err(NoModel::Encoded), "{encoding}");
    }
    assert_eq!(read("gzip", &zstd(TEXT)), Err(MALFORMED));
    assert_eq!(read("zstd", &gzip(TEXT)), Err(MALFORMED));
    assert_eq!(read("gzip", TEXT), Err(MALFORMED));
    for encoding in ["gzip", "zstd"] {
        let form = Body { encoding: Some(encoding), ..Default::default() };
        assert_eq!(form.model(BodyForm::Multipart), Err(NoModel::CompressedForm));
        assert_eq!(form.model(BodyForm::Json), Err(NoModel::NotShown));
    }
}

#[test]
fn nothing_is_cut_added_or_changed() {
    for (encoding, sent) in [("gzip", gzip(TEXT)), ("zstd", zstd(TEXT))] {
        for end in 1..sent.len() {
            assert!(read(encoding, &sent[..end]).is_err(), "{encoding} {end}");
        }
        for more in [&b"\0"[..], b"{", &sent, b"\x50\x2a\x4d\x18\0\0\0\0"] {
            assert!(read(encoding, &[&sent, more].concat()).is_err(), "{encoding} {more:?}");
            assert!(read(encoding, &[more, &sent].concat()).is_err(), "{encoding} {more:?}");
        }
        let mut ignored = 0;
        for (at, bit) in (0..sent.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut changed = sent.clone();
            changed[at] ^= 1 << bit;
            let read = read(encoding, &changed);
            // Some bits say the same in another way, or nothing: the time and the system of gzip.
            let same = read.as_deref() == Ok("m");
            assert!(same || read.is_err(), "{encoding}: bit {bit} of byte {at}: {read:?}");
            let checksum = at >= sent.len() - if encoding == "gzip" { 8 } else { 4 };
            assert!(!(same && checksum), "{encoding}: bit {bit} of byte {at}");
            ignored += usize::from(same);
        }
        println!("{encoding}: {ignored} of {} bits say nothing", sent.len() * 8);
        assert!(ignored < 60, "{encoding}: {ignored}");
    }
}

#[test]
fn nothing_optional_is_read() {
    let sent = gzip(TEXT);
    for flags in 1..=u8::MAX {
        let mut sent = sent.clone();
        sent[3] = flags;
        let expected = if flags < 0x20 { OPTIONAL } else { MALFORMED };
        assert_eq!(read("gzip", &sent), Err(expected), "{flags:#x}");
    }
    let named = [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255][..], b"name\0", &sent[10..]].concat();
    assert_eq!(read("gzip", &named), Err(OPTIONAL));
    // A frame by hand: its descriptor and what belongs to it, then one raw block.
    let frame = |head: &[u8]| {
        let block = ((TEXT.len() as u32) << 3 | 1).to_le_bytes();
        [b"\x28\xb5\x2f\xfd", head, &block[..3], TEXT].concat()
    };
    let length = TEXT.len() as u8;
    for (head, expected) in [
        (&[0, 0][..], Ok("m".to_owned())),
        (&[0x20, length], Ok("m".to_owned())),
        (&[0, 13 << 3], Ok("m".to_owned())),
        (&[0, 13 << 3 | 1], Err(OPTIONAL)),
        (&[0, 31 << 3 | 7], Err(OPTIONAL)),
        (&[1, 0, 7], Err(OPTIONAL)),
        (&[1, 0, 0], Err(OPTIONAL)),
        (&[0x22, 0, 7, length], Err(OPTIONAL)),
        (&[0x08, 0], Err(MALFORMED)),
        (&[0x10, 0], Err(MALFORMED)),
        (&[0x20, length - 1], Err(MALFORMED)),
        (&[0x20, length + 1], Err(MALFORMED)),
        (&[0x04, 0], Err(MALFORMED)),
        (&[0xe0, length, 0, 0, 0, 0, 0, 0, 1], Err(OPTIONAL)),
    ] {
        assert_eq!(read("zstd", &frame(head)), expected, "{head:?}");
    }
}

#[test]
fn bombs_do_not_go_off() {
    let dense = blanks(1_000_000);
    for sent in
        [gzip(&dense), zstd(&dense), zstd_with(&dense, &[CParameter::ContentSizeFlag(false)])]
    {
        assert!(sent.len() * MAX_RATIO < dense.len());
        let encoding = if sent[0] == 0x1f { "gzip" } else { "zstd" };
        assert_eq!(read(encoding, &sent), Err(TOO_DENSE), "{encoding}");
    }
    // One that says that it is short.
    let lying = member(&compress_to_vec(&dense, 6), TEXT);
    assert_eq!(read("gzip", &lying), Err(MALFORMED));
    // Blocks that repeat one byte: 4 bytes become 128 KiB.
    let repeated = |last: u32| ((128 * 1024) << 3 | 1 << 1 | last).to_le_bytes();
    let block = [&repeated(0)[..3], b" "].concat();
    let frame = [&b"\x28\xb5\x2f\xfd\x00\x68"[..], &block.repeat(50), &repeated(1)[..3], b" "];
    assert_eq!(read("zstd", &frame.concat()), Err(TOO_DENSE));
    // Sparse enough, and too long.
    let said = 33_u32 << 20;
    let long = [&gzip(b"")[..10], &vec![0; 400_000], &said.to_le_bytes()].concat();
    assert_eq!(read("gzip", &long), Err(TOO_LONG));
    let raw = ((128 * 1024_u32) << 3).to_le_bytes();
    let raw = [&raw[..3], &vec![b' '; 128 * 1024]].concat().repeat(3);
    let blocks = [raw, block.repeat(270), repeated(1)[..3].to_vec(), b" ".to_vec()].concat();
    let unsaid = [&b"\x28\xb5\x2f\xfd\x00\x68"[..], &blocks].concat();
    assert_eq!(read("zstd", &unsaid), Err(TOO_LONG));
    let said = [&b"\x28\xb5\x2f\xfd\x80\x68"[..], &said.to_le_bytes(), &blocks].concat();
    assert_eq!(read("zstd", &said), Err(TOO_LONG));
}

#[test]
fn small_blocks_are_counted() {
    // Empty blocks, as flushing leaves them, and the text in one that is stored.
    let gzip = |empty: usize| {
        let length = TEXT.len() as u16;
        let stored = [&[1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), TEXT].concat();
        member(&[b"\0\0\0\xff\xff".repeat(empty), stored].concat(), TEXT)
    };
    let zstd = |empty: usize| {
        let last = ((TEXT.len() as u32) << 3 | 1).to_le_bytes();
        [b"\x28\xb5\x2f\xfd\0\0", &*b"\0\0\0".repeat(empty), &last[..3], TEXT].concat()
    };
    for (encoding, few, many) in
        [("gzip", gzip(60), gzip(10_000)), ("zstd", zstd(60), zstd(10_000))]
    {
        assert_eq!(read(encoding, &few).as_deref(), Ok("m"), "{encoding}");
        assert_eq!(read(encoding, &many), Err(TOO_MANY_BLOCKS), "{encoding}");
    }
}

#[test]
fn memory_is_asked_for_first_and_no_more_than_that_is_taken() {
    let text = chat(300_000);
    let unsaid = zstd_with(&text, &[CParameter::ContentSizeFlag(false)]);
    for (encoding, sent) in [("gzip", gzip(&text)), ("zstd", zstd(&text)), ("zstd", unsaid)] {
        let mut asked = 0;
        let mut pieces = 0;
        let read = body(encoding, &sent).model_with(BodyForm::Json, &mut |ask| {
            match ask {
                ResourceNeed::Memory(bytes) => asked += bytes,
                ResourceNeed::Time => pieces += 1,
            }
            Ok(())
        });
        assert_eq!(read.unwrap().as_str(), "m");
        assert!((text.len()..text.len() + 128 * 1024).contains(&asked), "{encoding}: {asked}");
        assert!(pieces > 0, "{encoding}");
        for (of, why) in [(true, NoModel::TooMuchAtOnce), (false, NoModel::NotInTime)] {
            let refuse = |ask| match ask {
                ResourceNeed::Memory(_) if of => Err(why),
                ResourceNeed::Time if !of => Err(why),
                _ => Ok(()),
            };
            let read = body(encoding, &sent).model_with(BodyForm::Json, &mut { refuse });
            assert_eq!(read.unwrap_err(), why, "{encoding}");
        }
    }
}

/// Blocks that produce no bytes also take time.
#[test]
fn time_is_asked_for_however_little_comes_out() {
    let long = [TEXT, &vec![b' '; 60_000]].concat();
    let length = long.len() as u16;
    let stored = [&length.to_le_bytes()[..], &(!length).to_le_bytes(), &long].concat();
    for (empty, expected) in [(0, 1), (1000, 1), (1100, 2)] {
        // Long enough that so many blocks are few.
        let padding = [&[0][..], &60_000_u16.to_le_bytes(), &(!60_000_u16).to_le_bytes()].concat();
        let padding = [&padding[..], &[b' '; 60_000]].concat().repeat(2);
        let deflated = [&b"\0\0\0\xff\xff".repeat(empty)[..], &padding, &[1], &stored].concat();
        let text = [&[b' '; 120_000][..], &long].concat();
        let mut looks = 0;
        let read = body("gzip", &member(&deflated, &text)).model_with(BodyForm::Json, &mut |ask| {
            looks += usize::from(matches!(ask, ResourceNeed::Time));
            Ok(())
        });
        assert_eq!((told(read).as_deref(), looks), (Ok("m"), expected), "{empty} empty blocks");
    }
}

/// If Envoy may have stopped showing the body, more may follow.
#[test]
fn one_that_ends_where_showing_does_needs_its_length() {
    let text = |length: usize| [TEXT, &vec![b' '; length - TEXT.len()]].concat();
    let deflated = |length| {
        [&[1][..], &(length as u16).to_le_bytes(), &(!(length as u16)).to_le_bytes(), &text(length)]
            .concat()
    };
    let length = 4096 - 18 - 5;
    let sent = member(&deflated(length), &text(length));
    assert_eq!(sent.len(), 4096);
    assert_eq!(read("gzip", &sent), Err(NoModel::Endless));
    let known = Body { length: Some("4096"), ..body("gzip", &sent) };
    assert_eq!(told(known.model(BodyForm::Json)).as_deref(), Ok("m"));
    let sent = member(&deflated(length - 1), &text(length - 1));
    assert_eq!(read("gzip", &sent).as_deref(), Ok("m"));
}

proptest! {
    /// A change of two bytes gives no body, or the original one.
    #[test]
    fn changes_change_no_model(at: [prop::sample::Index; 2], to: [u8; 2], is_gzip: bool) {
        let (encoding, mut sent) =
            if is_gzip { ("gzip", gzip(&chat(2000))) } else { ("zstd", zstd(&chat(2000))) };
        for (at, to) in at.iter().zip(to) {
            let length = sent.len();
            sent[at.index(length)] = to;
        }
        prop_assert!(read(encoding, &sent).is_ok_and(|model| model == "m") || read(encoding, &sent).is_err());
    }

    #[test]
    fn no_compressed_bytes_are_too_odd(bytes: Vec<u8>, is_gzip: bool) {
        let (encoding, head) =
            if is_gzip { ("gzip", &b"\x1f\x8b\x08\0\0\0\0\0\0\xff"[..]) } else { ("zstd", &b"\x28\xb5\x2f\xfd"[..]) };
        prop_assert!(read(encoding, &[head, &bytes].concat()).is_err());
    }
}
