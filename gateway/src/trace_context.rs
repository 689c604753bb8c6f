//! The trace that a call belongs to, by the field `traceparent` of [W3C Trace Context](https://www.w3.org/TR/trace-context/) (level 1, read
//! 2026-11).
//!
//! A call that brings one goes on in the same trace under a span of the gateway's; `tracestate` is passed on as it came. A `traceparent` that
//! breaks the rules is taken out together with `tracestate`, as the recommendation has it. A call that brings none gets one with `--otlp` only:
//! otherwise there is nobody who would know the trace.

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Sampled, and of level 2, that the id is random. Others must not be passed on by who does not know them.
const KNOWN: u8 = 0b11;

/// A trace, and the span in it that comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: u128,
    pub span: u64,
    pub flags: u8,
}

impl TraceContext {
    /// `None` where the text breaks the rules. Of a version to come the part counts that is known.
    pub fn parse(text: &str) -> Option<Self> {
        let version = hex(text.get(..2)?).filter(|version| *version != 0xff)?;
        let ends = match version {
            0 => text.len() == 55,
            _ => text.len() == 55 || text.as_bytes().get(55) == Some(&b'-'),
        };
        let mut parts = text.get(2..55)?.strip_prefix('-')?.splitn(3, '-');
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        if !ends || (trace.len(), span.len(), flags.len()) != (32, 16, 2) {
            return None;
        }
        let trace = hex(trace).filter(|trace| *trace != 0)?;
        let span = hex(span).filter(|span| *span != 0)? as u64;
        Some(Self { trace, span, flags: hex(flags)? as u8 & KNOWN })
    }

    /// Takes the fields of a request that must not be passed on as they are. What the caller says of its trace.
    pub fn take(headers: &mut HeaderMap) -> Option<Self> {
        // The usual call has none, and pays one look.
        headers.get(TRACEPARENT)?;
        let mut all = headers.get_all(TRACEPARENT).iter();
        let first = all.next().and_then(|value| value.to_str().ok()).filter(|_| all.next().is_none());
        let found = first.and_then(|text| Self::parse(text.trim()));
        if found.is_none() {
            headers.remove(TRACEPARENT);
            headers.remove(TRACESTATE);
        }
        found
    }

    /// Says in these fields that the request is of this trace and comes from this span.
    pub fn put(&self, headers: &mut HeaderMap) {
        let Self { trace, span, flags } = self;
        if let Ok(value) = HeaderValue::try_from(format!("00-{trace:032x}-{span:016x}-{flags:02x}")) {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// The trace's id as it is written.
    pub fn id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// Hexadecimal digits in lower case, and nothing else.
fn hex(text: &str) -> Option<u128> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_recommendation_is_read_and_what_breaks_its_rules_is_not() {
        let read = TraceContext::parse(GIVEN).unwrap();
        assert_eq!(
            (read.id().as_str(), read.span),
            ("4bf92f3577b34da6a3ce929d0e0e4736", 0x00f0_67aa_0ba9_02b7)
        );
        assert_eq!(read.flags, 1);
        let later = format!("cc{}-what-the-future-will-be-like", &GIVEN[2..]);
        assert_eq!(TraceContext::parse(&later), Some(read));
        for broken in [
            String::new(),
            format!("ff{}", &GIVEN[2..]),
            format!("{GIVEN}-more"),
            format!("cc{}.what", &GIVEN[2..]),
            GIVEN.to_uppercase(),
            GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GIVEN.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GIVEN.replace("-01", "-0g"),
            GIVEN.replace("00f0", "+0f0"),
            GIVEN.replace("4bf9", "4bf-9"),
            "ä".repeat(40),
        ] {
            assert_eq!(TraceContext::parse(&broken), None, "{broken}");
        }
    }

    #[test]
    fn two_fields_and_a_broken_one_take_the_state_with_them() {
        let given = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACEPARENT, HeaderValue::from_static(value));
            }
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            (TraceContext::take(&mut headers).is_some(), headers.len())
        };
        assert_eq!(given(&[GIVEN]), (true, 2));
        assert_eq!(given(&[GIVEN, GIVEN]), (false, 0));
        assert_eq!(given(&["no"]), (false, 0));
        assert_eq!(given(&[]), (false, 1), "without a parent it is nobody's business");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_panics(
            trace in 1_u128.., span in 1_u64.., flags in 0_u8..=KNOWN, text in "\\PC{0,60}",
        ) {
            let context = TraceContext { trace, span, flags };
            let mut headers = HeaderMap::new();
            context.put(&mut headers);
            prop_assert_eq!(TraceContext::take(&mut headers), Some(context));
            let _ = TraceContext::parse(&text);
        }
    }
}
