//! Looking for a byte that is usually near: `memchr` is the fastest on long ways, and costs some nanoseconds to
//! set out. Without this the row `answer: classify, watching` of `--bench instructions` is 565 instructions dearer, 7 %. Pure.

use memchr::{memchr2, memchr3};

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);

/// The top bit of each byte of the word that is `byte`, exact up to the first one.
const fn hits(word: u64, byte: u8) -> u64 {
    let zero = word ^ (ONES * byte as u64);
    zero.wrapping_sub(ONES) & !zero & TOPS
}

/// The first hit in the first 32 bytes; or from where on to look further.
#[inline(always)]
fn near(bytes: &[u8], hits: impl Fn(u64) -> u64) -> Result<usize, usize> {
    let mut at = 0;
    // Names, and most short values, end here.
    while let Some(word) = bytes.get(at..at + 8).filter(|_| at < 32) {
        let found = hits(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        if found != 0 {
            return Ok(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    Err(at)
}

/// Where the first of either byte is.
#[inline]
pub(crate) fn find2(a: u8, b: u8, bytes: &[u8]) -> Option<usize> {
    match near(bytes, |word| hits(word, a) | hits(word, b)) {
        Ok(n) => Some(n),
        Err(at) => memchr2(a, b, &bytes[at..]).map(|n| at + n),
    }
}

/// Where the first of any of the three bytes is.
#[inline]
pub(crate) fn find3(a: u8, b: u8, c: u8, bytes: &[u8]) -> Option<usize> {
    match near(bytes, |word| hits(word, a) | hits(word, b) | hits(word, c)) {
        Ok(n) => Some(n),
        Err(at) => memchr3(a, b, c, &bytes[at..]).map(|n| at + n),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_one_is_found_near_and_far(bytes in proptest::collection::vec(prop_oneof![
            Just(b'"'), Just(b'\\'), Just(b'#'), Just(0), Just(0xa2), Just(1), any::<u8>(), any::<u8>(), any::<u8>(),
        ], 0..60)) {
            prop_assert_eq!(find2(b'"', b'\\', &bytes), memchr2(b'"', b'\\', &bytes));
            prop_assert_eq!(find3(b'"', b'{', b'}', &bytes), memchr3(b'"', b'{', b'}', &bytes));
        }
    }
}
