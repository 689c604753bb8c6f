//! tower itself, as its documentation has it: `Retry` with a policy of three retries, `ExponentialBackoff` from 50 ms
//! with its jitter, and `TpsBudget`; where a quota is told, `RateLimit` behind a `Buffer`; a `Timeout` for each attempt.

use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::retry::backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff};
use tower::retry::budget::{Budget, TpsBudget};
use tower::retry::{Policy, RetryLayer};
use tower::util::{BoxCloneService, rng::HasherRng};
use tower::{BoxError, ServiceBuilder, ServiceExt};

use super::client::{IDLE, Job, Sender};
use super::scenario::Scenario;
use crate::server::{Caller, MODELS, Server, ServerBody, Tokens};

const RETRIES: u32 = 3;

/// tower's generator hashes a counter with a random key; here the key is the seed.
#[derive(Clone)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

#[derive(Clone)]
struct Retries {
    left: u32,
    backoff: ExponentialBackoff<HasherRng<Seeded>>,
    budget: Arc<TpsBudget>,
}

impl<B: Clone, RB> Policy<Request<B>, Response<RB>, BoxError> for Retries {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        request: &mut Request<B>,
        result: &mut Result<Response<RB>, BoxError>,
    ) -> Option<Self::Future> {
        if result.as_ref().is_ok_and(|response| response.status().is_success()) {
            self.budget.deposit();
            return None;
        }
        if self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        if request.extensions().get::<Chained>().is_some() {
            let first = request.uri().path().contains(MODELS[1]);
            let streams = request.uri().query().is_some();
            *request.uri_mut() = uri(MODELS[usize::from(!first)], streams);
        }
        Some(self.backoff.next_backoff())
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

/// One process.
pub(crate) fn process(scenario: &Scenario, server: &Server, seed: u64) -> Sender {
    let rng = HasherRng::with_hasher(Seeded(seed));
    let (least, most) = (Duration::from_millis(50), Duration::from_secs(3600));
    let mut backoff = ExponentialBackoffMaker::new(least, most, 0.99, rng).expect("the bounds are in order");
    let policy =
        Retries { left: RETRIES, backoff: backoff.make_backoff(), budget: Arc::new(TpsBudget::default()) };
    let attempt = ServiceBuilder::new().timeout(scenario.attempt_timeout).service(server.clone());
    let limited = match scenario.told.rpm {
        Some(rpm) => BoxCloneService::new(
            ServiceBuilder::new().buffer(1024).rate_limit(rpm, Duration::from_secs(60)).service(attempt),
        ),
        None => BoxCloneService::new(attempt),
    };
    let service = BoxCloneService::new(ServiceBuilder::new().layer(RetryLayer::new(policy)).service(limited));
    Rc::new(move |job| {
        let call = service.clone().oneshot(request(job));
        Box::pin(async move { is_whole(call.await).await })
    })
}

/// Whether an answer is good and its body comes to its end, without a pause that is longer than every client waits.
pub(crate) async fn is_whole<E>(answer: Result<Response<ServerBody>, E>) -> bool {
    let Some(mut response) = answer.ok().filter(|response| response.status().is_success()) else {
        return false;
    };
    loop {
        match tokio::time::timeout(IDLE, response.frame()).await {
            Ok(Some(Ok(_))) => {}
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
}

/// Marks a request that another model may answer.
#[derive(Clone, Copy)]
struct Chained;

fn uri(model: &str, streams: bool) -> http::Uri {
    let method = if streams { "streamGenerateContent?alt=sse" } else { "generateContent" };
    let uri = format!("http://127.0.0.1/v1beta/models/{model}:{method}");
    uri.parse().expect("its parts are valid")
}

/// The request of a job; its body is as long as the prompt, and nobody reads it.
pub(crate) fn request(job: Job) -> Request<Full<Bytes>> {
    static PROMPT: [u8; 8 << 20] = [b' '; 8 << 20];
    let body = Bytes::from_static(&PROMPT[..job.bytes.min(PROMPT.len())]);
    let mut request =
        Request::post(uri(MODELS[0], job.streams)).body(Full::from(body)).expect("its parts are valid");
    if let Some(tokens) = job.tokens {
        request.extensions_mut().insert(Tokens(tokens));
    }
    request.extensions_mut().insert(Caller { request: job.request, tenant: job.tenant });
    if job.models > 1 {
        request.extensions_mut().insert(Chained);
    }
    request
}
