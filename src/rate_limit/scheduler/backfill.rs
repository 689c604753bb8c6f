//! Small requests go before a head that waits for tokens, where it does not wait any longer for that.

use super::{Admission, BACKFILL, Cost, Nanos, Scheduler, WaiterId};

/// How many of those that are let through are exchanged for one that fits better.
const EXCHANGES: usize = 4;

impl<W> Scheduler<W> {
    /// Lets those behind the head go that fit and do not make it wait any longer.
    pub(super) fn backfill(&mut self, now: Nanos, head: WaiterId) {
        self.passing = true;
        let wanted = self.queue.cost(head);
        let (mut places, mut sizes) = ([0; BACKFILL], [0; BACKFILL]);
        while let Some(room) = self.ledger.room_before(wanted) {
            let mut count = 0;
            for place in self.queue.iter().skip(1).take(BACKFILL) {
                places[count] = place;
                sizes[count] = self.ledger.tokens_of(self.queue.cost(place));
                count += 1;
            }
            let (places, sizes) = (&places[..count], &sizes[..count]);
            let picked = pick(sizes, room.min(self.ledger.free_tokens()));
            let mut went = false;
            for (nth, place) in places.iter().enumerate() {
                if picked >> nth & 1 == 0 {
                    continue;
                }
                match self.ledger.admit_within(now, self.queue.cost(*place)) {
                    Admission::Granted(receipt) => {
                        self.answer(now, *place, Ok(receipt));
                        went = true;
                    }
                    // Something else than tokens is in the way: the requests of the minute, a ramp.
                    Admission::Wait { .. } | Admission::TooLarge(_) => break,
                }
            }
            if !went {
                // The smallest that may pass does so as soon as it fits, which may be before the head's turn.
                let fitting = places.iter().zip(sizes).filter(|one| *one.1 <= room);
                if let Some((place, _)) = fitting.min_by_key(|one| *one.1) {
                    let cost = self.queue.cost(*place);
                    if let Admission::Wait { until, .. } = self.ledger.admit_within(now, cost) {
                        self.next = self.next.min(until);
                    }
                }
                break;
            }
        }
    }

    /// Whether a newcomer that is too late at the end of the queue may still go before its head.
    pub(super) fn may_pass(&self, now: Nanos, cost: Cost, deadline: Nanos) -> bool {
        let Some(head) = self.queue.head().filter(|_| self.passing && self.queue.len() <= BACKFILL) else {
            return false;
        };
        let room = self.ledger.room_before(self.queue.cost(head));
        let alone = self.ledger.forecast(now, (0, 0), cost).is_ok_and(|forecast| forecast.at <= deadline);
        alone && room.is_some_and(|room| self.ledger.tokens_of(cost) <= room)
    }
}

/// Which of these to let through so that little room is left: a bit for each. The first that fit, in order; then one
/// of them is exchanged for another where that fills the room better.
///
/// Without the exchange a third of a percent of each window stays empty when prompts are large, and with many windows
/// that adds up to one more.
pub(in crate::rate_limit) fn pick(sizes: &[u64], room: u64) -> u64 {
    let sizes = &sizes[..sizes.len().min(BACKFILL)];
    let (mut picked, mut left) = (0_u64, room);
    for (nth, size) in sizes.iter().enumerate() {
        if *size <= left {
            picked |= 1 << nth;
            left -= size;
        }
    }
    let is_picked = |picked: u64, nth: usize| picked >> nth & 1 == 1;
    for _ in 0..EXCHANGES {
        let mut best = None;
        for (ours, size) in sizes.iter().enumerate().filter(|one| is_picked(picked, one.0)) {
            for (other, instead) in sizes.iter().enumerate().filter(|one| !is_picked(picked, one.0)) {
                let more = instead.saturating_sub(*size);
                if more <= left && more > best.map_or(0, |best: (u64, usize, usize)| best.0) {
                    best = Some((more, ours, other));
                }
            }
        }
        let Some((more, ours, other)) = best else { break };
        picked = picked & !(1 << ours) | 1 << other;
        left -= more;
    }
    picked
}
