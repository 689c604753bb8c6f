//! What stands behind a label in a print: the reason of a block by its name or its number, a field of a request. Pure.

use memchr::memmem;

use crate::scan::Finish;

/// Whether a print names a reason for which nothing is answered: `finish_reason: FinishReason.SAFETY`, `blocked: prompt:
/// BlockReasonProhibitedContent` (of Go's client), `API error: IMAGE_SAFETY`.
pub(super) fn names_block(text: &str) -> bool {
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    // The bound keeps a hostile text from being read again and again.
    ["eason", "rror: "].iter().any(|label| {
        memmem::find_iter(text.as_bytes(), label.as_bytes()).take(32).any(|at| {
            let rest = &text.as_bytes()[at + label.len()..];
            let gap = rest.iter().take(8).take_while(|b| !is_word(b)).count();
            let word = &rest[gap..];
            let word = &word[..word.iter().take(32).take_while(|b| is_word(b)).count()];
            let word = std::str::from_utf8(word).unwrap_or_default();
            // Whatever blocks a prompt is a block.
            let of_prompt = text[..at].ends_with("lock_r") || text[..at].ends_with("lockR");
            // Some of the reasons are words of prose, too.
            let is_constant = word.len() > 3 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
            match *label {
                "eason" if of_prompt && is_constant => !word.ends_with("UNSPECIFIED"),
                "eason" if gap == 0 => Finish::of(&constant(word)) == Finish::Blocked,
                "eason" => is_constant && Finish::of(word) == Finish::Blocked,
                _ => gap == 0 && is_constant && Finish::of(word) == Finish::Blocked && word != "LANGUAGE",
            }
        })
    })
}

/// Whether a print has one of those reasons by its number, as protobuf's Python has it: `finish_reason: 3`, `The candidate's
/// [finish_reason](https://…) is 4.`
///
/// The numbers are those of `google.ai.generativelanguage.v1beta.Candidate.FinishReason`, read 2026-11.
pub(super) fn numbers_block(text: &str) -> bool {
    const LABEL: &str = "finish_reason";
    memmem::find_iter(text.as_bytes(), LABEL.as_bytes()).take(32).any(|at| {
        let rest = &text[at + LABEL.len()..];
        let link = rest.strip_prefix("](").and_then(|link| link.split_once(')'));
        let rest = link.filter(|(url, _)| url.len() < 120).map_or(rest, |(_, rest)| rest);
        let rest = rest.trim_start_matches(['`', '"', '\'']);
        let number =
            [": ", " is ", "=", ":"].iter().find_map(|mark| rest.strip_prefix(mark)).unwrap_or_default();
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        let is_whole = match &number.as_bytes()[digits..] {
            [b'.', b'0'..=b'9', ..] => false,
            [next, ..] => !next.is_ascii_alphanumeric() && *next != b'_',
            [] => true,
        };
        // SAFETY, RECITATION, LANGUAGE to SPII, IMAGE_SAFETY.
        is_whole && matches!(number[..digits].parse(), Ok(3 | 4 | 6..=9 | 11))
    })
}

/// Whether a line says what is wrong with a field of a request: `* BatchEmbedContentsRequest.requests: at most 100 requests can be
/// in one batch`.
pub(super) fn names_field(text: &str) -> bool {
    const LABEL: &str = "Request.";
    // The bound keeps a hostile text from being read again and again.
    memmem::find_iter(text.as_bytes(), LABEL.as_bytes()).take(32).any(|at| {
        let name =
            text.as_bytes()[..at].iter().rev().take(64).take_while(|b| b.is_ascii_alphanumeric()).count();
        let before = &text[..at - name];
        let path = &text.as_bytes()[at + LABEL.len()..];
        let is_path = |b: &&u8| b.is_ascii_alphanumeric() || b"_.[]".contains(b);
        let len = path.iter().take(128).take_while(is_path).count();
        before.ends_with("* ") && name > 0 && len > 0 && path[len..].starts_with(b": ")
    })
}

/// `ProhibitedContent` as `PROHIBITED_CONTENT`.
fn constant(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 2);
    for (at, c) in camel.char_indices() {
        if at > 0 && c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}
