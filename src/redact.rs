//! Keys and tokens are taken out of texts that are printed. Pure.

use std::borrow::Cow;

/// Whether a name out of a body has one of Google's keys or tokens in it, which no name does.
pub(crate) fn holds_key(name: &str) -> bool {
    let bytes = name.as_bytes();
    // A key has forty characters and more. Of each marker the rarest one is looked for.
    let marked = |marker: &[u8], rare: usize| {
        memchr::memchr_iter(marker[rare], bytes)
            .any(|at| at >= rare && bytes[at - rare..].starts_with(marker))
    };
    bytes.len() > 20
        && (marked(b"AIza", 1) || marked(b"AQ.", 1) || marked(b"ya29.", 3) || marked(b"api_key:", 7))
}

/// Replaces everything in `text` that looks like a key or a bearer token.
///
/// Google echoes the caller's key in some messages (`Consumer 'api_key:…' has been suspended`). Replaced are
/// Google's own key and token forms (`AIza…`, `AQ.…`, `ya29.…`) wherever they stand, and whatever follows
/// `api_key:`, `key=`, `token=`, `API key: ` or `Bearer `.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    // (marker, whether the marker is part of the secret, least length of a secret behind it)
    const MARKERS: [(&str, bool, usize); 10] = [
        ("AIza", true, 10),
        ("ya29.", true, 10),
        ("AQ.", true, 16),
        ("api_key:", false, 1),
        ("apikey:", false, 1),
        ("x-goog-api-key: ", false, 1),
        ("key=", false, 1),
        ("token=", false, 1),
        ("API key: ", false, 4),
        ("Bearer ", false, 12),
    ];
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    // Most bytes begin no marker, in either case.
    let may_begin = |b: &u8| matches!(b | 0x20, b'a' | b'b' | b'k' | b't' | b'x' | b'y');
    while let Some(skipped) = bytes[at..].iter().position(may_begin) {
        at += skipped;
        let hit = MARKERS.iter().find_map(|&(marker, whole, least)| {
            let head = bytes.get(at..at + marker.len())?;
            if !head.eq_ignore_ascii_case(marker.as_bytes()) {
                return None;
            }
            let start = if whole { at } else { at + marker.len() };
            let secret = |b: &&u8| b.is_ascii_alphanumeric() || b"-_.~+/%".contains(*b);
            let len = bytes[start..].iter().take_while(secret).count();
            let body = if whole { len - marker.len() } else { len };
            (body >= least).then_some((start, start + len))
        });
        match hit {
            Some((start, end)) => {
                out.push_str(&text[copied..start]);
                out.push_str("[redacted]");
                (copied, at) = (end, end);
            }
            None => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_replaced_wherever_they_stand() {
        for (text, clean) in [
            ("Consumer 'api_key:AIzaSyD-0123456789abcdefg' gone", "Consumer 'api_key:[redacted]' gone"),
            ("see https://x/y?key=abc123&alt=sse", "see https://x/y?key=[redacted]&alt=sse"),
            ("Invalid API key: k-1234", "Invalid API key: [redacted]"),
            ("authorization: Bearer ya29.a0AfH6SMBx_y", "authorization: Bearer [redacted]"),
            ("AIzaSyD0123456789", "[redacted]"),
        ] {
            assert_eq!(redact(text), clean);
        }
        for (text, clean) in [("AIza012345678", "AIza012345678"), ("AIza0123456789", "[redacted]")] {
            assert_eq!(redact(text), clean, "ten more at the least");
        }
        let innocent = "API key not valid. Please pass a valid API key.";
        assert!(matches!(redact(innocent), Cow::Borrowed(_)));
    }

    #[test]
    fn a_name_that_holds_a_key_is_longer_than_twenty() {
        for (name, holds) in [
            ("AIza0123456789012345", false),
            ("AIza01234567890123456", true),
            ("AIxa01234567890123456", false),
            ("models/AQ.012345678901", true),
            ("models/ya29.0123456789", true),
            ("see api_key:0123456789", true),
        ] {
            assert_eq!(holds_key(name), holds, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_key_never_survives(before in ".{0,20}", key in "AIza[A-Za-z0-9_-]{35}", after in "[ '\"&,].{0,20}") {
            let text = format!("{before}{key}{after}");
            prop_assert!(!redact(&text).contains(&key[4..]));
        }
    }
}
