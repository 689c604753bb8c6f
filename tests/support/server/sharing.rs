//! Processor sharing: all calls are worked on at once, each the slower the more there are.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet};

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

/// How the work is shared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharing {
    /// So many calls at once are not slowed.
    pub(crate) at_once: f64,
}

/// The calls under way.
#[derive(Debug)]
pub(super) struct Shared {
    at: Instant,
    /// Seconds of work that each call has got that has been here from the start.
    done: f64,
    calls: BinaryHeap<Reverse<Work>>,
    /// Those that nobody waits for and that were given up.
    gone: HashSet<u64>,
    active: usize,
    next: u64,
}

#[derive(Debug)]
struct Work {
    /// Where `done` must be.
    end: f64,
    id: u64,
    caller: oneshot::Sender<()>,
}

impl PartialEq for Work {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Work {}

impl PartialOrd for Work {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Work {
    fn cmp(&self, other: &Self) -> Ordering {
        self.end.total_cmp(&other.end).then(self.id.cmp(&other.id))
    }
}

impl Shared {
    pub(super) fn new(at: Instant) -> Self {
        Self { at, done: 0.0, calls: BinaryHeap::new(), gone: HashSet::new(), active: 0, next: 0 }
    }

    pub(super) const fn active(&self) -> usize {
        self.active
    }

    /// Seconds of work a second for each call.
    fn pace(&self, sharing: Sharing, falling: f64) -> f64 {
        let n = self.active as f64;
        let over = (n - sharing.at_once).max(0.0);
        (sharing.at_once / n.max(1.0)).min(1.0) / (1.0 + falling * over)
    }

    fn advance(&mut self, sharing: Sharing, falling: f64) {
        let now = Instant::now();
        self.done += (now - self.at).as_secs_f64() * self.pace(sharing, falling);
        self.at = now;
    }

    /// A call with so many seconds of work, and its number.
    pub(super) fn enter(
        &mut self,
        work: f64,
        caller: oneshot::Sender<()>,
        sharing: Sharing,
        falling: f64,
    ) -> u64 {
        self.advance(sharing, falling);
        self.next += 1;
        self.calls.push(Reverse(Work { end: self.done + work, id: self.next, caller }));
        self.active += 1;
        self.next
    }

    /// The work is dropped.
    pub(super) fn leave(&mut self, id: u64, sharing: Sharing, falling: f64) {
        self.advance(sharing, falling);
        if self.gone.insert(id) {
            self.active -= 1;
        }
    }

    /// Answers those that are done, and says when the next one will be.
    pub(super) fn step(&mut self, sharing: Sharing, falling: f64) -> Option<Instant> {
        self.advance(sharing, falling);
        while let Some(Reverse(first)) = self.calls.peek() {
            let left = first.end - self.done;
            let is_gone = self.gone.contains(&first.id);
            if !is_gone && left > 1e-6 {
                let wait = left / self.pace(sharing, falling);
                return Some(self.at + Duration::from_secs_f64(wait.min(864_000.0)));
            }
            let Some(Reverse(work)) = self.calls.pop() else { break };
            if is_gone {
                self.gone.remove(&work.id);
            } else {
                self.active -= 1;
                work.caller.send(()).ok();
            }
        }
        None
    }
}
