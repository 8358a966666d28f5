//! Moments, as people read them.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::clock::WallClock;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A moment of the database, in UTC. The script shows it in the visitor's own time.
pub(super) fn moment(at: &str) -> Markup {
    html! { time datetime=(at) { (words(at)) } }
}

/// A moment, and how far away it is.
pub(super) fn distance(at: &str) -> Markup {
    let away = at.parse::<Timestamp>().map(|at| away(at, WallClock::read().now));
    match away {
        Ok(away) => html! { time datetime=(at) title=(words(at)) { (away) } },
        Err(_) => moment(at),
    }
}

fn words(at: &str) -> String {
    match at.parse::<Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => at.to_owned(),
    }
}

fn away(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.as_second() - now.as_second();
    let rounded = |unit: i64| (seconds.abs() + unit / 2) / unit;
    let length = match (rounded(MINUTE), rounded(HOUR)) {
        (0, _) => "less than a minute".to_owned(),
        (minutes @ ..60, _) => count(minutes, "minute"),
        (_, hours @ ..24) => count(hours, "hour"),
        _ => count(rounded(DAY), "day"),
    };
    if seconds < 0 { format!("{length} ago") } else { format!("in {length}") }
}

/// A number of things.
pub(super) fn count(number: impl TryInto<u64>, unit: &str) -> String {
    let number = number.try_into().unwrap_or_default();
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_rounded() {
        let now: Timestamp = "2030-01-31T12:00:00Z".parse().unwrap();
        for (at, words) in [
            ("2030-01-31T12:00:29Z", "in less than a minute"),
            ("2030-01-31T12:00:30Z", "in 1 minute"),
            ("2030-01-31T12:59:29Z", "in 59 minutes"),
            ("2030-01-31T12:59:30Z", "in 1 hour"),
            ("2030-02-01T11:30:00Z", "in 1 day"),
            ("2030-03-02T11:59:00Z", "in 30 days"),
            ("2030-01-31T10:00:00Z", "2 hours ago"),
            ("2030-01-30T12:00:00Z", "1 day ago"),
        ] {
            assert_eq!(away(at.parse().unwrap(), now), words, "{at}");
        }
        assert_eq!(words("2030-01-31T12:00:59.5Z"), "2030-01-31 12:00 UTC");
        assert_eq!(words("<b>"), "<b>");
    }
}
