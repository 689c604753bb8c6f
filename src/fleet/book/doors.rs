//! What 429s have closed and taught, as the store keeps it.

use super::{Book, Close, Door, Learnt, MANY, Micros};

/// How long a limit that a 429 taught stands before a tenth more is tried: an hour of a minute's window.
const RAISE_AFTER: u64 = 60;

impl Book {
    /// Closes a dimension, or opens all.
    pub(in crate::fleet) fn close(&mut self, now: Micros, window: Micros, close: Close) {
        self.close_seq += 1;
        if close.dimension == Close::OPEN {
            self.doors = [None; 4];
            self.ramp = false;
            if close.zero {
                self.learnt = [None; 3];
            }
            return;
        }
        let at = usize::from(close.dimension.min(3));
        if let (Some(limit), true) = (close.limit, at < 3) {
            self.learnt[at] = Some(Learnt { limit, raise_at: now + RAISE_AFTER * window });
        }
        self.ramp |= close.ramp;
        if close.lasts.is_none() && !close.zero {
            return;
        }
        let until = now + close.lasts.unwrap_or(MANY);
        let until = self.doors[at].map_or(until, |door| door.until.max(until));
        let every = if close.probe == 0 { MANY } else { close.probe };
        let probe_at = until.min(now + every);
        self.doors[at] =
            Some(Door { until, probe_at, every, limit: close.limit, spent: close.spent, zero: close.zero });
    }

    pub(super) fn raise(&mut self, now: Micros, window: Micros) {
        for learnt in self.learnt.iter_mut().flatten() {
            if learnt.raise_at <= now {
                learnt.limit += learnt.limit.div_ceil(10);
                learnt.raise_at = now + RAISE_AFTER * window;
            }
        }
    }

    /// When a closed door may be tried; `None` where all are open.
    pub(super) fn shut(&mut self, now: Micros) -> Option<Micros> {
        let mut shut = None;
        for slot in &mut self.doors {
            match slot {
                Some(door) if door.until <= now => *slot = None,
                Some(door) => shut = Some(door.probe_at.max(shut.unwrap_or(0))),
                None => {}
            }
        }
        shut
    }

    pub(super) fn probe(&mut self, now: Micros) {
        for door in self.doors.iter_mut().flatten() {
            door.probe_at = door.until.min(now + door.every);
        }
    }

    pub(super) fn closes(&self, now: Micros, opened: bool) -> Vec<Close> {
        let mut closes = Vec::new();
        for (dimension, door) in self.doors.iter().enumerate() {
            if let Some(door) = door.filter(|door| door.until > now) {
                closes.push(Close {
                    dimension: dimension as u8,
                    lasts: if door.until - now >= MANY / 2 { None } else { Some(door.until - now) },
                    limit: door.limit,
                    spent: door.spent,
                    zero: door.zero,
                    ramp: self.ramp,
                    probe: if door.every >= MANY { 0 } else { door.probe_at.saturating_sub(now).max(1) },
                });
            }
        }
        if closes.is_empty() && opened {
            closes.push(Close::new(Close::OPEN, None));
        }
        closes
    }
}
