//! Which of the gateway's checks of a request this is.

/// A gateway asks once about each request, or twice: first without its body, and again with it if
/// the first answer says that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckStep {
    /// The only check. The gateway will not show more of the body than now.
    Only,
    /// The first of two. The gateway shows nothing of the body yet.
    First,
    /// The second of two. It decides again from the beginning, and uses nothing from the first.
    Second,
}

impl CheckStep {
    /// Parses the metadata `patgate-step` of the call. Returns `None` for any other value, which is
    /// an error in the gateway's configuration.
    pub(crate) fn parse(said: Option<&[u8]>) -> Option<Self> {
        match said {
            None => Some(Self::Only),
            Some(b"first") => Some(Self::First),
            Some(b"second") => Some(Self::Second),
            Some(_) => None,
        }
    }

    /// Returns the word for a step of two; `None` for the only check.
    pub(crate) fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Only => None,
            Self::First => Some("first"),
            Self::Second => Some("second"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_said_in_one_way() {
        for (said, step) in [
            (None, Some(CheckStep::Only)),
            (Some("first"), Some(CheckStep::First)),
            (Some("second"), Some(CheckStep::Second)),
            (Some(""), None),
            (Some("First"), None),
            (Some("first,second"), None),
            (Some("only"), None),
        ] {
            assert_eq!(CheckStep::parse(said.map(str::as_bytes)), step, "{said:?}");
        }
    }
}
