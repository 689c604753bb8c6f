//! The fleet's store in real servers: each fault of one, and each kind of server.
#![cfg(all(feature = "redis", feature = "sim"))]
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

#[macro_use]
#[path = "../support/at_once.rs"]
#[allow(unreachable_pub, reason = "each test has it for itself")]
mod at_once;
#[path = "../support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test uses some of it")]
mod redis;

mod faults;
mod store;

use faults::*;
use store::cluster::*;
use store::sentinel::*;
use store::tls::*;
use store::wrong::*;

// All but `store::doors`, which measures milliseconds.
at_once! {
    without_a_fault_no_window_holds_more_than_the_limit,
    nothing_goes_wrong,
    members_are_killed,
    a_member_is_stopped_for_three_seconds,
    the_server_is_killed_and_comes_back_empty,
    everything_is_flushed,
    the_server_pauses,
    a_replica_is_promoted,
    the_way_is_long_and_loses_one_direction,
    the_way_takes_200_ms_and_loses_one_direction,
    the_members_follow_a_key_to_another_node,
    the_members_follow_to_the_new_master,
    a_server_with_tls_is_asked_and_one_of_an_unknown_authority_is_not,
    nobody_listens,
    the_password_is_wrong,
    it_is_a_read_only_replica,
    the_state_is_of_a_newer_protocol,
    a_text_stands_under_the_states_name,
    a_hash_of_somebody_elses_stands_under_the_states_name,
}
