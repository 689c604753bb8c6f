//! What a server is like, what it is asked, and what it says.

use std::time::Duration;

use super::{Sharing, Stream, Streams, Trouble};
use crate::quota::{Quota, Refusal};

/// What a server is like.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// `Some`: one call after the other, each taking this long, also those that nobody waits for any more. `None`: all
    /// at once.
    pub(crate) one_by_one: Option<Duration>,
    /// What each call in the queue adds to the time of the one served, as a share.
    pub(crate) falling: f64,
    /// Beyond it a 503 is the answer.
    pub(crate) queue: usize,
    /// Of a server without a queue.
    pub(crate) latency: Duration,
    /// How that latency is spread.
    pub(crate) tail: Option<Tail>,
    /// From, until, and how many times slower meanwhile.
    pub(crate) slow: Option<(Duration, Duration, f64)>,
    /// When it answers 503 at once.
    pub(crate) down: Down,
    /// The share of calls that fail with a 500, at random.
    pub(crate) errors: f64,
    /// What may be asked of it; of a chain of models, of each.
    pub(crate) quota: Option<Quota>,
    /// `Some`: so many calls at once, all others in a queue, of which `falling` and `queue` hold.
    pub(crate) pool: Option<Pool>,
    /// `Some`: all at once, each the slower the more there are; `latency` and `tail` are of a call that is alone.
    pub(crate) sharing: Option<Sharing>,
    /// Whether a pool and a server that shares give up what nobody waits for any more.
    pub(crate) drops: bool,
    pub(crate) troubles: Vec<Trouble>,
    /// How the answer to a request for a stream comes.
    pub(crate) streams: Option<Streams>,
    /// Whether the luck of a call depends on its request and on the number of its attempt alone, so that all clients
    /// have the same. Otherwise the calls draw in the order in which they come.
    pub(crate) paired: bool,
}

/// Workers that share a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    pub(crate) workers: usize,
    /// What one call takes: the median, and the standard deviation of the logarithm.
    pub(crate) each: Duration,
    pub(crate) sigma: f64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            one_by_one: None,
            falling: 0.0,
            queue: usize::MAX,
            latency: Duration::from_millis(500),
            tail: None,
            slow: None,
            down: Down::NEVER,
            errors: 0.0,
            quota: None,
            pool: None,
            sharing: None,
            drops: false,
            troubles: Vec::new(),
            streams: None,
            paired: false,
        }
    }
}

/// A log-normal latency around the model's, of which a share takes much longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// Standard deviation of the logarithm.
    pub(crate) sigma: f64,
    pub(crate) share: f64,
    /// How many times longer that share takes.
    pub(crate) factor: f64,
}

impl Tail {
    /// By which the median latency is multiplied, of three draws from `[0, 1)`.
    pub(super) fn factor(&self, draws: [f64; 3]) -> f64 {
        let [radius, angle, slow] = draws;
        log_normal(self.sigma, radius, angle) * if slow < self.share { self.factor } else { 1.0 }
    }
}

/// Around 1, of two draws from `[0, 1)`.
pub(super) fn log_normal(sigma: f64, radius: f64, angle: f64) -> f64 {
    let normal = (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
    (sigma * normal).exp()
}

/// From, until, and after which time again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Down {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) every: Option<Duration>,
}

impl Down {
    pub(crate) const NEVER: Self = Self::once(0, 0);

    pub(crate) const fn once(from: u64, until: u64) -> Self {
        Self { from: Duration::from_secs(from), until: Duration::from_secs(until), every: None }
    }

    /// The first `down` seconds of each `every` seconds.
    #[allow(dead_code, reason = "the storm's are read from files")]
    pub(crate) const fn first(down: u64, every: u64) -> Self {
        Self { every: Some(Duration::from_secs(every)), ..Self::once(0, down) }
    }

    /// `at` within its period.
    fn phase(&self, at: Duration) -> Duration {
        self.every.map_or(at, |every| {
            Duration::from_nanos((at.as_nanos() % every.as_nanos()).try_into().expect("less than a period"))
        })
    }

    /// Whether the server is down, by the time since the start.
    pub(crate) fn holds(&self, at: Duration) -> bool {
        (self.from..self.until).contains(&self.phase(at))
    }

    /// The first instant from `at` on at which it is up.
    #[allow(dead_code, reason = "the storm alone asks")]
    pub(crate) fn up_from(&self, at: Duration) -> Duration {
        if self.holds(at) { at + (self.until - self.phase(at)) } else { at }
    }
}

/// Input tokens, as the server counts them: an extension of a request. Without it a call has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens(pub(crate) u64);

/// Whose call it is: an extension of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caller {
    /// The number of the request, which all its attempts have.
    pub(crate) request: usize,
    pub(crate) tenant: usize,
}

/// One call, as far as it matters to the server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    pub(crate) tokens: u64,
    pub(crate) request: usize,
    pub(crate) tenant: usize,
    /// Which model of the chain.
    pub(crate) model: usize,
    /// Whether it asks for a stream.
    pub(crate) streams: bool,
    /// At which place.
    pub(crate) place: usize,
}

/// What names a place in a request.
pub(crate) const X_PLACE: &str = "x-place";
/// Places, the first of which is asked by who knows of none.
pub(crate) const PLACES: [&str; 3] = ["0", "1", "2"];

/// The chain of models, the second of which stands in for the first.
pub(crate) const MODELS: [&str; 2] = ["gemini-9-flash", "gemini-9-flash-lite"];

/// What a failure says beside its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    None,
    Overloaded,
    Bare,
    Capacity,
}

impl Reason {
    pub(super) const fn body(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Overloaded => {
                r#"{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}"#
            }
            Self::Bare => {
                r#"{"error":{"code":429,"message":"Resource exhausted. Please try again later.","status":"RESOURCE_EXHAUSTED"}}"#
            }
            Self::Capacity => {
                r#"{"error":{"code":429,"message":"No capacity available for this model on the server","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"MODEL_CAPACITY_EXHAUSTED","domain":"cloudcode-pa.googleapis.com"}]}}"#
            }
        }
    }
}

/// What the server says to one call.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of a 429 over a quota.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) reason: Reason,
    /// Of a success that is streamed.
    pub(crate) stream: Option<Stream>,
}

impl Answer {
    pub(super) const fn of(status: u16) -> Self {
        Self { status, refusal: None, reason: Reason::None, stream: None }
    }
}
