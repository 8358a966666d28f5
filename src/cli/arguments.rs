//! Parses the arguments. An error does not repeat what may be a secret in the wrong place.

use clap::{
    Parser,
    error::{ContextKind, ContextValue, Error, ErrorKind},
};

use super::output;
use crate::legible::without_secrets;

/// Replaces an argument that is not repeated.
const WITHHELD: &str = "…";
const NOTE: &str = "note: the argument is not repeated, because it may be a secret";
/// No option or command has a longer name, not even a misspelt one.
const LONGEST_NAME: usize = 24;

/// Parses the arguments of this process. Returns help or version as an error, and `None` if the
/// arguments are wrong and that was reported.
pub(super) fn parse<C: Parser>() -> Result<C, Option<Error>> {
    C::try_parse().map_err(|error| {
        if !error.use_stderr() {
            return Some(error);
        }
        output::complain_as(&message(error));
        None
    })
}

/// The message of clap, without values and without anything that cannot be the name of an option or a
/// command.
fn message(mut error: Error) -> String {
    let mut withheld = withhold(&mut error, ContextKind::InvalidValue, |_| false);
    withheld |= withhold(&mut error, ContextKind::InvalidSubcommand, is_name);
    if error.kind() == ErrorKind::UnknownArgument {
        withheld |= withhold(&mut error, ContextKind::InvalidArg, is_name);
    }
    if withheld {
        // The suggestion would repeat the argument.
        error.remove(ContextKind::Suggested);
    }
    let text = error.render().to_string();
    let text = text.trim_end();
    // The message of a value's own parser may hold a secret as well.
    let clean = without_secrets(text);
    if withheld || clean != text { format!("{clean}\n\n{NOTE}") } else { clean }
}

/// Removes an argument from the message unless it is harmless. Returns whether it was removed.
fn withhold(error: &mut Error, kind: ContextKind, harmless: fn(&str) -> bool) -> bool {
    let secret = match error.get(kind) {
        Some(ContextValue::String(text)) => !text.is_empty() && !harmless(text),
        Some(ContextValue::Strings(texts)) => !texts.iter().all(|text| harmless(text)),
        _ => false,
    };
    if secret {
        error.insert(kind, ContextValue::String(WITHHELD.to_owned()));
    }
    secret
}

/// Whether a text may be the name of an option or a command, perhaps misspelt.
fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    /// The message about wrong arguments; `None` if they are accepted.
    fn complaint(arguments: &[&str]) -> Option<String> {
        Cli::try_parse_from([&["patgate"], arguments].concat()).err().map(message)
    }

    /// A secret in every place where an argument can stand.
    #[test]
    fn no_secret_is_repeated_wherever_it_stands() {
        let token = format!("pat_{}", "aB3dE5fG7".repeat(9));
        for secret in [token.as_str(), "hunter2", "Correct-Horse", "-hunter2", "--hunter2=x"] {
            for before in [
                &[][..],
                &["token"],
                &["token", "show"],
                &["token", "show", "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"],
                &["user", "list"],
                &["user", "show"],
                &["domain", "show"],
                &["backend", "credential", "set"],
                &["backend", "credential", "set", "model-acme"],
                &["backend", "credential", "set", "model-acme", "--scheme"],
                &["token", "create", "laptop", "--user"],
                &["token", "create", "laptop", "--scope"],
                &["token", "create", "laptop", "--expires-in"],
                &["role", "create", "acme"],
                &["audit", "list", "--limit"],
                &["--output"],
                &["completions"],
                &["config"],
            ] {
                let Some(told) = complaint(&[before, &[secret]].concat()) else {
                    // It is a slug as well.
                    assert_eq!(secret, "hunter2", "{before:?}");
                    continue;
                };
                let bare = secret.trim_matches('-').split('=').next().unwrap();
                assert!(!told.contains(bare), "{before:?} {secret}: {told}");
            }
        }
    }

    #[test]
    fn the_two_meanings_of_admin_lead_to_each_other() {
        for (arguments, named) in [
            (&["admin"][..], "`patgate config check --self-service` checks its settings"),
            (&["config", "check"], "those for `patgate admin` are checked by `--self-service`"),
        ] {
            let arguments = [&["patgate"], arguments, &["--help"]].concat();
            let help = Cli::try_parse_from(arguments).err().unwrap().to_string();
            let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(help.contains(named), "{help}");
        }
    }

    #[test]
    fn a_misspelt_name_is_repeated() {
        let complaint = |arguments: &[&str]| complaint(arguments).unwrap();
        let told = complaint(&["token", "create", "t", "--expire-in", "1h"]);
        assert!(told.contains("'--expire-in'") && told.contains("'--expires-in'"), "{told}");
        assert!(complaint(&["tokens"]).contains("'tokens'"));
        let told = complaint(&["user", "show", "ann"]);
        assert!(told.contains("'<USER>'") && told.contains("e-mail address"), "{told}");
        assert!(told.ends_with(NOTE), "{told}");
    }
}
