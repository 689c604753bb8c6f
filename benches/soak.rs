//! The whole stack on a bad day that does not end: does it lose count, and does it grow?
//!
//! ```text
//! cargo bench --bench soak --all-features -- --seconds 600 [--tasks N] [--seed N]
//! ```
//!
//! A simulator on a loopback socket answers well, slowly, with errors, with broken connections and streams, and refuses
//! by its own quota of requests a minute. hyper-util's client under a `GeminiStack`, with waits of milliseconds, calls it
//! from 64 tasks, one request after the other, to three models; one caller in ten drops its call or its body midway.
//!
//! Every 30 s a line is printed, and at the end a summary. The exit code is 1 where a promise was broken:
//!
//! - the rate limit's counts: what was admitted was settled, or not sent, or refused, and nothing is left over;
//! - nothing is in flight, and nobody waits, once the callers have gone;
//! - every task has ended;
//! - memory: the median of resident memory in the last quarter is at most 10 % above that in the second. The first
//!   quarter is left out, in which pools, windows and the log of the simulator fill. Read from `/proc`, where there is
//!   one. Windows of a minute need runs of four minutes or more for that to say anything.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use lexopt::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::rate_limit::RateLimitLayer;
use tower_gemini::retry::{Backoff, RetryLayer, RetryPolicy};
use tower_gemini::sim::{Fault, Quota, Rule, Simulator};
use tower_gemini::stack::GeminiStack;
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};
use tower_gemini::{BoxError, Verdict};

const MODELS: [&str; 3] = ["gemini-3.8-flash", "gemini-3.5-flash", "gemini-2.5-flash-lite"];
/// For one call with all its attempts and waits.
const DEADLINE: Duration = Duration::from_secs(2);
/// Of a caller who got no answer.
const PAUSE: Duration = Duration::from_millis(10);
const LINE: Duration = Duration::from_secs(30);
const SAMPLE: Duration = Duration::from_secs(1);

struct Options {
    seconds: u64,
    tasks: u64,
    seed: u64,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options { seconds: 600, tasks: 64, seed: 1 };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => options.seconds = parser.value()?.parse()?,
            Long("tasks") => options.tasks = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            // What cargo adds.
            Long("bench") => {}
            other => return Err(other.unexpected()),
        }
    }
    if options.seconds == 0 || options.tasks == 0 {
        return Err("`--seconds` and `--tasks` must be at least 1".into());
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("soak: {error}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let broken = runtime.expect("a runtime of two workers").block_on(soak(&options));
    for promise in &broken {
        println!("BROKEN: {promise}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// ===== the server =====

fn simulator(seconds: u64, seed: u64) -> Simulator {
    let faults = [
        (Fault::overloaded(), 0.03),
        (Fault::unavailable().gzipped(), 0.01),
        (Fault::internal(), 0.02),
        (Fault::deadline_exceeded(), 0.01),
        (Fault::rate_limited().with_retry_in(Duration::from_millis(20)).with_limit(1_000_000), 0.002),
        (Fault::invalid_argument(), 0.01),
        (Fault::reset_before_head(), 0.01),
        (Fault::connection_refused(), 0.01),
        (Fault::reset_after_bytes(40), 0.01),
        (Fault::stalled(Duration::from_secs(1)), 0.002),
        (Fault::slow(Duration::from_millis(50)), 0.02),
        (Fault::cut_stream_after(2), 0.02),
        (Fault::overloaded().in_stream_after(0), 0.02),
        (Fault::overloaded().in_stream_after(2), 0.02),
        (Fault::stalled_stream_after(1, Duration::from_secs(1)), 0.005),
        (Fault::blocked_prompt(), 0.01),
        (Fault::empty_answer(), 0.01),
    ];
    let mut builder = Simulator::builder()
        .seed(seed)
        .head_latency(Duration::from_millis(1))
        .chunk_interval(Duration::from_millis(1))
        // Far below what the others are asked, so that it is spent in each minute.
        .quota(MODELS[0], Quota::new().requests_per_minute(3_000))
        .log_capacity(1_000);
    // An outage of two seconds in every twenty, of one model.
    for n in 0..seconds / 20 {
        let from = Duration::from_secs(10 + 20 * n);
        let outage = Rule::new(Fault::overloaded()).for_model(MODELS[1]);
        builder = builder.rule(outage.between(from..from + Duration::from_secs(2)));
    }
    for (fault, share) in faults {
        builder = builder.rule(Rule::new(fault).with_probability(share));
    }
    builder.build().expect("the plan is in range")
}

// ===== the callers =====

#[derive(Default)]
struct Tally {
    calls: AtomicU64,
    /// By what the caller saw.
    kinds: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    fn count(&self, kind: &'static str) {
        self.calls.fetch_add(1, Relaxed);
        *self.kinds.lock().expect("nobody panics under it").entry(kind).or_default() += 1;
    }
}

fn request(base: &str, number: u64) -> Request<Full<Bytes>> {
    let model = MODELS[number as usize % MODELS.len()];
    let method = if number % 2 == 0 { "generateContent" } else { "streamGenerateContent?alt=sse" };
    Request::post(format!("{base}/v1beta/models/{model}:{method}"))
        .header("content-type", "application/json")
        .body(Full::from(r#"{"contents":[{"parts":[{"text":"Why is the sky blue?"}]}]}"#))
        .expect("a request")
}

/// One call, read to its end or dropped midway.
async fn one<R>(call: impl Future<Output = Result<Response<R>, BoxError>>, number: u64) -> &'static str
where
    R: http_body::Body,
{
    let hasty = number % 10 == 7;
    // From half a millisecond to 16 ms: before the head, in the body, or never.
    let patience = if hasty { Duration::from_micros(500 << (number / 10 % 6)) } else { 10 * DEADLINE };
    let whole = async {
        let response = match call.await {
            Ok(response) => response,
            Err(error) => {
                return Verdict::from_error(error.as_ref()).kind().map_or("an error", |kind| kind.as_str());
            }
        };
        let verdict = Verdict::of(&response);
        let read = response.into_body().collect().await.is_ok();
        match verdict.outcome() {
            _ if verdict.kind().is_some() => verdict.kind().map_or("", |kind| kind.as_str()),
            Some(tower_gemini::verdict::Outcome::Failed(kind)) => kind.as_str(),
            _ if read => "answered",
            _ => "a broken body",
        }
    };
    match timeout(patience, whole).await {
        Ok(kind) => kind,
        Err(_) if hasty => "dropped by the caller",
        Err(_) => "HANGS",
    }
}

async fn soak(options: &Options) -> Vec<String> {
    let sim = simulator(options.seconds, options.seed);
    let server = sim.serve().await.expect("a port");
    let base: Arc<str> = server.base_url().into();
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);

    let millis = Duration::from_millis;
    let retry = RetryPolicy::builder().backoff(Backoff::new(millis(1), millis(20))).build();
    let breaker = CircuitBreakerLayer::builder().open_time(millis(50), millis(500)).ramp(millis(500)).build();
    let limits = RateLimitLayer::builder().max_wait(millis(500)).build();
    let attempt = TimeoutLayer::builder().first_byte(millis(300)).idle(millis(300)).build();
    let stack = GeminiStack::new()
        .deadline(DeadlineLayer::new(DEADLINE).expect("two seconds"))
        .retry(RetryLayer::new(retry.expect("in range")))
        .rate_limit(limits.expect("in range"))
        .circuit_breaker(breaker.expect("in range"))
        .timeout(attempt.expect("in range"));
    let service = stack.layer(client);

    let began = Instant::now();
    let end = began + Duration::from_secs(options.seconds);
    let tally = Arc::new(Tally::default());
    let mut tasks = JoinSet::new();
    for task in 0..options.tasks {
        let (mut service, base, tally) = (service.clone(), Arc::clone(&base), Arc::clone(&tally));
        let step = options.tasks;
        tasks.spawn(async move {
            let mut number = task;
            while Instant::now() < end {
                let call = service.ready().await.expect("never closed").call(request(&base, number));
                let kind = one(call, number).await;
                tally.count(kind);
                // One that is refused at once would otherwise ask again at once, and hold its thread for ever.
                if kind != "answered" {
                    sleep(PAUSE).await;
                }
                number += step;
            }
        });
    }
    drop(service);

    let mut memory = Vec::new();
    let (mut next_line, mut before) = (began + LINE, 0);
    while Instant::now() < end {
        sleep(SAMPLE).await;
        memory.push(resident());
        if Instant::now() >= next_line {
            next_line += LINE;
            let calls = tally.calls.load(Relaxed);
            println!(
                "{:5.0} s: {calls:9} calls, {:6.0} a second; {:.1} MiB",
                (Instant::now() - began).as_secs_f64(),
                (calls - before) as f64 / LINE.as_secs_f64(),
                resident(),
            );
            before = calls;
        }
    }
    let mut broken = Vec::new();
    let over = timeout(20 * DEADLINE, async { while tasks.join_next().await.is_some() {} }).await;
    if over.is_err() {
        broken.push(format!("{} of {} tasks have not ended", tasks.len(), options.tasks));
    }

    println!("{} calls of callers, {} at the server", tally.calls.load(Relaxed), sim.call_count());
    for (kind, count) in &*tally.kinds.lock().expect("nobody panics under it") {
        println!("  {count:9} {kind}");
        if *kind == "HANGS" {
            broken.push(format!("{count} calls were not over long after their deadline"));
        }
    }
    for status in stack.get_rate_limit().handle().status() {
        let ended = status.settled + status.not_sent + status.too_many;
        println!(
            "rate limit, {}: {} admitted = {} settled + {} not sent + {} too many; {} in flight, {} queued",
            status.key,
            status.admitted,
            status.settled,
            status.not_sent,
            status.too_many,
            status.admitted.abs_diff(ended),
            status.queued,
        );
        if status.admitted != ended || status.queued != 0 {
            broken.push(format!("the rate limit's counts of {}", status.key));
        }
    }
    for (key, state) in stack.get_concurrency().handle().all() {
        println!(
            "concurrency, {key}: limit {:?}, {} cuts; {} in flight, {} queued",
            state.limit(),
            state.cuts(),
            state.in_flight(),
            state.queued(),
        );
        if (state.in_flight(), state.queued()) != (0, 0) {
            broken.push(format!("the concurrency limit's counts of {key}"));
        }
    }
    for circuit in stack.get_circuit_breaker().handle().all() {
        println!("circuit, {}: {:?}, {} changes", circuit.key, circuit.state, circuit.generation);
    }
    let quarter = memory.len() / 4;
    let (first, last) = (median(&memory[quarter..2 * quarter]), median(&memory[3 * quarter..]));
    println!("memory: {first:.1} MiB in the second quarter, {last:.1} MiB in the last");
    if last > first * 1.1 {
        broken.push(format!("memory grew by {:.1} %", (last / first - 1.0) * 100.0));
    }
    broken
}

/// Resident memory in MiB; NaN where the system does not say.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
