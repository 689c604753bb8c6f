//! The name that was meant. Pure.

/// Longer names are compared by their beginning.
const MAX: usize = 64;

/// The one of `names` that is nearest to `name`, and how far it is: letters put in, left out, changed or swapped. `None`
/// where none is nearer than a third of the name's length.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<(&'a str, usize)> {
    let near = names.map(|other| (other, distance(name, other))).min_by_key(|(_, distance)| *distance);
    near.filter(|(_, distance)| *distance <= name.len() / 3)
}

/// The distance of Damerau and Levenshtein, restricted to adjacent swaps. Allocates nothing: a model that is newer than the
/// catalogue is compared with all of them at each request.
fn distance(a: &str, b: &str) -> usize {
    let cut = |text: &'_ str| text.len().min(MAX);
    let (a, b) = (&a.as_bytes()[..cut(a)], &b.as_bytes()[..cut(b)]);
    let mut before_last = [0; MAX + 1];
    let mut last: [u8; MAX + 1] = std::array::from_fn(|n| n as u8);
    for i in 1..=a.len() {
        let mut row = [i as u8; MAX + 1];
        for j in 1..=b.len() {
            let change = last[j - 1] + u8::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    usize::from(last[b.len()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slip_is_one() {
        for (a, b, n) in [
            ("", "", 0),
            ("flash", "flash", 0),
            ("flahs", "flash", 1),
            ("flsh", "flash", 1),
            ("flassh", "flash", 1),
            ("flush", "flash", 1),
            ("", "abc", 3),
            ("pro", "flash", 5),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (n, n), "{a} {b}");
        }
        let names = ["gemini-3.8-flash", "gemini-3.5-flash-lite"];
        assert_eq!(nearest("gemini-3.5-flash-lit", names.into_iter()), Some((names[1], 1)));
        assert_eq!(nearest("llama", names.into_iter()), None);
    }

    proptest! {
        #[test]
        fn it_is_a_distance(a in "[ab]{0,6}", b in "[ab]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert!(distance(&a, &b) <= a.len().max(b.len()));
            prop_assert!(distance(&a, &b) >= a.len().abs_diff(b.len()));
        }
    }
}
