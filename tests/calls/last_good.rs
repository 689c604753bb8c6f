//! The last good answer stands in where everything else failed: what is kept, when it is used, and what it says.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use support::{Answer as Scripted, Body, Probe, error, good_body, request};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::coalesce::whole_body;
use tower_gemini::event::{Event, Observer};
use tower_gemini::last_good::{LastGood, LastGoodLayer, MemoryStore};
use tower_gemini::retry::Attempts;
use tower_gemini::stack::GeminiStack;
use tower_gemini::{BoxError, Kind, Verdict};

type KeyOf = fn(&Request<Body>) -> Option<Bytes>;

fn layer(store: &MemoryStore) -> LastGoodLayer<KeyOf> {
    LastGoodLayer::builder(whole_body::<Body> as KeyOf).store(store.clone()).build().unwrap()
}

/// Calls with this service, and reads all; whether a kept answer stood in.
async fn ask<S, RB>(service: &S, request: Request<Body>) -> Result<(u16, Bytes, bool), BoxError>
where
    S: tower::Service<Request<Body>, Response = Response<RB>, Error = BoxError> + Clone,
    RB: http_body::Body<Data = Bytes>,
    RB::Error: std::fmt::Debug,
{
    let response = service.clone().oneshot(request).await?;
    let (status, old) = (response.status().as_u16(), LastGood::of(&response).is_some());
    Ok((status, response.into_body().collect().await.unwrap().to_bytes(), old))
}

#[derive(Default)]
struct Log(Mutex<Vec<(Duration, Option<Kind>)>>);
impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::LastGoodUsed { age, verdict, .. } = event {
            self.0.lock().unwrap().push((*age, verdict.kind()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_stack_it_is_used_when_everything_else_failed_and_says_so() {
    let probe = Probe::new([Scripted::Ok], error(503, "UNAVAILABLE", "down"));
    let log = Arc::new(Log::default());
    let last_good = LastGoodLayer::builder(whole_body::<Body> as KeyOf)
        .header(HeaderName::from_static("x-age"))
        .observer(Arc::clone(&log) as Arc<dyn Observer>)
        .build()
        .unwrap();
    let service = GeminiStack::new().last_good(last_good).layer(probe.clone());
    assert_eq!(ask(&service, request()).await.unwrap(), (200, good_body().into(), false));
    sleep(Duration::from_secs(100)).await;
    let response = service.clone().oneshot(request()).await.unwrap();
    let calls = probe.state().lock().unwrap().calls.len();
    assert!(calls > 3, "the retries came first: {calls}");
    let old = LastGood::of(&response).unwrap();
    assert!(old.age() >= Duration::from_secs(100) && old.age() <= Duration::from_secs(220));
    assert_eq!(old.instead_of().kind(), Some(Kind::Unavailable));
    assert!(Attempts::of(&response).made() > 1, "what it took is told");
    assert_eq!(response.headers()["x-age"], old.age().as_secs().to_string());
    assert!(Verdict::of(&response).is_success());
    assert_eq!(*log.0.lock().unwrap(), [(old.age(), Some(Kind::Unavailable))]);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), good_body());
    // Another prompt has no answer to stand in.
    let other = request().map(|_| Body::from("{}"));
    assert_eq!(ask(&service, other).await.unwrap().0, 503);
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_is_none_and_neither_is_one_of_other_credentials() {
    let store = MemoryStore::default();
    let probe = Probe::new([Scripted::Ok], Scripted::Io(std::io::ErrorKind::ConnectionRefused));
    let service = layer(&store).layer(ClassifyLayer::new().watch().layer(probe));
    let mut mine = request();
    mine.headers_mut().insert("x-goog-api-key", "mine".parse().unwrap());
    ask(&service, mine.clone()).await.unwrap();
    assert!(ask(&service, request()).await.is_err());
    let mut other = mine.clone();
    other.headers_mut().insert("x-goog-api-key", "other".parse().unwrap());
    assert!(ask(&service, other).await.is_err());
    sleep(Duration::from_secs(3_599)).await;
    assert!(ask(&service, mine.clone()).await.unwrap().2, "an error is replaced by an answer");
    sleep(Duration::from_secs(2)).await;
    let error = ask(&service, mine).await.unwrap_err();
    assert_eq!(Verdict::from_error(error.as_ref()).kind(), Some(Kind::Transport));
}

#[tokio::test(start_paused = true)]
async fn only_whole_good_answers_are_kept() {
    const OK: &str = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}]}"#;
    for (body, kept) in [
        (OK.to_owned(), true),
        (r#"{"totalTokens":7}"#.to_owned(), true),
        (OK.replace("STOP", "MAX_TOKENS"), false),
        (OK.replace("STOP", "SAFETY"), false),
        (r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#.to_owned(), false),
        (r#"{"candidates":[{"finishReason":"STOP"}]}"#.to_owned(), false),
        (OK[..40].to_owned(), false),
        (r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#.to_owned(), false),
        ("<html>log in</html>".to_owned(), false),
        (String::new(), false),
        (format!("data: {OK}\n\n"), true),
        (format!("data: {}\n\n", OK.replace(r#","finishReason":"STOP""#, "")), false),
    ] {
        for watched in [true, false] {
            let store = MemoryStore::default();
            let probe = Probe::always(Scripted::Status(200, body.clone()));
            if watched {
                ask(&layer(&store).layer(ClassifyLayer::new().watch().layer(probe)), request())
                    .await
                    .unwrap();
            } else {
                ask(&layer(&store).layer(probe), request()).await.unwrap();
            }
            assert_eq!(store.entries() == 1, kept, "watched {watched}: {body}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_request_is_to_blame_for_stays_an_error_unless_asked_otherwise() {
    let invalid = error(400, "INVALID_ARGUMENT", "no such field");
    let probe = Probe::new([Scripted::Ok], invalid.clone());
    let service = layer(&MemoryStore::default()).layer(ClassifyLayer::new().layer(probe));
    ask(&service, request()).await.unwrap();
    assert_eq!(ask(&service, request()).await.unwrap().0, 400);
    let always = LastGoodLayer::builder(whole_body::<Body> as KeyOf).when(|_| true).build().unwrap();
    let service = always.layer(ClassifyLayer::new().layer(Probe::new([Scripted::Ok], invalid)));
    ask(&service, request()).await.unwrap();
    assert!(ask(&service, request()).await.unwrap().2);
    for layer in [
        LastGoodLayer::builder(whole_body::<Body> as KeyOf).max_age(Duration::ZERO),
        LastGoodLayer::builder(whole_body::<Body> as KeyOf).max_answer_bytes(0),
        LastGoodLayer::builder(whole_body::<Body> as KeyOf).max_reading_bytes(0),
    ] {
        assert!(layer.build().is_err());
    }
    assert!(MemoryStore::new(0, 1).is_err() && MemoryStore::new(1 << 10, 0).is_err());
}

#[tokio::test(start_paused = true)]
async fn slow_readers_hold_no_more_than_the_bound() {
    let store = MemoryStore::default();
    let layer = LastGoodLayer::builder(whole_body::<Body> as KeyOf)
        .store(store.clone())
        .max_reading_bytes(1 << 10)
        .build()
        .unwrap();
    let inner = tower::service_fn(async |_: Request<Body>| {
        let pieces = ["[".to_owned(), format!("{}{}", " ".repeat(600), good_body()), "]".to_owned()];
        let frames = pieces.map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))));
        Ok::<_, std::io::Error>(Response::new(StreamBody::new(stream::iter(frames))))
    });
    let service = layer.layer(inner);
    let mut open = Vec::new();
    for n in 0..3 {
        let asked = request().map(|_| Body::from(format!("{n}")));
        let mut response = service.clone().oneshot(asked).await.unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        open.push(response);
    }
    for response in open {
        assert!(response.into_body().collect().await.unwrap().to_bytes().ends_with(b"]"), "all the same");
    }
    assert_eq!(store.entries(), 1, "there was room for one while all three were read");
    // What was held is given back, also by those who leave.
    for n in 0..20 {
        let asked = request().map(|_| Body::from(format!("left {n}")));
        let mut response = service.clone().oneshot(asked).await.unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
    }
    assert_eq!(store.entries(), 1, "half an answer is none");
    let asked = request().map(|_| Body::from("later"));
    let response = service.clone().oneshot(asked).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(store.entries(), 2);
}

proptest! {
    // Whatever the pieces, and wherever the reader leaves or the body fails: what is kept is all of it, or nothing.
    #[test]
    fn all_of_it_is_kept_or_nothing(
        cuts in proptest::collection::vec(0_usize..200, 0..6),
        fails in proptest::option::weighted(0.3, 0_usize..6),
        reads in proptest::option::weighted(0.3, 0_usize..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let text = Bytes::from(format!("{}\n", good_body()));
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut frames: Vec<Result<Frame<Bytes>, std::io::Error>> =
                cuts.windows(2).map(|cut| Ok(Frame::data(text.slice(cut[0]..cut[1])))).collect();
            let fails = fails.filter(|at| *at < frames.len());
            if let Some(at) = fails {
                frames.truncate(at);
                frames.push(Err(std::io::ErrorKind::ConnectionReset.into()));
            }
            let all = frames.len();
            let frames = Arc::new(Mutex::new(Some(frames)));
            let inner = tower::service_fn(move |_: Request<Body>| {
                let frames = frames.lock().unwrap().take();
                async move {
                    let frames = frames.ok_or(std::io::ErrorKind::ConnectionRefused)?;
                    Ok::<_, std::io::Error>(Response::new(StreamBody::new(stream::iter(frames))))
                }
            });
            let store = MemoryStore::default();
            let service = layer(&store).layer(ClassifyLayer::new().watch().layer(inner));
            let mut body = service.clone().oneshot(request()).await.unwrap().into_body();
            // One more, for the end.
            let reads = reads.unwrap_or(all + 1);
            for _ in 0..reads {
                let _ = body.frame().await;
            }
            drop(body);
            let is_whole = fails.is_none() && reads > all;
            assert_eq!(store.entries(), usize::from(is_whole));
            if is_whole {
                assert_eq!(ask(&service, request()).await.unwrap(), (200, text, true));
            } else {
                assert!(ask(&service, request()).await.is_err());
            }
        });
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A reader of this key, whose answer fails behind its first piece or is good.
    Open(usize, bool),
    /// Reads one piece, however many others are half way through.
    Read(usize),
    Leave(usize),
    Pause(u64),
}

proptest! {
    // Readers of several keys side by side, each as slow as it likes, some of which leave and some of whose answers fail: each reads its own
    // answer to the last byte, only whole good ones are kept, and in the end there is room for another.
    #[test]
    fn slow_readers_disturb_nobody(
        ops in proptest::collection::vec(prop_oneof![
            3 => (0_usize..4, proptest::bool::weighted(0.2)).prop_map(|(key, fails)| Op::Open(key, fails)),
            8 => (0_usize..8).prop_map(Op::Read),
            1 => (0_usize..8).prop_map(Op::Leave),
            1 => (1_u64..100).prop_map(Op::Pause),
        ], 1..60),
        most in 1_024_usize..4_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let answer = |key: &str| [format!("[\"{key}\","), " ".repeat(300), good_body().to_owned(), "]".to_owned()];
            let whole = |key: &str| answer(key).concat();
            let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let failing = Arc::clone(&fails);
            let inner = tower::service_fn(move |request: Request<Body>| {
                let fails = failing.load(std::sync::atomic::Ordering::Relaxed);
                async move {
                    let key = request.into_body().collect().await.unwrap().to_bytes();
                    let pieces = answer(std::str::from_utf8(&key).unwrap()).map(|piece| Ok(Frame::data(Bytes::from(piece))));
                    let mut frames = Vec::from(pieces);
                    if fails {
                        frames.truncate(1);
                        frames.push(Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
                    }
                    Ok::<_, std::io::Error>(Response::new(StreamBody::new(stream::iter(frames))))
                }
            });
            let store = MemoryStore::default();
            let builder = LastGoodLayer::builder(whole_body::<Body> as KeyOf).store(store.clone());
            let service = builder.max_reading_bytes(most).build().unwrap().layer(inner);
            let mut readers = Vec::new();
            let mut finished = std::collections::BTreeSet::new();
            for op in ops {
                match op {
                    Op::Open(key, fail) => {
                        fails.store(fail, std::sync::atomic::Ordering::Relaxed);
                        let asked = request().map(|_| Body::from(format!("{key}")));
                        let body = service.clone().oneshot(asked).await.unwrap().into_body();
                        readers.push(Some((key, Box::pin(body), String::new())));
                    }
                    Op::Read(n) => if let Some(Some((key, body, read))) = readers.get_mut(n) {
                        match body.frame().await {
                            Some(Ok(frame)) => {
                                read.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
                                continue;
                            }
                            Some(Err(_)) => {}
                            None => {
                                assert_eq!(*read, whole(&key.to_string()));
                                finished.insert(*key);
                            }
                        }
                        readers[n] = None;
                    },
                    Op::Leave(n) => if let Some(reader) = readers.get_mut(n) { *reader = None; },
                    Op::Pause(ms) => sleep(Duration::from_millis(ms)).await,
                }
            }
            assert!(store.entries() <= finished.len(), "only what was read to its end is kept");
            drop(readers);
            let kept = store.entries();
            fails.store(false, std::sync::atomic::Ordering::Relaxed);
            let asked = || request().map(|_| Body::from("9"));
            assert_eq!(ask(&service, asked()).await.unwrap().1, whole("9"));
            assert_eq!(store.entries(), kept + 1, "what was held is given back");
        });
    }
}

#[cfg(feature = "moka")]
fn moka_store(
    most: u64,
) -> (
    tower_gemini::last_good::MokaStore,
    moka::sync::Cache<tower_gemini::last_good::Key, tower_gemini::last_good::Answer>,
) {
    use tower_gemini::last_good::{Answer, Key, MokaStore};

    let weigh = |key: &Key, answer: &Answer| u32::try_from(key.as_bytes().len() + answer.bytes()).unwrap();
    let cache = moka::sync::Cache::builder().weigher(weigh).max_capacity(most).build();
    (MokaStore::new(cache.clone()), cache)
}

/// The same as with the store in memory: kept, used, marked, and by key.
#[cfg(feature = "moka")]
#[tokio::test(start_paused = true)]
async fn a_cache_of_mokas_keeps_and_gives_back() {
    let probe = Probe::new([Scripted::Ok], error(503, "UNAVAILABLE", "down"));
    let (store, cache) = moka_store(1 << 20);
    let layer = LastGoodLayer::builder(whole_body::<Body> as KeyOf).store(store.clone()).build().unwrap();
    let service = layer.layer(ClassifyLayer::new().layer(probe));
    let (status, text, old) = ask(&service, request()).await.unwrap();
    assert_eq!((status, old), (200, false));
    sleep(Duration::from_secs(40)).await;
    let response = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(LastGood::of(&response).unwrap().age(), Duration::from_secs(40));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
    // Another key has none.
    let other = request().map(|_| Body::from("another"));
    assert_eq!(ask(&service, other).await.unwrap().0, 503);
    cache.invalidate_all();
    assert_eq!(ask(&service, request()).await.unwrap().0, 503, "its owner may empty it");
    assert!(format!("{store:?}").starts_with("MokaStore { entries: "), "{store:?}");
}

#[cfg(feature = "moka")]
#[tokio::test(start_paused = true)]
async fn a_cache_of_mokas_holds_no_more_than_its_owner_said() {
    let (store, cache) = moka_store(4 << 10);
    let layer = LastGoodLayer::builder(whole_body::<Body> as KeyOf).store(store).build().unwrap();
    let service = layer.layer(ClassifyLayer::new().layer(Probe::always(Scripted::Ok)));
    for n in 0..200 {
        let asked = request().map(|_| Body::from(format!("{n} {}", "x".repeat(100))));
        ask(&service, asked).await.unwrap();
    }
    cache.run_pending_tasks();
    assert!(cache.entry_count() > 0 && cache.weighted_size() <= 4 << 10, "{}", cache.weighted_size());
}

/// On threads: whatever the order, a kept answer is whole and of its own key, and the bounds hold at the end.
#[test]
fn on_threads_every_answer_is_of_its_own_key() {
    const KEYS: usize = 24;
    let store = MemoryStore::new(8 << 10, 16).unwrap();
    let of_key = |key: &str| good_body().replacen('{', &format!("{{\"key\":\"{key}\","), 1);
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let inner = tower::service_fn(move |request: Request<Body>| {
        // Each third call fails.
        let fails = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 3 == 2;
        async move {
            tokio::task::yield_now().await;
            let key = request.into_body().collect().await.unwrap().to_bytes();
            if fails {
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
            }
            Ok(Response::new(Body::from(of_key(std::str::from_utf8(&key).unwrap()))))
        }
    });
    let service = layer(&store).layer(inner);
    let kept = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread: usize| {
                let service = service.clone();
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        let mut kept = 0;
                        for n in 0..1_000_usize {
                            let key = ((n * 7 + thread * 5) % KEYS).to_string();
                            let asked = request().map(|_| Body::from(key.clone()));
                            if let Ok((_, text, old)) = ask(&service, asked).await {
                                assert_eq!(text, of_key(&key));
                                kept += usize::from(old);
                            }
                        }
                        kept
                    })
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert!(kept > 0, "a kept answer stood in");
    assert!(store.entries() <= 16, "{}", store.entries());
}
