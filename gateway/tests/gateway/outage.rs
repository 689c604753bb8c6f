//! A persistent outage, lived through in virtual time by the gateway's own stack and errors.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::circuit_breaker::{CircuitState, Transition};
use tower_gemini::event::{Event, Observer};
use tower_gemini::respond::{Cause, RespondLayer};
use tower_gemini::sim::{Fault, Rule, Simulator};

use crate::world::{GENERATE, HELLO, settings};
use tower_gemini_gateway::stack::{Handles, stack};

struct Seen {
    at: Duration,
    took: Duration,
    status: StatusCode,
    /// By the header, and by the circuit at that instant.
    after: Option<(Duration, Duration)>,
    body: Bytes,
}

async fn ask<S, RB>(stack: S, path: &'static str, handles: Handles, began: Instant) -> Seen
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<RB>, Error = Infallible>,
    RB: http_body::Body<Data = Bytes, Error: Debug>,
{
    let sent = Instant::now();
    let request = Request::post(format!("http://upstream{path}")).body(Full::from(HELLO)).unwrap();
    let response = stack.oneshot(request).await.unwrap_or_else(|never| match never {});
    let own = Cause::of(&response).is_some();
    let said = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let until = handles.circuits.all().iter().find_map(|circuit| circuit.until);
    let after = said.zip(until).filter(|_| own);
    let after = after.map(|(said, until)| (Duration::from_secs(said), until - Instant::now()));
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Seen { at: sent - began, took: Instant::now() - sent, status, after, body }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_at_once_spares_the_server_and_is_over_soon_after_it() {
    const OUTAGE: std::ops::Range<u64> = 10..130;
    const A_SECOND: u64 = 20;
    let down = Rule::new(Fault::unavailable())
        .between(Duration::from_secs(OUTAGE.start)..Duration::from_secs(OUTAGE.end));
    let simulator = Simulator::builder().rule(down).build().unwrap();
    let watch = Arc::new(Watch::default());
    let observer: Arc<dyn Observer> = watch.clone();
    let (stack, handles) = stack(&settings(&[]), &observer, None).unwrap();
    let stack = (RespondLayer::new(), stack).layer(simulator.clone());
    let began = Instant::now();
    let mut asked = JoinSet::new();
    for _ in 0..190 * A_SECOND {
        asked.spawn(ask(stack.clone(), GENERATE, handles.clone(), began));
        sleep(Duration::from_secs(1) / A_SECOND as u32).await;
    }
    let mut seen = asked.join_all().await;
    seen.sort_by_key(|seen| seen.at);
    let (from, to) = (Duration::from_secs(OUTAGE.start), Duration::from_secs(OUTAGE.end));

    let opened = watch.0.lock().unwrap()[0].at - began;
    assert!(opened < from + Duration::from_secs(10), "{opened:?}");
    // A call may be the probe, which takes as long as the server.
    let told: Vec<_> =
        seen.iter().filter(|seen| seen.at > opened && seen.at < to && seen.after.is_some()).collect();
    let slow = told.iter().filter(|seen| seen.took >= Duration::from_millis(50)).count();
    let during = seen.iter().filter(|seen| seen.at > opened && seen.at < to).count();
    assert!(told.len() * 100 >= during * 90, "{} of {during}", told.len());
    assert!(slow * 100 <= told.len() * 2, "{slow} of {}", told.len());
    for seen in &told {
        let (said, truly) = seen.after.unwrap();
        assert!(said >= truly && said - truly <= Duration::from_secs(1), "{said:?} for {truly:?}");
        assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE);
        let error: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(
            (&error["error"]["code"], &error["error"]["status"]),
            (&503.into(), &"UNAVAILABLE".into())
        );
        assert!(error["error"]["details"][1]["retryDelay"].is_string(), "{error}");
    }

    let calls = simulator.calls();
    let load = calls.iter().filter(|call| (from..to).contains(&call.at())).count();
    let offered = (OUTAGE.end - OUTAGE.start) * A_SECOND;
    assert!(load as u64 * 100 <= offered * 5, "{load} of {offered}");
    let back = seen.iter().find(|seen| seen.at > opened && seen.status == StatusCode::OK).unwrap();
    assert!(back.at + back.took <= to + Duration::from_secs(45), "{:?}", back.at);
    let healthy = seen.iter().filter(|seen| seen.at > to + Duration::from_secs(45));
    assert!(healthy.clone().all(|seen| seen.status == StatusCode::OK) && healthy.count() > 200);
}

/// Every change of a circuit.
#[derive(Default)]
struct Watch(Mutex<Vec<Transition>>);

impl Observer for Watch {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::CircuitChanged { transition, .. } = event {
            self.0.lock().unwrap().push(**transition);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn forty_bad_requests_or_spent_days_of_one_model_stop_no_other() {
    const OTHER: &str = "/v1beta/models/gemini-3.8-flash:generateContent";
    for fault in [Fault::invalid_argument(), Fault::daily_quota_exhausted()] {
        let simulator =
            Simulator::builder().rule(Rule::new(fault).for_model("gemini-3.5-flash-lite")).build().unwrap();
        let observer: Arc<dyn Observer> = Arc::new(Watch::default());
        let (stack, handles) = stack(&settings(&[]), &observer, None).unwrap();
        let stack = (RespondLayer::new(), stack).layer(simulator);
        let began = Instant::now();
        for _ in 0..40 {
            let seen = ask(stack.clone(), GENERATE, handles.clone(), began).await;
            assert!(seen.status.is_client_error());
            let seen = ask(stack.clone(), OTHER, handles.clone(), began).await;
            assert_eq!(seen.status, StatusCode::OK);
        }
        assert!(handles.circuits.all().iter().all(|circuit| circuit.state == CircuitState::Closed));
    }
}
