//! A service that is slow, moody and strict: it makes its caller poll again at every step, may fail, and counts what is
//! inside.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use tokio::task::yield_now;
use tower::Service;
use tower_gemini::{BoxError, Target};

/// What a call meets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Good,
    /// A 200 whose body breaks off with an error.
    Cut,
    Overloaded,
    /// A 429 that asks for one millisecond, and names a limit that is not in the way.
    TooMany,
    /// A 504.
    Late,
    /// The connection is reset.
    Lost,
    /// No answer, ever.
    Silent,
    /// A 200 whose body never ends.
    Stuck,
}

/// All that end by themselves; more than half of them well.
pub(crate) const MOODS: &[Fate] = &[
    Fate::Good,
    Fate::Good,
    Fate::Overloaded,
    Fate::Good,
    Fate::TooMany,
    Fate::Good,
    Fate::Late,
    Fate::Good,
    Fate::Lost,
    Fate::Good,
    Fate::Cut,
    Fate::Good,
];

/// With some that never end.
pub(crate) const DEAF: &[Fate] = &[
    Fate::Good,
    Fate::Silent,
    Fate::Overloaded,
    Fate::Good,
    Fate::Stuck,
    Fate::Late,
    Fate::Good,
    Fate::Cut,
    Fate::Lost,
];

/// Forgets readiness on `clone`, and is not ready at the first poll.
pub(crate) struct Server {
    fates: &'static [Fate],
    /// One call in so many meets one of them, and the others go well.
    rarity: u64,
    shared: Arc<Shared>,
    ready: Ready,
}

#[derive(Clone, Copy, PartialEq)]
enum Ready {
    NotAsked,
    Asked,
    Yes,
}

#[derive(Default)]
struct Shared {
    calls: AtomicU64,
    /// Calls whose future or body is still there.
    inside: AtomicI64,
    violations: AtomicU64,
}

impl Server {
    pub(crate) fn new(fates: &'static [Fate]) -> Self {
        Self { fates, rarity: 1, shared: Arc::default(), ready: Ready::NotAsked }
    }

    /// Three calls of four go well, and the fourth meets one of these fates.
    pub(crate) fn mostly_good(fates: &'static [Fate]) -> Self {
        Self { rarity: 4, ..Self::new(fates) }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.shared.calls.load(SeqCst)
    }

    pub(crate) fn inside(&self) -> i64 {
        self.shared.inside.load(SeqCst)
    }

    /// Calls of an instance that was not polled ready.
    pub(crate) fn violations(&self) -> u64 {
        self.shared.violations.load(SeqCst)
    }
}

impl Clone for Server {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), ready: Ready::NotAsked, ..*self }
    }
}

/// A number's hash, so that rounds differ and runs do not.
pub(crate) fn draw(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 16
}

impl<B> Service<Request<B>> for Server
where
    B: Body<Data: Send> + Send + 'static,
{
    type Response = Response<Steps>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.ready == Ready::NotAsked {
            self.ready = Ready::Asked;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = Ready::Yes;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.ready != Ready::Yes {
            self.shared.violations.fetch_add(1, SeqCst);
        }
        self.ready = Ready::NotAsked;
        let number = self.shared.calls.fetch_add(1, SeqCst);
        let chance = draw(number + 1);
        let fate = match (chance >> 8) % self.rarity {
            0 => self.fates[chance as usize % self.fates.len()],
            _ => Fate::Good,
        };
        self.shared.inside.fetch_add(1, SeqCst);
        let inside = Inside(Arc::clone(&self.shared));
        Box::pin(async move {
            let streamed = Target::of(&request).is_streaming();
            let mut body = std::pin::pin!(request.into_body());
            // One that was lost on its way reads as its end.
            while let Some(Ok(_)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
            for _ in 0..=chance >> 32 & 1 {
                yield_now().await;
            }
            let (status, text) = match fate {
                Fate::Lost => return Err(std::io::Error::from(ErrorKind::ConnectionReset).into()),
                Fate::Silent => return std::future::pending().await,
                Fate::Good | Fate::Cut | Fate::Stuck => (200, ""),
                Fate::Overloaded => (
                    503,
                    r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#,
                ),
                Fate::Late => {
                    (504, r#"{"error":{"code":504,"message":"late","status":"DEADLINE_EXCEEDED"}}"#)
                }
                Fate::TooMany => (429, TOO_MANY),
            };
            let body = if status == 200 {
                Steps::answer(fate, streamed, inside)
            } else {
                Steps::error(text, inside)
            };
            let kind = if streamed && status == 200 { "text/event-stream" } else { "application/json" };
            Ok(Response::builder().status(status).header(header::CONTENT_TYPE, kind).body(body)?)
        })
    }
}

const TOO_MANY: &str = r#"{"error":{"code":429,"message":"over quota","status":"RESOURCE_EXHAUSTED","details":[
{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"generativelanguage.googleapis.com/generate_content_requests","quotaId":"GenerateRequestsPerMinutePerProjectPerModel","quotaValue":"1000000"}]},
{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.001s"}]}}"#;

/// Counts one call out.
struct Inside(Arc<Shared>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, SeqCst);
    }
}

/// A body that is pending before each of its steps.
pub(crate) struct Steps {
    steps: VecDeque<Step>,
    waited: bool,
    _inside: Inside,
}

enum Step {
    Frame(&'static str),
    Break,
    Stay,
}

impl Steps {
    fn error(text: &'static str, inside: Inside) -> Self {
        let (first, second) = text.split_at(text.len() / 2);
        Self::of([Step::Frame(first), Step::Frame(second)], inside)
    }

    fn answer(fate: Fate, streamed: bool, inside: Inside) -> Self {
        let (first, last) = if streamed {
            (
                "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"one\"}]}}]}\r\n\r\n",
                "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"two\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":4}}\r\n\r\n",
            )
        } else {
            (
                r#"{"candidates":[{"content":{"parts":[{"text":"one two"}]},"#,
                r#""finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":4}}"#,
            )
        };
        let end = match fate {
            Fate::Cut => Step::Break,
            Fate::Stuck => Step::Stay,
            _ => Step::Frame(last),
        };
        Self::of([Step::Frame(first), end], inside)
    }

    fn of(steps: [Step; 2], inside: Inside) -> Self {
        Self { steps: steps.into(), waited: false, _inside: inside }
    }
}

impl Body for Steps {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if matches!(self.steps.front(), Some(Step::Stay)) {
            return Poll::Pending;
        }
        if !std::mem::replace(&mut self.waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waited = false;
        Poll::Ready(self.steps.pop_front().map(|step| match step {
            Step::Frame(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
            _ => Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
