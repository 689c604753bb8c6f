//! Calls that the server failed, and whether they count. Pure.
//!
//! Whether a 503 takes of a quota is not documented. To count those that do not leaves most of the quota unused while many calls
//! fail; not to count those that do costs a few 429s. So they do not, until a 429 comes that they explain and nothing else of
//! ours does, and for ten windows after it they do.

use crate::rate_limit::window::Nanos;
use crate::request::limits::LimitKind;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forgiven {
    /// Those of this window and of the one before.
    counts: [u64; 2],
    /// When this one began.
    since: Nanos,
    /// They are charged until then.
    cost_until: Nanos,
}

impl Forgiven {
    pub(super) const fn is_free(&self, now: Nanos) -> bool {
        now >= self.cost_until
    }

    /// One more.
    pub(super) fn add(&mut self, now: Nanos, span: Nanos) {
        self.turn(now, span);
        self.counts[1] += 1;
    }

    fn turn(&mut self, now: Nanos, span: Nanos) {
        let age = now.saturating_sub(self.since);
        if age >= span {
            self.counts = [if age < 2 * span { self.counts[1] } else { 0 }, 0];
            self.since = now;
        }
    }

    /// Whether a 429 that `requests` of the window do not explain is explained by these: they may have been counted for up to two
    /// windows.
    pub(super) fn explain(
        &mut self,
        now: Nanos,
        span: Nanos,
        requests: u64,
        rpm: u64,
        dimension: LimitKind,
    ) -> bool {
        self.turn(now, span);
        let all = self.counts[0] + self.counts[1];
        match dimension {
            LimitKind::RequestsPerMinute => all > 0 && requests + all >= rpm,
            LimitKind::InputTokensPerMinute => all > 0,
            _ => false,
        }
    }

    /// They count until then.
    pub(super) fn cost(&mut self, until: Nanos) {
        self.cost_until = until;
    }
}
