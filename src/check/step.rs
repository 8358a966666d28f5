//! Which of the gateway's checks of a request is made.

/// A gateway asks once about each request, or twice: first without its body, and again with it if
/// the first answer says that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckStep {
    /// The only one. What it is not shown of a body, it will not be shown.
    Only,
    /// The first of two. Nothing is shown of the body yet.
    First,
    /// The second of two. It decides anew, and rests on nothing that the first has found.
    Second,
}

impl CheckStep {
    /// What the gateway says of itself in the metadata `patgate-step` of the call. `None` if it says
    /// something else: a mistake in its configuration.
    pub(crate) fn parse(said: Option<&[u8]>) -> Option<Self> {
        match said {
            None => Some(Self::Only),
            Some(b"first") => Some(Self::First),
            Some(b"second") => Some(Self::Second),
            Some(_) => None,
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
