//! The trace that a call is part of: `traceparent` of W3C Trace Context, version 00.

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
};

/// The position of a call in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The id of the trace, which all its calls share.
    pub trace_id: TraceId,
    /// The id of the caller's span.
    pub parent_id: SpanId,
    /// Whether the caller records the trace.
    pub sampled: bool,
}

/// The id of a trace. Its text is 32 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub NonZeroU128);

/// The id of a span. Its text is 16 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub NonZeroU64);

/// The bit of the flags that says that the caller records the trace.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// Parses a `traceparent`. Returns `None` unless it is of version 00, in lower case, and both ids
    /// are not zero: then the call is part of no trace.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut fields = value.split(|byte| *byte == b'-');
        let mut next = |digits| hexadecimal(fields.next()?, digits);
        let (version, trace, parent, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        if version != 0 || fields.next().is_some() {
            return None;
        }
        Some(Self {
            trace_id: TraceId(NonZeroU128::new(trace)?),
            parent_id: SpanId(NonZeroU64::new(u64::try_from(parent).ok()?)?),
            sampled: u8::try_from(flags).ok()? & SAMPLED != 0,
        })
    }
}

/// Reads exactly so many digits, at most 32. The library's parser would also take upper case and signs.
fn hexadecimal(field: &[u8], digits: usize) -> Option<u128> {
    if field.len() != digits {
        return None;
    }
    field.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_is_read_and_shown() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let value = format!("00-{TRACE}-{PARENT}-{flags}");
            let read = TraceContext::parse(value.as_bytes()).unwrap();
            assert_eq!(read.trace_id.to_string(), TRACE);
            assert_eq!(read.parent_id.to_string(), PARENT);
            assert_eq!(read.sampled, sampled, "{flags}");
        }
        let least = format!("00-{:032x}-{:016x}-00", 1, 1);
        let read = TraceContext::parse(least.as_bytes()).unwrap();
        assert_eq!(read.trace_id.to_string(), format!("{:032x}", 1));
    }

    #[test]
    fn anything_else_is_no_trace() {
        let upper = TRACE.to_uppercase();
        for value in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}-001"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-01-extra"),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01"),
            format!("01-{TRACE}-{PARENT}-01"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("0-{TRACE}-{PARENT}-01"),
            format!("00-{upper}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-0A"),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{PARENT}-01", &TRACE[1..]),
            format!("00-+{}-{PARENT}-01", &TRACE[1..]),
            format!("00-{}g-{PARENT}-01", &TRACE[1..]),
            format!("00-{TRACE}{PARENT}-01"),
        ] {
            assert_eq!(TraceContext::parse(value.as_bytes()), None, "{value}");
        }
        assert_eq!(TraceContext::parse(b"00-\xff"), None);
    }
}
