//! Errors as responses: status, code, kind and delay of each, as our own classifier and Google's clients read them.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::convert::Infallible;
use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use support::{Answer, Body, Probe, error, good_body, request};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::circuit_breaker::{CircuitBreakerLayer, CircuitOpen};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::error::find;
use tower_gemini::google_rpc::{Detail, Status};
use tower_gemini::rate_limit::{AdmissionMode, InputTokens, Limits, RateLimitLayer};
use tower_gemini::request::Target;
use tower_gemini::respond::{Cause, RespondLayer};
use tower_gemini::retry::RetryLayer;
use tower_gemini::verdict::{Dimension, Period};
use tower_gemini::{BoxError, Kind, Rejected, Verdict, respond};

/// The whole answer to an error that a service inside returns.
struct Told {
    head: http::response::Parts,
    body: Bytes,
}

impl Told {
    async fn by<S, B>(service: S, request: Request<Body>) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
        B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
    {
        let response = RespondLayer::new().layer(service).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        Self { head, body: body.collect().await.unwrap().to_bytes() }
    }

    async fn to(error: impl Into<BoxError>) -> Self {
        let mut error = Some(error.into());
        let service = service_fn(move |_: Request<Body>| {
            std::future::ready(Err::<Response<Body>, BoxError>(error.take().unwrap()))
        });
        Self::by(service, request()).await
    }

    /// As the classifier of somebody who calls the gateway reads it.
    fn verdict(&self) -> Verdict {
        Verdict::from_parts(self.head.status, &self.head.headers, self.body.clone())
    }

    fn status(&self) -> (u16, String) {
        let status = Status::from_body(&self.body).unwrap();
        assert_eq!(status.code, Some(self.head.status.as_u16()));
        assert_eq!(self.head.headers[header::CONTENT_TYPE], "application/json; charset=UTF-8");
        (self.head.status.as_u16(), status.status.unwrap())
    }

    fn retry_info(&self) -> Option<Duration> {
        Status::from_body(&self.body).unwrap().details.into_iter().find_map(|detail| match detail {
            Detail::RetryInfo { retry_delay } => retry_delay,
            _ => None,
        })
    }

    fn retry_after(&self) -> Option<u64> {
        Some(self.head.headers.get(header::RETRY_AFTER)?.to_str().unwrap().parse().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_says_which_and_until_when() {
    let layer =
        RateLimitLayer::builder().limits(Limits::new().requests_per_minute(1)).mode(AdmissionMode::Reject);
    let service = layer.build().unwrap().layer(Probe::always(Answer::Ok));
    service.clone().oneshot(request()).await.unwrap();
    tokio::time::advance(Duration::from_millis(57_300)).await;
    let told = Told::by(service, request()).await;
    assert_eq!(told.status(), (429, "RESOURCE_EXHAUSTED".into()));
    assert_eq!(told.retry_info(), Some(Duration::from_millis(3_200)), "60.5 s after the first one");
    assert_eq!(told.retry_after(), Some(4));
    let verdict = told.verdict();
    assert_eq!(verdict.kind(), Some(Kind::RateLimited));
    let quota = &verdict.quota()[0];
    assert_eq!(
        (quota.dimension(), quota.period(), quota.limit()),
        (Dimension::Requests, Period::Minute, None)
    );
    assert_eq!((verdict.domain(), verdict.reason()), (Some("tower-gemini"), Some("RATE_LIMITED")));
}

#[tokio::test(start_paused = true)]
async fn tokens_days_and_requests_that_are_too_large_are_told_apart() {
    let tokens = |n| {
        let mut request = request();
        request.extensions_mut().insert(InputTokens(n));
        request
    };
    let service = RateLimitLayer::builder()
        .limits(Limits::new().input_tokens_per_minute(100))
        .mode(AdmissionMode::Reject)
        .build()
        .unwrap()
        .layer(Probe::always(Answer::Ok));
    let large = Told::by(service.clone(), tokens(101)).await;
    assert_eq!((large.verdict().kind(), large.retry_info()), (Some(Kind::RateLimited), None));
    service.clone().oneshot(tokens(100)).await.unwrap();
    let full = Told::by(service, tokens(1)).await;
    assert_eq!(full.verdict().quota()[0].dimension(), Dimension::InputTokens);
    assert!(full.retry_info().is_some());

    let service =
        RateLimitLayer::new(Limits::new().requests_per_day(1)).unwrap().layer(Probe::always(Answer::Ok));
    service.clone().oneshot(request()).await.unwrap();
    let mut last = request();
    last.extensions_mut().insert(tower_gemini::Deadline::within(Duration::from_secs(1)));
    let spent = Told::by(service, last).await;
    assert_eq!(spent.status(), (429, "RESOURCE_EXHAUSTED".into()));
    assert_eq!(spent.verdict().kind(), Some(Kind::QuotaExhausted));
    assert_eq!(spent.verdict().quota()[0].period(), Period::Day);
    assert_eq!(
        spent.verdict().alternative(),
        tower_gemini::verdict::Alternative::Model,
        "not a matter of money"
    );
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_says_when_to_come_back() {
    let layer = CircuitBreakerLayer::builder().consecutive_failures(1).seed(1).build().unwrap();
    let service = layer.layer(Probe::always(Answer::Status(503, String::new())));
    service.clone().oneshot(request()).await.unwrap();
    let open = layer.handle().all().remove(0).until.unwrap() - Instant::now();
    let told = Told::by(service, request()).await;
    assert_eq!(told.status(), (503, "UNAVAILABLE".into()));
    assert_eq!((told.retry_info(), told.retry_after()), (Some(open), Some(open.as_secs() + 1)));
    let verdict = told.verdict();
    assert_eq!((verdict.kind(), verdict.reason()), (Some(Kind::Unavailable), Some("CIRCUIT_OPEN")));
    // The error itself, for a log.
    let verdict = told.head.extensions.get::<Verdict>().unwrap();
    assert_eq!(verdict.kind(), Some(Kind::Unavailable));
    let cause = told.head.extensions.get::<Cause>().unwrap();
    assert!(find::<CircuitOpen>(cause.error()).is_some());

    let target = request();
    layer.handle().force_open(&Target::of(&target).key());
    let told = Told::by(layer.layer(Probe::always(Answer::Ok)), request()).await;
    assert_eq!(
        (told.status().0, told.retry_info(), told.retry_after()),
        (503, None, None),
        "nobody knows when"
    );
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_does_not_come_is_an_overloaded_model() {
    let layer = AdaptiveConcurrencyLayer::new();
    for _ in 0..10 {
        layer.layer(Probe::always(Answer::Ok)).oneshot(request()).await.unwrap();
    }
    let late = error(504, "DEADLINE_EXCEEDED", "late");
    for _ in 0..2 {
        layer.layer(Probe::always(late.clone())).oneshot(request()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    }
    // Another call has just taken the turn that the pace has.
    layer.layer(Probe::always(error(400, "INVALID_ARGUMENT", "no"))).oneshot(request()).await.unwrap();
    let mut late = request();
    late.extensions_mut().insert(tower_gemini::Deadline::at(Instant::now()));
    let told = Told::by(layer.layer(Probe::always(Answer::Ok)), late).await;
    assert_eq!(told.status(), (503, "UNAVAILABLE".into()));
    assert_eq!(told.verdict().kind(), Some(Kind::Overloaded));
}

#[tokio::test]
async fn transport_failures_by_whether_they_were_sent() {
    const ADDRESS: &str = "10.1.2.3:8443 refused key=AIzaSyD-not-a-real-key-0123456789abcdef";
    for (kind, status, code, read) in [
        (ErrorKind::ConnectionRefused, 503, "UNAVAILABLE", Kind::Unavailable),
        (ErrorKind::HostUnreachable, 503, "UNAVAILABLE", Kind::Unavailable),
        (ErrorKind::ConnectionReset, 502, "UNAVAILABLE", Kind::Unavailable),
        (ErrorKind::Other, 502, "UNAVAILABLE", Kind::Unavailable),
        (ErrorKind::TimedOut, 504, "DEADLINE_EXCEEDED", Kind::DeadlineExceeded),
    ] {
        let told = Told::to(std::io::Error::new(kind, ADDRESS)).await;
        assert_eq!(told.status(), (status, code.into()), "{kind}");
        assert_eq!((told.verdict().kind(), told.retry_after()), (Some(read), None));
        let text = String::from_utf8_lossy(&told.body).into_owned();
        assert!(!text.contains("10.1") && !text.contains("AIza"), "nothing of the error's own text: {text}");
        assert!(told.head.extensions.get::<Cause>().unwrap().error().to_string().contains(ADDRESS));
    }
    for error in [BoxError::from(tower::timeout::error::Elapsed::new()), "what is this".into()] {
        let status = if error.is::<tower::timeout::error::Elapsed>() { 504 } else { 502 };
        assert_eq!(Told::to(error).await.status().0, status);
    }
}

#[tokio::test]
async fn rejections_of_other_layers_are_answered_by_their_kind() {
    for (rejected, status, kind) in [
        (Rejected::new("maintenance"), 503, Kind::Unavailable),
        (Rejected::new("maintenance").with_kind(Kind::Unavailable), 503, Kind::Unavailable),
        (Rejected::new("busy").with_kind(Kind::Overloaded), 503, Kind::Overloaded),
        (Rejected::new("slow").with_kind(Kind::RateLimited), 429, Kind::RateLimited),
        (Rejected::new("spent").with_kind(Kind::QuotaExhausted), 429, Kind::QuotaExhausted),
        (Rejected::new("who").with_kind(Kind::PermissionDenied), 403, Kind::PermissionDenied),
    ] {
        let told = Told::to(rejected).await;
        assert_eq!((told.status().0, told.verdict().kind()), (status, Some(kind)));
    }
}

proptest! {
    // Below five minutes, above which no rate limit is taken for one.
    #[test]
    fn the_answer_to_a_rejection_says_the_same_as_the_error(
        kind in prop::sample::select(vec![Kind::RateLimited, Kind::QuotaExhausted, Kind::Overloaded, Kind::Unavailable]),
        wait in prop::option::of((0..300u64, 0..1_000_000_000u32)),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let wait = wait.map(|(secs, nanos)| Duration::new(secs, nanos));
            let rejected = Rejected::new("no").with_kind(kind);
            let rejected = match wait {
                Some(wait) => rejected.with_until(Instant::now() + wait),
                None => rejected,
            };
            let told = Told::to(rejected).await;
            let (own, read) = (told.head.extensions.get::<Verdict>().unwrap(), told.verdict());
            prop_assert_eq!((own.kind(), read.kind()), (Some(kind), Some(kind)));
            // The body is exact, and the header rounded up.
            prop_assert_eq!(told.retry_info(), wait);
            let declared = read.server_delay().map(|delay| delay.declared());
            prop_assert_eq!(declared.is_some(), wait.is_some());
            if let (Some(declared), Some(wait)) = (declared, wait) {
                prop_assert!(declared >= wait && declared < wait + Duration::from_secs(1));
                prop_assert_eq!(told.retry_after(), Some(declared.as_secs()));
            }
            let bare = Verdict::from_parts(told.head.status, &http::HeaderMap::new(), told.body.clone());
            prop_assert_eq!((bare.kind(), bare.server_delay().map(|delay| delay.declared())), (Some(kind), wait));
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_response_of_the_inner_service_passes_byte_for_byte() {
    let failure = error(429, "RESOURCE_EXHAUSTED", "slow down");
    for answer in [Answer::Ok, failure, Answer::Status(502, "<html>".into())] {
        let plain = Probe::always(answer.clone()).oneshot(request()).await.unwrap();
        let (plain, bytes) = plain.into_parts();
        let told = Told::by(Probe::always(answer), request()).await;
        assert_eq!((told.head.status, &told.head.headers), (plain.status, &plain.headers));
        assert_eq!(told.body, bytes.collect().await.unwrap().to_bytes());
        assert!(told.head.extensions.get::<Cause>().is_none());
    }
}

#[tokio::test]
async fn the_size_of_either_body_is_known() {
    let whole = RespondLayer::new().layer(Probe::always(Answer::Ok)).oneshot(request()).await.unwrap();
    assert_eq!(whole.body().size_hint().exact(), Some(good_body().len() as u64));
    let io = Answer::Io(ErrorKind::ConnectionReset);
    let own = RespondLayer::new().layer(Probe::always(io)).oneshot(request()).await.unwrap();
    let size = own.body().size_hint().exact().unwrap();
    let mut body = own.into_body();
    assert!(!body.is_end_stream());
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap().len() as u64, size);
    assert!(body.is_end_stream() && body.frame().await.is_none());
}

#[tokio::test]
async fn a_service_that_cannot_get_ready_is_answered_for_and_asked_again() {
    let probe = Probe::always(Answer::Ok);
    let state = probe.state();
    state.lock().unwrap().fail_ready = true;
    let mut service = RespondLayer::new().layer(probe);
    let response: Result<_, Infallible> = service.ready().await.unwrap().call(request()).await;
    assert_eq!(response.unwrap().status(), 502);
    {
        let mut state = state.lock().unwrap();
        assert_eq!((state.calls.len(), state.violations), (0, 0));
        state.fail_ready = false;
    }
    assert_eq!(service.ready().await.unwrap().call(request()).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn outermost_in_a_stack_it_answers_what_the_stack_gave_up_on() {
    let breaker = CircuitBreakerLayer::default();
    let target = request();
    breaker.handle().force_open(&Target::of(&target).key());
    let service = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(RetryLayer::default())
        .layer(breaker)
        .layer(ClassifyLayer::new())
        .service(Probe::always(Answer::Ok));
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 503);
}

#[tokio::test]
async fn a_server_can_say_no_by_itself() {
    let response = respond::error(Kind::InvalidArgument, "No \"model\" in the body.").map(Full::new);
    let (head, body) = response.into_parts();
    let told = Told { head, body: body.collect().await.unwrap().to_bytes() };
    assert_eq!(told.status(), (400, "INVALID_ARGUMENT".into()));
    assert_eq!(told.verdict().message(), "No \"model\" in the body.");
    assert_eq!(told.verdict().kind(), Some(Kind::InvalidArgument));
    assert_eq!(respond::error(Kind::PayloadTooLarge, "Too large.").status(), 413);
}

/// What OpenAI's SDKs cannot read is Google's array and its number as `code`; all else passes through.
#[tokio::test]
async fn errors_of_the_openai_surface_leave_their_array_and_nothing_else_changes() {
    use tower_gemini::respond::OpenAiErrorsLayer;

    const GOOGLE: &str = r#"[{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}]"#;
    let answer = async |path: &str, status: u16, body: &'static str| {
        let google = service_fn(move |_: Request<()>| async move {
            let response = Response::builder().status(status).header("content-length", body.len());
            response.body(Full::<Bytes>::from(body))
        });
        let service = ServiceBuilder::new().layer(OpenAiErrorsLayer::new()).service(google);
        let response = service.oneshot(Request::post(path).body(()).unwrap()).await.unwrap();
        let has_length = response.headers().contains_key("content-length");
        let body = response.into_body();
        assert!(body.size_hint().exact().is_some());
        (has_length, body.collect().await.unwrap().to_bytes())
    };
    for path in
        ["/v1beta/openai/chat/completions", "/v1/projects/p/locations/l/endpoints/openapi/chat/completions"]
    {
        let (has_length, body) = answer(path, 429, GOOGLE).await;
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["error"]["code"], "RESOURCE_EXHAUSTED", "{path}");
        assert_eq!(value["error"]["type"], "rate_limit_error", "{path}");
        assert!(!has_length, "{path}: it was that of the other form");
    }
    for (path, status, body) in [
        ("/v1beta/openai/chat/completions", 200, GOOGLE),
        ("/v1beta/openai/chat/completions", 502, "<html>"),
        ("/v1beta/models/gemini-3.5-flash-lite:generateContent", 429, GOOGLE),
    ] {
        assert_eq!(answer(path, status, body).await, (true, Bytes::from(body)), "{path} {status}");
    }
}

/// A layer's own refusal reaches an OpenAI SDK in its form, too.
#[tokio::test]
async fn a_refusal_of_the_stack_is_in_openais_form_under_both_layers() {
    use tower_gemini::respond::OpenAiErrorsLayer;

    let service = ServiceBuilder::new().layer(OpenAiErrorsLayer::new()).layer(RespondLayer::new()).service(
        service_fn(async |_: Request<()>| -> Result<Response<Full<Bytes>>, std::io::Error> {
            Err(std::io::ErrorKind::ConnectionRefused.into())
        }),
    );
    let request = Request::post("/v1beta/openai/chat/completions").body(()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 503);
    let value: serde_json::Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(
        (&value["error"]["code"], &value["error"]["type"]),
        (&"UNAVAILABLE".into(), &"server_error".into())
    );
}

/// Of an error that breaks off what was read comes first, then the failure.
#[tokio::test]
async fn an_error_that_breaks_off_is_handed_on_as_it_broke() {
    use tower_gemini::respond::OpenAiErrorsLayer;

    let service =
        ServiceBuilder::new().layer(OpenAiErrorsLayer::new()).service(service_fn(async |_: Request<()>| {
            let frames =
                [Ok(http_body::Frame::data(Bytes::from("[{\"er"))), Err(std::io::Error::other("cut"))];
            let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
            Ok::<_, std::io::Error>(Response::builder().status(500).body(body).unwrap())
        }));
    let request = Request::post("/v1beta/openai/chat/completions").body(()).unwrap();
    let mut body = service.oneshot(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "[{\"er");
    assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "cut");
    assert!(body.frame().await.is_none());
}
