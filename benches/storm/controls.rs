//! What the calls of one process share: budgets, breakers and limiters of other clients.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::policy::{BreakerRule, BudgetRule};

// ===== budgets =====

/// How many retries are left.
#[derive(Debug)]
pub(crate) struct Budget {
    rule: BudgetRule,
    tokens: f64,
    /// Finagle's: what each of the last seconds paid in.
    seconds: VecDeque<(u64, f64)>,
    start: Instant,
}

impl Budget {
    pub(crate) fn new(rule: BudgetRule) -> Self {
        let tokens = match rule {
            BudgetRule::Aws { .. } => 500.0,
            BudgetRule::Grpc => 10.0,
            BudgetRule::None | BudgetRule::Finagle => 0.0,
        };
        Self { rule, tokens, seconds: VecDeque::new(), start: Instant::now() }
    }

    fn pay(&mut self, amount: f64) {
        let second = (Instant::now() - self.start).as_secs();
        while self.seconds.front().is_some_and(|(at, _)| at + 10 <= second) {
            self.seconds.pop_front();
        }
        match self.seconds.back_mut() {
            Some((at, sum)) if *at == second => *sum += amount,
            _ => self.seconds.push_back((second, amount)),
        }
    }

    pub(crate) fn on_request(&mut self) {
        if let BudgetRule::Finagle = self.rule {
            self.pay(1.0);
        }
    }

    /// `paid` is what the retry that succeeded had taken; zero at a first try.
    pub(crate) fn on_success(&mut self, paid: f64) {
        match self.rule {
            BudgetRule::Aws { .. } if paid > 0.0 => self.tokens = (self.tokens + paid).min(500.0),
            BudgetRule::Aws { .. } => self.tokens = (self.tokens + 1.0).min(500.0),
            BudgetRule::Grpc => self.tokens = (self.tokens + 0.1).min(10.0),
            BudgetRule::None | BudgetRule::Finagle => {}
        }
    }

    pub(crate) fn on_failure(&mut self) {
        if let BudgetRule::Grpc = self.rule {
            self.tokens = (self.tokens - 1.0).max(0.0);
        }
    }

    /// What a retry costs, once it is taken; `None` where there is not enough. No status is a timeout.
    pub(crate) fn withdraw(&mut self, status: Option<u16>) -> Option<f64> {
        match self.rule {
            BudgetRule::None => Some(0.0),
            BudgetRule::Grpc => (self.tokens > 5.0).then_some(0.0),
            BudgetRule::Aws { cost, throttled, timeout } => {
                let cost = match status {
                    None => timeout,
                    Some(429 | 503) => throttled,
                    Some(_) => cost,
                };
                let enough = self.tokens >= cost;
                enough.then(|| {
                    self.tokens -= cost;
                    cost
                })
            }
            BudgetRule::Finagle => {
                self.pay(0.0);
                let balance: f64 = 500.0 + self.seconds.iter().map(|(_, sum)| sum).sum::<f64>();
                (balance >= 5.0).then(|| {
                    self.pay(-5.0);
                    0.0
                })
            }
        }
    }
}

// ===== breakers =====

/// A circuit.
#[derive(Debug)]
pub(crate) struct Breaker {
    rule: BreakerRule,
    /// When each call of the window ended, and whether it failed.
    window: VecDeque<(Instant, bool)>,
    failures: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed,
    Open(Instant),
    /// Probes that may still go, that have ended, and that failed.
    HalfOpen(u32, u32, u32),
}

impl Breaker {
    pub(crate) fn new(rule: BreakerRule) -> Self {
        Self { rule, window: VecDeque::new(), failures: 0, state: State::Closed }
    }

    pub(crate) fn admit(&mut self) -> bool {
        if let State::Open(until) = self.state {
            if Instant::now() < until {
                return false;
            }
            self.state = State::HalfOpen(self.rule.probes, 0, 0);
        }
        match &mut self.state {
            State::HalfOpen(0, ..) => false,
            State::HalfOpen(left, ..) => {
                *left -= 1;
                true
            }
            _ => true,
        }
    }

    /// Of a call that nobody waits for any more.
    pub(crate) fn give_back(&mut self) {
        if let State::HalfOpen(left, ..) = &mut self.state {
            *left += 1;
        }
    }

    pub(crate) fn record(&mut self, failed: bool) {
        let now = Instant::now();
        let open = State::Open(now + Duration::from_secs_f64(self.rule.open));
        match &mut self.state {
            State::Open(_) => {}
            State::HalfOpen(_, ended, bad) => {
                *ended += 1;
                *bad += u32::from(failed);
                if *ended >= self.rule.probes {
                    let is_bad = f64::from(*bad) >= self.rule.share * f64::from(*ended);
                    self.state = if is_bad { open } else { State::Closed };
                    self.window.clear();
                    self.failures = 0;
                }
            }
            State::Closed => {
                self.window.push_back((now, failed));
                self.failures += usize::from(failed);
                while let Some((at, failed)) = self.window.front().copied() {
                    let old = match self.rule.window {
                        Some(window) => (now - at).as_secs_f64() > window,
                        None => self.window.len() > self.rule.min_calls,
                    };
                    if !old {
                        break;
                    }
                    self.window.pop_front();
                    self.failures -= usize::from(failed);
                }
                let calls = self.window.len();
                let share = self.failures as f64 / calls as f64;
                if calls >= self.rule.min_calls && share >= self.rule.share {
                    self.state = open;
                }
            }
        }
    }
}

// ===== limiters =====

/// The generic cell rate algorithm, its burst a minute's quota: each caller takes its slot and sleeps until then.
#[derive(Debug)]
pub(crate) struct Gcra {
    gap: Duration,
    burst: Duration,
    /// Theoretical arrival time.
    tat: Instant,
}

impl Gcra {
    pub(crate) fn new(rpm: u64) -> Self {
        let minute = Duration::from_secs(60);
        Self { gap: minute / u32::try_from(rpm).unwrap_or(u32::MAX), burst: minute, tat: Instant::now() }
    }

    /// When the call may go.
    pub(crate) fn take(&mut self) -> Instant {
        let now = Instant::now();
        self.tat = self.tat.max(now) + self.gap;
        self.tat.checked_sub(self.burst).map_or(now, |slot| slot.max(now))
    }
}

/// The adaptive mode of AWS: a rate that is cut to 0.7 by a throttling and grows back by a cubic law.
#[derive(Debug)]
pub(crate) struct Cubic {
    start: Instant,
    /// Calls a second: measured, allowed, and at the last throttling.
    measured: f64,
    fill: f64,
    top: f64,
    throttled: f64,
    enabled: bool,
    tokens: f64,
    filled: f64,
    /// The half second that is being counted, and its calls.
    bucket: f64,
    count: f64,
}

impl Cubic {
    const LEAST: f64 = 0.5;

    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            measured: 0.0,
            fill: 0.0,
            top: 0.0,
            throttled: 0.0,
            enabled: false,
            tokens: 0.0,
            filled: 0.0,
            bucket: 0.0,
            count: 0.0,
        }
    }

    fn now(&self) -> f64 {
        (Instant::now() - self.start).as_secs_f64()
    }

    fn refill(&mut self) {
        let now = self.now();
        self.tokens = (self.tokens + (now - self.filled) * self.fill).min(self.fill.max(1.0));
        self.filled = now;
    }

    /// How long to sleep before the call; zero lets it go.
    pub(crate) fn take(&mut self) -> Duration {
        if !self.enabled {
            return Duration::ZERO;
        }
        self.refill();
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Duration::ZERO;
        }
        // A whole millisecond at least, which is the timer's.
        Duration::from_secs_f64(((1.0 - self.tokens) / self.fill).max(0.001))
    }

    pub(crate) fn on_answer(&mut self, throttling: bool) {
        let now = self.now();
        self.count += 1.0;
        let half = (now * 2.0).floor() / 2.0;
        if half > self.bucket {
            self.measured = 0.8 * self.count / (half - self.bucket) + 0.2 * self.measured;
            (self.count, self.bucket) = (0.0, half);
        }
        let wanted = if throttling {
            self.top = if self.enabled { self.measured.min(self.fill) } else { self.measured };
            self.throttled = now;
            self.enabled = true;
            0.7 * self.top
        } else {
            let window = (self.top * 0.3 / 0.4).cbrt();
            0.4 * (now - self.throttled - window).powi(3) + self.top
        };
        self.refill();
        self.fill = wanted.min(2.0 * self.measured).max(Self::LEAST);
        self.tokens = self.tokens.min(self.fill.max(1.0));
    }
}
