//! The interleavings of the threads that meet at one key: see `src/sync.rs` for the command.
//!
//! What runs is the layer's own: the key with its locks, the scheduler, the permit. Two things are a model's own. The
//! clock is tokio's, paused, and moves when a model moves it; and a waiter sleeps on a bell, not on a runtime, and
//! with no timer unless it moves the clock itself. A waiter whom nobody wakes leaves its model with nothing that can
//! run, which the checker reports as a deadlock; so a model that ends at all lost no wake-up.

use std::sync::atomic::{AtomicUsize as DayCount, Ordering::Relaxed};
use std::task::Wake;
use std::time::SystemTime;

use loom::sync::Condvar;
use loom::thread;
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};

use super::super::permit::Permit;
use super::*;
use crate::event::Observed;
use crate::rate_limit::quota_state::Rules;
use crate::request::Target;

const SECOND: Nanos = 1_000_000_000;
const SPAN: Nanos = 60 * SECOND + SECOND / 2;
const COST: Cost = Cost::exact(1);

/// A key and the clock it goes by.
#[derive(Clone)]
struct Door {
    key: Arc<Key>,
    clock: Arc<Runtime>,
}

/// A caller that waits.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
    /// A waker that goes to the scheduler when it is used or dropped, as a user's might.
    visits: Option<Arc<Key>>,
}

impl Bell {
    fn wait(&self) {
        let mut rung = lock(&self.rung);
        while !std::mem::take(&mut *rung) {
            rung = self.rings.wait(rung).expect("no thread panics");
        }
    }

    /// The thread stops here for ever if the lock is its own.
    fn visit(&self) {
        if let Some(key) = &self.visits {
            drop(lock(&key.scheduler));
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.visit();
        *lock(&self.rung) = true;
        self.rings.notify_one();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.visit();
    }
}

/// What a driver does until somebody wakes it.
#[derive(Clone, Copy, PartialEq)]
enum Time {
    /// Its timer does not come.
    Stands,
    /// Its timer comes at once.
    Flies,
}

impl Door {
    fn arrive(&self) -> Arrival {
        self.key.arrive(COST, None)
    }

    /// A permit, if there is one at once.
    fn try_enter(&self) -> Option<Permit> {
        match self.arrive() {
            Arrival::Granted(receipt) => Some(self.granted(Ok(receipt))),
            Arrival::Queued(place, _) => {
                self.key.cancel(place);
                None
            }
            Arrival::Refused(_) => None,
        }
    }

    fn enter(&self, time: Time) -> Permit {
        self.through(self.arrive(), &Arc::new(Bell::default()), time)
    }

    fn through(&self, arrival: Arrival, bell: &Arc<Bell>, time: Time) -> Permit {
        match arrival {
            Arrival::Granted(receipt) => self.granted(Ok(receipt)),
            Arrival::Queued(place, _) => self.wait(place, bell, time),
            Arrival::Refused(refusal) => panic!("{refusal:?}"),
        }
    }

    /// Waits as the layer's future does.
    fn wait(&self, place: WaiterId, bell: &Arc<Bell>, time: Time) -> Permit {
        let waker = Waker::from(Arc::clone(bell));
        loop {
            match self.key.look(place, &waker) {
                Look::Answered(answer) => return self.granted(answer),
                Look::Driving(next) if time == Time::Flies => {
                    self.pass_until(next);
                    self.key.watch(place);
                }
                Look::Driving(_) | Look::Waiting(_) => bell.wait(),
            }
        }
    }

    fn granted(&self, answer: Result<Receipt, Refusal>) -> Permit {
        Permit::new(Arc::clone(&self.key), answer.expect("nothing here is refused"), true)
    }

    /// Joins the queue and looks once, so that it can be woken.
    fn queue(&self) -> WaiterId {
        let Arrival::Queued(place, _) = self.arrive() else { panic!("there is no room") };
        let waker = Waker::from(Arc::new(Bell::default()));
        assert!(!matches!(self.key.look(place, &waker), Look::Answered(_)));
        place
    }

    fn pass_until(&self, instant: Nanos) {
        let left = Duration::from_nanos(instant.saturating_sub(self.key.common.now()));
        self.clock.block_on(tokio::time::advance(left));
    }

    fn spawn<T: 'static>(&self, work: impl FnOnce(&Self) -> T + 'static) -> thread::JoinHandle<T> {
        let door = self.clone();
        thread::spawn(move || work(&door))
    }

    /// Requests in the window, admissions that are not settled, places in the queue.
    fn books(&self) -> (u64, u64, usize) {
        let scheduler = lock(&self.key.scheduler);
        let counts = scheduler.ledger.counts();
        let open = counts.admitted - counts.settled - counts.not_sent - counts.too_many;
        (scheduler.ledger.window().requests(), open, scheduler.places())
    }
}

fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("no thread panics")
}

/// Tries every interleaving; where three threads have too many, those in which a thread that could have gone on is
/// interrupted `most` times at the most.
fn model(most: Option<usize>, limits: Limits, test: impl Fn(Door) + Send + Sync + 'static) {
    let clock = RuntimeBuilder::new_current_thread().enable_time().start_paused(true).build();
    let clock = Arc::new(clock.expect("a clock"));
    let _clock = clock.enter();
    let clock = Arc::clone(&clock);
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = most;
    checker.check(move || {
        let rules =
            Rules { span: SPAN, margin: 1.0, learn: true, probe_every: 60 * SECOND, guard: SECOND / 2 };
        // Five seconds before midnight in California. It is carried on by the clock above.
        let evening = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_254_395);
        let wall_clock = Arc::new(move || evening);
        let common = Common::new(
            rules,
            (10, None, crate::rate_limit::AdmissionMode::Wait),
            wall_clock,
            Observed::default(),
        );
        let id = QuotaKey::of(&Target::of(
            &http::Request::post("/v1beta/models/m:generateContent").body(()).expect("valid"),
        ));
        let key = Arc::new(Key::new(Arc::new(common), id, limits, None));
        test(Door { key, clock: Arc::clone(&clock) });
    });
}

fn per_minute(requests: u64) -> Limits {
    Limits::new().requests_per_minute(requests)
}

#[test]
fn loom_of_three_at_once_two_go_under_a_limit_of_two() {
    model(None, per_minute(2), |door| {
        let others = [door.spawn(Door::try_enter), door.spawn(Door::try_enter)];
        let own = door.try_enter();
        let permits: Vec<_> = others.into_iter().map(join).chain([own]).flatten().collect();
        assert_eq!(permits.len(), 2);
        assert_eq!(door.books(), (2, 2, 0));
        drop(permits);
        assert_eq!(door.books(), (0, 0, 0), "nothing was sent");
    });
}

#[test]
fn loom_room_that_is_given_back_reaches_all_who_wait() {
    model(Some(5), per_minute(1), |door| {
        let inside = Arc::new(DayCount::new(1));
        let first = door.try_enter().expect("there is room");
        let enter = |door: &Door| {
            let inside = Arc::clone(&inside);
            door.spawn(move |door| {
                let permit = door.enter(Time::Stands);
                assert_eq!(inside.fetch_add(1, Relaxed), 0, "one at a time");
                inside.fetch_sub(1, Relaxed);
                drop(permit);
            })
        };
        let others = [enter(&door), enter(&door)];
        inside.fetch_sub(1, Relaxed);
        drop(first);
        others.into_iter().for_each(join);
        assert_eq!(door.books(), (0, 0, 0));
    });
}

#[test]
fn loom_a_waiter_that_leaves_takes_nobody_s_turn_with_it() {
    model(None, per_minute(1), |door| {
        let first = door.try_enter().expect("there is room");
        // It is the head of the queue, and its driver.
        let leaving = door.queue();
        let others = [
            door.spawn(move |door| {
                door.key.cancel(leaving);
                None
            }),
            door.spawn(|door| Some(door.enter(Time::Stands))),
        ];
        drop(first);
        let permits: Vec<_> = others.into_iter().filter_map(join).collect();
        assert_eq!(door.books(), (1, 1, 0));
        drop(permits);
        assert_eq!(door.books(), (0, 0, 0));
    });
}

#[test]
fn loom_somebody_watches_the_clock_when_the_driver_leaves() {
    model(Some(5), per_minute(1), |door| {
        let begun = door.key.common.now();
        let mut first = door.try_enter().expect("there is room");
        // It may have reached the server, so the room comes with the time.
        first.begin();
        drop(first);
        let leaving = door.queue();
        let enter = |door: &Door| {
            door.spawn(|door| {
                let mut permit = door.enter(Time::Flies);
                permit.begin();
            })
        };
        let others = [enter(&door), enter(&door)];
        door.key.cancel(leaving);
        others.into_iter().for_each(join);
        // Three were sent, in three windows; the last of them may be over.
        assert!(door.key.common.now() - begun >= 2 * SPAN, "one a window");
        let (requests, in_flight, places) = door.books();
        assert!(requests <= 1 && (in_flight, places) == (0, 0));
    });
}

#[test]
fn loom_wakers_are_used_and_dropped_without_the_lock() {
    model(Some(5), per_minute(1), |door| {
        let first = door.try_enter().expect("there is room");
        let bell = |door: &Door| {
            let visits = Some(Arc::clone(&door.key));
            Arc::new(Bell { rung: Mutex::default(), rings: Condvar::new(), visits })
        };
        // Each is queued or not, and then either leaves or stays.
        let others = [
            door.spawn(move |door| match door.arrive() {
                Arrival::Queued(place, _) => {
                    // Another task's waker takes the place of the first one, which is dropped.
                    for _ in 0..2 {
                        if let Look::Answered(answer) = door.key.look(place, &Waker::from(bell(door))) {
                            return drop(door.granted(answer));
                        }
                    }
                    door.key.cancel(place);
                }
                arrival => drop(door.through(arrival, &bell(door), Time::Stands)),
            }),
            door.spawn(move |door| drop(door.through(door.arrive(), &bell(door), Time::Stands))),
        ];
        drop(first);
        others.into_iter().for_each(join);
    });
}

#[test]
fn loom_tokens_that_were_not_used_reach_who_waits_for_them() {
    model(None, Limits::new().input_tokens_per_minute(10), |door| {
        let cost = Cost::exact(6);
        let arrive = move |door: &Door| door.key.arrive(cost, None);
        let Arrival::Granted(first) = arrive(&door) else { panic!("there is room") };
        let enter = |door: &Door| {
            door.spawn(move |door| door.through(arrive(door), &Arc::new(Bell::default()), Time::Stands))
        };
        let other = enter(&door);
        door.key.settle(first, Settlement::Used { input_tokens: 4 });
        let permit = join(other);
        assert_eq!(lock(&door.key.scheduler).ledger.window().tokens(), 10);
        drop(permit);
        assert_eq!(lock(&door.key.scheduler).ledger.window().tokens(), 4);
        assert_eq!(door.books(), (1, 0, 0));
    });
}

#[test]
fn loom_a_refusal_closes_the_door_whatever_else_is_answered() {
    // What the future does with a head.
    fn answer(mut permit: Permit, answer: http::response::Builder) -> Option<Permit> {
        let answer = answer.body(()).expect("valid");
        if Verdict::is_good(&answer) {
            permit.is_answered();
            return Some(permit);
        }
        let _ = permit.refused(&Verdict::of(&answer));
        None
    }
    model(None, per_minute(4), |door| {
        let begun = door.key.common.now();
        let refused = door.try_enter().expect("there is room");
        let welcome = door.try_enter().expect("there is room");
        let others = [
            door.spawn(|_| {
                answer(refused, http::Response::builder().status(429).header("retry-after", "30"));
            }),
            door.spawn(|_| drop(answer(welcome, http::Response::builder()))),
        ];
        let own = door.try_enter();
        others.into_iter().for_each(join);
        drop(own);
        let Arrival::Queued(place, held) = door.arrive() else { panic!("the door is closed") };
        assert!(held.until >= begun + 30 * SECOND);
        let attentive = lock(&door.key.scheduler).ledger.is_attentive();
        assert_eq!(door.key.attentive.load(Ordering::Relaxed), attentive, "at rest the hint is exact");
        drop(door.wait(place, &Arc::new(Bell::default()), Time::Flies));
        assert!(door.key.common.now() >= begun + 30 * SECOND);
        let (_, in_flight, places) = door.books();
        assert_eq!((in_flight, places), (0, 0));
    });
}

#[test]
fn loom_a_new_day_begins_once() {
    model(Some(5), Limits::new().requests_per_day(1), |door| {
        let mut first = door.try_enter().expect("there is room");
        first.begin();
        drop(first);
        assert!(door.try_enter().is_none(), "the day is spent");
        door.pass_until(door.key.common.now() + 6 * SECOND);
        // Each of them finds the day over, and lets go of the lock to look at the calendar.
        let others = [door.spawn(Door::try_enter), door.spawn(Door::try_enter)];
        let own = door.try_enter();
        let permits: Vec<_> = others.into_iter().map(join).chain([own]).flatten().collect();
        assert_eq!(permits.len(), 1);
    });
}
