use super::super::decision::Mark;
#[cfg(not(tower_gemini_loom))]
use super::super::decision::NEVER;
use super::super::rules::Rules;
use super::super::{Nanos, SECOND};
use super::*;
use crate::event::circuit::BreakerMode;
#[cfg(tower_gemini_loom)]
use crate::event::circuit::CircuitState;

fn rules() -> Rules {
    Rules {
        mode: BreakerMode::Automatic,
        window: 30 * SECOND,
        min_calls: 20,
        failure_share: 0.5,
        consecutive: 2,
        slow_share: f64::INFINITY,
        open: 2 * SECOND,
        open_factor: 1.5,
        open_max: 15 * SECOND,
        max_server_delay: 300 * SECOND,
        probes: 1,
        successes: 2,
        lease: 120 * SECOND,
        ramp: 0,
    }
}

struct Circuit {
    gate: Gate,
    unwell: AtomicUsize,
}

impl Circuit {
    fn new() -> Self {
        Self { gate: Gate::new(Machine::new(rules(), 0), true), unwell: AtomicUsize::new(0) }
    }

    /// What the layer does before it sends.
    fn admit(&self, now: Nanos) -> Option<Pass> {
        self.gate.admit_free().or_else(|| match self.gate.deny_shut(now, 0) {
            Some(_) => None,
            None => self.gate.admit(now, 0, &self.unwell).0.ok().flatten(),
        })
    }

    fn settle(&self, now: Nanos, pass: Pass, mark: Mark) {
        let quiet = mark == Mark::Success && pass.ticket == 0 && self.gate.succeed_quietly(pass);
        if !quiet {
            let settle =
                |machine: &mut Machine, _: &_| ((), machine.settle(now, pass, 0, mark, false, 0, || 0.5));
            self.gate.with(now, &self.unwell, settle);
        }
    }

    fn look<T>(&self, now: Nanos, look: impl FnOnce(&mut Machine, &VecDeque<Change>) -> T) -> T {
        self.gate.with(now, &self.unwell, |machine, history| (look(machine, history), None)).0
    }

    fn calls(&self) -> u32 {
        self.look(0, |machine, _| machine.counts(0).calls)
    }

    #[cfg(tower_gemini_loom)]
    fn state(&self) -> CircuitState {
        self.look(0, |machine, _| machine.state())
    }

    /// Two failures in a row open it; the open time is over at the instant that comes back.
    fn trip(&self) -> Nanos {
        for _ in 0..2 {
            let pass = self.admit(0).expect("it is closed");
            self.settle(0, pass, FAILED);
        }
        self.look(0, |machine, _| machine.until().expect("it is open"))
    }

    /// Every change began one generation, and none is missing.
    fn assert_one_change_per_generation(&self) {
        self.look(0, |machine, history| {
            let generations: Vec<_> = history.iter().map(|change| change.generation).collect();
            let expected: Vec<_> = (1..=machine.generation()).collect();
            assert_eq!(generations, expected);
            let linked = history.iter().zip(history.iter().skip(1)).all(|(a, b)| a.to == b.from);
            assert!(linked, "{history:?}");
        });
    }
}

const FAILED: Mark = Mark::Failure;

#[cfg(not(tower_gemini_loom))]
mod threads {
    use super::*;
    use std::sync::{Barrier, Mutex};

    fn on_threads(threads: usize, work: impl Fn(usize) + Sync) {
        let barrier = Barrier::new(threads);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    work(thread);
                });
            }
        });
    }

    #[test]
    fn successes_are_counted_exactly_whoever_counts_them() {
        let circuit = Circuit::new();
        on_threads(4, |thread| {
            for n in 0..10_000 {
                let pass = circuit.admit(0).expect("it is closed");
                // Failures now and then, never two in a row for sure: the lock comes and goes.
                let mark = if thread == 0 && n % 100 == 0 { Mark::Neutral } else { Mark::Success };
                circuit.settle(0, pass, mark);
                if n % 1000 == 0 {
                    circuit.calls();
                }
            }
        });
        assert_eq!(circuit.calls(), 39_900);
        assert_eq!(circuit.unwell.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn at_the_instant_of_half_open_one_of_many_threads_gets_through() {
        for _ in 0..50 {
            let circuit = Circuit::new();
            let now = circuit.trip();
            assert_eq!(circuit.unwell.load(Ordering::Relaxed), 1);
            let passes = Mutex::new(Vec::new());
            on_threads(8, |_| passes.lock().unwrap().extend(circuit.admit(now)));
            assert_eq!(passes.lock().unwrap().len(), 1);
            circuit.assert_one_change_per_generation();
        }
    }

    #[test]
    fn changes_are_told_in_order_also_to_an_observer_that_acts() {
        let circuit = Circuit::new();
        let told = Mutex::new(Vec::new());
        fn tell(circuit: &Circuit, told: &Mutex<Vec<u32>>) {
            circuit.gate.tell(|change| {
                told.lock().unwrap().push(change.generation);
                if change.generation < 5 {
                    let mode = if change.generation % 2 == 0 {
                        BreakerMode::ForcedOpen
                    } else {
                        BreakerMode::ForcedClosed
                    };
                    let act = |machine: &mut Machine, _: &VecDeque<Change>| ((), machine.set_mode(0, mode));
                    assert!(circuit.gate.with(0, &circuit.unwell, act).1);
                    tell(circuit, told);
                    assert_eq!(told.lock().unwrap().len(), change.generation as usize, "not from within");
                }
            });
        }
        circuit.trip();
        tell(&circuit, &told);
        assert_eq!(*told.lock().unwrap(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn an_observer_that_panics_does_not_silence_the_circuit() {
        let circuit = Circuit::new();
        let now = circuit.trip();
        let panics = std::panic::AssertUnwindSafe(|| circuit.gate.tell(|_| panic!("oh")));
        assert!(std::panic::catch_unwind(panics).is_err());
        circuit.admit(now).expect("a probe");
        let told = Mutex::new(0);
        circuit.gate.tell(|_| *told.lock().unwrap() += 1);
        assert_eq!(*told.lock().unwrap(), 1);
    }

    #[test]
    fn a_rejection_without_the_lock_says_what_the_circuit_says() {
        let circuit = Circuit::new();
        let until = circuit.trip();
        let quick = circuit.gate.deny_shut(until - 1, 0).expect("it is open");
        let (exact, _) = circuit.gate.admit(until - 1, 0, &circuit.unwell);
        assert_eq!((quick.until, Err(quick)), (until, exact));
        assert_eq!(circuit.gate.deny_shut(until, 0), None);
        circuit
            .gate
            .with(0, &circuit.unwell, |machine, _| ((), machine.set_mode(0, BreakerMode::ForcedOpen)));
        assert_eq!(circuit.gate.deny_shut(until, 0).map(|denial| denial.until), Some(NEVER));
        circuit.gate.retire(&circuit.unwell);
        assert_eq!(circuit.unwell.load(Ordering::Relaxed), 0);
    }
}

/// Every interleaving of at most three threads: see `src/sync.rs` for the command.
#[cfg(tower_gemini_loom)]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn model(test: impl Fn(Arc<Circuit>) + Sync + Send + 'static) {
        loom::model(move || test(Arc::new(Circuit::new())));
    }

    fn spawn(circuit: &Arc<Circuit>, work: impl FnOnce(&Circuit) + 'static) -> thread::JoinHandle<()> {
        let circuit = Arc::clone(circuit);
        thread::spawn(move || work(&circuit))
    }

    fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    }

    #[test]
    fn loom_never_more_probes_than_permitted() {
        // Three askers have too many interleavings to try them all, so at most three times a thread is interrupted
        // that could have gone on.
        let mut bounded = loom::model::Builder::new();
        bounded.preemption_bound = Some(3);
        bounded.check(|| {
            let circuit = Arc::new(Circuit::new());
            let now = circuit.trip();
            let probes = Arc::new(AtomicUsize::new(0));
            let ask = |circuit: &Arc<Circuit>| {
                let probes = Arc::clone(&probes);
                spawn(circuit, move |circuit| {
                    if circuit.admit(now).is_some() {
                        probes.fetch_add(1, Ordering::Relaxed);
                    }
                })
            };
            let threads = [ask(&circuit), ask(&circuit)];
            let own = usize::from(circuit.admit(now).is_some());
            join(threads);
            assert_eq!(probes.load(Ordering::Relaxed) + own, 1);
            circuit.assert_one_change_per_generation();
        });
    }

    #[test]
    fn loom_half_open_is_left_whether_the_probe_ends_or_is_lost() {
        model(|circuit| {
            let now = circuit.trip();
            // One probe fails and another asker drops whatever it got, in any order.
            let threads = [
                spawn(&circuit, move |circuit| {
                    if let Some(pass) = circuit.admit(now) {
                        circuit.settle(now, pass, FAILED);
                    }
                }),
                spawn(&circuit, move |circuit| {
                    if let Some(pass) = circuit.admit(now) {
                        circuit.gate.release(pass);
                    }
                }),
            ];
            join(threads);
            let now = circuit.look(now, |machine, _| machine.until()).unwrap_or(now);
            for _ in 0..2 {
                let pass = circuit.admit(now).expect("no place is lost");
                circuit.settle(now, pass, Mark::Success);
            }
            assert_eq!(circuit.state(), CircuitState::Closed);
            circuit.assert_one_change_per_generation();
        });
    }

    #[test]
    fn loom_one_change_for_failures_at_once_and_none_for_stragglers() {
        model(|circuit| {
            let passes: Vec<_> = (0..3).map(|_| circuit.admit(0).expect("it is closed")).collect();
            let fail = |pass| spawn(&circuit, move |circuit| circuit.settle(0, pass, FAILED));
            let threads = [fail(passes[0]), fail(passes[1])];
            circuit.settle(0, passes[2], FAILED);
            join(threads);
            assert_eq!(circuit.look(0, |machine, _| machine.generation()), 1);
            assert_eq!(circuit.unwell.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn loom_no_success_is_lost_between_the_word_and_the_lock() {
        model(|circuit| {
            let passes: Vec<_> = (0..3).map(|_| circuit.admit(0).expect("it is closed")).collect();
            let succeed = |pass| spawn(&circuit, move |circuit| circuit.settle(0, pass, Mark::Success));
            let threads = [succeed(passes[0]), succeed(passes[1])];
            // The lock comes in between.
            circuit.settle(0, passes[2], FAILED);
            join(threads);
            assert_eq!(circuit.calls(), 3);
            assert_eq!(circuit.state(), CircuitState::Closed);
        });
    }

    #[test]
    fn loom_a_success_of_another_age_closes_nothing() {
        model(|circuit| {
            let old = circuit.admit(0).expect("it is closed");
            let now = circuit.trip();
            let threads = [
                spawn(&circuit, move |circuit| circuit.settle(now, old, Mark::Success)),
                spawn(&circuit, move |circuit| assert!(circuit.admit(now).is_some())),
            ];
            join(threads);
            assert_eq!(circuit.state(), CircuitState::HalfOpen);
            assert!(circuit.admit(now).is_none(), "the probe's place is taken");
        });
    }
}
