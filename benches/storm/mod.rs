//! The parts of the storm: scenarios as data, contenders, what came of them, and the best that could have.

pub(crate) mod client;
pub(crate) mod controls;
pub(crate) mod figures;
pub(crate) mod floor;
pub(crate) mod ideal;
pub(crate) mod load;
pub(crate) mod members;
pub(crate) mod ours;
pub(crate) mod policies;
pub(crate) mod policy;
pub(crate) mod run;
pub(crate) mod scenario;
pub(crate) mod scenario_server;
pub(crate) mod score;
pub(crate) mod stack;
pub(crate) mod tower;
pub(crate) mod tower_resilience;
pub(crate) mod watch;
pub(crate) mod weather;
