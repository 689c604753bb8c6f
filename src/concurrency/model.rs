//! The gate against a naive model of the rule: 240,000 random operations a run, each compared.
//!
//! The model has no word, no tickets and no timers: lists, and the rule of the module's documentation. The harness
//! plays the executor: it polls whom the gate wakes and whose timer is due, at once or some operations later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{Entry, Gate, Place, Slot, Turn};
use super::settings::Settings;
use crate::keyed::State;
use crate::rng::{Chance, Stream};
use crate::target::TargetKey;
use crate::time;
use crate::verdict::Signal;

// ===== the model =====

struct Rule {
    limit: Option<f64>,
    age: u32,
    inside: usize,
    queue: VecDeque<u32>,
    /// Those who were let in from the queue, in order, and the age at that time.
    called: VecDeque<(u32, u32)>,
    cuts: u64,
    cut_at: Instant,
    bound_at: Instant,
    last_start: Instant,
    spread: f64,
    draws: Stream,
}

const LIFT: Duration = Duration::from_secs(120);

impl Rule {
    fn used(&self) -> bool {
        self.limit.is_some_and(|limit| (self.inside + 1) as f64 > limit)
    }

    fn gap(&self) -> Duration {
        Duration::from_secs(1).mul_f64(self.spread / self.limit.unwrap())
    }

    fn room(&self, now: Instant) -> bool {
        !self.used() || (self.inside == 0 && self.last_start + self.gap() <= now)
    }

    fn start(&mut self, now: Instant) {
        self.inside += 1;
        if let Some(limit) = self.limit {
            let gap = now - self.last_start;
            assert!(
                self.inside as f64 <= limit || (self.inside == 1 && gap.as_secs_f64() >= 0.5 / limit - 1e-6),
                "{} inside a limit of {limit}",
                self.inside
            );
            self.last_start = now;
            self.spread = 0.5 + self.draws.unit();
            if self.used() {
                self.bound_at = now;
            }
        }
    }

    fn settle(&mut self, now: Instant) {
        while !self.queue.is_empty() && self.room(now) {
            self.bound_at = now;
            self.start(now);
            self.called.extend(self.queue.pop_front().map(|name| (name, self.age)));
        }
    }

    fn lift(&mut self, now: Instant) {
        if self.limit.is_some() && self.queue.is_empty() && now - self.bound_at >= LIFT {
            self.limit = None;
        }
    }

    /// Whether it may start at once.
    fn arrive(&mut self, now: Instant) -> bool {
        self.lift(now);
        self.settle(now);
        let at_once = self.limit.is_none() || (self.queue.is_empty() && self.room(now));
        if at_once {
            self.start(now);
        } else {
            self.bound_at = now;
        }
        at_once
    }

    fn end(&mut self, signal: Signal, age: u32, now: Instant) {
        let inside = self.inside as f64;
        match (signal, self.limit) {
            (Signal::Success, Some(limit)) if self.used() => {
                self.bound_at = now;
                self.limit = Some(limit + 0.1 / limit.max(1.0));
            }
            (Signal::Timeout, None) if age == self.age => {
                self.limit = Some((inside * 0.5).max(0.02));
                (self.last_start, self.spread) = (now, 0.5 + self.draws.unit());
                self.bound_at = now;
                self.cut(now);
            }
            (Signal::Timeout, Some(limit)) => {
                self.bound_at = now;
                if age == self.age && now - self.cut_at >= Duration::from_secs(5) {
                    let used = limit.min(inside);
                    self.limit = Some((used * if used < 1.0 { 0.1 } else { 0.5 }).max(0.02));
                    self.cut(now);
                }
            }
            _ => {}
        }
        self.inside -= 1;
        self.lift(now);
        self.settle(now);
    }

    fn cut(&mut self, now: Instant) {
        self.cut_at = now;
        self.cuts += 1;
        self.age += 1;
    }
}

// ===== the harness =====

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Waiter {
    name: u32,
    place: Place,
    woken: Arc<Woken>,
    timer: Option<Instant>,
}

struct Run {
    gate: Arc<Gate>,
    rule: Rule,
    running: Vec<(Slot, u32)>,
    waiters: Vec<Waiter>,
    names: u32,
    rng: Stream,
    wakes: u32,
    served: u32,
}

impl Run {
    fn new(seed: u64) -> Self {
        let settings = Settings { chance: Chance::seeded(seed), ..Settings::default() };
        let now = time::now();
        Self {
            gate: Arc::new(Gate::new(TargetKey::named("model"), Arc::new(settings))),
            rule: Rule {
                limit: None,
                age: 0,
                inside: 0,
                queue: VecDeque::new(),
                called: VecDeque::new(),
                cuts: 0,
                cut_at: now,
                bound_at: now,
                last_start: now,
                spread: 0.5,
                draws: Chance::seeded(seed).stream(),
            },
            running: Vec::new(),
            waiters: Vec::new(),
            names: 0,
            rng: Chance::seeded(!seed).stream(),
            wakes: 0,
            served: 0,
        }
    }

    fn pick(&mut self, below: usize) -> usize {
        (self.rng.unit() * below as f64) as usize
    }

    fn arrive(&mut self) {
        let now = time::now();
        let at_once = self.rule.arrive(now);
        let entry = match Arc::clone(&self.gate).try_enter() {
            Ok(slot) => Entry::Admitted(slot),
            Err(_) => self.gate.enter(now, now + Duration::from_secs(100_000)),
        };
        match entry {
            Entry::Admitted(slot) => {
                assert!(at_once);
                self.running.push((slot, self.rule.age));
            }
            Entry::Queued(place) => {
                assert!(!at_once);
                self.names += 1;
                self.rule.queue.push_back(self.names);
                // As a future's first poll, which follows its call.
                let woken = Arc::new(Woken(AtomicBool::new(true)));
                self.waiters.push(Waiter { name: self.names, place, woken, timer: None });
            }
            entry => panic!("{entry:?}: neither full nor late"),
        }
    }

    fn end(&mut self, signal: Signal) {
        if self.running.is_empty() {
            return;
        }
        let at = self.pick(self.running.len());
        let (slot, age) = self.running.swap_remove(at);
        if signal == Signal::Neutral {
            drop(slot)
        } else {
            slot.end(signal)
        }
        self.rule.end(signal, age, time::now());
    }

    fn leave(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let at = self.pick(self.waiters.len());
        let waiter = self.waiters.remove(at);
        if let Some(called) = self.rule.called.iter().position(|(name, _)| *name == waiter.name) {
            self.rule.called.remove(called);
            self.rule.inside -= 1;
        } else {
            self.rule.queue.retain(|name| *name != waiter.name);
            self.rule.bound_at = time::now();
        }
        drop(waiter);
        self.rule.settle(time::now());
    }

    /// Polls whom a runtime would poll, until there is nobody; in a random order.
    fn execute(&mut self) {
        let now = time::now();
        loop {
            let due: Vec<usize> = (0..self.waiters.len())
                .filter(|at| {
                    let waiter = &self.waiters[*at];
                    waiter.woken.0.load(Ordering::Relaxed) || waiter.timer.is_some_and(|timer| timer <= now)
                })
                .collect();
            if due.is_empty() {
                break;
            }
            let at = due[self.pick(due.len())];
            self.look(at, now);
        }
        assert!(self.rule.called.is_empty(), "all who were called have come");
        // Nobody is left behind: who is first waits for a call in flight, or holds the right timer.
        if let Some(first) = self.waiters.iter().min_by_key(|waiter| waiter.name) {
            assert!(!self.rule.room(now));
            assert_eq!(first.timer, (self.rule.inside == 0).then(|| self.rule.last_start + self.rule.gap()));
        }
        let timers = self.waiters.iter().filter(|waiter| waiter.timer.is_some()).count();
        assert!(timers <= 1 || self.rule.inside > 0, "one timer at most");
    }

    fn look(&mut self, at: usize, now: Instant) {
        let waiter = &mut self.waiters[at];
        self.wakes += u32::from(waiter.woken.0.swap(false, Ordering::Relaxed));
        let turn = waiter.place.look(now, &Waker::from(Arc::clone(&waiter.woken)));
        self.rule.settle(now);
        match turn {
            Turn::Come(slot) => {
                let name = self.waiters.remove(at).name;
                let called = self.rule.called.iter().position(|(called, _)| *called == name);
                let (_, age) =
                    called.and_then(|at| self.rule.called.remove(at)).expect("it is called by the rule");
                self.running.push((slot, age));
                self.served += 1;
            }
            Turn::Wait(timer) => {
                let name = self.waiters[at].name;
                assert!(self.rule.queue.contains(&name), "it is not its turn by the rule");
                self.waiters[at].timer = timer;
            }
        }
    }

    fn compare(&self) {
        let state = self.gate.state();
        assert_eq!(state.in_flight as usize, self.rule.inside);
        assert_eq!(state.in_flight as usize, self.running.len() + self.rule.called.len());
        assert_eq!(state.queued, self.rule.queue.len());
        assert!(self.rule.queue.iter().is_sorted(), "first come, first served");
        assert_eq!(state.cuts, self.rule.cuts);
        match (state.limit, self.rule.limit) {
            (Some(gate), Some(rule)) => assert!((gate - rule).abs() < 1e-9, "{gate} {rule}"),
            (gate, rule) => assert_eq!(gate, rule),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_gate_keeps_the_rule_through_240_000_random_operations() {
    let (mut served, mut wakes, mut limited, mut paced, mut lifted) = (0, 0, 0, 0, 0);
    for seed in 0..60 {
        let mut run = Run::new(seed);
        // Some runs are quiet and some crowded, so that every size of limit is met.
        let crowd = 0.25 + 0.35 * run.rng.unit();
        let trouble = 0.02 + 0.2 * run.rng.unit();
        for _ in 0..4_000 {
            let was_limited = run.rule.limit.is_some();
            let draw = run.rng.unit();
            if draw < crowd {
                run.arrive();
            } else if draw < 0.85 {
                match run.rng.unit() {
                    draw if draw < trouble => run.end(Signal::Timeout),
                    draw if draw < trouble + 0.1 => run.end(Signal::Neutral),
                    draw if draw < trouble + 0.2 => run.end(Signal::Failure),
                    draw if draw < trouble + 0.3 => run.leave(),
                    _ => run.end(Signal::Success),
                }
            } else if draw < 0.97 {
                let most = if run.pick(40) == 0 { 400_000.0 } else { 3_000.0 };
                let wait = Duration::from_millis((run.rng.unit() * most) as u64);
                tokio::time::advance(wait).await;
            } else if draw < 0.995 {
                run.execute();
            } else if draw < 0.999 {
                // What the map of keys asks before it forgets one.
                let spent = run.rule.limit.is_none() || time::now() - run.rule.bound_at >= LIFT;
                let idle = run.rule.inside == 0 && run.rule.queue.is_empty() && spent;
                assert_eq!(run.gate.is_idle(), idle);
            } else {
                run.gate.reset();
                run.rule.limit = None;
                run.rule.settle(time::now());
            }
            run.compare();
            limited += u32::from(run.rule.limit.is_some());
            paced += u32::from(run.rule.limit.is_some_and(|limit| limit < 1.0));
            lifted += u32::from(was_limited && run.rule.limit.is_none());
        }
        run.execute();
        run.compare();
        served += run.served;
        wakes += run.wakes;
        // Everybody goes: nothing is left.
        run.running.clear();
        run.waiters.clear();
        let state = run.gate.state();
        assert_eq!((state.in_flight, state.queued), (0, 0));
    }
    // The run was worth its time, and no release wakes a herd: beside its first poll, a waiter is woken when its
    // turn has come and when it becomes the keeper of the timer.
    assert!(limited > 50_000 && paced > 10_000 && lifted > 50, "{limited} {paced} {lifted}");
    assert!(served > 10_000 && wakes < 4 * served, "{served} {wakes}");
}

// The stress of real threads: every admission is one release, whatever comes between, and the count comes out exact.
#[test]
fn two_threads_leave_the_count_exact() {
    use std::sync::atomic::AtomicU32;
    const EACH: u32 = 30_000;
    let settings = Settings::default();
    let gate = Arc::new(Gate::new(TargetKey::named("stress"), Arc::new(settings)));
    let (most, admitted) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (gate, most, admitted) = (&gate, &most, &admitted);
            scope.spawn(move || {
                let mut rng = Chance::seeded(thread).stream();
                let (mut slots, mut places) = (Vec::new(), Vec::<Place>::new());
                for _ in 0..EACH {
                    match rng.unit() {
                        draw if draw < 0.4 => {
                            let now = time::now();
                            let far = now + Duration::from_secs(1000);
                            match Arc::clone(gate)
                                .try_enter()
                                .map_or_else(|_| gate.enter(now, far), Entry::Admitted)
                            {
                                Entry::Admitted(slot) => slots.push(slot),
                                Entry::Queued(place) => places.push(place),
                                entry => panic!("{entry:?}"),
                            }
                        }
                        draw if draw < 0.45 => drop(places.pop()),
                        draw if draw < 0.46 => {
                            if let Some(slot) = slots.pop() {
                                slot.end(Signal::Timeout);
                            }
                        }
                        draw if draw < 0.462 => gate.reset(),
                        draw if draw < 0.6 => {
                            if let Some(mut place) = places.pop() {
                                match place.look(time::now(), Waker::noop()) {
                                    Turn::Come(slot) => slots.push(slot),
                                    Turn::Wait(_) => places.push(place),
                                }
                            }
                        }
                        _ => {
                            if let Some(slot) = slots.pop() {
                                admitted.fetch_add(1, Ordering::Relaxed);
                                slot.end(Signal::Success);
                            }
                        }
                    }
                    most.fetch_max(gate.state().in_flight, Ordering::Relaxed);
                }
            });
        }
    });
    let state = gate.state();
    assert_eq!((state.in_flight, state.queued), (0, 0), "{state:?}");
    assert!(most.load(Ordering::Relaxed) > 1 && admitted.load(Ordering::Relaxed) > EACH / 10);
    assert!(gate.is_idle() || state.limit.is_some());
}
