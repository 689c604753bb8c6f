//! The quotas that an answer names.

use std::fmt;

use bytes::Bytes;

use crate::redact::{holds_key, redact};

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dimension {
    /// Requests. Prints as `requests`.
    Requests,
    /// Input tokens. Prints as `tokens`.
    InputTokens,
    /// Something else: images, output tokens, enqueued tokens, spend. Prints as `other`.
    Other,
}

impl Dimension {
    /// The name, as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InputTokens => "tokens",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The window of a quota. Ordered: the widest is the greatest, and unknown is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Period {
    /// The answer does not say.
    Unknown,
    /// One second.
    Second,
    /// One minute.
    Minute,
    /// One hour.
    Hour,
    /// One day; for the Gemini API the Pacific calendar day.
    Day,
    /// One month.
    Month,
}

impl Period {
    /// The name, as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A piece of text out of a body: a share of it where it stands there, so that nothing is copied.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Piece(Bytes);

impl Piece {
    /// A share of `body` where `text` lies in it, else a copy.
    pub(crate) fn of(body: &Bytes, text: &str) -> Self {
        let (base, at) = (body.as_ptr() as usize, text.as_ptr() as usize);
        let inside = at >= base && at + text.len() <= base + body.len();
        Self(if inside {
            body.slice(at - base..at - base + text.len())
        } else {
            Bytes::copy_from_slice(text.as_bytes())
        })
    }

    /// A name, which callers print: one that holds a key, where a relay put one, is no name. Asked here and not
    /// when the verdict is made, since most names are never asked for.
    pub(crate) fn name(&self) -> Option<&str> {
        Some(self.as_str()).filter(|name| !holds_key(name))
    }

    pub(crate) fn as_str(&self) -> &str {
        // Made of a `str` above, so this never fails; the check is some nanoseconds on a failure's path.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redact(self.as_str()), f)
    }
}

/// One quota that was exceeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaViolation {
    pub(crate) metric: Option<Piece>,
    pub(crate) id: Option<Piece>,
    pub(crate) dimension: Dimension,
    pub(crate) period: Period,
    pub(crate) limit: Option<u64>,
    pub(crate) model: Option<Piece>,
    pub(crate) zero: bool,
}

impl QuotaViolation {
    /// The metric, such as `generativelanguage.googleapis.com/generate_content_free_tier_requests`. Does not
    /// tell a minute's quota from a day's.
    #[must_use]
    pub fn metric(&self) -> Option<&str> {
        self.metric.as_ref().and_then(Piece::name)
    }

    /// The quota's id, such as `GenerateRequestsPerMinutePerProjectPerModel-FreeTier`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_ref().and_then(Piece::name)
    }

    /// What it counts.
    #[must_use]
    pub const fn dimension(&self) -> Dimension {
        self.dimension
    }

    /// Over which window.
    #[must_use]
    pub const fn period(&self) -> Period {
        self.period
    }

    /// The limit, where the answer names it.
    #[must_use]
    pub const fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Whether the limit is zero: named so, or left out the way proto3's JSON leaves out zeros. Such a quota
    /// never clears.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.zero
    }

    /// The quota's own name for the model, which may differ from the one that was asked for.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_ref().and_then(Piece::name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_a_share_of_its_body_where_it_lies_in_it() {
        let body = Bytes::from_static(b"one two three");
        let text = std::str::from_utf8(&body).expect("text");
        let is_share = |piece: &Piece| body.as_ptr_range().contains(&piece.0.as_ptr());
        for part in [&text[..3], &text[4..7], &text[8..], text] {
            let piece = Piece::of(&body, part);
            assert!(piece.as_str() == part && is_share(&piece), "{part}");
        }
        // The body is the front of a larger text: what lies behind its end, or across it, is no share.
        let front = body.slice(..7);
        for part in [&text[4..9], &text[8..]] {
            let piece = Piece::of(&front, part);
            assert!(piece.as_str() == part && !is_share(&piece), "{part}");
        }
        let elsewhere = String::from("two");
        assert!(!is_share(&Piece::of(&body, &elsewhere)));
    }

    #[test]
    fn a_piece_prints_as_text_without_keys() {
        let body = Bytes::from_static(b"AIzaSyA-0123456789abcdefghijklmnopqrstu");
        let key = std::str::from_utf8(&body).expect("text");
        assert_eq!(format!("{:?}", Piece::of(&body, "model")), r#""model""#);
        let printed = format!("{:?}", Piece::of(&body, key));
        assert!(printed.len() > 2 && !printed.contains("0123456789"), "{printed}");
    }
}
