//! How many streams may be gone on with. Pure.

/// What the bucket holds at the most, and at first.
const MOST: u64 = 10;
/// One stream that is gone on with.
const ONE: u64 = 1_000;

/// A bucket into which each stream that ends well pays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    thousandths: u64,
    per_stream: u64,
}

impl Bucket {
    pub(super) fn new(per_stream: f64) -> Self {
        Self { thousandths: MOST * ONE, per_stream: (per_stream * ONE as f64).round() as u64 }
    }

    pub(super) fn pay(&mut self) {
        self.thousandths = (self.thousandths + self.per_stream).min(MOST * ONE);
    }

    pub(super) fn take(&mut self) -> bool {
        let left = self.thousandths.checked_sub(ONE);
        self.thousandths = left.unwrap_or(self.thousandths);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_more_than_what_was_paid_and_what_it_began_with(
            per_stream in 0..=1_000_u32,
            ends in proptest::collection::vec(any::<bool>(), 0..300),
        ) {
            let per_stream = f64::from(per_stream) / 1000.0;
            let mut bucket = Bucket::new(per_stream);
            let (mut paid, mut taken) = (0, 0);
            for good in ends {
                if good {
                    bucket.pay();
                    paid += 1;
                } else {
                    taken += u32::from(bucket.take());
                }
                prop_assert!(f64::from(taken) <= 10.0 + per_stream * f64::from(paid) + 1e-6);
            }
        }
    }
}
