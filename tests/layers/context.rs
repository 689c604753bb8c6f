//! What layers tell each other of a request goes with it: through `tower::buffer`, into a spawned task, and through a layer of
//! the user's own.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use support::{Body, request};
use tokio::time::Instant;
use tower::buffer::BufferLayer;
use tower::layer::layer_fn;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_gemini::Deadline;
use tower_gemini::event::{Event, Observer};
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::observe::ObserveLayer;
use tower_gemini::retry::{Attempt, Attempts, Backoff, RetryLayer, RetryPolicy};
use tower_gemini::stack::{Custom, GeminiStack};
use tower_gemini::tier::{ServiceTier, TierLayer};
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};

const SECOND: Duration = Duration::from_secs(1);

type Boxed = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// Hands each call to another task.
#[derive(Clone)]
struct Spawning<S>(S);

impl<S> Service<Request<Body>> for Spawning<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let task = tokio::spawn(self.0.clone().oneshot(request));
        Box::pin(async move { task.await.unwrap() })
    }
}

/// The ways in which something may stand between two layers.
fn ways(inner: Boxed) -> Vec<(&'static str, Boxed)> {
    // Takes the request apart, and calls later.
    let own = service_fn({
        let inner = inner.clone();
        move |request: Request<Body>| {
            let inner = inner.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let (mut parts, body) = request.into_parts();
                parts.extensions.insert("of the user's own");
                inner.oneshot(Request::from_parts(parts, body)).await
            }
        }
    });
    let buffered = BufferLayer::new(4).layer(inner.clone());
    vec![
        ("nothing", inner.clone()),
        ("tower::buffer", BoxCloneSyncService::new(buffered)),
        ("tokio::spawn", BoxCloneSyncService::new(Spawning(inner.clone()))),
        ("a layer of the user's", BoxCloneSyncService::new(own)),
        ("a buffer and a task", BoxCloneSyncService::new(BufferLayer::new(4).layer(Spawning(inner)))),
    ]
}

/// Answers with each of these in turn, and notes what `look` sees of each request.
fn noting<T: Send + 'static>(
    answers: &'static [u16],
    look: fn(&Request<Body>) -> T,
) -> (Boxed, Arc<Mutex<Vec<T>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, mut answers) = (Arc::clone(&seen), answers.iter().copied().cycle());
    let answers = Arc::new(Mutex::new(move || answers.next().unwrap()));
    let service = service_fn(move |request: Request<Body>| {
        let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
        async move {
            log.lock().unwrap().push(look(&request));
            let status = (answers.lock().unwrap())();
            let mut response = Response::new(Body::default());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok::<_, BoxError>(response)
        }
    });
    (BoxCloneSyncService::new(service), seen)
}

fn retry() -> RetryLayer {
    let backoff = Backoff::new(SECOND, SECOND);
    RetryLayer::new(RetryPolicy::builder().quick_retries(0).backoff(backoff).build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_found_wherever_the_request_goes() {
    let start = Instant::now();
    let (inner, seen) = noting(&[200], |request| Deadline::of(request).map(Deadline::instant));
    let ways = ways(inner);
    for (way, inner) in ways {
        let given = Instant::now() + 50 * SECOND;
        DeadlineLayer::new(50 * SECOND).unwrap().layer(inner).oneshot(request()).await.unwrap();
        assert_eq!(seen.lock().unwrap().pop(), Some(Some(given)), "{way}");
    }
    assert!(Instant::now() - start < SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_deadline_still_counts_first_and_is_capped_where_asked_for() {
    let (inner, seen) = noting(&[200], |request| Deadline::of(request).map(Deadline::instant));
    for (way, inner) in ways(inner) {
        for (own, capped, is) in [(20, false, 20), (90, false, 90), (90, true, 50), (20, true, 20)] {
            let layer = DeadlineLayer::new(50 * SECOND).unwrap();
            let layer = if capped { layer.cap_given() } else { layer };
            let start = Instant::now();
            let mut request = request();
            request.extensions_mut().insert(Deadline::within(own * SECOND));
            layer.layer(inner.clone()).oneshot(request).await.unwrap();
            assert_eq!(seen.lock().unwrap().pop(), Some(Some(start + is * SECOND)), "{way} {own} {capped}");
        }
    }
    // One that a layer in between puts in counts before the one that is carried.
    let (inner, seen) = noting(&[200], |request| Deadline::of(request).map(Deadline::instant));
    let start = Instant::now();
    let between = service_fn(move |mut request: Request<Body>| {
        request.extensions_mut().insert(Deadline::within(7 * SECOND));
        inner.clone().oneshot(request)
    });
    DeadlineLayer::default().layer(between).oneshot(request()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [Some(start + 7 * SECOND)]);
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_the_body_names_has_its_deadline_wherever_it_is_read() {
    let (inner, seen) = noting(&[200], |request| {
        (ServiceTier::of(request), Deadline::of(request).map(|deadline| deadline.instant() - Instant::now()))
    });
    for (way, inner) in ways(BoxCloneSyncService::new(TierLayer::new().layer(inner))) {
        let body = Body::from(r#"{"service_tier":"flex"}"#);
        let start = Instant::now();
        DeadlineLayer::default().layer(inner).oneshot(request().map(|_| body)).await.unwrap();
        let left = 30 * 60 * SECOND - (Instant::now() - start);
        assert_eq!(seen.lock().unwrap().pop(), Some((Some(ServiceTier::Flex), Some(left))), "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_numbered_and_their_timeouts_counted_wherever_they_are_made() {
    let (inner, seen) = noting(&[504, 504, 200], |request| {
        let told = request.headers().get("x-server-timeout").unwrap().to_str().unwrap().to_owned();
        (Attempt::of(request), told)
    });
    // Both the first byte's limit, which doubles, and the number are read behind what stands between.
    let timeout = TimeoutLayer::builder().first_byte(20 * SECOND).build().unwrap();
    let limited = timeout.layer(inner).map_response(|response| response.map(|_| Body::default()));
    for (way, inner) in ways(BoxCloneSyncService::new(limited)) {
        let response = retry().layer(inner).oneshot(request()).await.unwrap();
        assert_eq!(Attempts::of(&response).made(), 3, "{way}");
        let expected = [(1, "20"), (2, "40"), (3, "80")].map(|(n, told)| (n, told.to_owned()));
        assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected, "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_with_extensions_of_its_own_keeps_them_in_every_attempt() {
    let look = |request: &Request<Body>| {
        (request.extensions().get::<u8>().copied(), Attempt::of(request), Deadline::of(request).is_some())
    };
    for own in [None, Some(7)] {
        let (inner, seen) = noting(&[503, 503, 200], look);
        let mut request = request();
        if let Some(own) = own {
            request.extensions_mut().insert::<u8>(own);
        }
        DeadlineLayer::default().layer(retry().layer(inner)).oneshot(request).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [(own, 1, true), (own, 2, true), (own, 3, true)]);
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_at_several_models_count_together_wherever_they_are_made() {
    let (inner, seen) = noting(&[503], |request| request.uri().path().to_owned());
    for (way, inner) in ways(BoxCloneSyncService::new(RetryLayer::default().layer(inner))) {
        let fallback = ModelFallbackLayer::builder().chain("gemini-9-flash", ["b"]).build().unwrap();
        let response = fallback.layer(inner).oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 503);
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        // Three at the most at one that another model comes after.
        let first = seen.iter().filter(|path| path.contains("gemini-9-flash")).count();
        assert!((1..=3).contains(&first), "{way}: {first}");
        assert_eq!((Attempts::of(&response).made(), seen.len()), (10, 10), "{way}");
    }
}

/// Keeps how many attempts each call had.
#[derive(Default)]
struct Made(Mutex<Vec<u32>>);

impl Observer for Made {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Finished { call, .. } = event {
            self.0.lock().unwrap().push(call.attempts());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_watches_a_call_that_ends_in_an_error_knows_its_attempts() {
    let inner = service_fn(|_: Request<Body>| async {
        Err::<Response<Body>, BoxError>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
    });
    let policy = RetryPolicy::builder().attempts(4).backoff(Backoff::new(SECOND, SECOND)).build().unwrap();
    let retry = RetryLayer::new(policy).layer(inner);
    for (way, inner) in ways(BoxCloneSyncService::new(retry)) {
        let made = Arc::new(Made::default());
        let observe = ObserveLayer::new(Arc::clone(&made) as Arc<dyn Observer>);
        assert!(observe.layer(inner).oneshot(request()).await.is_err());
        assert_eq!(*made.0.lock().unwrap(), [4], "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stack_with_a_buffer_in_the_midst_keeps_its_deadline() {
    let (inner, seen) = noting(&[200], |request| Deadline::of(request).map(Deadline::instant));
    let start = Instant::now();
    let buffer = layer_fn(|inner| BufferLayer::<Request<Body>>::new(4).layer(inner));
    let stack = GeminiStack::new().concurrency(Custom(buffer));
    stack.layer(inner).oneshot(request()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [Some(start + 120 * SECOND)]);
}
