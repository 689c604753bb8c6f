//! Bad days of whole stacks in virtual time: a server model, a fleet of processes, and what their callers got.
//!
//! `cargo test --all-features --test scenarios` holds the figures that are promised, with a few seeds each.
//! `SEEDS=n cargo test --release --all-features --test scenarios table -- --ignored --nocapture` prints every figure over n
//! seeds (10 unless said), those that are not promised included; `table_s3`, `table_s4`, `table_s6` and `table_s10` alone
//! do so for one day.
//!
//! The stack is, from the outside in: retry, a limit of calls a second where a day has one, governor, breaker, a timeout of
//! 5 s for each attempt, classifier, server. All layers are as they are by default, apart from the retry policy, which is
//! named with each figure: `patient` has 100 attempts and `five` has 5, whatever the kind of failure, both without a
//! budget. The deadline is the day's.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

#[path = "scenarios/claims.rs"]
mod claims;
#[path = "scenarios/days.rs"]
mod days;
#[path = "scenarios/pace.rs"]
mod pace;
#[path = "scenarios/run.rs"]
mod run;
#[path = "scenarios/server.rs"]
mod server;
#[path = "scenarios/stack.rs"]
mod stack;
mod support;
#[path = "scenarios/table.rs"]
mod table;
