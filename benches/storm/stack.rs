//! This crate as it is used: [`GeminiStack`] as its preset makes it, with what the scenario says that people set: the
//! first byte of an attempt, what is known of the quota, the second model of a chain. Variants leave a layer out, to see
//! what it does, or send late calls a second time; the last is the retry layer alone.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::CircuitState;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::event::{Event, Observer};
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::hedge::HedgeLayer;
use tower_gemini::places::{Place, PlacesBuilder, PlacesLayer, Residency};
use tower_gemini::rate_limit::{InputTokens, RateLimitLayer};
use tower_gemini::request::KeyLabel;
use tower_gemini::retry::{RetryLayer, RetryPolicy};
use tower_gemini::stack::Preset;
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};
use tower_gemini::{BoxError, Deadline, Verdict};

use super::client::Sender;
use super::ours::{calendar, told};
use super::scenario::Scenario;
use super::tower::request;
use crate::server::{MODELS, PLACES, Server, X_PLACE};

/// Which layers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    All,
    NoGovernor,
    NoBreaker,
    NoRateLimit,
    /// With second tries for two calls in a hundred, the default of that layer.
    Hedged,
    /// For five in a hundred.
    Hedged5,
    /// With all places of the scenario.
    Placed,
    /// Deadline, retry, timeout and classifier.
    RetryOnly,
}

impl Variant {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::All => "ours",
            Self::NoGovernor => "ours-no-governor",
            Self::NoBreaker => "ours-no-breaker",
            Self::NoRateLimit => "ours-no-limit",
            Self::Hedged => "ours-hedged",
            Self::Hedged5 => "ours-hedged-5",
            Self::Placed => "ours-placed",
            Self::RetryOnly => "retry-only",
        }
    }
}

/// The scenario's places, the last of which may be outside of the residency.
fn places(scenario: &Scenario) -> PlacesBuilder {
    let name = HeaderName::from_static(X_PLACE);
    let places = PLACES[..scenario.load.places].iter().fold(PlacesLayer::builder(), |builder, place| {
        builder.place(Place::new(*place).region(*place).header(name.clone(), HeaderValue::from_static(place)))
    });
    let residing = PLACES[..scenario.load.places - scenario.load.outside].iter().copied();
    places.residency(Residency::within(residing))
}

impl Variant {
    /// The share of the calls that may be sent a second time.
    const fn hedges(self) -> f64 {
        if matches!(self, Self::Hedged5) { 0.05 } else { 0.02 }
    }
}

/// What the layers of all processes did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deeds {
    pub(crate) opened: u32,
    pub(crate) reopened: u32,
    pub(crate) cut: u32,
    pub(crate) gave_up: BTreeMap<&'static str, usize>,
}

/// Counts them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count(Arc<Mutex<Deeds>>);

impl Count {
    pub(crate) fn deeds(&self) -> Deeds {
        self.0.lock().expect("nobody panics under it").clone()
    }
}

impl Observer for Count {
    fn on_event(&self, event: &Event<'_>) {
        let mut deeds = self.0.lock().expect("nobody panics under it");
        match event {
            Event::CircuitChanged { transition, .. } if transition.to == CircuitState::Open => {
                let reopened = transition.from == CircuitState::HalfOpen;
                *(if reopened { &mut deeds.reopened } else { &mut deeds.opened }) += 1;
            }
            Event::ConcurrencyCut { .. } => deeds.cut += 1,
            Event::GaveUp { why, .. } => *deeds.gave_up.entry(why.as_str()).or_default() += 1,
            _ => {}
        }
    }
}

/// The stack without the layer that a variant leaves out: each is a type of its own.
macro_rules! parts {
    ($variant:expr, $scenario:expr, $stack:expr, $server:expr) => {
        match $variant {
            Variant::NoGovernor => sender($stack.without_concurrency().layer($server.clone())),
            Variant::NoBreaker => sender($stack.without_circuit_breaker().layer($server.clone())),
            Variant::NoRateLimit => sender($stack.without_rate_limit().layer($server.clone())),
            Variant::Hedged | Variant::Hedged5 => {
                let hedge = HedgeLayer::builder().budget($variant.hedges());
                sender($stack.hedging(hedge).expect(VALID).layer($server.clone()))
            }
            Variant::Placed => sender($stack.placing(places($scenario)).expect(VALID).layer($server.clone())),
            Variant::All | Variant::RetryOnly => sender($stack.layer($server.clone())),
        }
    };
}

const VALID: &str = "a scenario's settings are in range";

/// One process.
pub(crate) fn process(
    variant: Variant,
    scenario: &Scenario,
    server: &Server,
    seed: u64,
    count: &Count,
) -> Sender {
    let observer = || Arc::new(count.clone()) as Arc<dyn Observer>;
    let timeout = TimeoutLayer::builder().first_byte(scenario.attempt_timeout).build().expect(VALID);
    if variant == Variant::RetryOnly {
        let policy = RetryPolicy::builder().attempts(5).seed(seed).observer(observer()).build();
        let service = ServiceBuilder::new()
            .layer(DeadlineLayer::default())
            .layer(RetryLayer::new(policy.expect(VALID)))
            .layer(timeout)
            .layer(ClassifyLayer::new().watch())
            .service(server.clone());
        return sender(service);
    }
    let mut limits = RateLimitLayer::builder().limits(told(scenario.told)).observer(observer());
    if let Some(clock) = &scenario.clock {
        limits = limits.wall_clock(calendar(clock.clone()));
    }
    let limits = limits.build().expect(VALID);
    let stack = Preset::new().seed(seed).observer(observer()).stack().timeout(timeout).rate_limit(limits);
    if scenario.load.models == 1 {
        return parts!(variant, scenario, stack, server);
    }
    let chain = || ModelFallbackLayer::builder().chain(MODELS[0], MODELS[1..].iter().copied());
    match variant {
        Variant::All => sender(stack.falling_back(chain()).expect(VALID).layer(server.clone())),
        Variant::Hedged | Variant::Hedged5 => {
            let stack = stack.falling_back(chain()).expect(VALID);
            let hedge = HedgeLayer::builder().budget(variant.hedges());
            sender(stack.hedging(hedge).expect(VALID).layer(server.clone()))
        }
        _ => parts!(variant, scenario, stack.fallback(chain().build().expect(VALID)), server),
    }
}

fn sender<S, RB>(service: S) -> Sender
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    RB: http_body::Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    let service = BoxCloneSyncService::new(service.map_response(|response: Response<RB>| {
        let good = Verdict::of(&response).is_success();
        (good, response.into_body().map_err(Into::<BoxError>::into).boxed_unsync())
    }));
    Rc::new(move |job| {
        let mut request = request(job);
        let extensions = request.extensions_mut();
        extensions.insert(Deadline::at(job.deadline));
        if let Some(tokens) = job.known {
            extensions.insert(InputTokens(tokens));
        }
        if job.labelled {
            extensions.insert(KeyLabel::new(format!("tenant-{}", job.tenant)));
        }
        let call = service.clone().oneshot(request);
        Box::pin(async move {
            let Ok((good, mut body)) = call.await else { return false };
            while let Some(frame) = body.frame().await {
                if frame.is_err() {
                    return false;
                }
            }
            good
        })
    })
}
