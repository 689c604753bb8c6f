//! The scheduler against a model that is too simple to be wrong: it keeps every charge it ever made, sums them up anew
//! for each question, and tries every instant at which anything could change.

use std::time::Duration;

use proptest::prelude::*;

use super::decision::{Receipt, Settlement};
use super::estimate::Cost;
use super::queue::{NEVER, WaiterId};
use super::quota_state::{QuotaState, Rules};
use super::quota_update::QuotaUpdate;
use super::scheduler::{Arrival, Look, Patience, Scheduler};
use super::window::Nanos;
use crate::event::RateLimitReason;
use crate::request::limits::{LimitKind, Limits, Unit};

/// A short window, so that charges come and go often.
const SPAN: Nanos = 60;
const RULES: Rules = Rules { span: SPAN, margin: 1.0, learn: true, probe_every: 40, guard: 0 };
const PATIENCE: Patience = Patience { fetch: 7, tick: 0 };
const BACKFILL: usize = 64;

#[derive(Clone, Debug)]
struct Charge {
    id: usize,
    at: Nanos,
    tokens: u64,
    requests: u64,
    /// What the longer windows count it for.
    long: (u64, u64),
    in_flight: bool,
}

/// The batch that is under way after a 429 that nobody could foresee.
#[derive(Clone, Copy, Debug)]
struct Ramp {
    most: u64,
    largest: u64,
    sent: u64,
    sent_at: Nanos,
    decided_after: Nanos,
    over: Nanos,
    /// Charges from here on are its own; one of the instant before it began is not.
    since: Nanos,
}

#[derive(Clone, Debug)]
struct Model {
    now: Nanos,
    rpm: u64,
    tpm: u64,
    /// Requests and tokens of longer windows, and how long those are.
    long: Option<[(u64, Nanos); 2]>,
    configured: (u64, u64),
    learnt: (Option<u64>, Option<u64>),
    charges: Vec<Charge>,
    /// Who waits: number, tokens.
    queue: Vec<(usize, u64)>,
    /// Until when, from when a probe may go, and who went last; by minute's requests, minute's tokens, other.
    closed: [(Nanos, Nanos, usize); 3],
    ramp: Option<Ramp>,
    /// How long after it went a call is known to be admitted.
    decided_after: Nanos,
    granted: Vec<(Nanos, usize)>,
    /// Charges that have left the window, and whose calls are over.
    left: Vec<Charge>,
}

impl Model {
    fn used(&self, at: Nanos) -> (u64, u64) {
        let live = self.charges.iter().filter(|c| c.at + SPAN > at);
        live.fold((0, 0), |sum, c| (sum.0 + c.requests, sum.1 + c.tokens))
    }

    fn doors_open(&self, at: Nanos) -> bool {
        self.closed.iter().all(|(until, probe, _)| at >= *until || at >= *probe)
    }

    /// What the longer windows hold.
    fn used_long(&self, at: Nanos, [(_, requests), (_, tokens)]: [(u64, Nanos); 2]) -> (u64, u64) {
        self.charges.iter().fold((0, 0), |sum, c| {
            let held = |length: Nanos, amount: u64| if c.at + length > at { amount } else { 0 };
            (sum.0 + held(requests, c.long.0), sum.1 + held(tokens, c.long.1))
        })
    }

    /// By limits alone, at an instant of the future if nothing more is charged.
    fn fits_limits(&self, at: Nanos, tokens: u64) -> bool {
        let (requests, used) = self.used(at);
        let fits_long = self.long.is_none_or(|long| {
            let (requests, used) = self.used_long(at, long);
            requests < long[0].0 && used + tokens <= long[1].0
        });
        requests < self.rpm && used + tokens <= self.tpm && fits_long
    }

    fn fits(&self, tokens: u64) -> bool {
        let now = self.now;
        let ramp = self.ramp.is_none_or(|ramp| {
            now >= ramp.over || ramp.sent < ramp.most || now >= ramp.sent_at + ramp.decided_after
        });
        self.doors_open(self.now) && self.fits_limits(self.now, tokens) && ramp
    }

    fn charge(&mut self, id: usize, tokens: u64) {
        for (until, probe, asked) in &mut self.closed {
            if self.now < *until {
                *probe = (*until).min(self.now + RULES.probe_every);
                *asked = id;
            }
        }
        if let Some(ramp) = self.ramp.as_mut().filter(|ramp| self.now < ramp.over) {
            if ramp.sent >= ramp.most {
                (ramp.most, ramp.sent) = ((2 * ramp.most).min(ramp.largest), 0);
            }
            (ramp.sent, ramp.sent_at) = (ramp.sent + 1, self.now);
        }
        let long = (1, tokens);
        self.charges.push(Charge { id, at: self.now, tokens, requests: 1, long, in_flight: true });
        self.granted.push((self.now, id));
    }

    /// Every instant from now on at which a charge leaves.
    fn changes(&self) -> Vec<Nanos> {
        let mut all: Vec<Nanos> =
            self.charges.iter().map(|c| c.at + SPAN).filter(|at| *at > self.now).collect();
        let lengths = self.long.iter().flatten().map(|one| one.1);
        all.extend(lengths.flat_map(|length| self.charges.iter().map(move |c| c.at + length)));
        all.extend(self.closed.iter().flat_map(|(until, probe, _)| [*until, *probe]));
        all.extend(self.ramp.iter().flat_map(|ramp| [ramp.over, ramp.sent_at + ramp.decided_after]));
        all.retain(|at| *at > self.now);
        all.sort_unstable();
        all.dedup();
        all
    }

    /// When the limits alone let this many tokens through.
    fn start(&self, tokens: u64) -> Option<Nanos> {
        std::iter::once(self.now).chain(self.changes()).find(|at| self.fits_limits(*at, tokens))
    }

    /// Whether a charge of `other` now would make one of `tokens` wait longer.
    fn would_delay(&mut self, tokens: u64, other: u64) -> bool {
        let before = self.start(tokens);
        let at = self.now;
        let long = (1, other);
        self.charges.push(Charge { id: usize::MAX, at, tokens: other, requests: 1, long, in_flight: true });
        let after = self.start(tokens);
        self.charges.pop();
        before != after
    }

    /// Lets one round of those behind the head go; whether anybody went.
    fn backfill(&mut self, head: u64) -> bool {
        if self.used(self.now).0 + 1 >= self.rpm && self.would_delay(head, 0) {
            return false;
        }
        // The largest that fits and delays nobody, by bisection.
        let (mut fits, mut not) = (0, self.tpm + 1);
        while not - fits > 1 {
            let middle = fits.midpoint(not);
            if self.fits(middle) && !self.would_delay(head, middle) { fits = middle } else { not = middle }
        }
        let behind: Vec<_> = self.queue.iter().skip(1).take(BACKFILL).copied().collect();
        let sizes: Vec<u64> = behind.iter().map(|one| one.1).collect();
        let picked = super::scheduler::backfill::pick(&sizes, fits);
        let mut went = false;
        for (nth, (id, wants)) in behind.into_iter().enumerate() {
            if picked >> nth & 1 == 1 {
                if !self.fits(wants) || self.would_delay(head, wants) {
                    break;
                }
                self.queue.retain(|one| one.0 != id);
                self.charge(id, wants);
                went = true;
            }
        }
        went
    }

    fn settle_now(&mut self) {
        while let Some((id, tokens)) = self.queue.first().copied() {
            if self.fits(tokens) {
                self.queue.remove(0);
                self.charge(id, tokens);
                continue;
            }
            // Only a head that waits for tokens, and for nothing else, is passed, and none where there are longer windows.
            if self.long.is_none() && self.doors_open(self.now) && self.used(self.now).1 + tokens > self.tpm {
                while self.backfill(tokens) {}
            }
            break;
        }
    }

    /// Passes through every instant at which something could change.
    fn pass_to(&mut self, to: Nanos) {
        loop {
            self.settle_now();
            let Some(next) = self.changes().first().copied().filter(|next| *next <= to) else { break };
            self.now = next;
        }
        self.now = to;
        self.settle_now();
    }

    /// Puts aside what can no longer matter, for speed alone.
    fn tidy(&mut self) {
        let longest = self.long.iter().flatten().map(|one| one.1).fold(SPAN, Nanos::max);
        let (now, left) = (self.now, &mut self.left);
        self.charges.retain(|charge| {
            let matters = charge.in_flight || charge.at + longest > now;
            if !matters {
                left.push(charge.clone());
            }
            matters
        });
    }

    fn refresh(&mut self) {
        self.rpm = self.learnt.0.map_or(self.configured.0, |learnt| learnt.min(self.configured.0));
        self.tpm = self.learnt.1.map_or(self.configured.1, |learnt| learnt.min(self.configured.1));
    }
}

#[derive(Clone, Debug)]
enum Op {
    Arrive { tokens: u64 },
    Settle { which: prop::sample::Index, how: u8, tokens: u64 },
    Refuse { which: prop::sample::Index, dimension: u8, delay: Option<u64>, limit: Option<u64> },
    Cancel { which: prop::sample::Index },
    Configure { rpm: u64, tpm: u64 },
    Pass { time: u64 },
}

fn ops(count: usize) -> impl Strategy<Value = Vec<Op>> {
    let index = any::<prop::sample::Index>;
    let op = prop_oneof![
        5 => prop_oneof![1..30_u64, 30..100_u64].prop_map(|tokens| Op::Arrive { tokens }),
        3 => (index(), 0..5_u8, 0..120_u64).prop_map(|(which, how, tokens)| Op::Settle { which, how, tokens }),
        1 => (index(), 0..3_u8, prop::option::of(1..90_u64), prop::option::of(1..12_u64))
            .prop_map(|(which, dimension, delay, limit)| Op::Refuse { which, dimension, delay, limit }),
        2 => index().prop_map(|which| Op::Cancel { which }),
        1 => (1..12_u64, 20..200_u64).prop_map(|(rpm, tpm)| Op::Configure { rpm, tpm }),
        5 => (0..80_u64).prop_map(|time| Op::Pass { time }),
    ];
    prop::collection::vec(op, count)
}

fn with_long(limits: Limits, long: Option<[(u64, Nanos); 2]>) -> Limits {
    let Some([requests, tokens]) = long else { return limits };
    limits.per(Unit::Requests, requests.0, Duration::from_nanos(requests.1)).per(
        Unit::InputTokens,
        tokens.0,
        Duration::from_nanos(tokens.1),
    )
}

/// Both of them side by side.
struct Pair {
    scheduler: Scheduler<usize>,
    model: Model,
    now: Nanos,
    /// Who waits at the scheduler: number and place, in the order of arrival.
    waiting: Vec<(usize, WaiterId)>,
    /// Admitted and not settled.
    open: Vec<(usize, Receipt)>,
    granted: Vec<(Nanos, usize)>,
    arrived: usize,
    refused: usize,
    cancelled: usize,
    /// How many of `granted` were compared with the model's.
    compared: usize,
}

impl Pair {
    fn new(long: Option<[(u64, Nanos); 2]>) -> Self {
        let limits = with_long(Limits::new().requests_per_minute(8).input_tokens_per_minute(100), long);
        let mut ledger = QuotaState::new(RULES, limits, 0);
        ledger.set_day(0, super::day::Day { date: jiff::civil::date(2026, 11, 21), left: NEVER / 2 });
        let model = Model {
            now: 0,
            rpm: 8,
            tpm: 100,
            long,
            configured: (8, 100),
            learnt: (None, None),
            charges: Vec::new(),
            queue: Vec::new(),
            closed: [(0, 0, usize::MAX); 3],
            ramp: None,
            decided_after: 0,
            granted: Vec::new(),
            left: Vec::new(),
        };
        Self {
            scheduler: Scheduler::new(ledger, 1000, true, PATIENCE),
            model,
            now: 0,
            waiting: Vec::new(),
            open: Vec::new(),
            granted: Vec::new(),
            arrived: 0,
            refused: 0,
            cancelled: 0,
            compared: 0,
        }
    }

    /// Waiters look whether they were answered, in the order of arrival.
    fn look(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|(id, place)| {
            match self.scheduler.look(*place, || self.now, |waker| *waker = Some(*id)) {
                Look::Answered(Ok(receipt)) => {
                    self.granted.push((self.now, *id));
                    self.open.push((*id, receipt));
                    false
                }
                Look::Answered(Err(refusal)) => {
                    assert_eq!(refusal.why, RateLimitReason::TooLarge, "nobody has a deadline");
                    self.refused += 1;
                    self.model.queue.retain(|(waiting, _)| waiting != id);
                    false
                }
                Look::Waiting(_) | Look::Driving(_) => true,
            }
        });
        self.waiting = waiting;
        self.scheduler.take_woken();
    }

    fn pass(&mut self, time: u64) {
        let to = self.now + time;
        while let Some(next) = self.scheduler.next().filter(|next| *next <= to) {
            assert!(next > self.now, "the queue would spin");
            self.now = next;
            self.scheduler.advance(next);
            self.look();
        }
        self.now = to;
        self.model.pass_to(to);
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Arrive { tokens } => {
                let id = self.arrived;
                self.arrived += 1;
                let cost = Cost::exact(*tokens as u32);
                match self.scheduler.arrive(self.now, cost, NEVER) {
                    Arrival::Granted(receipt) => {
                        self.granted.push((self.now, id));
                        self.open.push((id, receipt));
                        self.model.queue.push((id, *tokens));
                    }
                    Arrival::Queued(place, _) => {
                        self.waiting.push((id, place));
                        self.model.queue.push((id, *tokens));
                    }
                    Arrival::Refused(refusal) => {
                        assert_eq!(refusal.why, RateLimitReason::TooLarge);
                        let long = self.model.long.map_or(u64::MAX, |long| long[1].0);
                        assert!(*tokens > self.model.tpm || *tokens > long);
                        self.refused += 1;
                    }
                }
            }
            Op::Settle { which, how, tokens } if !self.open.is_empty() => {
                let (id, receipt) = self.open.swap_remove(which.index(self.open.len()));
                let charge = self.model.charges.iter_mut().find(|c| c.id == id).expect("it was admitted");
                let at = charge.at;
                let gone = at + SPAN <= self.now;
                charge.in_flight = false;
                let how = match how {
                    0 => Settlement::NotSent,
                    1 => Settlement::Unknown,
                    2 => Settlement::Refused,
                    3 => Settlement::TooMany,
                    _ => Settlement::Used { input_tokens: *tokens },
                };
                if how == Settlement::NotSent {
                    if let Some(ramp) = self.model.ramp.as_mut().filter(|ramp| at >= ramp.since) {
                        ramp.sent = ramp.sent.saturating_sub(1);
                    }
                    for (_, probe, _) in self.model.closed.iter_mut().filter(|door| door.2 == id) {
                        *probe = (*probe).min(self.now);
                    }
                }
                // A correction of what has left is of no account.
                match how {
                    Settlement::NotSent => charge.long = (0, 0),
                    Settlement::Refused | Settlement::TooMany => charge.long.1 = 0,
                    Settlement::Used { input_tokens } => charge.long.1 = input_tokens,
                    Settlement::Unknown => {}
                }
                if !gone {
                    match how {
                        Settlement::NotSent => (charge.requests, charge.tokens) = (0, 0),
                        Settlement::Refused | Settlement::TooMany => charge.tokens = 0,
                        Settlement::Used { input_tokens } => charge.tokens = input_tokens,
                        Settlement::Unknown => {}
                    }
                }
                if self.scheduler.settle(receipt, how) {
                    self.scheduler.advance(self.now);
                }
            }
            Op::Refuse { which, dimension, delay, limit } if !self.open.is_empty() => {
                let (id, receipt) = self.open.swap_remove(which.index(self.open.len()));
                self.refuse(id, receipt, *dimension, delay.map(|delay| self.now + delay), *limit);
            }
            Op::Cancel { which } if !self.waiting.is_empty() => {
                let (id, place) = self.waiting.remove(which.index(self.waiting.len()));
                self.model.queue.retain(|(waiting, _)| *waiting != id);
                self.cancelled += 1;
                self.scheduler.cancel(self.now, place);
            }
            Op::Configure { rpm, tpm } => {
                self.model.configured = (*rpm, *tpm);
                self.model.learnt = (None, None);
                self.model.refresh();
                let limits = Limits::new().requests_per_minute(*rpm).input_tokens_per_minute(*tpm);
                self.scheduler.ledger.configure(with_long(limits, self.model.long));
                self.scheduler.advance(self.now);
            }
            Op::Pass { time } => self.pass(*time),
            _ => {}
        }
        self.look();
        self.model.settle_now();
        self.check();
    }

    fn refuse(
        &mut self,
        id: usize,
        mut receipt: Receipt,
        dimension: u8,
        until: Option<Nanos>,
        limit: Option<u64>,
    ) {
        let (dimension, door) = match dimension {
            0 => (LimitKind::RequestsPerMinute, 0),
            1 => (LimitKind::InputTokensPerMinute, 1),
            _ => (LimitKind::Other, 2),
        };
        let limit = limit.map(|limit| if door == 1 { limit * 15 } else { limit }).filter(|_| door < 2);
        let model = &mut self.model;
        match door {
            0 => model.learnt.0 = limit.or(model.learnt.0),
            1 => model.learnt.1 = limit.or(model.learnt.1),
            _ => {}
        }
        model.refresh();
        let (requests, tokens) = model.used(self.now);
        let charge = model.charges.iter().find(|c| c.id == id).expect("it was admitted");
        let took = if charge.at + SPAN > self.now { self.now - charge.at } else { SPAN / 12 };
        let before = model.decided_after - model.decided_after / 4;
        model.decided_after = (2 * took).clamp(SPAN / 1024, SPAN / 12).max(before);
        let oversize = door == 1 && charge.tokens >= model.tpm && tokens <= charge.tokens;
        if !oversize {
            let known = self.scheduler.ledger.ratio().at_most(tokens);
            let explained = [requests >= model.rpm, known >= model.tpm, false][door];
            let in_flight = model.charges.iter().filter(|c| c.in_flight).count() as u64;
            if !explained {
                let most = if until.is_some() { 1 } else { (in_flight / 2).max(1) };
                let alive = model.ramp.filter(|ramp| ramp.over > self.now);
                // What is charged in the instant of another charge is one with it.
                let joins = model.charges.iter().any(|charge| charge.at == self.now);
                let pace = requests * model.decided_after / SPAN + 1;
                let halved = alive.map_or(u64::MAX, |ramp| (ramp.most / 2).max(pace));
                let most = alive.map_or(most, |ramp| ramp.most.min(most));
                model.ramp = Some(Ramp {
                    most,
                    largest: (model.rpm / 12).min(halved).max(most),
                    sent: 0,
                    sent_at: self.now,
                    decided_after: model.decided_after,
                    over: until.unwrap_or(self.now) + SPAN,
                    since: self.now + u64::from(joins),
                });
            }
            if let Some(until) = until {
                let until = until.max(if model.closed[door].0 > self.now { model.closed[door].0 } else { 0 });
                model.closed[door] = (until, until.min(self.now + RULES.probe_every), usize::MAX);
            }
        }
        let charge = model.charges.iter_mut().find(|c| c.id == id).expect("it was admitted");
        charge.in_flight = false;
        charge.long.1 = 0;
        if charge.at + SPAN > self.now {
            charge.tokens = 0;
        }
        let lesson = QuotaUpdate { dimension, limit, until, spent: false, zero: false };
        self.scheduler.ledger.close_until(self.now, &mut receipt, lesson);
        self.scheduler.settle(receipt, Settlement::TooMany);
        self.scheduler.advance(self.now);
    }

    /// All calls that are under way come to an end that says nothing.
    fn finish(&mut self) {
        while let Some((id, receipt)) = self.open.pop() {
            let charge = self.model.charges.iter_mut().find(|c| c.id == id).expect("it was admitted");
            charge.in_flight = false;
            if self.scheduler.settle(receipt, Settlement::Unknown) {
                self.scheduler.advance(self.now);
            }
            self.look();
            self.model.settle_now();
        }
    }

    fn check(&mut self) {
        // A smaller limit refuses those who are too large for it, when their turn comes; the model keeps them.
        let (scheduler, model) = (&self.scheduler, &self.model);
        let (ours, theirs) = (&self.granted[self.compared..], &model.granted[self.compared..]);
        assert_eq!(ours, theirs, "who went, and when");
        assert_eq!(
            self.waiting.iter().map(|w| w.0).collect::<Vec<_>>(),
            model.queue.iter().map(|w| w.0).collect::<Vec<_>>(),
            "who waits"
        );
        let counts = scheduler.ledger.counts();
        assert_eq!(counts.admitted, self.granted.len() as u64);
        assert_eq!(
            counts.admitted,
            counts.settled + counts.not_sent + counts.too_many + self.open.len() as u64,
            "every admission is settled once"
        );
        assert_eq!(self.arrived, self.granted.len() + self.waiting.len() + self.refused + self.cancelled);
        assert_eq!((scheduler.queued(), scheduler.places()), (self.waiting.len(), self.waiting.len()));
        self.compared = self.granted.len();
        self.model.tidy();
    }
}

fn run(ops: &[Op], long: Option<[(u64, Nanos); 2]>) {
    let mut pair = Pair::new(long);
    for op in ops {
        pair.step(op);
    }
    // Everybody who is left gets a turn: nobody starves.
    for _ in 0..10_000 {
        if pair.waiting.is_empty() {
            break;
        }
        pair.finish();
        pair.step(&Op::Pass { time: 20 });
    }
    assert!(pair.waiting.is_empty(), "{:?}", pair.scheduler);
}

/// Fewer where the environment says so: mutation testing runs this once for each mutant.
fn cases() -> u32 {
    if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 1100 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    /// 1,100 runs of 200 operations: 220,000.
    #[test]
    fn the_desk_does_what_the_model_does(ops in ops(200)) {
        run(&ops, None);
    }

    /// The same with limits over longer windows beside those of the minute.
    #[test]
    fn the_desk_does_what_the_model_does_with_longer_windows(
        ops in ops(120),
        requests in (2..14_u64, 1..300_u64),
        tokens in (60..300_u64, 1..300_u64),
    ) {
        run(&ops, Some([requests, tokens]));
    }
}

/// What the window promises, without the model: no position of it ever holds more than the limit.
#[test]
fn no_position_of_the_window_holds_more_than_the_limit() {
    let mut pair = Pair::new(None);
    let mut unit = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = |below: u64| {
        unit = unit.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (unit >> 33) % below
    };
    for _ in 0..20_000 {
        pair.step(&Op::Arrive { tokens: 1 + draw(60) });
        pair.step(&Op::Pass { time: draw(45) });
        pair.finish();
    }
    let charges: Vec<_> = pair.model.left.iter().chain(&pair.model.charges).collect();
    for (index, first) in charges.iter().enumerate() {
        let window = charges[index..].iter().take_while(|c| c.at < first.at + SPAN);
        let (requests, tokens) = window.fold((0, 0), |sum, c| (sum.0 + c.requests, sum.1 + c.tokens));
        assert!(requests <= 8 && tokens <= 100, "{requests} requests, {tokens} tokens from {}", first.at);
    }
    assert!(charges.len() > 5_000);
}
