//! tower-resilience itself, those of its layers that keep tokio's time: its `Retry` as the preset
//! `exponential_backoff` has it, told to look at responses; where a quota is told, its `RateLimiter` as the preset
//! `per_minute` has it, in the mode that its documentation has for a client of somebody else's API. The order is the
//! documented one, retry outside.
//!
//! Its circuit breaker stays out: it measures how long it was open by the machine's clock, which does not move here, so
//! a circuit that opened once would never close. So does the retry budget that refills by time, which is off by default.

use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::util::BoxCloneService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_resilience_ratelimiter::RateLimiterLayer;
use tower_resilience_retry::RetryLayer;

use super::client::Sender;
use super::scenario::Scenario;
use super::tower::request;
use crate::server::{Server, ServerBody};

type Retries = RetryLayer<Request<Full<Bytes>>, Response<ServerBody>, BoxError>;

/// One process. Nothing in it is random.
pub(crate) fn process(scenario: &Scenario, server: &Server) -> Sender {
    let attempt = ServiceBuilder::new().timeout(scenario.attempt_timeout).service(server.clone());
    let limited = match scenario.told.rpm {
        Some(rpm) => {
            let limit = usize::try_from(rpm).expect("a scenario's limits are in range");
            let limit = RateLimiterLayer::per_minute(limit).backpressure().build();
            let limit = limit.expect("a scenario's limits are in range");
            let service = ServiceBuilder::new().map_err(BoxError::from).layer(limit).service(attempt);
            BoxCloneService::new(service)
        }
        None => BoxCloneService::new(attempt),
    };
    let retry = Retries::exponential_backoff()
        .retry_on_response(|response: &Response<ServerBody>| !response.status().is_success());
    let service = BoxCloneService::new(ServiceBuilder::new().layer(retry.build()).service(limited));
    Rc::new(move |job| {
        let call = service.clone().oneshot(request(job));
        Box::pin(async move { super::tower::is_whole(call.await).await })
    })
}
