//! What a server lets a project ask of it, counted in any of the ways that Google may use.

use std::collections::VecDeque;
use std::time::Duration;

/// Google's minute.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A project's quota of one model. Rejected calls are charged nothing.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    /// Requests a minute.
    pub(crate) rpm: Option<u64>,
    /// Input tokens a minute.
    pub(crate) tpm: Option<u64>,
    pub(crate) counting: Counting,
    /// Requests a day, and when the day ends.
    pub(crate) rpd: Option<(u64, Duration)>,
    /// Whether a 429 says which limit was exceeded, and what it is.
    pub(crate) named: bool,
    /// Calls a second of others that are charged to it, as Poisson arrivals, and the input tokens of each.
    pub(crate) strangers: Option<(f64, u64)>,
    /// From when on the limits of a minute are so many times those above.
    pub(crate) changes: Vec<(Duration, f64)>,
}

/// How the minutes are counted.
#[allow(dead_code, reason = "the storm alone has them all")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Counting {
    /// No 60 seconds ever hold more than the limit.
    Sliding,
    /// Counts start anew every 60 s, first at this time.
    Fixed(Duration),
    /// Starts full with one minute's limit and refills evenly.
    Bucket,
}

/// Why a call was refused, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The day's quota, or a minute's.
    pub(crate) daily: bool,
    /// The exact time until the call would fit; of a spent day the time to the next full minute, as Google has it.
    pub(crate) delay: Duration,
    named: Option<(&'static str, u64)>,
}

impl Refusal {
    /// The delay of `RetryInfo`: whole seconds.
    #[allow(dead_code, reason = "the storm's policies read it")]
    pub(crate) const fn retry_info(&self) -> Duration {
        Duration::from_secs(self.delay.as_secs())
    }

    /// In Google's form.
    pub(crate) fn body(&self) -> String {
        let violation = self.named.map(|(id, limit)| {
            format!(
                r#"{{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{{"quotaMetric":"generativelanguage.googleapis.com/generate_content","quotaId":"{id}","quotaValue":"{limit}"}}]}},"#
            )
        });
        let (violation, seconds) = (violation.unwrap_or_default(), self.delay.as_secs());
        let exact = self.delay.as_secs_f64();
        format!(
            r#"{{"error":{{"code":429,"message":"You exceeded your current quota. Please retry in {exact:.9}s.","status":"RESOURCE_EXHAUSTED","details":[{violation}{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{seconds}s"}}]}}}}"#
        )
    }
}

/// A quota and what was charged to it.
#[derive(Clone, Debug)]
pub(crate) struct Meters {
    rpm: Option<Meter>,
    tpm: Option<Meter>,
    /// Limit, charged today, end of the day.
    day: Option<(u64, u64, Duration)>,
    named: bool,
    strangers: Option<Strangers>,
    /// Those to come, and the limits that they change.
    changes: VecDeque<(Duration, f64)>,
    limits: (Option<u64>, Option<u64>),
}

/// Other users of a quota.
#[derive(Clone, Debug)]
struct Strangers {
    rate: f64,
    tokens: u64,
    next: Duration,
    /// How many came, of which each gap is drawn.
    came: u64,
}

impl Strangers {
    fn new((rate, tokens): (f64, u64)) -> Self {
        let mut strangers = Self { rate, tokens, next: Duration::ZERO, came: 0 };
        strangers.step();
        strangers
    }

    fn step(&mut self) {
        self.came += 1;
        // The finalizer of SplitMix64: the same for every client of a scenario.
        let mut x = self.came.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let draw = ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        self.next += Duration::from_secs_f64(-(1.0 - draw).ln() / self.rate);
    }
}

impl Meters {
    pub(crate) fn new(quota: &Quota) -> Self {
        let meter = |limit: Option<u64>| limit.map(|limit| Meter::new(quota.counting, limit));
        Self {
            rpm: meter(quota.rpm),
            tpm: meter(quota.tpm),
            day: quota.rpd.map(|(limit, end)| (limit, 0, end)),
            named: quota.named,
            strangers: quota.strangers.map(Strangers::new),
            changes: quota.changes.iter().copied().collect(),
            limits: (quota.rpm, quota.tpm),
        }
    }

    /// What happened until now without a call.
    fn advance(&mut self, now: Duration) {
        loop {
            let change = self.changes.front().map_or(Duration::MAX, |(at, _)| *at);
            let stranger = self.strangers.as_ref().map_or(Duration::MAX, |strangers| strangers.next);
            if change.min(stranger) > now {
                return;
            }
            if change <= stranger {
                let (_, factor) = self.changes.pop_front().expect("it was looked at");
                let limits = [(&mut self.rpm, self.limits.0), (&mut self.tpm, self.limits.1)];
                for (meter, limit) in limits {
                    if let (Some(meter), Some(limit)) = (meter, limit) {
                        meter.advance(change);
                        meter.limit = ((limit as f64 * factor).round() as u64).max(1);
                    }
                }
            } else if let Some(strangers) = &mut self.strangers {
                let tokens = strangers.tokens;
                strangers.step();
                let mut meters = [(&mut self.rpm, 1), (&mut self.tpm, tokens)];
                let meters = meters.iter_mut().filter_map(|(meter, cost)| Some((meter.as_mut()?, *cost)));
                let mut meters: Vec<_> = meters.collect();
                if meters.iter_mut().all(|(meter, cost)| meter.wait(stranger, *cost).is_zero()) {
                    meters.into_iter().for_each(|(meter, cost)| meter.charge(stranger, cost));
                }
            }
        }
    }

    /// Charges a call to all, or to none.
    pub(crate) fn admit(&mut self, now: Duration, tokens: u64) -> Result<(), Refusal> {
        let mut wait = self.wait(now, tokens);
        if let Some(refusal) = &mut wait {
            // A day that is spent names the time to the next full minute.
            if refusal.daily {
                let nanos = u64::try_from(now.as_nanos() % MINUTE.as_nanos()).expect("below a minute");
                refusal.delay = MINUTE - Duration::from_nanos(nanos);
            }
        }
        wait.map_or(Ok(()), Err)?;
        self.rpm.iter_mut().for_each(|meter| meter.charge(now, 1));
        self.tpm.iter_mut().for_each(|meter| meter.charge(now, tokens));
        self.day.iter_mut().for_each(|day| day.1 += 1);
        Ok(())
    }

    /// What is in the way of a call, and how long from now it is.
    pub(crate) fn wait(&mut self, now: Duration, tokens: u64) -> Option<Refusal> {
        self.advance(now);
        let mut named = Vec::new();
        let mut delay = Duration::ZERO;
        for (meter, cost, id) in [
            (&mut self.rpm, 1, "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),
            (&mut self.tpm, tokens, "GenerateContentInputTokensPerModelPerMinute-FreeTier"),
        ] {
            let Some(meter) = meter else { continue };
            let wait = meter.wait(now, cost);
            if !wait.is_zero() {
                named.push((id, meter.limit));
                delay = delay.max(wait);
            }
        }
        let mut daily = false;
        if let Some((limit, charged, end)) = &mut self.day {
            while now >= *end {
                *charged = 0;
                *end += DAY;
            }
            if *charged >= *limit {
                daily = true;
                delay = delay.max(*end - now);
                named.insert(0, ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", *limit));
            }
        }
        if delay.is_zero() {
            return None;
        }
        Some(Refusal { daily, delay, named: named.first().copied().filter(|_| self.named) })
    }
}

/// One limit a minute.
#[derive(Clone, Debug)]
struct Meter {
    limit: u64,
    counting: Counting,
    /// Of a sliding window, oldest first.
    log: VecDeque<(Duration, u64)>,
    /// In the window; of a bucket, what is taken out of it.
    used: f64,
    /// When `used` was right: the window's beginning, or the last charge.
    since: Duration,
}

impl Meter {
    const fn new(counting: Counting, limit: u64) -> Self {
        Self { limit, counting, log: VecDeque::new(), used: 0.0, since: Duration::ZERO }
    }

    fn advance(&mut self, now: Duration) {
        match self.counting {
            Counting::Sliding => {
                while let Some((at, cost)) = self.log.front().copied() {
                    if at + MINUTE > now {
                        break;
                    }
                    self.log.pop_front();
                    self.used -= cost as f64;
                }
            }
            Counting::Fixed(phase) => {
                let begun = begin(now, phase);
                if begun > self.since {
                    (self.since, self.used) = (begun, 0.0);
                }
            }
            Counting::Bucket => {
                let refill = (now - self.since).as_secs_f64() * self.limit as f64 / 60.0;
                (self.since, self.used) = (now, (self.used - refill).max(0.0));
            }
        }
    }

    /// How long until so much fits; zero is now. What never fits waits for a minute.
    fn wait(&mut self, now: Duration, cost: u64) -> Duration {
        self.advance(now);
        // The allowance is for sums of shares of a token.
        let over = self.used + cost as f64 - self.limit as f64 - 1e-6;
        if over <= 0.0 {
            return Duration::ZERO;
        }
        if cost > self.limit {
            return MINUTE;
        }
        match self.counting {
            Counting::Sliding => {
                let mut freed = 0.0;
                let enough = self.log.iter().find(|(_, cost)| {
                    freed += *cost as f64;
                    freed >= over
                });
                enough.map_or(MINUTE, |(at, _)| *at + MINUTE - now)
            }
            Counting::Fixed(phase) if now < phase => phase - now,
            Counting::Fixed(phase) => begin(now, phase) + MINUTE - now,
            Counting::Bucket => Duration::from_secs_f64(over * 60.0 / self.limit as f64 + 1e-6),
        }
    }

    fn charge(&mut self, now: Duration, cost: u64) {
        self.used += cost as f64;
        if self.counting == Counting::Sliding {
            self.log.push_back((now, cost));
        }
    }
}

/// When the fixed window began that holds `now`. The first begins at zero and ends with the phase.
fn begin(now: Duration, phase: Duration) -> Duration {
    if now < phase {
        return Duration::ZERO;
    }
    let whole = (now - phase).as_secs() / 60;
    phase + MINUTE * u32::try_from(whole).expect("a scenario is shorter than 8,000 years")
}
