//! The last minute, and the last calls that had trouble, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::time::Instant;

use crate::history::{Filter, Record, Sink};

/// Seconds that are kept.
const SECONDS: usize = 60;
/// Calls that are kept.
const CALLS: usize = 100;
/// Four to each doubling, from 1 ms: an estimate is at most 10 % off, up to four minutes.
const BUCKETS: usize = 72;

/// What is going on. Its lock is held for less than a call takes to be written to a socket, by one call or one look a second.
#[derive(Debug)]
pub struct Live {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    seconds: [Second; SECONDS],
    calls: VecDeque<Record>,
    last: i64,
}

#[derive(Clone, Debug)]
struct Second {
    at: u64,
    calls: u64,
    failed: u64,
    kinds: BTreeMap<String, u64>,
    first_byte: [u32; BUCKETS],
    latency: [u32; BUCKETS],
}

impl Second {
    const fn new(at: u64) -> Self {
        Self {
            at,
            calls: 0,
            failed: 0,
            kinds: BTreeMap::new(),
            first_byte: [0; BUCKETS],
            latency: [0; BUCKETS],
        }
    }
}

/// The last minute; its seconds are whole ones, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Minute {
    pub calls: Vec<u64>,
    pub failed: Vec<u64>,
    pub kinds: BTreeMap<String, u64>,
    /// Milliseconds, of the median, the 95th and the 99th percent; `None` where there was no call.
    pub first_byte: Option<[f64; 3]>,
    pub latency: Option<[f64; 3]>,
    /// Grows with each call that had trouble.
    pub last: i64,
}

impl Default for Live {
    fn default() -> Self {
        let seconds = std::array::from_fn(|_| Second::new(0));
        let inner = Inner { seconds, calls: VecDeque::new(), last: 0 };
        Self { started: Instant::now(), inner: Mutex::new(inner) }
    }
}

impl Live {
    fn now(&self) -> u64 {
        Instant::now().saturating_duration_since(self.started).as_secs()
    }

    /// The last minute, without the second that is going on.
    pub fn look(&self) -> Minute {
        let now = self.now();
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut minute = Minute { last: inner.last, ..Minute::default() };
        let (mut first_byte, mut latency) = ([0; BUCKETS], [0; BUCKETS]);
        for back in (1..SECONDS as u64).rev() {
            let second = now.checked_sub(back).map(|at| (at, &inner.seconds[at as usize % SECONDS]));
            let Some((_, second)) = second.filter(|(at, second)| second.at == *at) else {
                minute.calls.push(0);
                minute.failed.push(0);
                continue;
            };
            minute.calls.push(second.calls);
            minute.failed.push(second.failed);
            for (kind, many) in &second.kinds {
                *minute.kinds.entry(kind.clone()).or_default() += many;
            }
            for i in 0..BUCKETS {
                first_byte[i] += u64::from(second.first_byte[i]);
                latency[i] += u64::from(second.latency[i]);
            }
        }
        drop(inner);
        minute.first_byte = quantiles(&first_byte);
        minute.latency = quantiles(&latency);
        minute
    }

    /// The calls in memory that the filter is about, the newest first.
    pub fn calls(&self, filter: &Filter, before: Option<i64>, most: usize) -> Vec<Record> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = inner.calls.iter().rev().filter(|call| before.is_none_or(|before| call.id < before));
        calls.filter(|call| filter.is(call)).take(most).cloned().collect()
    }
}

impl Sink for Live {
    fn record(&self, record: &Arc<Record>) {
        let now = self.now();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let second = &mut inner.seconds[now as usize % SECONDS];
        if second.at != now {
            *second = Second::new(now);
        }
        second.calls += 1;
        second.latency[bucket(record.latency)] += 1;
        if let Some(first_byte) = record.first_byte {
            second.first_byte[bucket(first_byte)] += 1;
        }
        if let Some(kind) = &record.kind {
            second.failed += 1;
            match second.kinds.get_mut(kind) {
                Some(many) => *many += 1,
                None => drop(second.kinds.insert(kind.clone(), 1)),
            }
        }
        if record.had_trouble() {
            inner.last += 1;
            if inner.calls.len() == CALLS {
                inner.calls.pop_front();
            }
            let id = inner.last;
            inner.calls.push_back(Record { id, ..(**record).clone() });
        }
    }
}

fn bucket(millis: u64) -> usize {
    let place = (millis.max(1) as f64).log2() * 4.0;
    (place as usize).min(BUCKETS - 1)
}

fn quantiles(buckets: &[u64; BUCKETS]) -> Option<[f64; 3]> {
    let all: u64 = buckets.iter().sum();
    let at = |share: f64| {
        let rank = (all as f64 * share).ceil() as u64;
        let mut seen = 0;
        let place = buckets.iter().position(|many| {
            seen += many;
            seen >= rank
        });
        // The middle of the bucket.
        (2_f64.powf((place.unwrap_or(BUCKETS - 1) as f64 + 0.5) / 4.0) * 10.0).round() / 10.0
    };
    (all > 0).then(|| [at(0.5), at(0.95), at(0.99)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_at_most_a_tenth_off() {
        for millis in 1..200_000_u64 {
            let mut buckets = [0; BUCKETS];
            buckets[bucket(millis)] = 1;
            let [median, ..] = quantiles(&buckets).unwrap();
            assert!(
                (median / millis as f64 - 1.0).abs() < 0.1 + 0.1 / millis as f64 + 0.01,
                "{millis}: {median}"
            );
        }
        assert_eq!(quantiles(&[0; BUCKETS]), None);
    }
}
