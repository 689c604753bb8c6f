//! `ReplayBody` and its layer.
//!
//! The property test at the top is the contract: whatever is polled, cloned, dropped and fed in whatever order,
//! a copy that ends has delivered the body, and no copy that waits is forgotten. The limits and frame sizes
//! are small so that all states (kept, overflowed, released, failed) come up in most runs.
#![allow(clippy::unwrap_used)] // Clippy excuses test functions by itself, but not their helpers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::error::{BoxError, find};
use tower_gemini::retry::{LostReason, Replay, ReplayBody, ReplayLayer, ReplayLost, Superseded};

// ===== A body under the test's thumb =====

#[derive(Clone, Debug)]
enum Item {
    Data(Bytes),
    Trailers,
    Fail,
    Panic,
}

#[derive(Default)]
struct Feed {
    items: VecDeque<Item>,
    /// How many of the items may be taken; above that the body is pending.
    allowed: usize,
    waker: Option<Waker>,
}

/// Yields its items one by one, as far as it was allowed to. Not `Clone`, on purpose.
struct Script {
    feed: Arc<Mutex<Feed>>,
    exact: bool,
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("t"))])
}

impl Script {
    fn new(items: impl IntoIterator<Item = Item>, allowed: usize, exact: bool) -> (Self, Arc<Mutex<Feed>>) {
        let feed = Feed { items: items.into_iter().collect(), allowed, waker: None };
        let feed = Arc::new(Mutex::new(feed));
        (Self { feed: Arc::clone(&feed), exact }, feed)
    }
}

fn allow(feed: &Mutex<Feed>, more: usize) {
    let waker = {
        let mut feed = feed.lock().unwrap();
        feed.allowed = feed.allowed.saturating_add(more);
        feed.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let item = {
            let mut feed = self.feed.lock().unwrap();
            // A body that said it has ended does not wait any more.
            if feed.allowed == 0 && !(self.exact && feed.items.is_empty()) {
                feed.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            feed.allowed = feed.allowed.saturating_sub(1);
            feed.items.pop_front()
        };
        Poll::Ready(match item {
            None => None,
            Some(Item::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Item::Trailers) => Some(Ok(Frame::trailers(trailers()))),
            Some(Item::Fail) => Some(Err("the disk is gone".into())),
            Some(Item::Panic) => panic!("scripted"),
        })
    }

    fn size_hint(&self) -> SizeHint {
        if !self.exact {
            return SizeHint::new();
        }
        let feed = self.feed.lock().unwrap();
        let bytes = feed.items.iter().map(|item| if let Item::Data(data) = item { data.len() } else { 0 });
        SizeHint::with_exact(bytes.sum::<usize>() as u64)
    }

    fn is_end_stream(&self) -> bool {
        self.exact && self.feed.lock().unwrap().items.is_empty()
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// ===== The contract =====

#[derive(Clone, Debug)]
enum Op {
    Clone(prop::sample::Index),
    Poll(prop::sample::Index),
    Drop(prop::sample::Index),
    Allow(usize),
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => any::<prop::sample::Index>().prop_map(Op::Clone),
        16 => any::<prop::sample::Index>().prop_map(Op::Poll),
        2 => any::<prop::sample::Index>().prop_map(Op::Drop),
        6 => (1_usize..4).prop_map(Op::Allow),
        1 => Just(Op::Release),
    ]
}

/// Frames of 0 to 5 bytes whose bytes count up, so that a frame that is lost, doubled or swapped shows.
fn items() -> impl Strategy<Value = Vec<Item>> {
    (prop::collection::vec(0_usize..6, 0..8), any::<bool>(), prop::option::weighted(0.2, 0_usize..8))
        .prop_map(|(sizes, with_trailers, fail_at)| {
            let mut byte = 0_u8;
            let mut items = Vec::new();
            for (index, size) in sizes.into_iter().enumerate() {
                if fail_at == Some(index) {
                    items.push(Item::Fail);
                    return items;
                }
                let data: Vec<u8> = (byte..byte + size as u8).collect();
                byte += size as u8;
                items.push(Item::Data(data.into()));
            }
            if with_trailers {
                items.push(Item::Trailers);
            }
            items
        })
}

struct Copy {
    body: ReplayBody<Script>,
    /// The order of birth, as the test counts it.
    birth: usize,
    got: Vec<u8>,
    got_trailers: Option<HeaderMap>,
    done: bool,
    pending: bool,
    wakes: Arc<Count>,
}

impl Copy {
    fn new(body: ReplayBody<Script>, birth: usize) -> Self {
        let wakes = Arc::default();
        Self { body, birth, got: Vec::new(), got_trailers: None, done: false, pending: false, wakes }
    }
}

struct World {
    copies: Vec<Copy>,
    births: usize,
    /// The highest birth that was polled and not refused.
    live: usize,
    failures: usize,
    released: bool,
    replay: Replay,
    expected: Vec<u8>,
    expected_trailers: Option<HeaderMap>,
    fails: bool,
    exact: bool,
}

impl World {
    fn poll(&mut self, at: usize) -> bool {
        let live = self.live;
        let lost_before = self.replay.is_lost();
        let copy = &mut self.copies[at];
        if !copy.done {
            let hint = copy.body.size_hint();
            let rest = (self.expected.len() - copy.got.len()) as u64;
            if !self.fails {
                assert!(hint.lower() <= rest && hint.upper().is_none_or(|upper| upper >= rest), "{hint:?}");
                if self.exact && (!lost_before || copy.birth == live) {
                    assert_eq!(hint.exact(), Some(rest), "copy {}", copy.birth);
                }
            }
        }
        let ended = copy.body.is_end_stream();
        // A task may move between polls, so only the newest waker counts.
        copy.wakes = Arc::default();
        let waker = Waker::from(Arc::clone(&copy.wakes));
        copy.pending = false;
        let polled = Pin::new(&mut copy.body).poll_frame(&mut Context::from_waker(&waker));
        assert!(!ended || matches!(polled, Poll::Ready(None)), "is_end_stream promised the end");

        let mut refused = false;
        match polled {
            Poll::Pending => copy.pending = true,
            Poll::Ready(_) if copy.done => unreachable!("done copies are not polled by this test"),
            Poll::Ready(Some(Ok(frame))) => {
                assert!(copy.got_trailers.is_none(), "nothing follows trailers");
                match frame.into_data() {
                    Ok(data) => copy.got.extend_from_slice(&data),
                    Err(frame) => copy.got_trailers = frame.into_trailers().ok(),
                }
                assert!(self.expected.starts_with(&copy.got), "copy {} got {:?}", copy.birth, copy.got);
            }
            Poll::Ready(None) => {
                copy.done = true;
                refused = true; // An end is no turn: an older copy that has everything may still report it.
                assert_eq!(copy.got, self.expected);
                assert_eq!(copy.got_trailers, self.expected_trailers);
                assert!(!self.fails);
            }
            Poll::Ready(Some(Err(error))) => {
                copy.done = true;
                if error.is::<Superseded>() {
                    assert!(copy.birth < live);
                    refused = true;
                } else if let Some(lost) = error.downcast_ref::<ReplayLost>() {
                    assert!(self.replay.is_lost());
                    assert_eq!(self.replay.lost(), Some(*lost));
                    assert!(copy.got.is_empty() && copy.got_trailers.is_none());
                    assert_ne!(copy.birth, live, "the live copy never loses its bytes");
                    refused = true;
                } else {
                    self.failures += 1;
                    assert_eq!(error.to_string(), "the disk is gone");
                    assert_eq!(copy.got, self.expected, "everything before the failure was delivered");
                }
            }
        }
        if copy.done {
            let again = Pin::new(&mut copy.body).poll_frame(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(again, Poll::Ready(None)), "an ended copy stays ended");
            assert!(copy.body.is_end_stream());
        }
        let birth = copy.birth;
        if !refused {
            assert!(birth >= live, "an older copy got something after it was superseded");
            self.live = birth;
            if birth > live {
                for old in self.copies.iter().filter(|old| old.pending && old.birth < birth) {
                    assert!(old.wakes.0.load(Ordering::SeqCst) > 0, "copy {} sleeps for ever", old.birth);
                }
            }
        }
        assert!(self.failures <= 1, "the failure is delivered once");
        assert!(self.replay.kept_bytes() <= self.replay.max_bytes());
        !self.copies[at].done
    }

    fn apply(&mut self, op: Op, feed: &Mutex<Feed>) {
        match op {
            Op::Clone(index) if !self.copies.is_empty() => {
                self.births += 1;
                let body = index.get(&self.copies).body.clone();
                self.copies.push(Copy::new(body, self.births));
            }
            Op::Poll(index) if !self.copies.is_empty() => {
                let at = index.index(self.copies.len());
                if !self.copies[at].done {
                    self.poll(at);
                }
            }
            Op::Drop(index) if !self.copies.is_empty() => {
                self.copies.swap_remove(index.index(self.copies.len()));
            }
            Op::Allow(more) => allow(feed, more),
            Op::Release => {
                self.released = true;
                self.replay.release();
            }
            Op::Clone(_) | Op::Poll(_) | Op::Drop(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_copy_that_ends_has_delivered_the_body(
        items in items(),
        ops in prop::collection::vec(op(), 0..60),
        max_bytes in 0_usize..40,
        exact in any::<bool>(),
    ) {
        let expected: Vec<u8> = items
            .iter()
            .flat_map(|item| if let Item::Data(data) = item { data.to_vec() } else { Vec::new() })
            .collect();
        let trailer_bytes = "etag".len() + 1;
        let with_trailers = items.iter().any(|item| matches!(item, Item::Trailers));
        let fails = items.iter().any(|item| matches!(item, Item::Fail));
        let size = expected.len() + if with_trailers { trailer_bytes } else { 0 };
        let (script, feed) = Script::new(items, 0, exact);
        let body = ReplayBody::with_max_bytes(script, max_bytes);
        let mut world = World {
            replay: body.replay(),
            copies: vec![Copy::new(body, 0)],
            births: 0,
            live: 0,
            failures: 0,
            released: false,
            expected,
            expected_trailers: with_trailers.then(trailers),
            fails,
            exact,
        };
        for op in ops {
            world.apply(op, &feed);
        }

        // The epilogue: with everything allowed, nobody waits, and the newest copy gets the body if the
        // promises say so.
        allow(&feed, usize::MAX);
        if world.replay.is_lost() {
            prop_assert!(size > max_bytes || world.released || world.failures > 0);
        }
        if !world.copies.is_empty() {
            let lost = world.replay.is_lost();
            world.births += 1;
            let fresh = world.copies[0].body.clone();
            world.copies.push(Copy::new(fresh, world.births));
            let newest = world.copies.len() - 1;
            if lost {
                // The lost copy must leave the live one alone, which then goes on to the end.
                prop_assert!(!world.poll(newest));
                prop_assert!(world.copies[newest].got.is_empty());
                let live = world.live;
                if let Some(at) = world.copies.iter().position(|copy| copy.birth == live && !copy.done) {
                    while world.poll(at) {}
                    prop_assert_eq!(&world.copies[at].got, &world.expected);
                }
            } else {
                while world.poll(newest) {}
                prop_assert_eq!(&world.copies[newest].got, &world.expected);
            }
            for copy in &world.copies {
                prop_assert!(!copy.pending || copy.wakes.0.load(Ordering::SeqCst) > 0, "a copy was forgotten");
            }
        }
        drop(world.copies);
        prop_assert_eq!(Arc::strong_count(&feed), 1, "the last copy takes the inner body with it");
        prop_assert_eq!(world.replay.kept_bytes(), 0);
    }
}

// ===== One case each =====

fn data(bytes: &'static str) -> Item {
    Item::Data(Bytes::from_static(bytes.as_bytes()))
}

fn poll<B>(body: &mut ReplayBody<B>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

fn next<B>(body: &mut ReplayBody<B>) -> Result<Bytes, BoxError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match poll(body) {
        Poll::Ready(Some(frame)) => frame.map(|frame| frame.into_data().expect("a data frame")),
        other => panic!("expected a frame: {other:?}"),
    }
}

/// linkerd2-proxy#4621: a clone that began with an empty buffer sent its first frame twice.
#[tokio::test]
async fn a_clone_that_begins_before_any_byte_was_read_sends_each_byte_once() {
    let (script, _feed) = Script::new([data("ab"), data("c"), Item::Trailers], usize::MAX, false);
    let mut first = ReplayBody::new(script);
    let second = first.clone();
    let collected = second.collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers()));
    assert_eq!(collected.to_bytes(), "abc");
    assert!(next(&mut first).unwrap_err().is::<Superseded>());
}

/// linkerd2-proxy#3216: the server answered early, so the first attempt's body was still there.
#[test]
fn the_old_attempt_may_be_polled_on_while_the_new_one_sends() {
    let (script, feed) = Script::new([data("a"), data("b"), data("c")], 1, true);
    let mut old = ReplayBody::new(script);
    let mut new = old.clone();
    assert_eq!(next(&mut old).unwrap(), "a");
    assert!(poll(&mut old).is_pending());
    assert_eq!(next(&mut new).unwrap(), "a");
    allow(&feed, 5);
    assert!(next(&mut old).unwrap_err().is::<Superseded>());
    assert!(matches!(poll(&mut old), Poll::Ready(None)));
    assert_eq!(new.size_hint().exact(), Some(2));
    assert_eq!(next(&mut new).unwrap(), "b");
    assert_eq!(next(&mut new).unwrap(), "c");
    assert!(new.is_end_stream());
}

#[test]
fn an_old_copy_that_was_never_polled_does_not_take_the_turn_back() {
    // An HTTP/2 stream without a window polls its body late, perhaps after the next attempt began.
    let (script, _feed) = Script::new([data("a"), data("b")], usize::MAX, true);
    let mut old = ReplayBody::new(script);
    let mut new = old.clone();
    assert_eq!(next(&mut new).unwrap(), "a");
    assert!(next(&mut old).unwrap_err().is::<Superseded>());
    assert_eq!(next(&mut new).unwrap(), "b");
}

#[test]
fn a_kept_copy_disturbs_nobody() {
    let (script, _feed) = Script::new([data("a"), data("b")], usize::MAX, true);
    let mut live = ReplayBody::new(script);
    assert_eq!(next(&mut live).unwrap(), "a");
    let kept = live.clone();
    assert_eq!((kept.size_hint().exact(), kept.is_end_stream()), (Some(2), false));
    drop(kept.clone());
    assert_eq!(next(&mut live).unwrap(), "b");
    drop(kept);
    assert!(matches!(poll(&mut live), Poll::Ready(None)));
}

#[test]
fn overflowing_frees_the_buffer_and_streams_on() {
    let (script, feed) = Script::new([data("aaa"), data("bb"), data("c")], usize::MAX, false);
    let mut live = ReplayBody::with_max_bytes(script, 4);
    let replay = live.replay();
    let mut late = live.clone();
    assert_eq!(next(&mut live).unwrap(), "aaa");
    assert_eq!((replay.kept_bytes(), replay.is_lost()), (3, false));
    assert_eq!(next(&mut live).unwrap(), "bb");
    assert_eq!((replay.kept_bytes(), replay.is_lost()), (0, true));

    let error = next(&mut late).unwrap_err();
    let lost = error.downcast_ref::<ReplayLost>().expect("the bytes are gone");
    assert_eq!((lost.reason(), lost.max_bytes()), (LostReason::TooLarge, 4));
    assert_eq!(lost.to_string(), "replay: the request body cannot be sent again: it was larger than 4 bytes");
    assert_eq!(next(&mut live).unwrap(), "c", "and the live copy did not notice");

    drop(live);
    assert_eq!(Arc::strong_count(&feed), 1, "nobody can read on, so the inner body is freed");
    drop(late);
}

#[test]
fn a_body_that_announces_too_much_is_lost_by_its_first_byte_only() {
    let (script, feed) = Script::new([data("aaa"), data("bb")], 0, true);
    let mut first = ReplayBody::with_max_bytes(script, 4);
    let replay = first.replay();
    let mut second = first.clone();
    assert!(poll(&mut first).is_pending());
    assert!(!replay.is_lost(), "a refused connection must leave it repeatable");
    drop(first);
    allow(&feed, 9);
    assert_eq!(second.size_hint().exact(), Some(5));
    assert_eq!(next(&mut second).unwrap(), "aaa");
    assert_eq!((replay.kept_bytes(), replay.is_lost()), (0, true));
    assert_eq!(next(&mut second).unwrap(), "bb");
}

#[test]
fn releasing_frees_as_it_goes() {
    let (script, _feed) = Script::new([data("aa"), data("bb"), data("cc")], usize::MAX, true);
    let mut first = ReplayBody::new(script);
    let replay = first.replay();
    next(&mut first).unwrap();
    next(&mut first).unwrap();
    let mut last = first.clone();
    replay.release();
    assert!(!replay.is_lost(), "nothing was freed yet");
    assert_eq!(replay.kept_bytes(), 4);
    assert_eq!(next(&mut last).unwrap(), "aa");
    assert_eq!((replay.kept_bytes(), replay.is_lost()), (2, true));
    assert_eq!(next(&mut last).unwrap(), "bb");
    assert_eq!(next(&mut last).unwrap(), "cc");
    assert_eq!(replay.kept_bytes(), 0);
    let error = next(&mut last.clone()).unwrap_err();
    assert_eq!(error.downcast_ref::<ReplayLost>().map(ReplayLost::reason), Some(LostReason::Released));
}

#[test]
fn a_failure_goes_to_the_live_copy_and_later_ones_are_told() {
    let (script, feed) = Script::new([data("a"), Item::Fail], usize::MAX, false);
    let mut live = ReplayBody::new(script);
    next(&mut live).unwrap();
    assert_eq!(next(&mut live).unwrap_err().to_string(), "the disk is gone");
    assert_eq!(Arc::strong_count(&feed), 1);
    let mut later = live.clone();
    assert!(!later.is_end_stream(), "else its error would never be read");
    assert_eq!(later.size_hint().exact(), None);
    let error = next(&mut later).unwrap_err();
    assert_eq!(error.downcast_ref::<ReplayLost>().map(ReplayLost::reason), Some(LostReason::BodyFailed));
}

#[test]
fn a_panic_of_the_inner_body_does_not_spread() {
    let (script, feed) = Script::new([data("a"), Item::Panic], usize::MAX, false);
    let mut live = ReplayBody::new(script);
    let mut kept = live.clone();
    next(&mut live).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut live))).is_err());
    assert_eq!(Arc::strong_count(&feed), 1, "what panicked is not polled again");
    assert!(next(&mut kept).unwrap_err().is::<ReplayLost>());
    assert!(live.replay().is_lost());
}

#[test]
fn the_frames_of_copies_are_the_same_memory() {
    let bytes = Bytes::from(vec![7; 100]);
    let mut first = ReplayBody::new(Full::new(bytes.clone()));
    let mut second = first.clone();
    assert_eq!(next(&mut first).unwrap().as_ptr(), bytes.as_ptr());
    assert_eq!(next(&mut second).unwrap().as_ptr(), bytes.as_ptr());
}

#[tokio::test]
async fn an_empty_body_is_at_its_end_from_the_start() {
    let body = ReplayBody::new(Empty::<Bytes>::new());
    for copy in [body.clone(), body.clone(), body] {
        assert_eq!((copy.is_end_stream(), copy.size_hint().exact()), (true, Some(0)));
        assert_eq!(copy.collect().await.unwrap().to_bytes(), "");
    }
}

/// A task that is kept alive by its wakers alone, as in simple executors: with the last waker goes the
/// task, and with the task a copy of the body.
#[test]
fn a_waker_that_owns_a_copy_does_not_lock_up() {
    struct Task(#[expect(dead_code)] Mutex<ReplayBody<Script>>);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    let (script, feed) = Script::new([data("a")], 0, false);
    let mut live = ReplayBody::new(script);
    let owner = Waker::from(Arc::new(Task(Mutex::new(live.clone()))));
    assert!(Pin::new(&mut live).poll_frame(&mut Context::from_waker(&owner)).is_pending());
    drop(owner);
    // The script alone still holds a reference to `Task`, and lets go of it while it is polled again.
    let mut newer = live.clone();
    drop(live);
    assert!(poll(&mut newer).is_pending());
    allow(&feed, 1);
    assert_eq!(next(&mut newer).unwrap(), "a");
}

#[test]
fn copies_on_many_threads_never_mix_up_the_bytes() {
    // 200 rounds of four racing copies: the newest must win, and the others end in good order.
    for _ in 0..200 {
        let frames: Vec<_> = (0..40_u8).map(|byte| Item::Data(Bytes::from(vec![byte; 3]))).collect();
        let expected: Vec<u8> = (0..40_u8).flat_map(|byte| [byte; 3]).collect();
        let (script, _feed) = Script::new(frames, usize::MAX, true);
        let first = ReplayBody::new(script);
        let copies = [first.clone(), first.clone(), first.clone()];
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = std::iter::once(first)
                .chain(copies)
                .map(|mut body| {
                    scope.spawn(move || {
                        let mut got = Vec::new();
                        loop {
                            match poll(&mut body) {
                                Poll::Pending => unreachable!("everything is allowed"),
                                Poll::Ready(Some(Ok(frame))) => {
                                    got.extend_from_slice(&frame.into_data().expect("only data"));
                                }
                                Poll::Ready(Some(Err(error))) => return Err(error),
                                Poll::Ready(None) => return Ok(got),
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
        });
        assert!(matches!(&outcomes[3], Ok(got) if *got == expected), "{:?}", outcomes[3]);
        for outcome in &outcomes {
            match outcome {
                Ok(got) => assert_eq!(*got, expected),
                Err(error) => assert!(error.is::<Superseded>(), "{error}"),
            }
        }
    }
}

// ===== The layer =====

#[tokio::test]
async fn the_layer_wraps_and_leaves_a_handle() {
    let (mut service, mut server) =
        tower_test::mock::spawn_with(|mock| ReplayLayer::new().max_bytes(7).layer(mock));
    server.allow(0);
    assert!(service.poll_ready().is_pending(), "readiness is the inner service's word");
    server.allow(1);
    assert!(service.poll_ready().is_ready());
    let call = service.call(Request::new(Full::new(Bytes::from_static(b"abc"))));
    let (request, reply) = server.next_request().await.unwrap();
    let request: Request<ReplayBody<Full<Bytes>>> = request;
    let replay = request.extensions().get::<Replay>().cloned().unwrap();
    assert_eq!((replay.max_bytes(), replay.is_lost()), (7, false));
    assert_eq!(request.body().size_hint().exact(), Some(3));
    reply.send_error("inner words");
    let error = call.await.map(|(): ()| ()).unwrap_err();
    assert_eq!(error.to_string(), "inner words");
}

#[test]
fn bodies_need_not_be_send() {
    struct Local(#[expect(dead_code)] std::rc::Rc<()>);
    impl Body for Local {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(None)
        }
    }
    let service = tower::service_fn(async |request: Request<ReplayBody<Local>>| {
        Ok::<_, Infallible>(request.extensions().get::<Replay>().is_some())
    });
    let mut service = ReplayLayer::new().layer(service);
    let call = service.call(Request::new(Local(std::rc::Rc::new(()))));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(call).unwrap());
}

#[test]
fn auto_traits() {
    fn send_sync<T: Send + Sync + Unpin + 'static>() {}
    send_sync::<ReplayBody<Script>>();
    send_sync::<Replay>();
    send_sync::<ReplayLost>();
    send_sync::<Superseded>();
    // A body that is `Send` but not `Sync` becomes both, which clients like reqwest ask for.
    send_sync::<ReplayBody<http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>>>();
}

// ===== On a real connection =====

async fn read_head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut seen = Vec::new();
    loop {
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = seen.split_off(end + 4);
            return (String::from_utf8(seen).unwrap().to_ascii_lowercase(), rest);
        }
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "the client hung up");
    }
}

/// The server answers 503 when it has seen the head and the first bytes, and leaves the connection open. The
/// first attempt's body is pending in its connection task, and stays there while the second is sent.
#[tokio::test]
async fn an_early_answer_does_not_cost_the_next_attempt_a_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut early, _) = listener.accept().await.unwrap();
        let (head, mut seen) = read_head(&mut early).await;
        assert!(head.contains("content-length: 10\r\n"), "{head}");
        while seen.len() < 4 {
            early.read_buf(&mut seen).await.unwrap();
        }
        early.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await.unwrap();

        let (mut good, _) = listener.accept().await.unwrap();
        let (head, mut body) = read_head(&mut good).await;
        assert!(head.contains("content-length: 10\r\n"), "{head}");
        while body.len() < 10 {
            good.read_buf(&mut body).await.unwrap();
        }
        good.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
        // Both connections end: the good one as it was told, the early one because its body was superseded.
        let mut rest = Vec::new();
        let _ = early.read_to_end(&mut rest).await;
        seen.extend(rest);
        (seen, body)
    });

    let (script, feed) = Script::new([data("abcd"), data("efg"), data("hij")], 1, true);
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<ReplayBody<Script>>();
    let first = ReplayBody::new(script);
    let second = first.clone();
    let uri = format!("http://{address}/");
    let response = client.request(Request::post(&uri).body(first).unwrap()).await.unwrap();
    assert_eq!(response.status(), 503);

    let call = client.request(Request::post(&uri).body(second).unwrap());
    let feeding = async {
        // One frame at a time, with room for the old attempt to snatch one if it could.
        for _ in 0..4 {
            tokio::task::yield_now().await;
            allow(&feed, 1);
        }
    };
    let (response, ()) = tokio::join!(call, feeding);
    assert_eq!(response.unwrap().status(), 200);
    drop(client);
    let (early, good) = server.await.unwrap();
    assert_eq!(good, b"abcdefghij");
    assert!(b"abcdefghij".starts_with(&early[..]), "{early:?}");
}

#[tokio::test]
async fn the_reason_is_found_behind_the_clients_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let (script, _feed) = Script::new([data("abcd")], usize::MAX, false);
    let mut first = ReplayBody::with_max_bytes(script, 1);
    let lost = first.clone();
    next(&mut first).unwrap();

    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<ReplayBody<Script>>();
    let error = client.request(Request::post(&uri).body(lost).unwrap()).await.unwrap_err();
    assert!(find::<ReplayLost>(&error).is_some(), "{error:?}");
}

#[tokio::test]
async fn the_layer_can_be_stacked_by_a_builder() {
    let mut service = tower::ServiceBuilder::new().layer(ReplayLayer::default()).service_fn(
        async |request: Request<ReplayBody<Full<Bytes>>>| {
            let kept = request.body().clone();
            let first = request.into_body().collect().await?.to_bytes();
            let again = kept.collect().await?.to_bytes();
            Ok::<_, BoxError>(Response::new((first, again)))
        },
    );
    let request = Request::new(Full::new(Bytes::from_static(b"abc")));
    let (first, again) = service.ready().await.unwrap().call(request).await.unwrap().into_body();
    assert_eq!((first, again), (Bytes::from_static(b"abc"), Bytes::from_static(b"abc")));
}
