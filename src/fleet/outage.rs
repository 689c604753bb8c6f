//! What members do without a store.

/// What members do while the store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Outage {
    /// Keeps to the part that it had: the fleet sends at most half of the limit for two windows, then half of that
    /// each two windows, and nothing after twenty. A member that never reached the store sends nothing. No window ever
    /// holds more than the limit. The default.
    #[default]
    Strict,
    /// Keeps to `share` of the limit by the number of members, for as long as it takes. While `m` of `n` members are cut
    /// off from a store that others reach, a window may hold `1 + share · m / n` times the limit.
    #[non_exhaustive]
    Share {
        /// Of the limit, above 0 and up to 1.
        share: f64,
        /// How many members there are, for one that never reached the store.
        members: u32,
    },
    /// Sends nothing as soon as the store does not answer.
    Closed,
    /// Each member keeps the whole limit for itself, as without a store: a window may hold as many times the limit as
    /// there are members.
    Local,
}

impl Outage {
    /// [`Outage::Share`] of this share, for a fleet of so many members where nobody has told yet.
    #[must_use]
    pub const fn share(share: f64, members: u32) -> Self {
        Self::Share { share, members }
    }
}
