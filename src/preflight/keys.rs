//! Looks for a Google API key in bytes that pass, cut anywhere. Pure.

use memchr::memmem;

/// How every key of the old form begins.
const START: &[u8] = b"AIza";
/// A whole one.
const LENGTH: usize = 39;
/// A key with the byte before it and the one after: a run of these letters that is longer is none, such as base64.
const WINDOW: usize = LENGTH + 2;

/// Finds keys of the form `AIza` and 35 more letters, digits, `-` and `_`, by themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyFinder {
    /// The last bytes that were shown, of which a key may go on in the next ones.
    kept: [u8; WINDOW - 1],
    len: u8,
    found: bool,
}

impl Default for KeyFinder {
    fn default() -> Self {
        Self { kept: [0; WINDOW - 1], len: 0, found: false }
    }
}

impl KeyFinder {
    pub(super) const fn found(&self) -> bool {
        self.found
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.found || bytes.is_empty() {
            return;
        }
        let kept = usize::from(self.len);
        let mut seam = [0; 2 * (WINDOW - 1)];
        let more = bytes.len().min(WINDOW - 1);
        seam[..kept].copy_from_slice(&self.kept[..kept]);
        seam[kept..kept + more].copy_from_slice(&bytes[..more]);
        self.found = kept > 0 && has_key(&seam[..kept + more]) || has_key(bytes);
        let all = &seam[..kept + more];
        let last = if bytes.len() >= WINDOW - 1 { bytes } else { all };
        let last = &last[last.len().saturating_sub(WINDOW - 1)..];
        self.kept[..last.len()].copy_from_slice(last);
        self.len = last.len() as u8;
    }
}

/// Whether a whole window with a key in it is here.
fn has_key(bytes: &[u8]) -> bool {
    let letter = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    // What base64 is made of beside letters: a key beside them is none.
    let joins = |b: &u8| letter(b) || matches!(b, b'+' | b'/' | b'=');
    memmem::find_iter(bytes, START).any(|at| {
        let window = at.checked_sub(1).and_then(|from| bytes.get(from..from + WINDOW));
        window.is_some_and(|window| {
            let [before, key @ .., after] = window else { return false };
            !joins(before) && key.iter().all(letter) && !joins(after)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "AIzaSyA-0123456789abcdefghijklmnopqrstu";

    fn found(text: &str, cuts: &[usize]) -> bool {
        let (mut finder, mut from) = (KeyFinder::default(), 0);
        for cut in cuts.iter().copied().chain([text.len()]) {
            finder.feed(&text.as_bytes()[from..cut]);
            from = cut;
        }
        finder.found()
    }

    #[test]
    fn a_key_by_itself_is_found_and_a_piece_of_base64_is_none() {
        for (text, key) in [
            (format!(r#"{{"text":"{KEY}"}}"#), true),
            (format!("my key is {KEY}, keep it"), true),
            (format!("{KEY} is the beginning of no body"), false),
            (format!("\"a{KEY}\""), false),
            (format!("\"{KEY}a\""), false),
            (format!("\"+{KEY}/\""), false),
            (format!("\"{}\"", &KEY[..38]), false),
            (format!("\"AIzaAIza\" \"{KEY}\""), true),
        ] {
            assert_eq!(found(&text, &[]), key, "{text}");
            for cut in 0..=text.len() {
                assert_eq!(found(&text, &[cut]), key, "{text} at {cut}");
            }
            let every: Vec<_> = (0..text.len()).collect();
            assert_eq!(found(&text, &every), key, "{text}, byte by byte");
        }
    }

    proptest! {
        #[test]
        fn where_it_is_cut_does_not_matter(
            text in "(AIza[a-z]{33,36}|[\" a+]{0,3}|AI|[a-zA-Z]{0,60}){0,8}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(found(&text, &cuts), has_key(text.as_bytes()));
        }
    }
}
