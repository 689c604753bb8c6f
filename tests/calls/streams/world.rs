//! The stack, the two clients under it, and what is to be seen of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};
use tower_gemini::circuit_breaker::Circuit;
use tower_gemini::classify::StrictBodyLayer;
use tower_gemini::concurrency::ConcurrencyState;
use tower_gemini::rate_limit::{InputTokens, Limits, QuotaStatus, RateLimitLayer};
use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
use tower_gemini::retry::{Attempts, Backoff, RetryLayer, RetryPolicy};
use tower_gemini::sim::{Rule, SimServer, Simulator};
use tower_gemini::stack::GeminiStack;
use tower_gemini::timeout::TimeoutLayer;
use tower_gemini::{BoxError, Verdict};

const PATH: &str = "/v1beta/models/gemini-3.5-flash:streamGenerateContent?alt=sse";
const PROMPT: &str = r#"{"contents":[{"parts":[{"text":"Tell me of the sky, and of why it is blue."}]}]}"#;

/// What the caller takes the prompt for, so that nobody can take a guess for the truth.
pub(crate) const ESTIMATE: u64 = 1_000;

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The default stack with waits that fit real time, and one limit, so that tokens are counted.
pub(crate) fn stack() -> GeminiStack {
    let retry = RetryPolicy::builder().backoff(Backoff::new(ms(1), ms(60))).build().unwrap();
    GeminiStack::new()
        .retry(RetryLayer::new(retry))
        .rate_limit(RateLimitLayer::new(Limits::new().input_tokens_per_minute(1_000_000)).unwrap())
}

/// One that gives a stream up after a short silence: not for streams that are to end, on a machine that is busy.
pub(crate) fn impatient() -> GeminiStack {
    stack().timeout(TimeoutLayer::builder().idle(ms(200)).build().unwrap())
}

// ===== clients =====

/// An answer's head, and its chunks to come.
pub(crate) struct Answer {
    pub(crate) verdict: Verdict,
    pub(crate) attempts: Attempts,
    pub(crate) chunks: Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>,
}

type Sending = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

/// A client around which the stack is: sends the prompt, with the number of the stream in a header.
#[derive(Clone)]
pub(crate) struct Gemini {
    pub(crate) name: &'static str,
    send: Arc<dyn Fn(usize) -> Sending + Send + Sync>,
}

/// How a body ends that is no good answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bodies {
    /// As HTTP has it.
    AsTheyCome,
    /// With an error.
    Strict,
}

impl Gemini {
    pub(crate) async fn send(&self) -> Result<Answer, BoxError> {
        (self.send)(0).await
    }

    pub(crate) async fn send_number(&self, number: usize) -> Result<Answer, BoxError> {
        (self.send)(number).await
    }

    fn hyper(stack: &GeminiStack, bodies: Bodies, base: &str) -> Self {
        let base = base.to_owned();
        let service = stack.layer(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
        let strict = StrictBodyLayer::new().layer(service.clone());
        let send = move |number| -> Sending {
            let request = request(&base, number).map(Full::from);
            if bodies == Bodies::Strict {
                let call = strict.clone().oneshot(request);
                Box::pin(async move { Ok(answer(call.await?)) })
            } else {
                let call = service.clone().oneshot(request);
                Box::pin(async move { Ok(answer(call.await?)) })
            }
        };
        Self { name: "hyper-util", send: Arc::new(send) }
    }

    fn reqwest(stack: &GeminiStack, bodies: Bodies, base: &str) -> Self {
        let base = base.to_owned();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let service = stack.layer(ReqwestService::new(client));
        let strict = ReqwestClient::new(StrictBodyLayer::new().layer(service.clone()));
        let plain = ReqwestClient::new(service);
        let send = move |number| -> Sending {
            let request = reqwest::Request::try_from(request(&base, number)).unwrap();
            if bodies == Bodies::Strict {
                let call = strict.execute(request);
                Box::pin(async move { Ok(answer(call.await?.into())) })
            } else {
                let call = plain.execute(request);
                Box::pin(async move { Ok(answer(call.await?.into())) })
            }
        };
        Self { name: "reqwest", send: Arc::new(send) }
    }
}

fn request(base: &str, number: usize) -> Request<&'static str> {
    Request::post(format!("{base}{PATH}"))
        .header("x-stream", number)
        .extension(InputTokens(ESTIMATE))
        .body(PROMPT)
        .unwrap()
}

fn answer<B>(response: http::Response<B>) -> Answer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (verdict, attempts) = (Verdict::of(&response), Attempts::of(&response));
    let chunks = response.into_body().into_data_stream().map(|chunk| chunk.map_err(Into::into));
    Answer { verdict, attempts, chunks: Box::pin(chunks) }
}

impl Answer {
    /// Everything that comes, and the error at the end.
    pub(crate) async fn read(&mut self) -> (Vec<String>, Option<BoxError>) {
        let mut chunks = Vec::new();
        while let Some(chunk) = within(self.chunks.next()).await {
            match chunk {
                Ok(chunk) => chunks.push(String::from_utf8(chunk.into()).unwrap()),
                Err(error) => return (chunks, Some(error)),
            }
        }
        (chunks, None)
    }
}

// ===== the upstream =====

/// A client, its stack, and the simulator behind its socket.
pub(crate) struct World {
    pub(crate) gemini: Gemini,
    pub(crate) stack: GeminiStack,
    pub(crate) sim: Simulator,
    _server: SimServer,
}

impl World {
    /// One for each client.
    pub(crate) async fn both(stack: fn() -> GeminiStack, bodies: Bodies, rules: &[Rule]) -> [Self; 2] {
        let hyper = Self::new(Gemini::hyper, stack(), bodies, rules).await;
        [hyper, Self::new(Gemini::reqwest, stack(), bodies, rules).await]
    }

    async fn new(
        client: impl Fn(&GeminiStack, Bodies, &str) -> Gemini,
        stack: GeminiStack,
        bodies: Bodies,
        rules: &[Rule],
    ) -> Self {
        let mut sim = Simulator::builder().head_latency(ms(1)).chunk_interval(ms(1));
        for rule in rules {
            sim = sim.rule(rule.clone());
        }
        let sim = sim.build().unwrap();
        let server = sim.serve().await.unwrap();
        let gemini = client(&stack, bodies, &server.base_url());
        Self { gemini, stack, sim, _server: server }
    }

    pub(crate) fn circuit(&self) -> Circuit {
        circuit(&self.stack)
    }

    pub(crate) fn quota(&self) -> QuotaStatus {
        quota(&self.stack)
    }

    pub(crate) fn limit(&self) -> ConcurrencyState {
        limit(&self.stack)
    }

    /// Nothing is held any more, and the tokens are those that the answer named.
    pub(crate) fn assert_settled(&self) {
        let (quota, limit, name) = (self.quota(), self.limit(), self.gemini.name);
        assert_eq!((quota.in_flight, quota.queued), (0, 0), "{name}");
        assert_eq!((limit.in_flight(), limit.queued()), (0, 0), "{name}");
        let tokens: u64 = self.sim.calls().iter().map(|call| call.prompt_tokens()).sum();
        assert!(tokens > 0 && tokens < ESTIMATE, "{tokens}");
        assert_eq!(quota.tokens, tokens, "{name}");
    }
}

/// Both clients over a server that is no simulator.
pub(crate) fn both(stack: &GeminiStack, base: &str) -> [Gemini; 2] {
    [Gemini::hyper(stack, Bodies::AsTheyCome, base), Gemini::reqwest(stack, Bodies::AsTheyCome, base)]
}

pub(crate) fn circuit(stack: &GeminiStack) -> Circuit {
    stack.get_circuit_breaker().handle().all().remove(0)
}

pub(crate) fn quota(stack: &GeminiStack) -> QuotaStatus {
    stack.get_rate_limit().handle().status().remove(0)
}

pub(crate) fn limit(stack: &GeminiStack) -> ConcurrencyState {
    stack.get_concurrency().handle().all().remove(0).1
}

// ===== bounded waits =====

/// Not for ever: long for a machine that is busy.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it does not hang")
}

/// Looks until it is so, at most for this long.
pub(crate) async fn soon(limit: Duration, what: &str, is_so: impl Fn() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(ms(1)).await;
        }
    };
    tokio::time::timeout(limit, looking).await.unwrap_or_else(|_| panic!("{what} within {limit:?}"));
}
