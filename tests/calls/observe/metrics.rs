//! The names, labels and values of the documentation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ::metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::observe::{Metrics, ObserveLayer};
use tower_gemini::rate_limit::{AdmissionMode, Limits, RateLimitLayer};
use tower_gemini::retry::{RetryLayer, RetryPolicy};

use super::support::{Answer, Probe, error, request};
use super::{USED, overloaded, read, server, streamed};

/// Keeps each value under its name and labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<BTreeMap<String, f64>>>);

#[derive(Debug)]
struct Value(Recorder, String);

impl Value {
    fn add(&self, value: f64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }
    fn put(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl CounterFn for Value {
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }
    fn absolute(&self, _: u64) {
        unreachable!("not used")
    }
}
impl GaugeFn for Value {
    fn increment(&self, _: f64) {
        unreachable!("not used")
    }
    fn decrement(&self, _: f64) {
        unreachable!("not used")
    }
    fn set(&self, value: f64) {
        self.put(value);
    }
}
impl HistogramFn for Value {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

impl Recorder {
    fn value(&self, key: &Key) -> Arc<Value> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = key.name().strip_prefix("tower_gemini_").expect("the prefix of all names");
        Arc::new(Value(self.clone(), format!("{name}{{{}}}", labels.join(","))))
    }

    fn take(&self) -> Vec<(String, f64)> {
        std::mem::take(&mut *self.0.lock().unwrap()).into_iter().collect()
    }
}

impl ::metrics::Recorder for Recorder {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        assert!(key.as_str().starts_with("tower_gemini_") && key.as_str().ends_with("_total"));
    }
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        assert!(key.as_str().ends_with("_seconds") && unit == Some(Unit::Seconds));
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.value(key).into()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.value(key).into()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.value(key).into()
    }
}

fn named(list: &[(&str, f64)]) -> Vec<(String, f64)> {
    let mut list: Vec<_> = list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

fn rounded(list: Vec<(String, f64)>) -> Vec<(String, f64)> {
    list.into_iter().map(|(name, value)| (name, (value * 1000.0).round() / 1000.0)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_good_call_counts_once_with_its_times_and_tokens() {
    let recorder = Recorder::default();
    let _current = ::metrics::set_default_local_recorder(&recorder);
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(Arc::new(Metrics::new())))
        .layer(ClassifyLayer::new().watch())
        .service(server(vec![(200, vec![Some(USED)])]));
    read(service, streamed()).await.unwrap();
    assert_eq!(
        rounded(recorder.take()),
        named(&[
            (
                "calls_total{model=gemini-9-flash,method=streamGenerateContent,outcome=complete,kind=none}",
                1.0
            ),
            (
                "call_duration_seconds{model=gemini-9-flash,method=streamGenerateContent,outcome=complete}",
                0.07
            ),
            ("time_to_head_seconds{model=gemini-9-flash,method=streamGenerateContent}", 0.07),
            ("call_attempts_total{model=gemini-9-flash,method=streamGenerateContent}", 1.0),
            ("tokens_total{model=gemini-9-flash,type=input}", 7.0),
            ("tokens_total{model=gemini-9-flash,type=cached}", 3.0),
            ("tokens_total{model=gemini-9-flash,type=output}", 5.0),
            ("tokens_total{model=gemini-9-flash,type=thought}", 2.0),
        ])
    );
}

#[tokio::test(start_paused = true)]
async fn retries_and_refusals_count_by_kind_and_model() {
    let recorder = Recorder::default();
    let _current = ::metrics::set_default_local_recorder(&recorder);
    let metrics = Arc::new(Metrics::new());
    let policy = || RetryPolicy::builder().observer(metrics.clone());
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy().build().unwrap()))
        .layer(ClassifyLayer::new())
        .service(server(vec![overloaded(), (200, vec![Some(USED)])]));
    read(service, streamed()).await.unwrap();
    let seen = recorder.take();
    let waited = seen.iter().find(|(name, _)| name == "wait_seconds{kind=overloaded}").unwrap().1;
    assert!(waited > 0.0 && waited <= 2.0, "{waited}");
    assert_eq!(
        seen,
        named(&[
            ("failed_attempts_total{kind=overloaded}", 1.0),
            ("budget_charged_total{}", 1.0),
            ("waits_total{kind=overloaded}", 1.0),
            ("wait_seconds{kind=overloaded}", waited),
            ("recovered_total{}", 1.0),
        ])
    );

    let builder =
        RateLimitLayer::builder().limits(Limits::new().requests_per_minute(1)).mode(AdmissionMode::Reject);
    let limit = builder.observer(metrics.clone()).build().unwrap();
    let breaker =
        CircuitBreakerLayer::builder().consecutive_failures(1).observer(metrics.clone()).build().unwrap();
    let governor = AdaptiveConcurrencyLayer::builder().observer(metrics.clone()).build().unwrap();
    // A first timeout counts once it is known that the server answers.
    for _ in 0..10 {
        let _ = governor.layer(Probe::always(Answer::Ok)).oneshot(request()).await;
    }
    let handle = governor.handle();
    let service = ServiceBuilder::new()
        .layer(limit)
        .layer(governor)
        .layer(breaker)
        .layer(ClassifyLayer::new())
        .service(Probe::always(error(504, "DEADLINE_EXCEEDED", "late")));
    let _ = service.clone().oneshot(request()).await;
    let _ = service.oneshot(request()).await;
    let seen = recorder.take();
    let limit = handle.all()[0].1.limit().unwrap();
    assert_eq!(
        seen,
        named(&[
            ("circuit_changes_total{model=gemini-9-flash,to=open,cause=consecutive_failures}", 1.0),
            ("circuit_state{key=gemini_api gemini-9-flash}", 2.0),
            ("concurrency_cuts_total{model=gemini-9-flash}", 1.0),
            ("concurrency_limit{key=gemini_api gemini-9-flash}", limit),
            ("rate_limited_total{model=gemini-9-flash,pool=generate,why=full}", 1.0),
        ])
    );
}

#[tokio::test(start_paused = true)]
async fn invented_models_do_not_fill_the_recorder() {
    let recorder = Recorder::default();
    let _current = ::metrics::set_default_local_recorder(&recorder);
    let layer = ObserveLayer::new(Arc::new(Metrics::new().max_models(2)));
    for n in 0..50 {
        let uri = format!("http://127.0.0.1/v1beta/models/invented-{n}:generateContent");
        let request = http::Request::post(uri).body(super::Body::default()).unwrap();
        drop(layer.layer(Probe::always(Answer::Ok)).oneshot(request).await.unwrap());
    }
    let seen = recorder.take();
    let calls: Vec<_> = seen.iter().filter(|(name, _)| name.starts_with("calls_total")).collect();
    assert_eq!(calls.iter().map(|(_, count)| count).sum::<f64>(), 50.0);
    assert_eq!(calls.len(), 3, "two of their own and one for all others: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn invented_models_take_no_real_model_s_label() {
    let recorder = Recorder::default();
    let _current = ::metrics::set_default_local_recorder(&recorder);
    let layer = ObserveLayer::new(Arc::new(Metrics::new()));
    let call = |model: String, answer| {
        let uri = format!("http://127.0.0.1/v1beta/models/{model}:generateContent");
        let request = http::Request::post(uri).body(super::Body::default()).unwrap();
        layer.layer(Probe::always(answer)).oneshot(request)
    };
    for n in 0..1_400 {
        let answer = match n % 3 {
            0 => error(400, "INVALID_ARGUMENT", "no such model"),
            1 => error(404, "NOT_FOUND", "no such model"),
            _ => Answer::Rejected(None),
        };
        let _ = call(format!("invented-{n}"), answer).await;
    }
    for answer in [Answer::Ok, error(429, "RESOURCE_EXHAUSTED", "wait"), error(503, "UNAVAILABLE", "later")] {
        let _ = call("real".into(), answer).await;
    }
    let _ = call("real".into(), error(400, "INVALID_ARGUMENT", "too long")).await;
    let seen = recorder.take();
    let of = |model: &str| {
        let label = format!("model={model},");
        let calls = seen.iter().filter(|(name, _)| name.starts_with("calls_total") && name.contains(&label));
        calls.map(|(_, count)| count).sum::<f64>()
    };
    assert_eq!((of("other"), of("real")), (1_400.0, 4.0), "{seen:?}");
}
