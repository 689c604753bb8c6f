//! The gate under random operations and under threads: counts are exact, whatever comes between.
//!
//! The model of the counts is two lists: the slots that are held and the places in the queue. The limit's own arithmetic
//! is checked for its bounds alone.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::config::Settings;
use super::gate::{Entry, Gate, Slot, Turn, WaiterId};
use super::queue::Visitor;
use crate::request::TargetKey;
use crate::rng::{RequestRng, RngSource};
use crate::time;
use crate::verdict::Signal;

struct Run {
    gate: Arc<Gate>,
    rng: RequestRng,
    slots: Vec<Slot>,
    places: Vec<WaiterId>,
}

impl Run {
    fn of(gate: Arc<Gate>, seed: u64) -> Self {
        Self { gate, rng: RngSource::seeded(seed).stream(), slots: Vec::new(), places: Vec::new() }
    }

    fn pick(&mut self, below: usize) -> usize {
        (self.rng.unit() * below as f64) as usize
    }

    fn arrive(&mut self) {
        let caller = self.pick(3) as u64;
        let now = time::now();
        let visitor = Visitor { caller, until: now + Duration::from_secs(100_000), is_deadline: false };
        let entered = Arc::clone(&self.gate).try_enter(caller);
        match entered.map_or_else(|gate| gate.enter(visitor, now), Entry::Admitted) {
            Entry::Admitted(slot) => self.slots.push(slot),
            Entry::Queued(place) => self.places.push(place),
            entry => panic!("{entry:?}: neither full nor late"),
        }
    }

    fn end(&mut self, signal: Signal) {
        if !self.slots.is_empty() {
            let at = self.pick(self.slots.len());
            self.slots.swap_remove(at).end(signal);
        }
    }

    fn look(&mut self) {
        if !self.places.is_empty() {
            let at = self.pick(self.places.len());
            let mut place = self.places.swap_remove(at);
            match place.look(time::now(), Waker::noop()) {
                Turn::Come(slot) => self.slots.push(slot),
                Turn::Wait(..) => self.places.push(place),
                Turn::Late => panic!("it has no deadline"),
            }
        }
    }

    fn leave(&mut self) {
        if !self.places.is_empty() {
            let at = self.pick(self.places.len());
            drop(self.places.swap_remove(at));
        }
    }

    fn step(&mut self, trouble: f64) {
        match self.rng.unit() {
            draw if draw < 0.4 => self.arrive(),
            draw if draw < 0.6 => self.look(),
            draw if draw < 0.64 => self.leave(),
            draw if draw < 0.64 + trouble => self.end(Signal::Timeout),
            draw if draw < 0.8 => self.end(Signal::Neutral),
            draw if draw < 0.801 => self.gate.reset(),
            _ => self.end(Signal::Success),
        }
    }
}

// Never ended calls stop counting with their lease, so time stays within one here: 60 runs of 4,000 operations.
#[tokio::test(start_paused = true)]
async fn counts_are_exact_through_240_000_random_operations() {
    let (mut limited, mut paced, mut queued) = (0, 0, 0);
    for seed in 0..60 {
        let gate = Arc::new(Gate::new(TargetKey::named("model"), Arc::new(Settings::default())));
        let mut run = Run::of(gate, seed);
        let trouble = 0.1 * run.rng.unit();
        for step in 0..4_000 {
            // A spell of trouble now and then, so that limits go below one.
            run.step(if step % 400 >= 370 { 0.97 } else { trouble });
            if step % 16 == 0 {
                tokio::time::advance(Duration::from_millis(500)).await;
            }
            let state = run.gate.state();
            let held = run.slots.len() + run.places.len();
            // A turn that was given and not fetched is in flight, and one that was missed waits again when it looks.
            assert!(state.in_flight as usize + state.queued <= held, "{state:?} of {held}");
            assert!(state.limit.is_none_or(|limit| limit.is_finite() && limit >= 0.04), "{state:?}");
            limited += u32::from(state.limit.is_some());
            paced += u32::from(state.limit.is_some_and(|limit| limit < 1.0));
            queued += u32::from(state.queued > 0);
        }
        run.slots.clear();
        run.places.clear();
        let state = run.gate.state();
        assert_eq!((state.in_flight, state.queued), (0, 0), "{state:?}");
    }
    assert!(limited > 10_000 && paced > 500 && queued > 10_000, "{limited} {paced} {queued}");
}

#[test]
fn threads_leave_the_count_exact() {
    let gate = Arc::new(Gate::new(TargetKey::named("stress"), Arc::new(Settings::default())));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let gate = Arc::clone(&gate);
            scope.spawn(move || {
                let mut run = Run::of(gate, thread);
                (0..20_000).for_each(|_| run.step(0.01));
            });
        }
    });
    let state = gate.state();
    assert_eq!((state.in_flight, state.queued), (0, 0), "{state:?}");
}
