//! Escapes or removes text that would mislead a reader or reveal a secret.

/// Returns whether a character is not shown as itself, and may change how the text around it is
/// shown: it controls a terminal, ends a line, changes the direction of writing, or is invisible.
///
/// U+200C and U+200D, which join or separate letters of some scripts and emoji, are not among them,
/// because names contain them.
pub fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Marks, embeddings, overrides and isolates of direction.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            // Line and paragraph separators.
            | '\u{2028}' | '\u{2029}'
            // Characters without a width.
            | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Tags, which can hide text.
            | '\u{e0000}'..='\u{e007f}')
}

/// Returns a client's text in the form in which the answer may repeat it: at most `most`
/// characters, without text that may be a secret, and with misleading characters escaped.
pub fn shown(text: &str, most: usize) -> String {
    // A secret is recognized by its length, so more text is checked than shown.
    let beginning: String = text.chars().take(most + SECRET).collect();
    let clean = without_secrets(&beginning);
    let mut shown = String::new();
    let mut characters = clean.chars();
    for character in characters.by_ref().take(most) {
        if misleads(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Returns a client's text in the form in which a log may have it: at most `most` characters,
/// without text that may be a secret. Misleading characters stay, because the log is JSON.
pub fn logged(text: &str, most: usize) -> String {
    let beginning: String = text.chars().take(most + SECRET).collect();
    without_secrets(&beginning).chars().take(most).collect()
}

/// Returns a path in the form in which a log may have it: at most `most` characters, and `…` if there
/// were more. A log is kept and an answer is not, so a whole segment is left out if it is as long as a
/// secret and of more than one kind of character, whatever separates its parts: keys and signed tokens
/// have `-`, `_` and `.` inside.
pub fn logged_path(path: &str, most: usize) -> String {
    let mut logged = String::new();
    let mut left = most;
    for (index, segment) in path.split('/').enumerate() {
        let segment = if is_secret(segment) { NOT_REPEATED } else { segment };
        for character in (index > 0).then_some('/').into_iter().chain(segment.chars()) {
            if left == 0 {
                logged.push('…');
                return logged;
            }
            logged.push(character);
            left -= 1;
        }
    }
    logged
}

/// What stands in place of a text that may be a secret.
const NOT_REPEATED: &str = "(not repeated)";

/// The number of letters and digits in a row that may be a secret.
const SECRET: usize = 40;

/// Returns whether a text has something that looks like a secret: 40 or more letters and digits in
/// a row, not all of one kind. Tokens have 73, and hexadecimal keys 40 or 64; no id and no word of
/// patgate has as many.
pub fn holds_a_secret(text: &str) -> bool {
    pieces(text).any(|(piece, _)| is_secret(piece))
}

/// Returns the text without what may be a secret.
pub fn without_secrets(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for (piece, rest) in pieces(text) {
        clean.push_str(if is_secret(piece) { NOT_REPEATED } else { piece });
        clean.push_str(rest);
    }
    clean
}

fn is_secret(piece: &str) -> bool {
    let kinds: [fn(&u8) -> bool; 3] =
        [u8::is_ascii_digit, u8::is_ascii_lowercase, u8::is_ascii_uppercase];
    let kinds = kinds.into_iter().filter(|kind| piece.as_bytes().iter().any(kind)).count();
    piece.len() >= SECRET && kinds > 1
}

/// Splits a text into rows of letters and digits, each with the text up to the next row.
fn pieces(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let of_row = |c: char| c.is_ascii_alphanumeric();
    let mut left = text;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let (piece, rest) = left.split_at(left.find(|c| !of_row(c)).unwrap_or(left.len()));
        let (gap, next) = rest.split_at(rest.find(of_row).unwrap_or(rest.len()));
        left = next;
        Some((piece, gap))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_and_what_is_only_foreign() {
        for bad in "\0\n\t\x1b\x7f\u{85}\u{9b}\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{202a}\
                    \u{202e}\u{2060}\u{2066}\u{2069}\u{feff}\u{fffb}\u{e0041}"
            .chars()
        {
            assert!(misleads(bad), "{bad:?}");
        }
        for good in "aÄ 語ע\u{200c}\u{200d}👩\u{301}".chars() {
            assert!(!misleads(good), "{good:?}");
        }
    }

    #[test]
    fn what_is_repeated_is_short_and_is_what_it_seems() {
        let token = format!("pat_{}", "aB3".repeat(25));
        let behind = format!("{}{token}", "-".repeat(98));
        for (text, expected) in [
            ("/a/b", "/a/b"),
            ("a\u{202e}b\n", "a\\u{202e}b\\u{a}"),
            (&token, "pat_(not repeated)"),
            (&"-".repeat(101), &format!("{}…", "-".repeat(100))),
            (&behind, &format!("{}pa…", "-".repeat(98))),
        ] {
            assert_eq!(shown(text, 100), expected, "{text:?}");
        }
        // An escaped character has at most ten characters.
        assert!(shown(&"\u{e0041}".repeat(9999), 100).len() < 1100);
    }

    #[test]
    fn what_is_logged_is_cut_without_a_piece_of_a_secret() {
        let token = format!("pat_{}", "aB3".repeat(25));
        for (text, expected) in [
            ("org/m-7b", "org/m-7b".to_owned()),
            ("a\u{202e}", "a\u{202e}".to_owned()),
            (&token, "pat_(not repeated)".to_owned()),
            (&format!("{}{token}", "-".repeat(90)), format!("{}pat_(not r", "-".repeat(90))),
            (&"m".repeat(300), "m".repeat(100)),
        ] {
            assert_eq!(logged(text, 100), expected, "{text}");
        }
    }

    #[test]
    fn a_logged_path_has_no_segment_that_may_be_a_secret() {
        let token = format!("pat_{}", "aB3".repeat(25));
        // Each of their rows of letters and digits is shorter than a secret.
        let key = format!("sk-proj-{}", "aB3-".repeat(10));
        let signed = format!("eyJ{0}.eyJ{0}.{0}", "hbGciOiJ9".repeat(3));
        let id = "0190f3a4-1b2c-7d3e-8f40-123456789abc";
        for (path, expected) in [
            ("/", "/".to_owned()),
            ("/proxy/acme/v9/new", "/proxy/acme/v9/new".to_owned()),
            (&format!("/proxy/{id}/v9"), format!("/proxy/{id}/v9")),
            (&format!("/a/{token}/b"), "/a/(not repeated)/b".to_owned()),
            (&format!("/a/{key}/b"), "/a/(not repeated)/b".to_owned()),
            (&format!("/a/{signed}"), "/a/(not repeated)".to_owned()),
            // One row of letters and digits is enough.
            (&format!("/a/x-{}", "0f".repeat(20)), "/a/(not repeated)".to_owned()),
            (&"/a".repeat(25), "/a".repeat(25)),
            (&"/a".repeat(26), format!("{}…", "/a".repeat(25))),
            (&format!("/a/{}", "-".repeat(50)), format!("/a/{}…", "-".repeat(47))),
            // Whatever stands where the path is cut.
            (&format!("/{}/{key}", "-".repeat(45)), format!("/{}/(no…", "-".repeat(45))),
            (&format!("/{}", "m".repeat(4000)), format!("/{}…", "m".repeat(49))),
        ] {
            let logged = logged_path(path, 50);
            assert_eq!(logged, expected, "{path}");
            assert!(logged.chars().count() <= 51, "{logged}");
        }
    }

    #[test]
    fn secrets_are_found_by_their_length() {
        let token = format!("pat_{}", "aB3".repeat(25));
        let key = format!("sk-proj_{}", "0f".repeat(32));
        for secret in [&token, &key] {
            let text = format!("user `{secret}` does not exist, näh {secret}");
            assert!(holds_a_secret(&text));
            let clean = without_secrets(&text);
            assert!(!holds_a_secret(&clean) && clean.matches("(not repeated)").count() == 2);
            assert!(clean.starts_with("user `") && clean.contains("` does not exist, näh "));
        }
        let slug = format!("{}-{}", "a1".repeat(19), "b".repeat(40));
        for text in ["", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", "/a/b.yaml: ä", &slug] {
            assert_eq!(without_secrets(text), text);
            assert!(!holds_a_secret(text));
        }
    }
}
