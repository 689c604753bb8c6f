//! The contenders that are policies, with their published defaults.
//!
//! Where the original reads a delay that a server names, in whatever form, it is given the one of Gemini's `RetryInfo`
//! here, which most of them would not find. Those that can be told a quota are told it.

use std::time::Duration;

use super::policy::{Backoff, BreakerRule, BudgetRule, Hint, Jitter, LimiterRule, Policy};

const AWS: Policy = Policy {
    name: "aws-2.1",
    attempts: 3,
    backoff: Backoff::doubling(1.0, 20.0, Jitter::Full),
    hint: Hint::Clamped,
    budget: BudgetRule::Aws { cost: 14.0, throttled: 5.0, timeout: 14.0 },
    ..Policy::PLAIN
};

const GENAI: Policy = Policy {
    name: "google-genai",
    backoff: Backoff::doubling(1.0, 60.0, Jitter::Plus(1.0)),
    ..Policy::PLAIN
};

/// All of them, the simplest first.
pub(crate) const POLICIES: [Policy; 14] = [
    Policy { name: "no-retry", attempts: 1, ..Policy::PLAIN },
    // As the troubleshooting guides write it.
    Policy {
        name: "guides",
        backoff: Backoff::doubling(1.0, 60.0, Jitter::PlusShare(0.1)),
        overloaded: Some(Backoff::doubling(30.0, 300.0, Jitter::PlusShare(0.1))),
        ..Policy::PLAIN
    },
    GENAI,
    // Behind a token bucket of the told quota, as governor is.
    Policy { name: "google-genai-gcra", limiter: LimiterRule::Gcra, ..GENAI },
    Policy {
        name: "gemini-cli",
        attempts: 10,
        backoff: Backoff::doubling(5.0, 30.0, Jitter::Ratio(0.3)),
        hint: Hint::AtLeast(0.2),
        knows_days: true,
        ..Policy::PLAIN
    },
    Policy { name: "full-jitter-for-ever", attempts: u32::MAX, ..Policy::PLAIN },
    // Envoy's form of a delay that the server names, without its bound on attempts.
    Policy { name: "hint-for-ever", attempts: u32::MAX, hint: Hint::AtLeast(0.5), ..Policy::PLAIN },
    Policy {
        name: "aws-2.0",
        hint: Hint::Capped(20.0),
        budget: BudgetRule::Aws { cost: 5.0, throttled: 5.0, timeout: 10.0 },
        ..AWS
    },
    AWS,
    Policy { name: "aws-adaptive", limiter: LimiterRule::Cubic, ..AWS },
    Policy {
        name: "grpc",
        backoff: Backoff::doubling(1.0, 60.0, Jitter::Ratio(0.2)),
        hint: Hint::Exact,
        budget: BudgetRule::Grpc,
        ..Policy::PLAIN
    },
    Policy {
        name: "finagle",
        attempts: 25,
        backoff: Backoff::NONE,
        budget: BudgetRule::Finagle,
        ..Policy::PLAIN
    },
    // The standard handler of .NET.
    Policy {
        name: "polly",
        attempts: 4,
        backoff: Backoff::doubling(2.0, f64::INFINITY, Jitter::Polly),
        hint: Hint::Exact,
        breaker: Some(BreakerRule {
            share: 0.1,
            min_calls: 100,
            window: Some(30.0),
            open: 5.0,
            probes: 1,
            retried: false,
        }),
        total: Some(Duration::from_secs(30)),
        ..Policy::PLAIN
    },
    Policy {
        name: "resilience4j",
        attempts: 3,
        backoff: Backoff::fixed(0.5),
        breaker: Some(BreakerRule {
            share: 0.5,
            min_calls: 100,
            window: None,
            open: 60.0,
            probes: 10,
            retried: true,
        }),
        ..Policy::PLAIN
    },
];
