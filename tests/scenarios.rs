//! Bad days of whole stacks in virtual time: a server model, a fleet of processes, and what their callers got.
//!
//! `cargo test --all-features --test scenarios` holds the figures that are promised, with a few seeds each.
//! `SEEDS=n cargo test --release --all-features --test scenarios table -- --ignored --nocapture` prints every figure
//! over n seeds (10 unless said), those that are not promised included; `table_s3`, `table_s4`, `table_s6` and
//! `table_s10` in place of `table` print one day's.
//!
//! The stack is, from the outside in: retry, a limit of calls a second where a day has one, governor, breaker, a
//! timeout of 5 s for each attempt, classifier, server. All layers are as they are by default, apart from the retry
//! policy: `retry` has 100 attempts, `5 attempts` has 5, whatever the kind of failure, both without a budget. The
//! deadline is the day's.
//!
//! A row of the table: the share that was served, of all seeds and in the worst; calls for each request in the time
//! that counts; the most calls in any second after the trouble, in the worst seed; how long until ten seconds' arrivals
//! are served to 95 %; the 99th percentile of the time to an answer; the share of seeds in which a circuit opened; and
//! for one seed on average, how often closed circuits opened and probes failed, how often they closed, and how often a
//! governor cut and lifted its limit.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

#[path = "support/arrivals.rs"]
mod arrivals;
#[path = "scenarios/claims.rs"]
mod claims;
#[path = "scenarios/days.rs"]
mod days;
#[path = "scenarios/pace.rs"]
mod pace;
#[path = "support/quota.rs"]
mod quota;
#[path = "scenarios/run.rs"]
mod run;
#[path = "support/server.rs"]
mod server;
#[path = "scenarios/stack.rs"]
mod stack;
mod support;
#[path = "scenarios/table.rs"]
mod table;
