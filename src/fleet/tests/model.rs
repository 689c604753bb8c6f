//! The protocol under everything that can happen to it: members whose clocks are wrong and drift, messages that are
//! late, lost and doubled, members that die, leave or are cut off, stores that restart, forget their last writes or all of
//! them, and two masters at once. What is judged is what was sent, on the true clock.

use std::collections::{BTreeMap, VecDeque};

use super::book::Book;
use super::member::{Manner, Member, Queued, UseId};
use super::message::{Amount, Close, DayEnd, Micros, Quota, Reply, StoreKey, Take, Terms};
use super::outage::Outage;

/// A fault that is built in on purpose, to see that the test notices it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// A call that arrives twice is answered twice.
    Twice,
    /// Charges leave at the beginning of their bucket.
    RoundedDown,
    /// A part shrinks before its window has.
    NotDrained,
    /// Who leaves does not charge what its part has used.
    LeaveForgets,
    /// A state that was lost grants at once.
    NoQuarantine,
    /// Parts of members that were not heard of are not reckoned with.
    NothingUnknown,
    /// A lease lasts from its answer.
    LeaseFromReply,
    /// A silent member's part is given away after a heartbeat.
    SilentForgotten,
    /// A lease is charged only for as long as it can be used.
    LeaseDiesEarly,
    /// What a member still holds while it asks is not charged.
    HeldForgotten,
    /// The day changes when a member says so.
    MembersDay,
    /// Who asks first has everything.
    FirstComeAll,
}

const MUTANTS: [Mutant; 12] = [
    Mutant::Twice,
    Mutant::RoundedDown,
    Mutant::NotDrained,
    Mutant::LeaveForgets,
    Mutant::NoQuarantine,
    Mutant::NothingUnknown,
    Mutant::LeaseFromReply,
    Mutant::SilentForgotten,
    Mutant::LeaseDiesEarly,
    Mutant::HeldForgotten,
    Mutant::MembersDay,
    Mutant::FirstComeAll,
];

const MS: Micros = 1_000;
const S: Micros = 1_000 * MS;
/// The quota's window, and ours: the guard is just above what a drift of 0.1 % makes of a window.
const MINUTE: Micros = 60 * S;
const WINDOW: Micros = MINUTE + 70 * MS;
/// A span that is longer than a minute, and its window.
const SPAN: (Micros, Micros) = (600 * S, 600 * S + 700 * MS);
/// The model's day.
const DAY: Micros = 900 * S;
/// When the true clock begins: far from zero, as a calendar is.
const BEGIN: Micros = 1_000_000 * S;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A member, its clock, its queue, and its way to a store.
struct Process {
    member: Member,
    offset: Micros,
    /// Millionths by which its clock is fast, or slow.
    drift: i64,
    queue: VecDeque<u64>,
    /// Cut off until then.
    cut_until: Micros,
    /// Still talks to the old master until then.
    behind_until: Micros,
    resend_at: Micros,
    leaving: bool,
    /// Calls under way: use, charged tokens, the log's entry.
    calls: Vec<(UseId, u64, usize)>,
    /// What it sent, in millionths of the limits.
    served: u64,
    weight: u32,
}

impl Process {
    fn clock(&self, now: Micros) -> Micros {
        let passed = (now - BEGIN) as i64;
        self.offset
            + (passed + passed / 1_000_000 * self.drift + passed % 1_000_000 * self.drift / 1_000_000) as u64
    }
}

enum Message {
    Take(Take),
    Reply(u64, Reply),
}

/// What a store was told, and when.
pub(super) enum Told {
    Take(Micros, String, Box<(Take, Reply)>),
    Close(Micros, Close),
    Flush,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Micros,
    amount: Amount,
    daily: u64,
}

struct World {
    rng: Rng,
    now: Micros,
    quota: Quota,
    /// The window that is judged, without the guard.
    span: Micros,
    terms: Terms,
    mutant: Option<Mutant>,
    book: Book,
    run: u64,
    /// States after earlier writes, the latest last.
    before: VecDeque<Book>,
    old: Option<(Book, u64, Micros)>,
    processes: BTreeMap<u64, Process>,
    ids: u64,
    under_way: BTreeMap<(Micros, u64), Message>,
    messages: u64,
    log: Vec<Sent>,
    from: usize,
    faults: bool,
    /// What the store was told and answered, for another one to be told the same.
    told: Option<Vec<Told>>,
    /// Who must not go away, and until when.
    stays: (u64, Micros),
    steps: u64,
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>, faults: bool) -> Self {
        let mut rng = Rng(seed);
        let quota = Quota {
            requests: Some(10 + rng.below(40)),
            tokens: if rng.chance(50) { Some(200 + rng.below(800)) } else { None },
            daily: if rng.chance(50) { Some(100 + rng.below(200)) } else { None },
        };
        let terms = Terms { bucket: 250 * MS, ..Terms::of(WINDOW, true) };
        // Some are of a limit over a longer span: of requests or of tokens, without a day.
        let is_span = seed % 4 == 3;
        let quota = match (is_span, quota.tokens) {
            (false, _) => quota,
            (true, None) => Quota { daily: None, ..quota },
            (true, _) => Quota { requests: None, daily: None, ..quota },
        };
        let terms = if is_span { Terms::of_span(SPAN.1, true) } else { terms };
        let members = 1 + rng.below(6) as usize;
        let mut book = Book::default();
        book.mutant = mutant;
        let mut world = Self {
            rng,
            now: BEGIN,
            quota,
            span: if is_span { SPAN.0 } else { MINUTE },
            terms,
            mutant,
            book,
            run: 1,
            before: VecDeque::new(),
            old: None,
            processes: BTreeMap::new(),
            ids: 0,
            under_way: BTreeMap::new(),
            messages: 0,
            log: Vec::new(),
            from: 0,
            faults,
            told: None,
            stays: (0, 0),
            steps: 0,
        };
        for _ in 0..members {
            world.join(1);
        }
        world
    }

    fn join(&mut self, weight: u32) -> u64 {
        self.ids += 1;
        let manner = Manner { terms: self.terms, outage: Outage::Strict, weight };
        let key = StoreKey::new("k".to_owned(), None);
        let mut member = Member::new(self.ids, key, manner, self.quota);
        member.mutant = self.mutant;
        let process = Process {
            member,
            offset: self.rng.below(7_200) * S + self.rng.below(1_000_000),
            drift: self.rng.below(2_001) as i64 - 1_000,
            queue: VecDeque::new(),
            cut_until: 0,
            behind_until: 0,
            resend_at: 0,
            leaving: false,
            calls: Vec::new(),
            served: 0,
            weight,
        };
        self.processes.insert(self.ids, process);
        self.ids
    }

    /// The day at a time of the server's, as a member with a clock `wrong` by so much sees it.
    fn day(at: Micros) -> DayEnd {
        let number = at / DAY;
        DayEnd { number, ends: (number + 1) * DAY }
    }

    fn post(&mut self, message: Message) {
        let (lost, doubled) = if self.faults { (8, 8) } else { (0, 0) };
        if self.rng.chance(lost) {
            return;
        }
        let copies = if self.rng.chance(doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = if self.faults && self.rng.chance(5) { 3_000 } else { 120 };
            let at = self.now + self.rng.below(slow * MS) + 1;
            self.messages += 1;
            let copy = match &message {
                Message::Take(take) => Message::Take(take.clone()),
                Message::Reply(to, reply) => Message::Reply(*to, reply.clone()),
            };
            self.under_way.insert((at, self.messages), copy);
        }
    }

    /// Lets time pass to the next thing that happens, and all of that happen.
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        let longer = self.span / MINUTE;
        let pause = match self.faults {
            true if self.rng.chance(3 * longer.min(5)) => 4_000,
            true => 150,
            false => 150 * longer,
        };
        let until = self.now + 1 + self.rng.below(pause * MS);
        while let Some(((at, _), _)) = self.under_way.first_key_value().filter(|first| first.0.0 <= until) {
            self.now = *at;
            let ((_, _), message) = self.under_way.pop_first().expect("it was looked at");
            self.deliver(message);
            self.send_all()?;
        }
        self.now = until;
        if self.faults {
            self.fault();
        }
        self.send_all()?;
        let ids: Vec<u64> = self.processes.keys().copied().collect();
        for id in ids {
            self.ask(id);
        }
        Ok(())
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Take(take) => {
                let cut = self.processes.get(&take.member).is_some_and(|p| p.cut_until > self.now);
                if cut {
                    return;
                }
                let behind = self.processes.get(&take.member).is_some_and(|p| p.behind_until > self.now);
                let run = format!("run {}", self.run);
                let reply = match &mut self.old {
                    Some((book, old_run, until)) if behind && *until > self.now => {
                        book.take(self.now, &format!("run {old_run}"), &take).0
                    }
                    _ => {
                        self.before.push_back(self.book.clone());
                        if self.before.len() > 12 {
                            self.before.pop_front();
                        }
                        let (reply, wrote) = self.book.take(self.now, &run, &take);
                        if let Some(told) = &mut self.told {
                            told.push(Told::Take(self.now, run, Box::new((take.clone(), reply.clone()))));
                        }
                        if wrote.born {
                            // Those who hear of it say what they hold.
                            for process in self.processes.values_mut() {
                                process.member.born(reply.epoch);
                            }
                        }
                        reply
                    }
                };
                self.post(Message::Reply(take.member, reply));
            }
            Message::Reply(to, reply) => {
                let Some(process) = self.processes.get_mut(&to) else { return };
                if process.cut_until > self.now {
                    return;
                }
                let clock = process.clock(self.now);
                process.member.accept(clock, &reply);
                if process.leaving && process.member.open().is_none() {
                    self.processes.remove(&to);
                }
            }
        }
    }

    fn ask(&mut self, id: u64) {
        let now = self.now;
        let limits_tokens = self.quota.tokens.is_some();
        let Some(process) = self.processes.get_mut(&id) else { return };
        let clock = process.clock(now);
        if process.member.open().is_some() {
            if clock >= process.resend_at {
                process.resend_at = clock + 400 * MS;
                let take = process.member.open().expect("it was looked at").clone();
                self.post(Message::Take(take));
            }
            return;
        }
        let queued = !process.queue.is_empty();
        // Some is asked for ahead of its use, now and then.
        let ahead = if self.faults && self.rng.chance(3) { self.rng.below(6) } else { 0 };
        let due = process.member.due(clock, queued).is_some_and(|due| due <= clock);
        if due || ahead > 0 || process.leaving {
            let mut sizes: Vec<u64> = process.queue.iter().copied().take(64).collect();
            sizes.extend((0..ahead).map(|_| 20));
            let want = Amount::new(
                process.queue.len() as u64 + ahead,
                process.queue.iter().sum::<u64>() + 20 * ahead,
            );
            let sizes = if limits_tokens { sizes } else { Vec::new() };
            let queue = if process.leaving { Queued::default() } else { Queued { want, sizes, share: 1 } };
            // Some believe a wrong day: theirs is an hour off.
            let wrong = process.offset % 3;
            let take = process.member.ask(clock, &queue, process.leaving, |at| {
                Self::day(match wrong {
                    0 => at + 300 * S,
                    1 => at - 300 * S,
                    _ => at,
                })
            });
            process.resend_at = clock + 400 * MS;
            self.post(Message::Take(take));
        }
    }

    /// Sends whatever may be sent now, and judges it.
    fn send_all(&mut self) -> Result<(), String> {
        let now = self.now;
        let mut sent = Vec::new();
        for process in self.processes.values_mut() {
            if process.leaving {
                continue;
            }
            let clock = process.clock(now);
            while let Some(tokens) = process.queue.front().copied() {
                let Some(id) = process.member.admit(clock, tokens, false) else { break };
                process.queue.pop_front();
                let cost = super::share::cost(Amount::new(1, tokens), self.quota.window());
                process.served += (cost * 1e6) as u64;
                process.calls.push((id, tokens, self.log.len() + sent.len()));
                sent.push(Sent { at: now, amount: Amount::new(1, tokens), daily: 1 });
            }
        }
        for one in sent {
            self.log.push(one);
            self.judge()?;
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), String> {
        while self.log[self.from].at + self.span <= self.now {
            self.from += 1;
        }
        let live = self.log[self.from..].iter().fold(Amount::default(), |sum, s| sum.plus(s.amount));
        let most = self.quota.window();
        if live.requests > most.requests || live.tokens > most.tokens {
            let (parts, leases, n) = self.book.committed(self.now, &self.terms);
            return Err(format!(
                "{live:?} of {most:?} in one window, at step {}; book: charged {:?}, parts {parts:?}, leases {leases:?}, {n} members, lost {}, old {}",
                self.steps,
                self.book.charged,
                self.book.is_lost(),
                self.old.is_some()
            ));
        }
        if let Some(daily) = self.quota.daily {
            let today = self.now / DAY;
            let used: u64 = self.log.iter().rev().take_while(|s| s.at / DAY == today).map(|s| s.daily).sum();
            if used > daily {
                return Err(format!("{used} of {daily} in one day, at step {}", self.steps));
            }
        }
        Ok(())
    }

    fn fault(&mut self) {
        let ids: Vec<u64> = self.processes.keys().copied().collect();
        let one = ids[self.rng.below(ids.len() as u64) as usize];
        let now = self.now;
        let what = self.rng.below(10_000);
        let stays = self.stays.0 == one && self.stays.1 > now;
        match what {
            7_000..7_060 if stays => {}
            // Requests come, in crowds now and then.
            0..4_000 => {
                let crowd = if self.rng.chance(10) { 20 } else { 3 };
                let large = self.rng.chance(4);
                for _ in 0..self.rng.below(crowd) {
                    let most = self.quota.tokens.unwrap_or(100);
                    let tokens = if large { most * 3 / 4 } else { 1 + self.rng.below(most / 12) };
                    let process = self.processes.get_mut(&one).expect("it lives");
                    if process.queue.len() < 60 {
                        process.queue.push_back(tokens);
                    }
                }
            }
            // A call ends.
            4_000..7_000 => {
                let Some(process) = self.processes.get_mut(&one) else { return };
                if process.calls.is_empty() {
                    return;
                }
                let at = self.rng.below(process.calls.len() as u64) as usize;
                let (id, charged, entry) = process.calls.swap_remove(at);
                let clock = process.clock(now);
                let counts = |charged: u64| if self.quota.tokens.is_some() { charged } else { 0 };
                let used = self.rng.below(charged + 1);
                match self.rng.below(4) {
                    0 if now - self.log[entry].at < 2 * S => {
                        process.member.settle(clock, id, counts(charged), 0, false, false);
                        self.log[entry].amount = Amount::default();
                        self.log[entry].daily = 0;
                    }
                    1 => {
                        process.member.settle(clock, id, counts(charged), 0, true, false);
                        self.log[entry].amount.tokens = 0;
                        self.log[entry].daily = 0;
                    }
                    _ => {
                        process.member.settle(clock, id, counts(charged), counts(used), true, true);
                        self.log[entry].amount.tokens = used;
                    }
                }
            }
            7_000..7_020 if self.processes.len() > 1 => {
                self.processes.get_mut(&one).expect("it lives").leaving = true;
                self.join(1);
            }
            7_020..7_034 => {
                self.processes.remove(&one);
                self.join(1);
            }
            7_034..7_060 => {
                let most = if self.rng.chance(30) { 600 } else { 20 };
                let cut = now + self.rng.below(most * S);
                self.processes.get_mut(&one).expect("it lives").cut_until = cut;
            }
            // The server restarts, and some of its last writes were lost.
            7_060..7_064 if self.told.is_some() => self.run += 1,
            7_065..7_068 if self.told.is_some() => {}
            // A 429.
            7_068..7_074 if self.span == MINUTE => {
                let lasts = Some(self.rng.below(20 * S)).filter(|_| self.rng.0 % 5 > 0);
                let close = Close {
                    limit: self.quota.requests.filter(|_| self.rng.0 % 3 == 0),
                    ramp: self.rng.0 % 2 == 0,
                    probe: self.rng.below(10 * S),
                    ..Close::new((self.rng.0 % 4) as u8, lasts)
                };
                let close = if self.rng.chance(20) { Close::new(Close::OPEN, None) } else { close };
                self.book.close(now, WINDOW, close);
                if let Some(told) = &mut self.told {
                    told.push(Told::Close(now, close));
                }
            }
            7_060..7_064 => {
                let lost = self.rng.below(12) as usize;
                let book = self.before.iter().rev().nth(lost).filter(|book| book.epoch != 0);
                if let Some(book) = book {
                    self.book = book.clone();
                }
                self.run += 1;
            }
            // Everything is flushed.
            7_064 => {
                // NOTE: nobody can know what was sent if all who sent it are gone with the state: one stays that does.
                let knows = |p: &(&u64, &Process)| {
                    p.1.cut_until <= now && !p.1.leaving && p.1.member.knows(self.book.epoch)
                };
                let Some((id, _)) = self.processes.iter().find(knows) else { return };
                self.stays = (*id, now + self.span);
                self.before.clear();
                if let Some(told) = &mut self.told {
                    told.push(Told::Flush);
                }
                self.book = Book::default();
                self.book.mutant = self.mutant;
            }
            // A replica is promoted, and the old master does not know it yet.
            7_065..7_068 if self.old.is_none() && self.book.epoch != 0 => {
                let lost = self.rng.below(4) as usize;
                let book = self.before.iter().rev().nth(lost).filter(|book| book.epoch != 0);
                let book = book.unwrap_or(&self.book).clone();
                let old = std::mem::replace(&mut self.book, book);
                self.old = Some((old, self.run, now + self.rng.below(5 * S)));
                self.run += 1;
                let until = now + 5 * S;
                for process in self.processes.values_mut() {
                    if self.rng.chance(50) {
                        process.behind_until = until;
                    }
                }
            }
            _ => {}
        }
        if self.old.as_ref().is_some_and(|old| old.2 <= now) {
            self.old = None;
        }
    }

    /// Everything comes to rest: nothing may be left that was granted and is not used.
    fn rest(&mut self) -> Result<(), String> {
        self.faults = false;
        self.old = None;
        for process in self.processes.values_mut() {
            process.queue.clear();
            (process.cut_until, process.behind_until) = (0, 0);
        }
        let until = self.now + 26 * self.terms.window;
        while self.now < until {
            self.step()?;
        }
        let (parts, leases, _) = self.book.committed(self.now, &self.terms);
        if !parts.is_zero() || (!leases.is_zero() && self.book.charged.is_zero() && !leases.is_zero()) {
            return Err(format!("{parts:?} and {leases:?} were not given back"));
        }
        let charged: Amount =
            self.book.ring.iter().filter(|e| e.0 > self.now).fold(Amount::default(), |s, e| s.plus(e.1));
        if !charged.is_zero() {
            return Err(format!("{charged:?} is charged although nothing was sent"));
        }
        Ok(())
    }
}

/// What a store is told in the life of a fleet, and what the reference answers.
pub(super) fn told(seed: u64, steps: u64) -> Vec<Told> {
    let mut world = World::new(seed, None, true);
    world.told = Some(Vec::new());
    for _ in 0..steps {
        world.step().expect("the bound holds");
    }
    world.told.take().unwrap_or_default()
}

/// One life of a fleet with faults.
fn live(seed: u64, steps: u64, mutant: Option<Mutant>) -> Result<u64, String> {
    let mut world = World::new(seed, mutant, true);
    for _ in 0..steps {
        world.step()?;
    }
    let sent = world.log.len() as u64;
    world.rest()?;
    Ok(sent)
}

/// Members that always have something to send: each gets its share by weight, in any stretch of windows.
fn fair(seed: u64, mutant: Option<Mutant>) -> Result<(), String> {
    let mut world = World::new(seed, mutant, false);
    world.quota.daily = None;
    world.processes.clear();
    let count = 2 + world.rng.below(5);
    let mut weights = Vec::new();
    for _ in 0..count {
        let weight = if world.rng.chance(70) { 1 } else { 3 };
        weights.push((world.join(weight), weight));
    }
    let mut marks = vec![BTreeMap::new()];
    const WINDOWS: u64 = 12;
    for _ in 0..WINDOWS {
        let until = world.now + world.span;
        while world.now < until {
            let most = world.quota.tokens.unwrap_or(100);
            for process in world.processes.values_mut() {
                while process.queue.len() < 40 {
                    process.queue.push_back(1 + world.rng.below(most / 12));
                }
            }
            world.step()?;
        }
        marks.push(world.processes.iter().map(|(id, p)| (*id, p.served)).collect());
    }
    let total: u64 = marks[WINDOWS as usize].values().sum();
    let all: u64 = weights.iter().map(|w| u64::from(w.1)).sum();
    for (id, weight) in weights {
        for from in 0..WINDOWS as usize - 2 {
            for to in from + 2..=WINDOWS as usize {
                let had = marks[to][&id] - marks[from].get(&id).copied().unwrap_or(0);
                let sent: u64 =
                    marks[to].iter().map(|(id, n)| n - marks[from].get(id).copied().unwrap_or(0)).sum();
                let share = sent * u64::from(weight) / all;
                let window = total * u64::from(weight) / all / WINDOWS;
                if had + 2 * window < share {
                    let each: Vec<_> = world.processes.values().map(|p| (p.weight, p.served)).collect();
                    return Err(format!(
                        "{id} of weight {weight} had {had} and not {share} in windows {from} to {to} of {:?}: {each:?}",
                        world.quota
                    ));
                }
            }
        }
    }
    Ok(())
}

/// An answer that comes late, to a member that is cut off as soon as it has used it.
fn late(mutant: Option<Mutant>) -> Result<(), String> {
    let terms = Terms { bucket: 250 * MS, ..Terms::of(WINDOW, true) };
    let quota = Quota { requests: Some(10), tokens: None, daily: None };
    let mut book = Book::default();
    let member = |id| {
        let manner = Manner { terms, outage: Outage::Strict, weight: 1 };
        let mut member = Member::new(id, StoreKey::new("k".to_owned(), None), manner, quota);
        member.mutant = mutant;
        member
    };
    let (mut slow, mut other) = (member(1), member(2));
    let all = Queued { want: Amount::new(10, 0), ..Queued::default() };
    let mut at = BEGIN;
    let mut exchange = |member: &mut Member, at: Micros, late: Micros| {
        let take = member.ask(at, &all, false, World::day);
        let reply = book.take(at, "run", &take).0;
        member.accept(at + late, &reply);
    };
    exchange(&mut slow, at, 0);
    at += terms.hold;
    exchange(&mut slow, at, 3 * S);
    let sent = (0..10).filter(|_| slow.admit(at + 3 * S, 0, false).is_some()).count();
    // Its lease, as the store sees it, has left the window.
    let later = at + terms.lease + WINDOW;
    exchange(&mut other, later, 0);
    let more = (0..10).filter(|_| other.admit(later, 0, false).is_some()).count();
    if sent + more > 10 {
        return Err(format!("{sent} and {more} of 10 within {} ms", (later - at) / MS - 3_000));
    }
    Ok(())
}

/// A member with a part is cut off; then the store loses everything, and another member goes on alone.
fn cut_off(mutant: Option<Mutant>) -> Result<(), String> {
    let terms = Terms { bucket: 250 * MS, ..Terms::of(WINDOW, true) };
    let quota = Quota { requests: Some(20), tokens: None, daily: None };
    let mut book = Book::default();
    book.mutant = mutant;
    let member = |id| {
        let manner = Manner { terms, outage: Outage::Strict, weight: 1 };
        Member::new(id, StoreKey::new("k".to_owned(), None), manner, quota)
    };
    let (mut cut, mut other) = (member(1), member(2));
    let exchange = |book: &mut Book, member: &mut Member, at: Micros, want: u64| {
        let want = Queued { want: Amount::new(want, 0), ..Queued::default() };
        let take = member.ask(at, &want, false, World::day);
        member.accept(at, &book.take(at, "run", &take).0);
    };
    let sent = |member: &mut Member, at| (0..20).filter(|_| member.admit(at, 0, false).is_some()).count();
    let mut at = BEGIN;
    exchange(&mut book, &mut cut, at, 0);
    exchange(&mut book, &mut other, at, 0);
    // One window of leases, so that the next is a part in part.
    for _ in 0..3 {
        at += WINDOW + terms.lease;
        for _ in 0..3 {
            exchange(&mut book, &mut cut, at, 10);
            sent(&mut cut, at);
        }
    }
    let mut fresh = Book::default();
    fresh.mutant = mutant;
    at += MS;
    exchange(&mut fresh, &mut other, at, 20);
    at += terms.quarantine() + WINDOW;
    for _ in 0..3 {
        exchange(&mut fresh, &mut other, at, 20);
    }
    let (all, of_part) = (sent(&mut other, at), sent(&mut cut, at));
    if of_part == 0 {
        return Err("the part was not there to begin with".to_owned());
    }
    if all + of_part > 20 {
        return Err(format!("{all} and {of_part} of 20 in one window"));
    }
    Ok(())
}

/// 30 fleets of 8,000 steps.
#[test]
fn no_window_and_no_day_holds_more_than_its_limit_whatever_happens() {
    let mut sent = 0;
    for seed in 0..30 {
        sent += live(seed, 8_000, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(sent > 5_000, "{sent} requests are too few to show anything");
}

/// Forty times as much.
#[test]
#[ignore = "takes a minute"]
fn a_thousand_fleets() {
    let bad: Vec<_> =
        (1_000..2_000).filter_map(|seed| live(seed, 8_000, None).err().map(|error| (seed, error))).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn a_lease_ends_before_its_charge_does() {
    late(None).expect("what came too late is not used");
}

#[test]
fn the_part_of_one_that_is_cut_off_outlives_the_state() {
    cut_off(None).expect("it is reckoned with");
}

#[test]
fn everybody_gets_a_fair_share() {
    for seed in 0..12 {
        fair(seed, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// Each fault that is built in on purpose is noticed.
#[test]
fn each_mutant_is_noticed() {
    for mutant in MUTANTS {
        let noticed = (0..600).find_map(|seed| match mutant {
            Mutant::NothingUnknown => cut_off(Some(mutant)).err(),
            Mutant::LeaseFromReply => late(Some(mutant)).err(),
            Mutant::FirstComeAll => fair(seed, Some(mutant)).err(),
            _ => live(seed, 4_000, Some(mutant)).err(),
        });
        let noticed = noticed.unwrap_or_else(|| panic!("{mutant:?} is not noticed"));
        println!("{mutant:?}: {noticed}");
    }
}
