//! Every interleaving of three threads at one budget: see `src/sync.rs` for the command.
//!
//! Each model gives every thread a list of steps, and then compares what they got and what is left with all orders
//! in which one thread could have taken the same steps. A budget that paid out too much, kept more than its cap or
//! lost a deposit that did not meet a full bucket would show something that no such order shows.

use std::collections::BTreeSet;

use loom::thread;

use super::*;

#[derive(Clone, Copy)]
enum Step {
    Deposit(u64),
    /// Takes a token, and spends it if there is one.
    Spend(u64),
    /// Takes a token, and drops it if there is one.
    Drop(u64),
}
use Step::{Deposit, Spend};

/// The keys that a model may use.
const KEYS: usize = 2;
type Program = &'static [Step];

/// For each thread, which of its steps got a token; for each key, what its bucket lacks.
type Outcome = (Vec<Vec<bool>>, [Milli; KEYS]);

/// Takes one step. Returns whether a token was taken.
fn take(budget: &Budget, step: Step) -> bool {
    match step {
        Deposit(key) => {
            budget.deposit(key, 0);
            false
        }
        Spend(key) => {
            budget.withdraw(key, Charge::FAILURE, crate::time::now()).map(Withdrawal::spend).is_some()
        }
        Step::Drop(key) => budget.withdraw(key, Charge::FAILURE, crate::time::now()).is_some(),
    }
}

/// A budget that is one number per key, in the hands of one thread.
#[derive(Clone)]
struct Numbers {
    cap: Milli,
    per_success: Milli,
    lacking: [Milli; KEYS],
    /// How far each thread has come.
    next: Vec<usize>,
    /// The key to which a thread must give back a token, before its next step.
    held: Vec<Option<usize>>,
    taken: Vec<Vec<bool>>,
}

impl Numbers {
    /// What can come out, whichever thread is the next each time.
    fn explore(&self, programs: &[Program], outcomes: &mut BTreeSet<Outcome>) {
        let mut is_over = true;
        for (thread, program) in programs.iter().enumerate() {
            let mut then = self.clone();
            if let Some(key) = then.held[thread].take() {
                then.lacking[key] -= TOKEN;
            } else if let Some(step) = program.get(self.next[thread]) {
                then.next[thread] += 1;
                let taken = then.step(thread, *step);
                then.taken[thread].push(taken);
            } else {
                continue;
            }
            is_over = false;
            then.explore(programs, outcomes);
        }
        if is_over {
            outcomes.insert((self.taken.clone(), self.lacking));
        }
    }

    fn step(&mut self, thread: usize, step: Step) -> bool {
        let (Deposit(key) | Spend(key) | Step::Drop(key)) = step;
        let key = key as usize;
        if let Deposit(_) = step {
            self.lacking[key] = self.lacking[key].saturating_sub(self.per_success);
            return false;
        }
        if self.cap - self.lacking[key] < TOKEN {
            return false;
        }
        self.lacking[key] += TOKEN;
        self.held[thread] = matches!(step, Step::Drop(_)).then_some(key);
        true
    }
}

/// Runs each program in a thread of its own, the last one in the model's first thread, after so many tokens of the
/// first key were spent.
fn check(cap: u32, spent: u32, programs: &'static [Program]) {
    let threads = programs.len();
    let numbers = Numbers {
        cap: cap * TOKEN,
        per_success: TOKEN / 2,
        lacking: [spent * TOKEN, 0],
        next: vec![0; threads],
        held: vec![None; threads],
        taken: vec![Vec::new(); threads],
    };
    let mut outcomes = BTreeSet::new();
    numbers.explore(programs, &mut outcomes);
    loom::model(move || {
        let budget = Budget::of(cap * TOKEN, TOKEN / 2);
        (0..spent).for_each(|_| assert!(take(&budget, Spend(0))));
        let run = |budget: &Budget, program: Program| -> Vec<bool> {
            program.iter().map(|step| take(budget, *step)).collect()
        };
        let (own, others) = programs.split_last().expect("at least one program");
        let others: Vec<_> = others
            .iter()
            .map(|program| {
                let budget = budget.clone();
                thread::spawn(move || run(&budget, program))
            })
            .collect();
        let own = run(&budget, own);
        let join = |thread: thread::JoinHandle<_>| thread.join().expect("no thread panics");
        let mut taken: Vec<_> = others.into_iter().map(join).collect();
        taken.push(own);

        let map = budget.lock();
        let lacking = std::array::from_fn(|key| map.get(&(key as u64)).map_or(0, |bucket| bucket.lack));
        let is_in_range =
            |bucket: &Bucket| (1..=cap * TOKEN).contains(&bucket.lack) && (0.0..=1.0).contains(&bucket.well);
        assert!(map.values().all(is_in_range), "{map:?}");
        assert_eq!(budget.keys_short(), map.len(), "at rest the hint is exact");
        let outcome = (taken, lacking);
        assert!(outcomes.contains(&outcome), "no order gives {outcome:?}, but these: {outcomes:?}");
    });
}

#[test]
fn loom_a_budget_pays_out_what_it_holds_and_no_more() {
    check(2, 0, &[&[Spend(0)], &[Spend(0)], &[Spend(0)]]);
}

#[test]
fn loom_no_deposit_into_a_short_bucket_is_lost_and_none_exceeds_the_cap() {
    check(3, 2, &[&[Deposit(0)], &[Deposit(0)], &[Deposit(0), Spend(0)]]);
    check(2, 1, &[&[Deposit(0)], &[Deposit(0)], &[Deposit(0)]]);
}

#[test]
fn loom_a_deposit_beside_a_withdrawal_from_a_full_bucket_comes_before_or_after_it() {
    check(2, 0, &[&[Spend(0), Deposit(0)], &[Deposit(0)], &[Spend(0)]]);
    check(1, 1, &[&[Deposit(0), Deposit(0), Spend(0)], &[Deposit(0), Spend(0)]]);
}

#[test]
fn loom_a_token_that_is_dropped_can_be_had_by_another() {
    check(1, 0, &[&[Step::Drop(0), Spend(0)], &[Spend(0)], &[Deposit(0)]]);
    check(1, 0, &[&[Step::Drop(0)], &[Step::Drop(0)], &[Spend(0)]]);
}

#[test]
fn loom_a_bucket_that_fills_hides_no_other_that_is_short() {
    check(1, 1, &[&[Deposit(0), Deposit(0)], &[Spend(1), Deposit(1)], &[Spend(1)]]);
}
