//! Nobody hangs: 300 rounds of 64 tasks on two threads through each layer and the stack end with no task pending, also
//! while circuits open and close and while limits reject.
//!
//! Time is real here, because two threads that race are the point, and paused time has one. Nothing sleeps: the limits
//! that matter are a few milliseconds or are changed by hand, and the others are far beyond the watch's patience, so that a
//! wake-up that gets lost is a failure and not a wait. A fifth of the callers drop their calls midway, each at another
//! poll.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

#[path = "no_hang/rounds.rs"]
mod rounds;
#[path = "no_hang/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use rounds::{ROUNDS, TASKS, When, rounds};
use server::{DEAF, Fate, MOODS, Server};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::Target;
use tower_gemini::circuit_breaker::{CircuitBreakerLayer, CircuitState};
use tower_gemini::classify::{ClassifyLayer, Peek};
use tower_gemini::concurrency::{AdaptiveConcurrencyLayer, ConcurrencyHandle};
use tower_gemini::event::{Event, Observer};
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::observe::ObserveLayer;
use tower_gemini::rate_limit::{AdmissionMode, Limits, RateLimitLayer, RateLimits};
use tower_gemini::retry::{Backoff, ReplayLayer, RetryLayer, RetryPolicy};
use tower_gemini::stack::GeminiStack;
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};

const ALL: usize = ROUNDS * TASKS;
const MODEL: &str = "gemini-9-flash";
const MICROSECOND: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Every other one is streamed.
fn request(number: u64) -> Request<Full<Bytes>> {
    let method = if number % 2 == 0 { "generateContent" } else { "streamGenerateContent?alt=sse" };
    Request::post(format!("http://127.0.0.1/v1beta/models/{MODEL}:{method}"))
        .body(Full::from(r#"{"contents":[{"parts":[{"text":"hello"}]}]}"#))
        .unwrap()
}

/// Four attempts, and hardly a wait between them.
fn quick() -> RetryLayer {
    let backoff = Backoff::new(MICROSECOND, 10 * MICROSECOND);
    let policy = RetryPolicy::builder().attempts(4).backoff(backoff).without_budget();
    RetryLayer::new(policy.build().unwrap())
}

/// A limit of four from the first 504 on, which cuts and grows all the time. Who waits for longer than the watch has
/// lost its turn.
fn four_at_once() -> AdaptiveConcurrencyLayer {
    let layer = AdaptiveConcurrencyLayer::builder().floor(4.0).cut_interval(Duration::ZERO);
    layer.max_wait(Duration::from_secs(3600)).build().unwrap()
}

/// Opens at so many failures in a row, for a millisecond.
fn jumpy(failures: u32) -> CircuitBreakerLayer {
    let breaker =
        CircuitBreakerLayer::builder().consecutive_failures(failures).open_time(MILLISECOND, MILLISECOND);
    breaker.probes(2).ramp(Duration::ZERO).build().unwrap()
}

fn nobody_is_inside(limit: &ConcurrencyHandle) {
    let state = limit.get(&Target::of(&request(0)).key().without_label()).unwrap();
    assert_eq!((state.in_flight(), state.queued()), (0, 0), "{state:?}");
    assert!(state.cuts() > 0, "it was in the way: {state:?}");
}

/// Every key's count, and how many calls were admitted.
fn nothing_is_reserved(quotas: &RateLimits) -> u64 {
    let all = quotas.status();
    assert!(!all.is_empty());
    for status in &all {
        assert_eq!((status.in_flight, status.queued), (0, 0), "{status:?}");
        assert_eq!(status.admitted, status.settled + status.not_sent + status.too_many, "{status:?}");
    }
    all.iter().map(|status| status.admitted).sum()
}

// ===== readers and repeaters =====

#[test]
fn classify() {
    let server = Server::new(MOODS);
    let layer = ClassifyLayer::new().watch().peek(Peek::Output);
    let ends = rounds(&server, layer.layer(server.clone()), request, |_, _| ());
    assert!(ends.good > ALL / 4 && ends.failed > ALL / 10 && ends.left > ALL / 10, "{ends:?}");
}

#[test]
fn retry() {
    let server = Server::new(MOODS);
    let service = ServiceBuilder::new().layer(quick()).layer(ClassifyLayer::new()).service(server.clone());
    let ends = rounds(&server, service, request, |_, _| ());
    assert!(ends.good > ALL / 2 && server.calls() > ALL as u64, "{ends:?}");
}

#[test]
fn replay() {
    // Not `Clone`, in two frames.
    let streamed = |number| {
        let frames =
            ["{\"contents\":", "[]}"].map(|text| Ok::<_, std::io::Error>(Frame::data(Bytes::from(text))));
        request(number).map(|_| StreamBody::new(futures_util::stream::iter(frames)))
    };
    let server = Server::new(MOODS);
    let layers = ServiceBuilder::new().layer(ReplayLayer::new()).layer(quick()).layer(ClassifyLayer::new());
    let ends = rounds(&server, layers.service(server.clone()), streamed, |_, _| ());
    assert!(ends.good > ALL / 2 && server.calls() > ALL as u64, "{ends:?}");
}

/// Three keys, of 64 callers at once; what the calls share is given back.
#[test]
fn coalesce() {
    use tower_gemini::coalesce::{CoalesceLayer, whole_body};

    let by_three = |number: u64| request(number).map(|_| Full::from(format!("{}", number % 3)));
    let server = Server::new(MOODS);
    let layer = CoalesceLayer::<Bytes, _>::new(whole_body::<Full<Bytes>> as fn(&Request<Full<Bytes>>) -> _);
    let service =
        ServiceBuilder::new().layer(layer.clone()).layer(ClassifyLayer::new()).service(server.clone());
    let ends = rounds(&server, service, by_three, |_, _| ());
    assert!(ends.good > ALL / 10 && ends.left > ALL / 10, "{ends:?}");
    assert!(server.calls() < ALL as u64, "nobody shared: {} calls", server.calls());
    assert_eq!(layer.in_flight(), 0);
}

#[test]
fn last_good() {
    use tower_gemini::coalesce::whole_body;
    use tower_gemini::last_good::{LastGoodLayer, MemoryStore};

    let by_many = |number: u64| request(number).map(|_| Full::from(format!("{}", number % 100)));
    let server = Server::new(MOODS);
    // Room for some of the keys, so that answers are dropped while others are put.
    let store = MemoryStore::new(16 << 10, 40).unwrap();
    let layer = LastGoodLayer::builder(whole_body::<Full<Bytes>> as fn(&Request<Full<Bytes>>) -> _);
    let layer = layer.store(store.clone()).build().unwrap();
    let service = ServiceBuilder::new().layer(layer).layer(ClassifyLayer::new()).service(server.clone());
    let ends = rounds(&server, service, by_many, |_, _| ());
    assert!(ends.good > ALL / 4 && ends.left > ALL / 10, "{ends:?}");
    assert!((1..=40).contains(&store.entries()), "{}", store.entries());
}

#[test]
fn fallback() {
    let server = Server::new(MOODS);
    let chain = ModelFallbackLayer::builder().chain(MODEL, ["b", "c"]).build().unwrap();
    let layers = ServiceBuilder::new().layer(chain).layer(quick()).layer(ClassifyLayer::new());
    let ends = rounds(&server, layers.service(server.clone()), request, |_, _| ());
    assert!(ends.good > ALL / 2 && server.calls() > ALL as u64, "{ends:?}");
}

#[test]
fn observe() {
    #[derive(Default)]
    struct Finished(AtomicUsize);

    impl Observer for Finished {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Finished { .. } = event {
                self.0.fetch_add(1, SeqCst);
            }
        }
    }

    let server = Server::new(MOODS);
    let (whole, attempts) = (Arc::new(Finished::default()), Arc::new(Finished::default()));
    let layers = ServiceBuilder::new()
        .layer(ObserveLayer::new(Arc::clone(&whole) as Arc<dyn Observer>))
        .layer(quick())
        .layer(ObserveLayer::new(Arc::clone(&attempts) as Arc<dyn Observer>))
        .layer(ClassifyLayer::new().watch());
    rounds(&server, layers.service(server.clone()), request, |_, _| ());
    assert_eq!(attempts.0.load(SeqCst) as u64, server.calls(), "each is told of once, the dropped ones, too");
    // Callers who left before the service was ready have made no call.
    let told = whole.0.load(SeqCst);
    assert!(told <= ALL && told > ALL / 10 * 9, "{told}");
}

// ===== time =====

#[test]
fn timeout() {
    let server = Server::new(DEAF);
    let layer = TimeoutLayer::builder().first_byte(2 * MILLISECOND).idle(2 * MILLISECOND).build().unwrap();
    let service = ServiceBuilder::new().layer(layer).layer(ClassifyLayer::new()).service(server.clone());
    let ends = rounds(&server, service, request, |_, _| ());
    assert!(ends.good > ALL / 10 && ends.failed > ALL / 10, "{ends:?}");
}

#[test]
fn deadline() {
    // Bodies are not cut by a deadline.
    const SILENT: &[Fate] = &[Fate::Good, Fate::Silent, Fate::Overloaded, Fate::Late, Fate::Lost];
    let server = Server::new(SILENT);
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(2 * MILLISECOND).unwrap())
        .layer(quick())
        .layer(TimeoutLayer::builder().without_first_byte().build().unwrap())
        .layer(ClassifyLayer::new())
        .service(server.clone());
    let ends = rounds(&server, service, request, |_, _| ());
    assert!(ends.good > ALL / 10 && ends.failed > ALL / 10, "{ends:?}");
}

// ===== concurrency =====

#[test]
fn concurrency() {
    let server = Server::new(MOODS);
    let limit = four_at_once();
    let handle = limit.handle();
    let service = ServiceBuilder::new().layer(limit).layer(ClassifyLayer::new()).service(server.clone());
    let by_hand = handle.clone();
    let ends = rounds(&server, service, request, move |round, when| {
        // Else the limit stays for ever: this is how the way from none to the first one is met again. In the midst of ten rounds,
        // since what is forgotten in the last one need not come again.
        if round % 10 == 4 && when == When::During {
            by_hand.reset_all();
        }
    });
    assert!(ends.good > ALL / 4, "{ends:?}");
    nobody_is_inside(&handle);
}

// ===== rate limit =====

#[test]
fn a_rate_limit_that_has_room() {
    let server = Server::new(MOODS);
    let limits = Limits::new().requests_per_minute(1_000_000).input_tokens_per_minute(100_000_000);
    let limit = RateLimitLayer::builder().limits(limits).mode(AdmissionMode::Reject).build().unwrap();
    let quotas = limit.handle();
    let service =
        ServiceBuilder::new().layer(limit).layer(ClassifyLayer::new().watch()).service(server.clone());
    rounds(&server, service, request, |_, _| ());
    assert_eq!(nothing_is_reserved(&quotas), server.calls());
}

#[test]
fn a_rate_limit_that_rejects() {
    let server = Server::new(&[Fate::Good, Fate::Late, Fate::Cut]);
    let limits = Limits::new().requests_per_minute(100);
    let limit = RateLimitLayer::builder().limits(limits).mode(AdmissionMode::Reject).build().unwrap();
    let quotas = limit.handle();
    let service =
        ServiceBuilder::new().layer(limit).layer(ClassifyLayer::new().watch()).service(server.clone());
    let ends = rounds(&server, service, request, |_, _| ());
    nothing_is_reserved(&quotas);
    assert!(server.calls() <= 100 && ends.failed > ALL / 2, "{ends:?}");
}

#[test]
fn a_queue_whose_limit_is_lifted_while_callers_come_and_go() {
    let server = Server::new(&[Fate::Good, Fate::Late, Fate::Cut, Fate::Overloaded]);
    let one = Limits::new().requests_per_minute(1);
    let limit = RateLimitLayer::builder().limits(one).build().unwrap();
    let quotas = limit.handle();
    let service =
        ServiceBuilder::new().layer(limit).layer(ClassifyLayer::new().watch()).service(server.clone());
    let by_hand = quotas.clone();
    let ends = rounds(&server, service, request, move |_, when| {
        // One has gone long ago, so from the second round on all wait until somebody lifts it.
        let limits = if when == When::Before { one } else { Limits::new() };
        by_hand.set_limits(limits).unwrap();
    });
    assert!(ends.good > ALL / 10, "{ends:?}");
    nothing_is_reserved(&quotas);
}

#[test]
fn a_queue_behind_doors_that_429s_close_for_a_millisecond() {
    let server = Server::new(MOODS);
    let limit = RateLimitLayer::builder().max_wait(2 * MILLISECOND).build().unwrap();
    let quotas = limit.handle();
    let service =
        ServiceBuilder::new().layer(limit).layer(ClassifyLayer::new().watch()).service(server.clone());
    rounds(&server, service, request, |_, _| ());
    nothing_is_reserved(&quotas);
}

// ===== circuit breaker =====

#[test]
fn a_circuit_that_is_closed() {
    let server = Server::new(MOODS);
    let breaker = CircuitBreakerLayer::default();
    breaker.handle().force_closed(&Target::of(&request(0)).key());
    let service = ServiceBuilder::new().layer(breaker).layer(ClassifyLayer::new()).service(server.clone());
    let ends = rounds(&server, service, request, |_, _| ());
    assert!(ends.good > ALL / 4, "{ends:?}");
}

#[test]
fn a_circuit_that_is_open() {
    let server = Server::new(MOODS);
    let breaker = CircuitBreakerLayer::default();
    breaker.handle().force_open(&Target::of(&request(0)).key());
    let service = ServiceBuilder::new().layer(quick()).layer(breaker).service(server.clone());
    let ends = rounds(&server, service, request, |_, _| ());
    assert_eq!((ends.good, server.calls()), (0, 0), "{ends:?}");
}

#[test]
fn a_circuit_that_opens_and_half_opens_all_the_time() {
    let server = Server::new(MOODS);
    let breaker = jumpy(2);
    let circuits = breaker.handle();
    let key = Target::of(&request(0)).key();
    let layers = ServiceBuilder::new().layer(quick()).layer(breaker.clone()).layer(ClassifyLayer::new());
    let (by_hand, forced) = (circuits.clone(), key.clone());
    rounds(&server, layers.service(server.clone()), request, move |round, when| {
        match (round % 10, when) {
            // For the time in which a round begins: who is turned away then is told no time.
            (8, When::Before) => by_hand.force_open(&forced),
            (8, When::During) => by_hand.automatic(&forced),
            (9, When::During) => by_hand.reset(&forced),
            _ => {}
        }
    });
    let circuit = circuits.get(&key).unwrap();
    assert!(circuit.generation > 100, "{circuit:?}");
    closes_again(&breaker);
}

/// No place of a probe was lost: with good answers only, the circuit closes.
fn closes_again(breaker: &CircuitBreakerLayer) {
    let well = Server::new(&[Fate::Good]);
    let service = ServiceBuilder::new().layer(quick()).layer(breaker.clone()).service(well);
    let key = Target::of(&request(0)).key();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in 0..100 {
            if let Ok(response) = service.clone().oneshot(request(0)).await {
                response.into_body().collect().await.unwrap();
            }
        }
    });
    assert_eq!(breaker.handle().get(&key).unwrap().state, CircuitState::Closed);
}

// ===== the stack =====

/// Each layer in its place with waits of milliseconds.
fn stack(
    rate_limit: RateLimitLayer,
    breaker: CircuitBreakerLayer,
) -> GeminiStack<DeadlineLayer, ReplayLayer, ModelFallbackLayer> {
    GeminiStack::new()
        .deadline(DeadlineLayer::new(Duration::from_secs(3600)).unwrap())
        .replay(ReplayLayer::new())
        .retry(quick())
        .rate_limit(rate_limit)
        .concurrency(four_at_once())
        .circuit_breaker(breaker)
        .timeout(TimeoutLayer::builder().first_byte(5 * MILLISECOND).idle(5 * MILLISECOND).build().unwrap())
        .falling_back(ModelFallbackLayer::builder().chain(MODEL, ["gemini-9-flash-lite"]))
        .unwrap()
}

#[test]
fn the_stack_on_a_bad_day() {
    // No 429s: after one of them calls go out one by one, and 300 rounds would take minutes.
    const BAD: &[Fate] =
        &[Fate::Overloaded, Fate::Late, Fate::Lost, Fate::Overloaded, Fate::Cut, Fate::Silent, Fate::Stuck];
    let server = Server::mostly_good(BAD);
    let breaker = jumpy(4);
    let stack = stack(RateLimitLayer::default(), breaker.clone());
    let ends = rounds(&server, stack.layer(server.clone()), request, |_, _| ());
    assert!(ends.good > ALL / 4, "{ends:?}");
    nobody_is_inside(&stack.get_concurrency().handle());
    nothing_is_reserved(&stack.get_rate_limit().handle());
    closes_again(&breaker);
}

#[test]
fn the_stack_with_open_circuits() {
    let server = Server::new(MOODS);
    let breaker = CircuitBreakerLayer::default();
    for model in [MODEL, "gemini-9-flash-lite"] {
        let path = format!("/v1beta/models/{model}:generateContent");
        breaker.handle().force_open(&Target::from_path(&path).key());
    }
    let stack = stack(RateLimitLayer::default(), breaker);
    let ends = rounds(&server, stack.layer(server.clone()), request, |_, _| ());
    assert_eq!((ends.good, server.calls()), (0, 0), "{ends:?}");
    nothing_is_reserved(&stack.get_rate_limit().handle());
}

#[test]
fn the_stack_with_a_limiter_that_rejects() {
    let server = Server::new(MOODS);
    let limit =
        RateLimitLayer::builder().limits(Limits::new().requests_per_minute(100)).mode(AdmissionMode::Reject);
    let stack = stack(limit.build().unwrap(), jumpy(2));
    // The retry layer would wait for the next minute.
    let stack = stack.deadline(DeadlineLayer::new(Duration::from_secs(5)).unwrap());
    let ends = rounds(&server, stack.layer(server.clone()), request, |_, _| ());
    assert!(server.calls() <= 200 && ends.failed > ALL / 2, "{ends:?}");
    nothing_is_reserved(&stack.get_rate_limit().handle());
}
