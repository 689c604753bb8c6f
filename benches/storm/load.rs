//! The requests of one seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::scenario::{Load, Scenario};
use crate::arrivals::Arrivals;

/// One request, before anything comes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) at: Duration,
    pub(crate) process: usize,
    pub(crate) tenant: usize,
    /// Input tokens, as the server counts them.
    pub(crate) tokens: Option<u64>,
    /// The body's length, of which clients guess the tokens.
    pub(crate) bytes: usize,
    /// When its caller goes away.
    pub(crate) leaves: Option<Duration>,
    /// Whether it asks for a stream.
    pub(crate) streams: bool,
}

/// All of them, in the order of their arrival.
pub(crate) fn asks(scenario: &Scenario, processes: usize, seed: u64) -> Vec<Ask> {
    let load = &scenario.load;
    let mut rng = StdRng::seed_from_u64(seed ^ 0xA5C5);
    let mut asks = Vec::new();
    let mut push = |at, process, rng: &mut StdRng| {
        let tenant = tenant(load, rng);
        let process = if load.tenants.is_empty() || load.gateway { process } else { tenant };
        let (tokens, bytes) = prompt(load, rng);
        let leaves = load.abandon.and_then(|abandon| {
            let (goes, when): (f64, f64) = (rng.random(), rng.random());
            (goes < abandon.share).then(|| at + abandon.within.mul_f64(when))
        });
        asks.push(Ask { at, process, tenant, tokens, bytes, leaves, streams: false });
    };
    for _ in 0..load.burst {
        let process = if processes > 1 { rng.random_range(0..processes) } else { 0 };
        push(Duration::ZERO, process, &mut rng);
    }
    if load.rate > 0.0 {
        for (at, process) in Arrivals::new(load.rate, load.horizon, processes, seed) {
            push(at, process, &mut rng);
        }
    }
    if load.burst > 0 && !load.tenants.is_empty() {
        exact_shares(load, &mut asks);
    }
    if load.streams > 0.0 {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x57E4);
        asks.iter_mut().for_each(|ask| ask.streams = rng.random::<f64>() < load.streams);
    }
    asks
}

/// How many processes a cell has, the tenants' own included.
pub(crate) fn processes(load: &Load, cell: usize) -> usize {
    if load.tenants.is_empty() || load.gateway { cell } else { load.tenants.len() }
}

fn tenant(load: &Load, rng: &mut StdRng) -> usize {
    let all: u32 = load.tenants.iter().sum();
    if all == 0 {
        return 0;
    }
    let mut ticket = rng.random_range(0..all);
    load.tenants
        .iter()
        .position(|share| ticket.checked_sub(*share).map(|left| ticket = left).is_none())
        .unwrap_or(0)
}

/// A burst of as many requests as the shares add up to has exactly the shares, in a random order.
fn exact_shares(load: &Load, asks: &mut [Ask]) {
    if load.tenants.iter().sum::<u32>() as usize != load.burst {
        return;
    }
    let mut order: Vec<usize> = (0..load.burst).collect();
    order.sort_by_key(|n| (asks[*n].tenant, *n));
    let tenants = load.tenants.iter().enumerate();
    let exact = tenants.flat_map(|(tenant, share)| std::iter::repeat_n(tenant, *share as usize));
    for (n, tenant) in order.into_iter().zip(exact) {
        asks[n].tenant = tenant;
        if !load.gateway {
            asks[n].process = tenant;
        }
    }
}

fn prompt(load: &Load, rng: &mut StdRng) -> (Option<u64>, usize) {
    let Some(prompts) = load.prompts else { return (None, 43) };
    let (radius, angle, noise): (f64, f64, f64) = (rng.random(), rng.random(), rng.random());
    let normal = (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
    let tokens = (prompts.median * (prompts.sigma * normal).exp()).clamp(1.0, prompts.most as f64);
    // Four bytes of a body are about one token.
    let bytes = 4.0 * tokens * (1.0 + prompts.noise * (2.0 * noise - 1.0));
    (Some(tokens as u64), bytes as usize)
}
