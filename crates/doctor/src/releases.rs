//! The last release of each line of Envoy that this program knows.

/// The day on which the table was made.
pub(crate) const AS_OF: &str = "2026-11-30";

/// Line, last patch release, and its day, from the version history at envoyproxy.io. Lines before the
/// first one get no more fixes.
const LAST: &[(u64, u64, &str)] = &[
    (37, 10, "2026-10-22"),
    (38, 9, "2026-10-26"),
    (39, 5, "2026-10-22"),
    (40, 0, "first of its line"),
];

/// Says why a version is outdated; `None` if it is not, or is newer than the table.
pub(crate) fn outdated([major, minor, patch]: [u64; 3]) -> Option<String> {
    let version = format!("Envoy {major}.{minor}.{patch}");
    if major != 1 {
        return None;
    }
    if LAST.first().is_some_and(|(first, ..)| minor < *first) {
        return Some(format!("{version}: its line gets no more fixes (as of {AS_OF})"));
    }
    let (_, last, day) = LAST.iter().find(|(line, ..)| *line == minor)?;
    (patch < *last).then(|| {
        format!(
            "{version}: the last release of its line is 1.{minor}.{last} of {day} (as of {AS_OF})"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_compared_within_its_line() {
        assert!(outdated([1, 36, 13]).is_some() && outdated([1, 38, 8]).is_some());
        assert!(outdated([1, 38, 9]).is_none() && outdated([1, 41, 0]).is_none());
    }
}
