//! One parser for each kind of value. An error says what was expected; the caller adds the key, the
//! source, and the text unless it is a secret.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{LogFormat, LogTo, StartRequires};
use crate::{decide::ModelReading, percent, rollout::Mode, token::Prefixes};

/// The description of a valid value, for an error.
pub(super) type ExpectedValue = String;

/// The longest path that a socket address holds on Linux, without its terminating zero.
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn address(text: &str) -> Result<Option<SocketAddr>, ExpectedValue> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        "an address and port such as `127.0.0.1:9191` or `[::]:9191`, or nothing to turn it off"
            .into()
    })
}

pub(super) fn path(text: &str) -> Result<Option<PathBuf>, ExpectedValue> {
    Ok(if text.is_empty() { None } else { Some(text.into()) })
}

pub(super) fn paths(text: &str) -> Result<Vec<PathBuf>, ExpectedValue> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let paths: Vec<_> = text.split(',').map(|path| PathBuf::from(path.trim())).collect();
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err("paths separated by commas".into());
    }
    Ok(paths)
}

pub(super) fn socket_path(text: &str) -> Result<Option<PathBuf>, ExpectedValue> {
    if text.len() > MAX_SOCKET_PATH {
        return Err(format!("a path of at most {MAX_SOCKET_PATH} bytes"));
    }
    path(text)
}

/// Requires the leading zero: YAML reads `0o660` as 432, which must not become mode 0432.
pub(super) fn mode(text: &str) -> Result<u32, ExpectedValue> {
    text.strip_prefix('0')
        .filter(|digits| digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| u32::from_str_radix(digits, 8).ok())
        .ok_or_else(|| "permissions as four octal digits, such as `0660`".into())
}

pub(super) fn duration(text: &str) -> Result<Duration, ExpectedValue> {
    humantime::parse_duration(text).map_err(|_| "a duration such as `20ms`, `30s` or `10m`".into())
}

pub(super) fn some_time(text: &str) -> Result<Duration, ExpectedValue> {
    match duration(text)? {
        Duration::ZERO => Err("a duration longer than zero".into()),
        duration => Ok(duration),
    }
}

pub(super) fn optional_time(text: &str) -> Result<Option<Duration>, ExpectedValue> {
    if text.is_empty() { Ok(None) } else { some_time(text).map(Some) }
}

pub(super) fn count<N: FromStr + PartialOrd + From<u16>>(text: &str) -> Result<N, ExpectedValue> {
    text.parse()
        .ok()
        .filter(|number| *number >= N::from(1))
        .ok_or_else(|| "a whole number of at least 1".into())
}

/// Parses a number that may be 0.
pub(super) fn count_or_none(text: &str) -> Result<u32, ExpectedValue> {
    text.parse().map_err(|_| "a whole number, or 0 for no limit".into())
}

/// Parses bytes. The suffix is required, so that the unit is always explicit.
pub(super) fn size(text: &str) -> Result<u64, ExpectedValue> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1u64 << 30)];
    units
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?.trim_end(), unit)))
        .and_then(|(number, unit)| number.parse::<u64>().ok()?.checked_mul(unit))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "a size such as `512KiB`, `64MiB` or `1GiB`".into())
}

pub(super) fn prefixes(text: &str) -> Result<Prefixes, ExpectedValue> {
    Prefixes::new(text.split(',').map(str::trim)).map_err(|error| error.to_string())
}

pub(super) fn headers_prefix(text: &str) -> Result<String, ExpectedValue> {
    let well_formed = (2..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.ends_with('-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !well_formed {
        return Err("the beginning of a header's name: a-z, 0-9 and -, ending with -".into());
    }
    if text.starts_with("x-envoy-") {
        return Err("another prefix: Envoy acts on x-envoy- headers, and strips some".into());
    }
    Ok(text.to_owned())
}

/// Parses the word of the guard. It is also written in Envoy's configuration, so it has no
/// characters that need quoting there.
pub(super) fn guard_word(text: &str) -> Result<String, ExpectedValue> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(known) {
        Ok(text.to_owned())
    } else {
        Err("a word of 1 to 64 letters, digits, `.`, `_` and `-`".into())
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, ExpectedValue> {
    match text {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err("`json` or `text`".into()),
    }
}

pub(super) fn rollout_mode(text: &str) -> Result<Mode, ExpectedValue> {
    text.parse().map_err(|_| "`enforce`, `per-domain` or `shadow`".into())
}

pub(super) fn model_reading(text: &str) -> Result<ModelReading, ExpectedValue> {
    text.parse().map_err(|_| "`when-needed` or `always`".into())
}

pub(super) fn log_to(text: &str) -> Result<LogTo, ExpectedValue> {
    match text {
        "" => Err("`stdout`, `none` or the path of a file".into()),
        "none" => Ok(LogTo::Nowhere),
        "stdout" => Ok(LogTo::Stdout),
        path => Ok(LogTo::File(path.into())),
    }
}

/// Parses a percentage as a number from 0 to 1.
pub(super) fn percentage(text: &str) -> Result<f64, ExpectedValue> {
    percent::number::<f64>(text)
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "a percentage such as `1%`, `0.1%` or `100%`".into())
}

/// Parses the filter of the log.
///
/// A lone word must be a level, although `EnvFilter` takes any other word as a target: a typo such as
/// `warning` would enable a target that does not exist, and nothing else.
pub(crate) fn log_filter(text: &str) -> Result<String, ExpectedValue> {
    let is_level = |word: &str| LevelFilter::from_str(word).is_ok();
    let mut directives = text.split(',').filter(|directive| !directive.is_empty()).peekable();
    let is_some = directives.peek().is_some();
    if is_some
        && directives.all(|directive| directive.contains('=') || is_level(directive))
        && EnvFilter::try_new(text).is_ok()
    {
        Ok(text.to_owned())
    } else {
        Err("a level (`off`, `error`, `warn`, `info`, `debug`, `trace`) or `target=level` pairs, \
             separated by commas; a target without a level needs one, such as `patgate=debug`"
            .into())
    }
}

pub(super) fn start_requires(text: &str) -> Result<StartRequires, ExpectedValue> {
    match text {
        "none" => Ok(StartRequires::Nothing),
        "postgres" => Ok(StartRequires::Postgres),
        "all" => Ok(StartRequires::All),
        _ => Err("`none`, `postgres` or `all`".into()),
    }
}

pub(super) fn relay(text: &str) -> Result<bool, ExpectedValue> {
    match text {
        "redis" => Ok(true),
        "off" => Ok(false),
        _ => Err("`redis` or `off`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: PartialEq + std::fmt::Debug>(
        parse: fn(&str) -> Result<T, ExpectedValue>,
        good: &[(&str, T)],
        bad: &[&str],
    ) {
        for (text, value) in good {
            assert_eq!(parse(text).as_ref(), Ok(value), "{text}");
        }
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers() {
        check(
            size,
            &[("1KiB", 1024), ("64MiB", 64 << 20), ("2 GiB", 2 << 30)],
            &["", "64", "0MiB", "-1MiB", "64MB", "64mib", "1.5GiB", "99999999999GiB"],
        );
        check(
            mode,
            &[("0660", 0o660), ("0777", 0o777)],
            &["", "660", "432", "0o660", "0888", "00660", "1777", "0+66"],
        );
        check(
            percentage,
            &[("1%", 0.01), ("0%", 0.0), ("12.5%", 0.125), ("100%", 1.0)],
            &["", "1", "%", "-1%", "101%", "1%%", "1e1%", "inf%", "NaN%", "half"],
        );
        check(count::<u32>, &[("1", 1), ("8", 8)], &["", "0", "-1", "1.0", "many", "4294967296"]);
        check(some_time, &[("20ms", Duration::from_millis(20))], &["", "0s", "20", "-1s", "soon"]);
    }

    #[test]
    fn texts() {
        check(
            headers_prefix,
            &[("x-", "x-".into()), ("acme-id-", "acme-id-".into())],
            &["", "-", "x", "X-", "x_", "1-", "x-envoy-", ":x-"],
        );
        let long_word = "w".repeat(65);
        check(
            guard_word,
            &[("gateway-7", "gateway-7".into()), ("A._-9", "A._-9".into())],
            &["", " ", "a b", "a\"", "ü", &long_word],
        );
        check(
            log_filter,
            &[
                ("info", "info".into()),
                ("off", "off".into()),
                ("WARN", "WARN".into()),
                ("warn,patgate=debug", "warn,patgate=debug".into()),
                ("info,[check{request_id=a}]=debug", "info,[check{request_id=a}]=debug".into()),
            ],
            &["", ",", "patgate=loud", "warning", "debgu", "patgate", "info,patgate", "warn debug"],
        );
        check(
            address,
            &[("", None), ("[::1]:1", "[::1]:1".parse().ok())],
            &["9191", "localhost:9191", "127.0.0.1"],
        );
        check(
            log_to,
            &[
                ("stdout", LogTo::Stdout),
                ("none", LogTo::Nowhere),
                ("/var/log/decisions", LogTo::File("/var/log/decisions".into())),
            ],
            &[""],
        );
        check(rollout_mode, &[("per-domain", Mode::PerDomain)], &["", "off", "Shadow"]);
        check(paths, &[("", vec![]), ("a, b", vec!["a".into(), "b".into()])], &[",", "a,", "a,,b"]);
        let long = "x".repeat(108);
        check(
            socket_path,
            &[("", None), ("/run/patgate.sock", Some("/run/patgate.sock".into()))],
            &[&long],
        );
    }
}
