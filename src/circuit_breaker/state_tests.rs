use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::rng::{Chance, Stream};

const MS: Nanos = SECOND / 1000;
const HARD: Mark = Mark::Failure { hard: true };
const SOFT: Mark = Mark::Failure { hard: false };

fn rules() -> Rules {
    Rules {
        mode: Mode::Automatic,
        window: 30 * SECOND,
        min_calls: 20,
        failure_share: 0.5,
        consecutive: 13,
        slow_share: f64::INFINITY,
        open: 2 * SECOND,
        open_factor: 1.5,
        open_max: 15 * SECOND,
        max_server_delay: 300 * SECOND,
        probes: 1,
        successes: 2,
        lease: 120 * SECOND,
        ramp: 30 * SECOND,
    }
}

fn machine(rules: Rules) -> Machine {
    Machine::new(rules, 0)
}

fn admit(machine: &mut Machine, now: Nanos) -> Option<Pass> {
    machine.admit(now).0.ok().flatten()
}

/// Asks, and settles with this mark at once.
fn call(machine: &mut Machine, now: Nanos, mark: Mark) -> Option<Change> {
    let pass = admit(machine, now).expect("it is let through");
    machine.settle(now, pass, mark, false, 0, || 0.5)
}

/// Opens a closed circuit with a row of failures, and says until when.
fn trip(machine: &mut Machine, now: Nanos) -> Nanos {
    let changes: Vec<_> = (0..13).filter_map(|_| call(machine, now, HARD)).collect();
    assert_eq!(changes.len(), 1, "one change");
    changes[0].until.expect("it is open")
}

/// Closes an open circuit with two probes, at the end of its open time.
fn heal(machine: &mut Machine) -> Nanos {
    let now = machine.until().expect("it is open");
    assert!(call(machine, now, Mark::Success).is_none());
    assert_eq!(call(machine, now, Mark::Success).map(|c| c.to), Some(CircuitState::Closed));
    now
}

#[test]
fn open_times_grow_to_the_most_and_flapping_keeps_their_memory() {
    let mut circuit = machine(Rules { ramp: 0, ..rules() });
    let mut now = trip(&mut circuit, 0);
    let mut waits = vec![now];
    for _ in 0..8 {
        let until = call(&mut circuit, now, HARD).and_then(|change| change.until).expect("a probe failed");
        waits.push(until - now);
        now = until;
    }
    let waits: Vec<f64> = waits.iter().map(|wait| *wait as f64 / 1e9).collect();
    assert_eq!(waits, [2.0, 3.0, 4.5, 6.75, 10.125, 12.5, 12.5, 12.5, 12.5]);

    // One step back for each window that it stays closed.
    for (healthy, wait) in [(0, 12.5), (65 * SECOND, 6.75), (3600 * SECOND, 2.0)] {
        let mut circuit = circuit.clone();
        let at = heal(&mut circuit) + healthy;
        assert_eq!((trip(&mut circuit, at) - at) as f64 / 1e9, wait);
    }
}

#[test]
fn an_open_time_stays_within_its_bounds_at_every_draw() {
    for draw in [0.0, 0.5, 1.0 - f64::EPSILON] {
        for strikes in [0, 1, 5, 40, u32::MAX - 1] {
            let mut circuit = machine(rules());
            circuit.strikes = strikes;
            let wait = circuit.open(0, Cause::ProbeFailed, 0, draw).until.unwrap();
            assert!((1600 * MS..=15 * SECOND).contains(&wait), "{strikes} {draw}: {wait}");
        }
    }
}

#[test]
fn the_servers_own_instant_counts_if_it_is_later_up_to_the_bound() {
    for (hint, wait) in [(SECOND, 2 * SECOND), (59 * SECOND, 59 * SECOND), (Nanos::MAX, 300 * SECOND)] {
        let mut circuit = machine(rules());
        assert!((0..12).all(|_| call(&mut circuit, 0, HARD).is_none()));
        let pass = admit(&mut circuit, 0).unwrap();
        let change = circuit.settle(0, pass, HARD, false, hint, || 0.5).unwrap();
        assert_eq!(change.until, Some(wait));
    }
}

#[test]
fn strikes_are_not_counted_beyond_the_longest_open_time() {
    let mut circuit = machine(Rules { open_max: 4500 * MS, ..rules() });
    let mut now = trip(&mut circuit, 0);
    for strikes in [1, 2, 2, 2] {
        assert_eq!(circuit.strikes, strikes, "the third open time is the longest");
        now = call(&mut circuit, now, HARD).and_then(|change| change.until).expect("a probe failed");
    }
}

#[test]
fn who_is_certain_to_be_denied_is_told_and_takes_no_place() {
    let mut circuit = machine(rules());
    assert_eq!(circuit.refuse(0), None);
    let until = trip(&mut circuit, 0);
    let told = |denial: Option<Denial>| denial.map(|denial| denial.why);
    assert_eq!(told(circuit.refuse(until - 1)), Some(Why::Opened(Cause::ConsecutiveFailures)));
    assert_eq!(circuit.refuse(until), None, "it may be the probe");
    assert_eq!(circuit.refuse(until), None, "and has taken no place");
    admit(&mut circuit, until).expect("the probe");
    assert_eq!(told(circuit.refuse(until)), Some(Why::Probing));
    circuit.set_mode(until, Mode::ObserveOnly);
    trip(&mut circuit, until);
    assert_eq!(circuit.refuse(until), None, "it only observes");
}

#[test]
fn those_who_wait_for_a_probe_come_back_evenly_spread() {
    let mut circuit = machine(rules());
    let now = trip(&mut circuit, 0);
    admit(&mut circuit, now).expect("the probe");
    // From half the open time of 2 s to one and a half of it; a hundredth of that apart, give or take.
    let mut waits: Vec<_> = (0..100).filter_map(|_| circuit.refuse(now)).map(|d| d.until - now).collect();
    waits.sort_unstable();
    for (nth, wait) in waits.into_iter().enumerate() {
        let even = SECOND + nth as Nanos * 20 * MS;
        assert!((even.saturating_sub(20 * MS)..even + 40 * MS).contains(&wait), "{nth}: {wait}");
    }
}

#[test]
fn what_spares_the_lock_is_told_of_each_phase() {
    let mut circuit = machine(rules());
    assert_eq!((circuit.shut(), circuit.is_free(), circuit.is_even()), (0, true, true));
    call(&mut circuit, 0, HARD);
    assert_eq!((circuit.is_free(), circuit.is_even()), (true, false), "a success ends the row");
    call(&mut circuit, 0, Mark::Success);
    assert!(circuit.is_even());
    let until = trip(&mut circuit, 0);
    assert_eq!((circuit.shut(), circuit.is_free(), circuit.is_even()), (until, false, false));
    let now = heal(&mut circuit);
    assert_eq!((circuit.shut(), circuit.is_free(), circuit.is_even()), (0, false, true), "a ramp limits it");
    assert_eq!([now, now + 30 * SECOND].map(|now| circuit.is_ramping(now)), [true, false]);

    let mut without_ramp = machine(Rules { ramp: 0, ..rules() });
    trip(&mut without_ramp, 0);
    heal(&mut without_ramp);
    assert!(without_ramp.is_free());

    let mut observing = machine(Rules { mode: Mode::ObserveOnly, ..rules() });
    trip(&mut observing, 0);
    assert_eq!(observing.shut(), 0, "nobody is turned away");
}

#[test]
fn only_what_is_held_open_by_hand_has_no_end() {
    let mut circuit = machine(rules());
    let change = circuit.set_mode(0, Mode::ForcedOpen).expect("another mode");
    assert_eq!((change.until, circuit.until()), (None, None));
    let end = NEVER - 5;
    let mut circuit = Machine::new(rules(), end);
    assert_eq!(trip(&mut circuit, end), NEVER - 1);
}

#[test]
fn a_ramp_begins_with_a_quarter_of_the_calls_a_second_before_the_outage() {
    let mut circuit = machine(rules());
    for n in 0..1000 {
        assert!(call(&mut circuit, n * 10 * MS, Mark::Success).is_none());
    }
    trip(&mut circuit, 10 * SECOND);
    let now = heal(&mut circuit);
    // 1,013 in 10 s are 101 a second.
    assert_eq!((0..1000).take_while(|_| admit(&mut circuit, now).is_some()).count(), 25);
}

#[test]
fn a_lost_probe_is_replaced_and_its_late_word_ignored() {
    let mut circuit = machine(rules());
    let now = trip(&mut circuit, 0);
    let lost = admit(&mut circuit, now).unwrap();
    assert!(admit(&mut circuit, now + 119 * SECOND).is_none(), "one at a time");
    let next = admit(&mut circuit, now + 120 * SECOND).expect("the lease is over");
    assert_eq!(circuit.settle(now + 121 * SECOND, lost, HARD, false, 0, || 0.5), None);
    circuit.release(lost);
    assert!(admit(&mut circuit, now + 121 * SECOND).is_none(), "the place is the second one's");
    circuit.settle(now + 121 * SECOND, next, Mark::Neutral, false, 0, || 0.5);
    assert!(admit(&mut circuit, now + 121 * SECOND).is_some());
}

#[test]
fn only_observing_it_tells_the_same_and_turns_nobody_away() {
    let mut circuit = machine(Rules { mode: Mode::ObserveOnly, ..rules() });
    let now = trip(&mut circuit, 0);
    assert_eq!(circuit.admit(now - 1), (Ok(None), None), "goes through, counts nothing");
    assert!(admit(&mut circuit, now).is_some_and(|pass| pass.ticket > 0));
    assert_eq!(circuit.admit(now).0, Ok(None), "no second probe");
}

// 30 % independent errors over ten minutes, each call tried up to five times with full jitter: 28.5 calls a second and
// 0.43. Rows of thirteen open one in 500 seeds at the higher rate; the share opens none there, and hardly any at
// the lower, where a window seldom holds twenty calls.
#[test]
fn independent_errors_hardly_ever_open_it() {
    for (per_second, at_most) in [(20.0, 2), (1.0, 20), (0.3, 20)] {
        let opened = (0..200).filter(|seed| opens_in_a_brown_out(*seed, per_second)).count();
        assert!(opened <= at_most, "{opened} of 200 at {per_second} a second");
    }
}

fn opens_in_a_brown_out(seed: u64, per_second: f64) -> bool {
    let mut chance = Chance::seeded(seed).stream();
    let mut circuit = machine(rules());
    let (mut arrival, mut retries) = (0.0, BinaryHeap::new());
    loop {
        arrival -= (1.0 - chance.unit()).ln() / per_second;
        let next = (arrival * 1e9) as Nanos;
        if next > 600 * SECOND {
            return false;
        }
        retries.push(Reverse((next, 0)));
        while let Some(Reverse((now, attempt))) = retries.pop() {
            if now > next {
                retries.push(Reverse((now, attempt)));
                break;
            }
            let failed = chance.unit() < 0.3;
            let pass = admit(&mut circuit, now).expect("it is closed");
            let mark = if failed { HARD } else { Mark::Success };
            if circuit.settle(now, pass, mark, false, 0, || 0.5).is_some() {
                return true;
            }
            if failed && attempt < 4 {
                let wait = chance.unit() * f64::from(1 << attempt);
                retries.push(Reverse((now + (wait * 1e9) as Nanos, attempt + 1)));
            }
        }
    }
}

// ===== against a model that knows no arithmetic but counting over lists =====

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Closed,
    Open(Nanos),
    HalfOpen,
}

struct Naive {
    rules: Rules,
    mode: Mode,
    is: Is,
    generation: u32,
    since: Nanos,
    /// All that was ever counted in this generation.
    results: Vec<(Nanos, Mark, bool)>,
    probes: Vec<(Pass, Nanos)>,
    good: u32,
    strikes: u32,
    ramp_until: Nanos,
    /// How much of that failures have added.
    behind: Nanos,
    let_through: Vec<Nanos>,
    touched: Nanos,
}

impl Naive {
    fn new(rules: Rules, now: Nanos) -> Self {
        Self {
            rules,
            mode: rules.mode,
            is: Is::Closed,
            generation: 0,
            since: now,
            results: Vec::new(),
            probes: Vec::new(),
            good: 0,
            strikes: 0,
            ramp_until: 0,
            behind: 0,
            let_through: Vec::new(),
            touched: now,
        }
    }

    fn enter(&mut self, now: Nanos, is: Is) {
        self.is = is;
        self.since = now;
        self.generation += 1;
        self.results.clear();
        self.probes.clear();
        self.let_through.clear();
        self.good = 0;
        (self.ramp_until, self.behind) = (0, 0);
    }

    /// What one call does to a ramp.
    fn ramps(&mut self, now: Nanos, failed: bool) {
        if now < self.ramp_until {
            let begun = self.ramp_until - self.rules.ramp;
            let before = self.behind;
            self.behind = match failed {
                true => (before + SECOND.min(now.saturating_sub(begun))).min(3 * self.rules.ramp),
                false => before.saturating_sub(SECOND / 2),
            };
            self.ramp_until = self.ramp_until + self.behind - before;
        }
    }

    /// What the window holds: calls, failures, slow ones.
    fn window(&self, now: Nanos) -> (u32, u32, u32) {
        let width = self.rules.window / 10;
        let recent = || self.results.iter().filter(move |(at, _, _)| at / width + 10 > now / width);
        let count = |number: usize| u32::try_from(number).unwrap();
        let failed = recent().filter(|(_, mark, _)| *mark != Mark::Success).count();
        let slow = recent().filter(|(_, _, slow)| *slow).count();
        (count(recent().count()), count(failed), count(slow))
    }

    fn row(&self) -> u32 {
        let back = self.results.iter().rev().take_while(|(_, mark, _)| *mark != Mark::Success);
        u32::try_from(back.filter(|(_, mark, _)| *mark == HARD).count()).unwrap()
    }

    fn probing(&self, now: Nanos) -> usize {
        self.probes.iter().filter(|(_, ends)| *ends > now).count()
    }

    fn opens(&mut self, now: Nanos, hint: Nanos, draw: f64) {
        if self.is == Is::Closed {
            for _ in 0..(now - self.since) / self.rules.window {
                self.strikes = self.strikes.saturating_sub(1);
            }
        }
        let mut own = self.rules.open as f64;
        (0..self.strikes).for_each(|_| own *= self.rules.open_factor);
        if own < self.rules.open_max as f64 {
            self.strikes += 1;
        }
        own = own.min(self.rules.open_max as f64 / 1.2) * (0.8 + 0.4 * draw);
        let wait = (own as Nanos).max(hint.min(self.rules.max_server_delay));
        self.enter(now, Is::Open(now + wait));
    }

    fn settled(&mut self, now: Nanos, pass: Pass, mark: Mark, slow: bool, hint: Nanos, draw: f64) {
        if pass.generation != self.generation {
            return;
        }
        self.touched = now;
        match self.is {
            Is::Closed if mark == Mark::Neutral => {}
            Is::Closed => {
                self.results.push((now, mark, slow));
                self.ramps(now, mark != Mark::Success);
                let (calls, failed, were_slow) = self.window(now);
                let above = |bad: u32, share: f64| {
                    let (bad, n) = (f64::from(bad), f64::from(calls));
                    share <= 1.0
                        && calls >= self.rules.min_calls
                        && (bad == n || bad - share * n >= 1.5 * (share * (1.0 - share) * n).sqrt())
                };
                let bad = mark != Mark::Success || slow;
                let trips = self.row() >= self.rules.consecutive
                    || above(failed, self.rules.failure_share)
                    || above(were_slow, self.rules.slow_share);
                if bad && trips && self.mode != Mode::ForcedClosed {
                    self.opens(now, hint, draw);
                }
            }
            Is::HalfOpen => {
                let Some(at) = self.probes.iter().position(|(probe, _)| *probe == pass) else { return };
                if self.probes.remove(at).1 <= now {
                    return;
                }
                match mark {
                    Mark::Neutral => {}
                    Mark::Success if !slow => {
                        self.good += 1;
                        if self.good == self.rules.successes {
                            self.enter(now, Is::Closed);
                            self.ramp_until = now + self.rules.ramp;
                        }
                    }
                    _ => self.opens(now, hint, draw),
                }
            }
            Is::Open(_) => {}
        }
    }

    fn idle(&self, now: Nanos) -> bool {
        let last = if let Is::Open(until) = self.is { until.max(self.touched) } else { self.touched };
        let healthy = (now - self.since) / self.rules.window;
        self.mode == self.rules.mode
            && (now.saturating_sub(last) >= 10 * self.rules.window
                || (self.is == Is::Closed
                    && self.ramp_until <= now
                    && self.row() == 0
                    && u64::from(self.strikes) <= healthy
                    && self.window(now).0 == 0))
    }

    /// Compares one admission. What a ramp lets through is bounded here, and exact in its own tests.
    fn admitted(&mut self, now: Nanos, admission: &Admission) {
        self.touched = now;
        match self.is {
            Is::Open(until) if self.mode != Mode::ForcedOpen && now >= until => self.enter(now, Is::HalfOpen),
            _ => {}
        }
        let free = match self.is {
            Is::Closed => true,
            Is::Open(_) => false,
            Is::HalfOpen => self.probing(now) < self.rules.probes,
        };
        match admission {
            Ok(Some(pass)) => {
                assert!(free, "{:?} let a call through", self.is);
                assert_eq!(pass.generation, self.generation);
                assert_eq!(pass.ticket > 0, self.is == Is::HalfOpen);
                if self.is == Is::HalfOpen {
                    self.probes.retain(|(_, ends)| *ends > now);
                    self.probes.push((*pass, now + self.rules.lease));
                    assert!(self.probing(now) <= self.rules.probes, "more probes than permitted");
                }
                if now < self.ramp_until {
                    self.let_through.push(now);
                    let grown = (now - self.since) as f64 / self.rules.ramp as f64 * 4.0;
                    let seconds = (now - self.since) as f64 / 1e9;
                    // The bucket and the time at the rate that it has grown to, which is more than the ramp gives.
                    let start = RAMP_START.max(RAMP_SHARE * 1000.0);
                    assert!((self.let_through.len() as f64) <= start * (1.0 + seconds * grown.exp2()) + 1.0);
                }
            }
            Ok(None) => assert!(self.mode == Mode::ObserveOnly && (!free || now < self.ramp_until)),
            Err(denial) => {
                assert_ne!(self.mode, Mode::ObserveOnly);
                assert!(denial.until > now && denial.since == self.since);
                match (denial.why, self.is) {
                    (Why::Ramping, Is::Closed) => assert!(now < self.ramp_until),
                    (Why::Opened(_), Is::Open(until)) => assert_eq!(denial.until, until),
                    (Why::Probing, Is::HalfOpen) => {
                        let half = self.rules.open / 2;
                        assert!(!free && (now + half..now + 3 * half + 1).contains(&denial.until));
                    }
                    (why, is) => panic!("{is:?} says {why:?}"),
                }
            }
        }
    }
}

/// One run of random operations. Seeded, so that a failure repeats.
fn run(seed: u64, operations: u32) {
    let mut chance = Chance::seeded(seed).stream();
    let mut below = move |n: u64| below(&mut chance, n);
    let rules = Rules {
        mode: if seed % 5 == 0 { Mode::ObserveOnly } else { Mode::Automatic },
        min_calls: 1 + below(25) as u32,
        failure_share: [0.1, 0.5, 0.9, 1.0][below(4) as usize],
        consecutive: 1 + below(15) as u32,
        slow_share: [f64::INFINITY, 0.5][below(2) as usize],
        probes: 1 + below(3) as usize,
        successes: 1 + below(3) as u32,
        lease: 5 * SECOND,
        ramp: [0, 30 * SECOND][below(2) as usize],
        ..rules()
    };
    let mut now = below(100 * SECOND);
    let (mut real, mut naive) = (Machine::new(rules, now), Naive::new(rules, now));
    let mut out: Vec<Pass> = Vec::new();
    let mut pain = 50;
    for step in 0..operations {
        let before = real.generation();
        let mut change = None;
        match below(1000) {
            0..400 => {
                let (admission, half_opened) = real.admit(now);
                change = half_opened;
                naive.admitted(now, &admission);
                out.extend(admission.ok().flatten());
            }
            400..700 if !out.is_empty() => {
                let pass = out.swap_remove(below(out.len() as u64) as usize);
                let mark = match below(100) {
                    roll if roll < pain => HARD,
                    roll if roll < pain + 5 => SOFT,
                    roll if roll < pain + 10 => Mark::Neutral,
                    _ => Mark::Success,
                };
                let (slow, hint) = (below(10) == 0, [0, 20 * SECOND][usize::from(below(20) == 0)]);
                let draw = below(1 << 20) as f64 / f64::from(1 << 20);
                change = real.settle(now, pass, mark, slow, hint, || draw);
                naive.settled(now, pass, mark, slow, hint, draw);
            }
            700..780 if !out.is_empty() => {
                let pass = out.swap_remove(below(out.len() as u64) as usize);
                real.release(pass);
                naive.probes.retain(|(probe, _)| *probe != pass);
            }
            780..960 => {
                let scale = [MS, SECOND, SECOND, 8 * SECOND, 8 * SECOND, 400 * SECOND][below(6) as usize];
                now += below(scale);
            }
            960..966 => {
                let modes = [Mode::Automatic, Mode::ForcedOpen, Mode::ForcedClosed, Mode::ObserveOnly];
                let mode = if below(2) == 0 { rules.mode } else { modes[below(4) as usize] };
                change = if below(3) == 0 { Some(real.reset(now)) } else { real.set_mode(now, mode) };
                if let Some(change) = change {
                    naive.enter(
                        now,
                        if change.mode == Mode::ForcedOpen { Is::Open(NEVER) } else { Is::Closed },
                    );
                    naive.mode = change.mode;
                    naive.strikes = 0;
                }
            }
            966..970 => pain = below(101),
            970..1000 => {
                assert_eq!(real.is_idle(now), naive.idle(now), "seed {seed}, step {step}");
                if out.is_empty() && real.is_idle(now) {
                    (real, naive) = (Machine::new(rules, now), Naive::new(rules, now));
                    continue;
                }
            }
            _ => {}
        }
        let context = || format!("seed {seed}, step {step}, {:?}", naive.is);
        assert_eq!(real.generation(), naive.generation, "{}", context());
        assert_eq!(real.generation() - before, u32::from(change.is_some()), "{}", context());
        assert_eq!(change.map_or(before, |change| change.generation), real.generation());
        let state = match naive.is {
            Is::Closed => CircuitState::Closed,
            Is::Open(until) => {
                assert_eq!(real.until().unwrap_or(NEVER), until, "{}", context());
                CircuitState::Open
            }
            Is::HalfOpen => CircuitState::HalfOpen,
        };
        assert_eq!((real.state(), real.mode()), (state, naive.mode), "{}", context());
        let counts = real.counts(now);
        assert_eq!((counts.calls, counts.failures, counts.slow), naive.window(now), "{}", context());
        assert_eq!(real.row(), naive.row(), "{}", context());
    }
    leave(&mut real, now);
}

/// Whatever happened: once what is under way is lost, two good probes bring the circuit back.
fn leave(circuit: &mut Machine, mut now: Nanos) {
    circuit.set_mode(now, Mode::Automatic);
    for _ in 0..10 {
        now = circuit.until().unwrap_or(now).max(now) + 6 * SECOND;
        if let Some(pass) = admit(circuit, now) {
            circuit.settle(now, pass, Mark::Success, false, 0, || 0.5);
        }
    }
    assert_eq!(circuit.state(), CircuitState::Closed);
}

fn below(chance: &mut Stream, n: u64) -> u64 {
    (chance.unit() * n as f64) as u64
}

// 240,000 operations, each of which is followed by a comparison of all there is to see.
#[test]
fn it_does_what_a_naive_model_does() {
    (0..120).for_each(|seed| run(seed, 2_000));
}
