//! The retry layer's promises, one test each, in paused time, over the classifier and a probe that counts
//! every breach of the readiness contract.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use support::{Answer, Body, Probe, State, error, quota, request};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::error::{ProbeFailed, find};
use tower_gemini::event::{Event, Observer};
use tower_gemini::retry::{Attempts, Backoff, Budget, GaveUp, Jitter, RetryLayer, RetryPolicy, Schedule};
use tower_gemini::{BoxError, Deadline, Kind, Rejected, Verdict};

type Answered = Response<tower_gemini::classify::ClassifyBody<Body>>;

/// Retry, classifier, probe: what a user stacks.
async fn run(policy: RetryPolicy, probe: &Probe) -> Result<Answered, BoxError> {
    run_request(policy, probe, request()).await
}

async fn run_request(
    policy: RetryPolicy,
    probe: &Probe,
    request: Request<Body>,
) -> Result<Answered, BoxError> {
    let mut service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(ClassifyLayer::new())
        .service(probe.clone());
    service.ready().await?.call(request).await
}

fn gaps(state: &Mutex<State>) -> Vec<Duration> {
    let state = state.lock().unwrap();
    assert_eq!(state.violations, 0, "an instance was called that had not been polled ready");
    state.calls.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}

fn no_budget() -> tower_gemini::retry::RetryPolicyBuilder {
    RetryPolicy::builder().without_budget()
}

const SECOND: Duration = Duration::from_secs(1);

// Each line of the table in the module's documentation: how many attempts, and the least and the most that the
// waits may be. The bases are 1 s, and 2 s for overloaded; full jitter keeps each wait below base · 2^n. tokio's
// timer rounds up to the next millisecond.
#[tokio::test(start_paused = true)]
async fn each_kind_follows_its_schedule() {
    let cases: Vec<(Answer, usize, u64, GaveUp)> = vec![
        (error(429, "RESOURCE_EXHAUSTED", "slow down"), 10, 1, GaveUp::Attempts),
        (error(503, "UNAVAILABLE", "down"), 10, 1, GaveUp::Attempts),
        (error(503, "UNAVAILABLE", "The model is overloaded."), 10, 2, GaveUp::Attempts),
        (Answer::Status(502, "<html><title>Error 502</title>".into()), 10, 1, GaveUp::Attempts),
        (error(500, "INTERNAL", "oh"), 10, 1, GaveUp::Attempts),
        (error(409, "ABORTED", "oh"), 3, 1, GaveUp::Attempts),
        (error(504, "DEADLINE_EXCEEDED", "late"), 10, 1, GaveUp::Attempts),
        (error(499, "CANCELLED", "gone"), 2, 1, GaveUp::MaybeProcessed),
        (error(400, "FAILED_PRECONDITION", "The File x is not in an ACTIVE state"), 10, 1, GaveUp::Attempts),
        (error(400, "FAILED_PRECONDITION", "User location is not supported"), 1, 1, GaveUp::NotRetryable),
        (error(400, "INVALID_ARGUMENT", "bad"), 1, 1, GaveUp::NotRetryable),
        (error(401, "UNAUTHENTICATED", "who"), 1, 1, GaveUp::NotRetryable),
        (error(403, "PERMISSION_DENIED", "no"), 1, 1, GaveUp::NotRetryable),
        (error(404, "NOT_FOUND", "no"), 1, 1, GaveUp::NotRetryable),
        (error(501, "UNIMPLEMENTED", "no"), 1, 1, GaveUp::NotRetryable),
        (quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "5s"), 1, 1, GaveUp::NotRetryable),
    ];
    for (answer, attempts, base, why) in cases {
        let probe = Probe::always(answer.clone());
        probe.state().lock().unwrap().not_ready = 2;
        let policy = no_budget().without_deadline().build().unwrap();
        let response = run(policy, &probe).await.expect("a response");
        let gaps = gaps(&probe.state());
        assert_eq!(gaps.len() + 1, attempts, "{answer:?}");
        for (n, gap) in gaps.iter().enumerate() {
            let most = SECOND * u32::try_from(base << n).unwrap().min(60) + Duration::from_millis(1);
            assert!(*gap <= most, "{answer:?}: retry {n} after {gap:?}, more than {most:?}");
        }
        let report = Attempts::of(&response);
        assert_eq!((report.made() as usize, report.gave_up()), (attempts, Some(why)), "{answer:?}");
        assert_eq!((report.waits().len(), report.kinds().len()), (attempts - 1, attempts));
    }
}

#[tokio::test(start_paused = true)]
async fn transport_failures_are_retried_by_whether_they_were_sent() {
    for (kind, attempts) in [
        (ErrorKind::ConnectionRefused, 10),
        (ErrorKind::ConnectionReset, 2),
        (ErrorKind::TimedOut, 10),
        (ErrorKind::BrokenPipe, 2),
    ] {
        let probe = Probe::always(Answer::Io(kind));
        let policy = no_budget().without_deadline().build().unwrap();
        let error = run(policy, &probe).await.expect_err("an error");
        assert_eq!(gaps(&probe.state()).len() + 1, attempts, "{kind}");
        let io = find::<std::io::Error>(error.as_ref()).expect("the inner error, untouched");
        assert_eq!(io.kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_processed_is_a_switch_of_its_own() {
    let cancelled = || error(499, "CANCELLED", "gone");
    let late = || error(504, "DEADLINE_EXCEEDED", "late");
    let reset = || Answer::Io(ErrorKind::ConnectionReset);
    for (answer, retries, attempts) in [
        (cancelled(), 0, 1),
        (cancelled(), 1, 2),
        (cancelled(), 3, 4),
        (reset(), 0, 1),
        (reset(), 2, 3),
        // Timeouts are repeated like other failures, or not at all.
        (late(), 0, 1),
        (late(), 1, 10),
    ] {
        let probe = Probe::always(answer);
        let policy = no_budget().without_deadline().maybe_processed_retries(retries).build().unwrap();
        let _ = run(policy, &probe).await;
        assert_eq!(gaps(&probe.state()).len() + 1, attempts);
    }
    // Resets among timeouts are counted alone.
    let probe = Probe::new([late(), reset(), late(), reset()], Answer::Ok);
    assert!(run(no_budget().build().unwrap(), &probe).await.is_err());
    assert_eq!(gaps(&probe.state()).len() + 1, 4);
}

// Twenty per cent of calls outlast the attempt's timeout: two attempts serve 96 %, a plain client of five 99.97 %.
#[tokio::test(start_paused = true)]
async fn timeouts_that_help_are_repeated_and_those_that_do_not_run_out() {
    let late = || error(504, "DEADLINE_EXCEEDED", "late");
    let budget = Budget::new(8, 3.0).unwrap();
    let policy = RetryPolicy::builder().without_deadline().budget(budget.clone()).build().unwrap();
    for _ in 0..10 {
        // Two tokens each; two are less than half of the bucket, which a second one must leave.
        let probe = Probe::new([late(), late()], Answer::Ok);
        assert_eq!(run(policy.clone(), &probe).await.unwrap().status(), 200);
        assert_eq!(budget.keys_short(), 0, "paid back");
    }
    let mut calls = Vec::new();
    for _ in 0..4 {
        let probe = Probe::always(late());
        let response = run(policy.clone(), &probe).await.unwrap();
        assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::Budget));
        calls.push(gaps(&probe.state()).len() + 1);
    }
    // 8, 6, 4 of 8: three for one request that is always late, and the rest for first ones.
    assert_eq!(calls, [4, 2, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_server_delay_is_never_cut_short_and_spread_upwards() {
    // (declared, least, most): one second more where the fraction is cut off, up to 20 % on top of that.
    for (declared, least, most) in [
        ("58s", 59.0, 59.0 * 1.2),
        ("45.837906927s", 45.837_906_927, 45.838 * 1.2),
        ("1s", 2.0, 2.0 * 1.2),
        ("0s", 1.0, 1.0 * 1.2),
    ] {
        let mut seen = Vec::new();
        for seed in 0..50 {
            let probe = Probe::new(
                [quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", declared)],
                Answer::Ok,
            );
            let response = run(no_budget().seed(seed).build().unwrap(), &probe).await.unwrap();
            assert_eq!(response.status(), 200);
            let gap = gaps(&probe.state())[0].as_secs_f64();
            assert!(gap >= least && gap <= most + 0.002, "{declared}: {gap} is not within {least}..={most}");
            seen.push(gap);
        }
        seen.sort_by(f64::total_cmp);
        assert!(seen[49] - seen[0] > 0.1 * least, "the herd is spread: {seen:?}");
    }
}

/// A 429 for a quota of a minute: with its limit and without a delay, or the other way round.
fn of_a_minute(limit: Option<u32>, delay: Option<&str>) -> Answer {
    let limit = limit.map_or(String::new(), |limit| format!(r#","quotaValue":"{limit}""#));
    let delay = delay.map_or(String::new(), |delay| format!(r#",{{"retryDelay":"{delay}"}}"#));
    Answer::Status(
        429,
        format!(
            r#"{{"error":{{"code":429,"message":"over quota","status":"RESOURCE_EXHAUSTED","details":[
            {{"violations":[{{"quotaMetric":"m/requests","quotaId":"XRequestsPerMinute"{limit}}}]}}{delay}]}}}}"#
        ),
    )
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_a_minute_without_a_delay_is_waited_for_and_fitted_into_the_deadline() {
    for (deadline, least, most) in
        [(None, 60.0, 72.1), (Some(300), 60.0, 72.1), (Some(40), 10.0, 30.1), (Some(61), 15.0, 61.0)]
    {
        let probe = Probe::new([of_a_minute(Some(5), None)], Answer::Ok);
        let policy = no_budget();
        let policy = match deadline {
            None => policy.without_deadline(),
            Some(seconds) => policy.deadline(SECOND * seconds),
        };
        let response = run(policy.build().unwrap(), &probe).await.unwrap();
        assert!(response.status().is_success());
        let waited = gaps(&probe.state())[0].as_secs_f64();
        assert!((least..=most).contains(&waited), "{deadline:?}: {waited}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_zero_that_was_left_out_is_doubted_once() {
    let zero = || of_a_minute(None, Some("34.4s"));
    let towers = |probe: &Probe| {
        ServiceBuilder::new()
            .layer(tower::retry::RetryLayer::new(RetryPolicy::default()))
            .layer(ClassifyLayer::new())
            .service(probe.clone())
            .oneshot(request())
    };
    for own in [true, false] {
        let probe = Probe::always(zero());
        let response = match own {
            true => run(RetryPolicy::default(), &probe).await.unwrap(),
            false => towers(&probe).await.unwrap(),
        };
        let waits = gaps(&probe.state());
        assert_eq!(waits.len(), 1, "{own}");
        assert!(waits[0] >= SECOND * 344 / 10, "{waits:?}");
        let verdict = Verdict::of(&response);
        assert_eq!(verdict.kind(), Some(Kind::QuotaExhausted));
        assert!(verdict.quota()[0].is_zero() && !verdict.is_doubtful_zero());
        assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::NotRetryable));
    }
    // It was none, and a new request doubts anew.
    let probe = Probe::new([zero(), Answer::Ok, zero()], Answer::Ok);
    for calls in [2, 4] {
        assert!(run(RetryPolicy::default(), &probe).await.unwrap().status().is_success());
        assert_eq!(probe.state().lock().unwrap().calls.len(), calls);
    }
    // One that says its limit is no doubt.
    let probe = Probe::new([of_a_minute(Some(5), Some("3s")), of_a_minute(Some(5), Some("3s"))], Answer::Ok);
    assert!(run(RetryPolicy::default(), &probe).await.unwrap().status().is_success());
}

#[tokio::test(start_paused = true)]
async fn a_longer_own_backoff_outlasts_a_short_server_delay() {
    let long = Backoff::new(30 * SECOND, 30 * SECOND).jitter(Jitter::Proportional(0.0));
    let probe = Probe::new([quota("GenerateRequestsPerMinute", "1s")], Answer::Ok);
    run(no_budget().backoff(long).build().unwrap(), &probe).await.unwrap();
    assert!(gaps(&probe.state())[0] >= 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_server_delay_over_the_cap_gives_up_at_once() {
    let start = Instant::now();
    let probe = Probe::always(quota("GenerateRequestsPerMinute", "60.5s"));
    let response = run(no_budget().build().unwrap(), &probe).await.unwrap();
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::ServerDelay));
    assert_eq!((Instant::now() - start), Duration::ZERO, "nothing was waited for");
    assert_eq!(response.status(), 429, "the real answer");

    let probe = Probe::new([quota("GenerateRequestsPerMinute", "60.5s")], Answer::Ok);
    let policy = no_budget().max_server_delay(61 * SECOND).build().unwrap();
    assert_eq!(run(policy, &probe).await.unwrap().status(), 200, "the cap is a setting");
}

#[tokio::test(start_paused = true)]
async fn a_backoff_that_would_end_after_the_deadline_is_fitted_into_what_is_left() {
    let fixed = Backoff::new(4 * SECOND, 4 * SECOND).jitter(Jitter::Proportional(0.0));
    let policy =
        |seed| no_budget().backoff(fixed).deadline(10 * SECOND).attempts(20).seed(seed).build().unwrap();
    // The request's own deadline takes the policy's place, shorter or longer.
    for (own, within, whole) in [(None, 10, 2), (Some(5), 5, 1), (Some(17), 17, 4)] {
        for seed in 0..20 {
            let start = Instant::now();
            let probe = Probe::always(error(503, "UNAVAILABLE", "down"));
            let mut request = request();
            if let Some(own) = own {
                request.extensions_mut().insert(Deadline::within(own * SECOND));
            }
            let response = run_request(policy(seed), &probe, request).await.unwrap();
            let gaps = gaps(&probe.state());
            let report = Attempts::of(&response);
            assert_eq!(report.gave_up(), Some(GaveUp::Deadline), "{gaps:?}");
            assert!(gaps[..whole].iter().all(|gap| *gap == 4 * SECOND), "{gaps:?}");
            let mut left = within * SECOND - 4 * SECOND * u32::try_from(whole).unwrap();
            assert!(gaps.len() > whole, "one more at the least: {gaps:?}");
            let grain = Duration::from_millis(1);
            for gap in &gaps[whole..] {
                assert!(left >= Duration::from_millis(500), "{left:?} are too little: {gaps:?}");
                assert!(*gap >= left / 4 && *gap <= left * 3 / 4 + grain, "{gap:?} of {left:?}");
                left -= *gap;
            }
            assert!(left < Duration::from_millis(500), "{left:?} are enough for one more");
            assert!(Instant::now() - start < within * SECOND, "the last answer came at once");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_delay_is_not_fitted_into_the_deadline() {
    for (deadline, retries) in [(8, 0), (9, 1)] {
        let start = Instant::now();
        let probe = Probe::always(quota("GenerateRequestsPerMinute", "7.5s"));
        let policy = no_budget().deadline(deadline * SECOND).server_delay_jitter(0.0).seed(2);
        let policy = policy.attempts(2).backoff(Backoff::new(SECOND, SECOND)).build().unwrap();
        let delayed = Duration::from_millis(7500);
        let response = run(policy.clone(), &probe).await.unwrap();
        assert_eq!(gaps(&probe.state()).len(), 1, "{deadline}");
        assert_eq!(Instant::now() - start, delayed);
        assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::Attempts));
        // With an attempt that took a second there is as much less.
        let slow = tower::service_fn(async |_: Request<Body>| {
            tokio::time::sleep(SECOND).await;
            Ok::<_, BoxError>(
                Response::builder().status(429).header("retry-after", "6").body(Body::default()).unwrap(),
            )
        });
        let response = RetryLayer::new(policy).layer(slow).oneshot(request()).await.unwrap();
        assert_eq!(Attempts::of(&response).waits().len(), retries, "a second, and seven, of {deadline}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_the_first_call_and_not_from_its_failure() {
    // The first attempt takes 8 s; after it, a wait of 4 s would end at 12 s of 10, and is fitted into 2 s.
    let fixed = Backoff::new(4 * SECOND, 4 * SECOND).jitter(Jitter::Proportional(0.0));
    let policy = no_budget().backoff(fixed).deadline(10 * SECOND).build().unwrap();
    let slow = tower::service_fn(async |_: Request<Body>| {
        tokio::time::sleep(8 * SECOND).await;
        Ok::<_, BoxError>(support::respond(503, String::new()))
    });
    let response = RetryLayer::new(policy).layer(slow).oneshot(request()).await.unwrap();
    let report = Attempts::of(&response);
    assert_eq!((report.made(), report.gave_up()), (2, Some(GaveUp::Deadline)));
    assert!((SECOND / 2..SECOND * 3 / 2).contains(&report.waits()[0]), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn retries_come_soon_while_others_succeed_and_not_where_few_do() {
    let down = || error(503, "UNAVAILABLE", "down");
    let most = |n: usize, quick: u32| match n as u32 {
        n if n < quick => Duration::from_millis(50) * 2u32.pow(n),
        n => SECOND * 2u32.pow(n - quick),
    };
    let first = async |policy: &RetryPolicy, fails: usize| {
        let probe = Probe::new(vec![down(); fails], Answer::Ok);
        let response = run(policy.clone(), &probe).await.unwrap();
        assert_eq!(response.status(), 200);
        Attempts::of(&response).waits().to_vec()
    };
    // Every third call fails, over and over: each of its retries is a quick one.
    let policy = RetryPolicy::builder().build().unwrap();
    for n in 0..100 {
        let probe = Probe::new(vec![], Answer::Ok);
        run(policy.clone(), &probe).await.unwrap();
        let waits = first(&policy, 1).await;
        assert!(waits[0] < most(0, 3), "{n}: {waits:?}");
    }
    // One whose five attempts fail: three soon, and the backoff from its beginning.
    let (mut longest, mut is_over) = (vec![Duration::ZERO; 5], 0);
    for _ in 0..100 {
        let waits = first(&RetryPolicy::default(), 5).await;
        assert!(waits.iter().enumerate().all(|(n, wait)| *wait < most(n, 3)), "{waits:?}");
        longest.iter_mut().zip(&waits).for_each(|(longest, wait)| *longest = (*wait).max(*longest));
        is_over += usize::from(waits[3] > most(2, 3));
    }
    assert!(is_over > 50, "the fourth waits by the backoff: {longest:?}");
    // While nothing succeeds, the first eight failures at the most come back soon.
    let policy = RetryPolicy::builder().attempts(2).build().unwrap();
    let mut waits = Vec::new();
    for _ in 0..60 {
        let probe = Probe::always(down());
        let response = run(policy.clone(), &probe).await.unwrap();
        waits.extend_from_slice(Attempts::of(&response).waits());
    }
    assert_eq!(waits.len(), 60);
    assert!(waits[..7].iter().all(|wait| *wait < most(0, 3)), "{waits:?}");
    let slow = waits[7..].iter().filter(|wait| **wait >= most(0, 3)).count();
    assert!(slow > 40, "full jitter from 1 s is below 50 ms once in twenty: {slow} of 53");
    // Those that wait by the backoff learn of four successes that it is well again.
    for _ in 0..4 {
        run(policy.clone(), &Probe::always(Answer::Ok)).await.unwrap();
    }
    assert!(first(&policy, 1).await[0] < most(0, 3));
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_shared_by_clones_and_by_all_services_of_a_layer() {
    let layer = RetryLayer::new(RetryPolicy::builder().budget(Budget::new(6, 0.5).unwrap()).build().unwrap());
    let probe = Probe::always(error(503, "UNAVAILABLE", "down"));
    let first = layer.layer(ClassifyLayer::new().layer(probe.clone()));
    let second = layer.clone().layer(ClassifyLayer::new().layer(probe.clone()));
    let mut why = Vec::new();
    for service in [first.clone(), second.clone(), first, second] {
        let response = service.oneshot(request()).await.unwrap();
        why.push(Attempts::of(&response).gave_up());
    }
    // Four retries for the first request, for which a fifth would need half of the bucket; two for the second, none
    // for the others.
    assert_eq!(why, [Some(GaveUp::Budget); 4]);
    assert_eq!(probe.state().lock().unwrap().calls.len(), 5 + 3 + 1 + 1);
}

#[tokio::test(start_paused = true)]
async fn successes_fund_the_budget_and_other_models_have_their_own() {
    let layer = RetryLayer::new(RetryPolicy::builder().budget(Budget::new(1, 0.5).unwrap()).build().unwrap());
    let fails = || Probe::always(error(503, "UNAVAILABLE", "down"));
    let works = || Probe::always(Answer::Ok);
    let calls = async |probe: Probe, request| {
        let _ = layer.layer(ClassifyLayer::new().layer(probe.clone())).oneshot(request).await;
        probe.state().lock().unwrap().calls.len()
    };
    assert_eq!(calls(fails(), request()).await, 2, "one token");
    assert_eq!(calls(fails(), request()).await, 1, "none left");
    let mut other = request();
    *other.uri_mut() = "http://127.0.0.1/v1beta/models/other:generateContent".parse().unwrap();
    assert_eq!(calls(fails(), other).await, 2, "another model's bucket is full");
    calls(works(), request()).await;
    assert_eq!(calls(fails(), request()).await, 1, "half a token is none");
    calls(works(), request()).await;
    assert_eq!(calls(fails(), request()).await, 2);
}

#[tokio::test(start_paused = true)]
async fn waits_that_the_server_named_are_not_charged_to_the_budget() {
    let policy = RetryPolicy::builder().budget(Budget::new(1, 0.5).unwrap()).build().unwrap();
    let limited = || quota("GenerateRequestsPerMinute", "2s");
    let probe = Probe::new([limited(), limited(), limited(), limited()], Answer::Ok);
    assert_eq!(run(policy, &probe).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_costs_no_attempt_and_waits_until_it_may_go() {
    // Seven rejections in a row are more than there are attempts.
    let probe =
        Probe::new(std::iter::repeat_n(Answer::Rejected(Some(2 * SECOND)), 7), error(500, "INTERNAL", "oh"));
    let policy = RetryPolicy::builder().budget(Budget::new(2, 0.5).unwrap()).build().unwrap();
    let response = run(policy, &probe).await.unwrap();
    assert_eq!(Attempts::of(&response).made(), 3, "as many as the budget pays for, from the start");
    let gaps = gaps(&probe.state());
    assert!(gaps[..7].iter().all(|gap| *gap >= 2 * SECOND), "{gaps:?}");
    let attempts: Vec<_> = probe.state().lock().unwrap().calls.iter().map(|call| call.attempt).collect();
    assert_eq!(attempts, [1, 1, 1, 1, 1, 1, 1, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_last_attempt_waits_from_the_second_on() {
    let down = || error(503, "UNAVAILABLE", "down");
    let rejected = || Answer::Rejected(Some(SECOND));
    // The first one could not be foreseen, and no copy is made for what may never happen.
    let probe = Probe::new([down(), rejected(), down(), rejected(), rejected()], Answer::Ok);
    let log = Arc::new(Log::default());
    let policy = no_budget().attempts(2).observer(Arc::clone(&log) as Arc<dyn Observer>).build().unwrap();
    let service = RetryLayer::new(policy).layer(ClassifyLayer::new().layer(probe.clone()));
    let error = service.clone().oneshot(request()).await.expect_err("the rejection");
    assert!(find::<Rejected>(error.as_ref()).is_some());
    assert_eq!(log.0.lock().unwrap().last().unwrap(), "gave up 1 Attempts");
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), Attempts::of(&response).made()), (200, 2));
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_ends_no_wait_that_costs_nothing() {
    let down = || error(503, "UNAVAILABLE", "down");
    for free in [|| Answer::Rejected(Some(SECOND)), || quota("GenerateRequestsPerMinute", "2s")] {
        // The token is spent by the first request, and the second brings the news without a copy.
        let probe = Probe::new([down(), down(), free(), free(), free(), free(), down()], Answer::Ok);
        let policy = RetryPolicy::builder().budget(Budget::new(1, 0.1).unwrap()).build().unwrap();
        let service = RetryLayer::new(policy).layer(ClassifyLayer::new().layer(probe.clone()));
        let mut ended = Vec::new();
        for _ in 0..4 {
            let result = service.clone().oneshot(request()).await;
            ended.push(result.map(|response| response.status().as_u16()).unwrap_or(0));
        }
        assert!(matches!(ended[..], [503, 0 | 429, 503, 200]), "waited for, then refused a retry: {ended:?}");
        assert_eq!(probe.state().lock().unwrap().calls.len(), 2 + 1 + 4 + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_turned_away_keeps_its_token() {
    let (budget, policy, _) = one_retry();
    let log = Arc::new(Log::default());
    let down = || error(503, "UNAVAILABLE", "down");
    let rejected = || Answer::Rejected(Some(SECOND));
    let probe = Probe::new([down(), rejected(), rejected()], Answer::Ok);
    let policy = policy.to_builder().observer(Arc::clone(&log) as Arc<dyn Observer>).build().unwrap();
    let service = RetryLayer::new(policy).layer(ClassifyLayer::new().layer(probe.clone()));
    assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), 200);
    let charged = log.0.lock().unwrap().iter().filter(|line| line.starts_with("charged")).count();
    assert_eq!((charged, budget.keys_short()), (1, 0), "and gets it back in the end");

    // One that is never let in costs nothing.
    let (budget, policy, _) = one_retry();
    let probe = Probe::new([down(), rejected()], Answer::Rejected(None));
    let service = RetryLayer::new(policy).layer(ClassifyLayer::new().layer(probe.clone()));
    assert!(service.clone().oneshot(request()).await.is_err());
    assert_eq!(budget.keys_short(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_while_a_retry_that_was_turned_away_waits_refunds_the_token() {
    let (budget, policy, _) = one_retry();
    let probe = Probe::new([error(503, "UNAVAILABLE", "down")], Answer::Rejected(Some(30 * SECOND)));
    let mut service = RetryLayer::new(policy).layer(ClassifyLayer::new().layer(probe.clone()));
    let mut call = by_hand(service.ready().await.unwrap().call(request()));
    assert!(call.poll().is_pending());
    tokio::time::advance(2 * SECOND).await;
    assert!(call.poll().is_pending());
    assert_eq!(probe.state().lock().unwrap().calls.len(), 2, "the retry was turned away");
    assert_eq!(budget.keys_short(), 1);
    drop(call);
    assert_eq!(budget.keys_short(), 0, "it was never sent");
}

#[tokio::test(start_paused = true)]
async fn dropped_in_the_midst_of_a_retry_spends_the_token() {
    let (budget, policy, _) = one_retry();
    let down = error(503, "UNAVAILABLE", "down");
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let probe = Probe::always(down);
    let inner = ClassifyLayer::new().layer(probe.clone());
    let seen = Arc::clone(&calls);
    let service = tower::service_fn(move |request| {
        let (inner, n) = (inner.clone(), seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        async move {
            if n > 0 {
                std::future::pending::<()>().await;
            }
            inner.oneshot(request).await
        }
    });
    let mut service = RetryLayer::new(policy).layer(service);
    let mut call = by_hand(service.ready().await.unwrap().call(request()));
    assert!(call.poll().is_pending());
    tokio::time::advance(2 * SECOND).await;
    assert!(call.poll().is_pending());
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 2);
    drop(call);
    assert_eq!(budget.keys_short(), 1, "nobody knows how far it got");
}

#[tokio::test(start_paused = true)]
async fn rejections_never_spin_and_end_at_the_deadline() {
    let probe = Probe::always(Answer::Rejected(Some(Duration::ZERO)));
    let error = run(RetryPolicy::default(), &probe).await.expect_err("the rejection");
    assert!(find::<Rejected>(error.as_ref()).is_some());
    let calls = probe.state().lock().unwrap().calls.len();
    assert!((100..140).contains(&calls), "about one a second once the floor has grown: {calls}");

    let probe = Probe::always(Answer::Rejected(None));
    assert!(run(RetryPolicy::default(), &probe).await.is_err());
    assert_eq!(probe.state().lock().unwrap().calls.len(), 1, "nobody knows until when");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_numbered_and_reported() {
    let probe = Probe::new(
        [error(503, "UNAVAILABLE", "down"), error(500, "INTERNAL", "oh"), quota("PerMinute", "3s")],
        Answer::Ok,
    );
    let response = run(RetryPolicy::default(), &probe).await.unwrap();
    let report = Attempts::of(&response);
    assert_eq!((report.made(), report.gave_up()), (4, None));
    assert_eq!(report.kinds(), [Kind::Unavailable, Kind::Internal, Kind::RateLimited]);
    let gaps = gaps(&probe.state());
    for (wait, gap) in report.waits().iter().zip(&gaps) {
        assert!(*gap >= *wait && *gap <= *wait + Duration::from_millis(1), "{wait:?} against {gap:?}");
    }
    let numbers: Vec<_> = probe.state().lock().unwrap().calls.iter().map(|call| call.attempt).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_success_at_once_carries_nothing() {
    let probe = Probe::always(Answer::Ok);
    let response = run(RetryPolicy::default(), &probe).await.unwrap();
    assert!(response.extensions().is_empty());
    assert_eq!(Attempts::of(&response).made(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_sent_once_and_says_so() {
    let body = r#"{"contents":[{"parts":[{"text":"hello"}]}]}"#.len();
    for (limit, calls, refused) in [(body, 10, false), (body - 1, 1, true)] {
        let probe = Probe::always(error(503, "UNAVAILABLE", "down"));
        let response =
            run(no_budget().without_deadline().max_body_bytes(limit).build().unwrap(), &probe).await.unwrap();
        assert_eq!(probe.state().lock().unwrap().calls.len(), calls);
        assert_eq!(Attempts::of(&response).gave_up() == Some(GaveUp::BodyTooLarge), refused);
        assert_eq!(Verdict::of(&response).replay_refused(), refused);
        assert_eq!(Verdict::of(&response).kind(), Some(Kind::Unavailable));
    }
    // The size is not the reason where there would have been no retry anyway.
    let probe = Probe::always(error(400, "INVALID_ARGUMENT", "bad"));
    let response = run(no_budget().max_body_bytes(1).build().unwrap(), &probe).await.unwrap();
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::NotRetryable));
}

#[tokio::test(start_paused = true)]
async fn without_the_classifier_status_and_header_decide() {
    let probe = Probe::new([Answer::Header(429, "retry-after", "7")], Answer::Ok);
    let service = RetryLayer::new(no_budget().build().unwrap()).layer(probe.clone());
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 200);
    assert!(gaps(&probe.state())[0] >= 8 * SECOND);

    for (status, calls) in [(503, 10), (500, 10), (400, 1), (403, 1)] {
        let probe = Probe::always(Answer::Status(status, String::new()));
        let policy = no_budget().without_deadline().build().unwrap();
        RetryLayer::new(policy).layer(probe.clone()).oneshot(request()).await.unwrap();
        assert_eq!(probe.state().lock().unwrap().calls.len(), calls, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn schedules_are_settable_per_kind() {
    let once = Schedule::new(1, Backoff::default());
    let six = Schedule::new(6, Backoff::default());
    let policy =
        || no_budget().schedule(Kind::Internal, six).schedule(Kind::Unavailable, once).build().unwrap();
    for (answer, calls) in [(error(500, "INTERNAL", "oh"), 6), (error(503, "UNAVAILABLE", "down"), 1)] {
        let probe = Probe::always(answer);
        run(policy(), &probe).await.unwrap();
        assert_eq!(probe.state().lock().unwrap().calls.len(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn more_attempts_are_made_where_no_schedule_ends_them() {
    for (answer, calls) in [(error(503, "UNAVAILABLE", "down"), 12), (error(409, "ABORTED", "oh"), 3)] {
        let probe = Probe::always(answer);
        run(no_budget().attempts(12).without_deadline().build().unwrap(), &probe).await.unwrap();
        assert_eq!(probe.state().lock().unwrap().calls.len(), calls);
    }
}

// A prompt that is too long is answered so whenever it is sent. Its retries are never paid back.
#[tokio::test(start_paused = true)]
async fn a_request_that_always_ends_in_internal_is_bounded_by_the_budget() {
    let budget = Budget::new(20, 3.0).unwrap();
    let policy = RetryPolicy::builder().without_deadline().budget(budget).build().unwrap();
    let mut calls = Vec::new();
    for _ in 0..6 {
        let probe = Probe::always(error(500, "INTERNAL", "too long"));
        run(policy.clone(), &probe).await.unwrap();
        calls.push(probe.state().lock().unwrap().calls.len());
    }
    // 20 tokens: 9, then 4 at a time, since it is less than half full, as long as there are any.
    assert_eq!(calls, [10, 5, 5, 4, 1, 1]);
    // One success is worth three retries, whoever makes them.
    run(policy.clone(), &Probe::always(Answer::Ok)).await.unwrap();
    let probe = Probe::always(error(500, "INTERNAL", "too long"));
    run(policy, &probe).await.unwrap();
    assert_eq!(probe.state().lock().unwrap().calls.len(), 4);
}

// Of those who wait for a circuit, the first may be sent as a probe and lose an attempt: one that has all of them.
#[tokio::test(start_paused = true)]
async fn who_has_lost_attempts_comes_back_after_who_has_not() {
    for failures in [0, 1, 3] {
        let script = vec![error(503, "UNAVAILABLE", "down"); failures];
        let rejected = Answer::Rejected(Some(2 * SECOND));
        let probe = Probe::new(script.into_iter().chain([rejected]), Answer::Ok);
        run(no_budget().build().unwrap(), &probe).await.unwrap();
        let later = Duration::from_millis(10) * u32::try_from(failures).unwrap();
        assert_eq!(gaps(&probe.state()).last(), Some(&(2 * SECOND + later)), "{failures}");
    }
}

// Draws of their own would spend all five within a second once in a while.
#[tokio::test(start_paused = true)]
async fn five_attempts_are_never_spent_within_three_seconds() {
    for seed in 0..300 {
        let probe = Probe::always(error(503, "UNAVAILABLE", "down"));
        run(no_budget().seed(seed).build().unwrap(), &probe).await.unwrap();
        let gaps = gaps(&probe.state());
        let sum: Duration = gaps[..4].iter().sum();
        assert!(sum >= Duration::from_millis(3200), "seed {seed}: {gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_of_all_kinds_count_together() {
    let probe = Probe::new([quota("PerMinute", "1s")], error(500, "INTERNAL", "oh"));
    let response = run(no_budget().attempts(3).build().unwrap(), &probe).await.unwrap();
    assert_eq!(Attempts::of(&response).kinds(), [Kind::RateLimited, Kind::Internal, Kind::Internal]);
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_the_waits() {
    let waits = async |seed| {
        let probe = Probe::always(error(503, "UNAVAILABLE", "down"));
        let response = run(no_budget().seed(seed).build().unwrap(), &probe).await.unwrap();
        Attempts::of(&response).waits().to_vec()
    };
    assert_eq!(waits(1).await, waits(1).await);
    assert_ne!(waits(1).await, waits(2).await);
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(match event {
            Event::AttemptFailed { attempt, verdict, .. } => {
                format!("failed {attempt} {}", verdict.kind().unwrap())
            }
            Event::BudgetCharged { attempt, left, .. } => format!("charged for {attempt}, {left} left"),
            Event::Waiting { attempt, .. } => format!("waiting for {attempt}"),
            Event::Recovered { attempts, .. } => format!("recovered {attempts}"),
            Event::GaveUp { attempts, why, .. } => format!("gave up {attempts} {why:?}"),
            _ => "?".into(),
        });
    }
}

#[tokio::test(start_paused = true)]
async fn observers_are_told_in_order() {
    let run = async |script: Vec<Answer>, then, policy: fn(Arc<Log>) -> RetryPolicy| {
        let log = Arc::new(Log::default());
        let _ = run(policy(Arc::clone(&log)), &Probe::new(script, then)).await;
        let log = log.0.lock().unwrap();
        log.join(", ")
    };
    let usual: fn(Arc<Log>) -> RetryPolicy = |log| RetryPolicy::builder().observer(log).build().unwrap();
    let told = run(vec![error(503, "UNAVAILABLE", "down")], Answer::Ok, usual).await;
    assert_eq!(told, "failed 1 unavailable, charged for 2, 99 left, waiting for 2, recovered 2");
    let told = run(vec![], error(400, "INVALID_ARGUMENT", "bad"), usual).await;
    assert_eq!(told, "failed 1 invalid_argument, gave up 1 NotRetryable");
    let told = run(vec![], error(503, "UNAVAILABLE", "down"), |log| {
        RetryPolicy::builder().max_body_bytes(1).observer(log).build().unwrap()
    })
    .await;
    assert_eq!(told, "failed 1 unavailable, gave up 1 BodyTooLarge");
    assert_eq!(run(vec![], Answer::Ok, usual).await, "", "a success costs the observer nothing");
}

#[tokio::test(start_paused = true)]
async fn events_tell_requests_apart() {
    struct Numbers(Mutex<Vec<u64>>);
    impl Observer for Numbers {
        fn on_event(&self, event: &Event<'_>) {
            let (Event::AttemptFailed { request, .. }
            | Event::Waiting { request, .. }
            | Event::Recovered { request, .. }
            | Event::GaveUp { request, .. }) = event
            else {
                return;
            };
            self.0.lock().unwrap().push(*request);
        }
    }
    let log = Arc::new(Numbers(Mutex::default()));
    let policy = RetryPolicy::builder().observer(Arc::clone(&log) as Arc<dyn Observer>).build().unwrap();
    let fails_once = || Probe::new([error(503, "UNAVAILABLE", "down")], Answer::Ok);
    run(policy.clone(), &fails_once()).await.unwrap();
    run(policy, &fails_once()).await.unwrap();
    assert_eq!(*log.0.lock().unwrap(), [1, 1, 1, 2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn towers_own_retry_takes_the_policy() {
    let probe = Probe::new([error(503, "UNAVAILABLE", "down"), quota("PerMinute", "3s")], Answer::Ok);
    let mut service = ServiceBuilder::new()
        .layer(tower::retry::RetryLayer::new(RetryPolicy::default()))
        .layer(ClassifyLayer::new())
        .service(probe.clone());
    let response = service.ready().await.unwrap().call(request()).await.unwrap();
    assert_eq!(Attempts::of(&response).made(), 3);
    assert_eq!(gaps(&probe.state()).len(), 2);

    let probe = Probe::always(error(503, "UNAVAILABLE", "down"));
    let policy = no_budget().without_deadline().build().unwrap();
    let service = tower::retry::RetryLayer::new(policy).layer(probe.clone());
    service.oneshot(request()).await.unwrap();
    assert_eq!(probe.state().lock().unwrap().calls.len(), 10);
}

// ===== what a drop gives back, in each state of the future =====

#[tokio::test(start_paused = true)]
async fn dropped_while_called_ends_the_attempt() {
    let probe = Probe::always(Answer::Hang);
    let mut service = RetryLayer::default().layer(probe.clone());
    let mut call = by_hand(service.ready().await.unwrap().call(request()));
    assert!(call.poll().is_pending());
    assert_eq!(probe.state().lock().unwrap().in_flight, 1);
    drop(call);
    let state = probe.state();
    let state = state.lock().unwrap();
    assert_eq!((state.in_flight, state.dropped), (0, 1));
}

/// A budget of one, a policy that draws on it, and a service that needs it.
fn one_retry() -> (Budget, RetryPolicy, Probe) {
    let budget = Budget::new(1, 0.5).unwrap();
    let policy = RetryPolicy::builder().budget(budget.clone()).build().unwrap();
    (budget, policy, Probe::always(error(503, "UNAVAILABLE", "down")))
}

#[tokio::test(start_paused = true)]
async fn dropped_before_its_first_poll_leaves_nothing() {
    let (budget, policy, probe) = one_retry();
    let mut service = RetryLayer::new(policy).layer(probe.clone());
    drop(service.ready().await.unwrap().call(request()));
    assert_eq!(budget.keys_short(), 0);
    assert_eq!(probe.state().lock().unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_while_waiting_refunds_the_budget() {
    let (budget, policy, probe) = one_retry();
    let mut service = RetryLayer::new(policy).layer(probe.clone());
    let mut call = by_hand(service.ready().await.unwrap().call(request()));
    assert!(call.poll().is_pending());
    assert_eq!(budget.keys_short(), 1, "the retry is paid for before its wait");
    drop(call);
    assert_eq!(budget.keys_short(), 0, "it was never sent");
    assert_eq!(probe.state().lock().unwrap().calls.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_while_readying_refunds_the_budget() {
    let (budget, policy, probe) = one_retry();
    let mut service = RetryLayer::new(policy).layer(probe.clone());
    let mut call = by_hand(service.ready().await.unwrap().call(request()));
    assert!(call.poll().is_pending());
    probe.state().lock().unwrap().not_ready = u32::MAX;
    tokio::time::advance(2 * SECOND).await;
    assert!(call.poll().is_pending());
    assert!(probe.state().lock().unwrap().ready_polls > 1, "it is asking for readiness");
    assert_eq!(budget.keys_short(), 1);
    drop(call);
    assert_eq!(budget.keys_short(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_while_waiting_under_towers_retry_refunds_the_budget() {
    let (budget, policy, probe) = one_retry();
    let mut service = tower::retry::RetryLayer::new(policy).layer(probe.clone());
    let mut call = by_hand(service.ready().await.unwrap().call(request()));
    assert!(call.poll().is_pending());
    assert_eq!(budget.keys_short(), 1);
    drop(call);
    assert_eq!(budget.keys_short(), 0);
    assert_eq!(probe.state().lock().unwrap().calls.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn holds_no_readiness_while_it_waits() {
    // Room for one call at a time inside: while one caller waits for its retry, another must pass.
    let probe = Probe::new([quota("PerMinute", "30s")], Answer::Ok);
    let service = ServiceBuilder::new()
        .layer(RetryLayer::default())
        .layer(tower::limit::ConcurrencyLimitLayer::new(1))
        .layer(ClassifyLayer::new())
        .service(probe.clone());
    let start = Instant::now();
    let sleeper = tokio::spawn(service.clone().oneshot(request()));
    tokio::time::sleep(SECOND).await;
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 200);
    assert!((Instant::now() - start) < 2 * SECOND, "it did not wait for the sleeper");
    assert_eq!(sleeper.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_closes_ends_the_retry_with_its_error() {
    let probe = Probe::always(error(503, "UNAVAILABLE", "down"));
    let mut service = RetryLayer::default().layer(probe.clone());
    let call = service.ready().await.unwrap().call(request());
    probe.state().lock().unwrap().fail_ready = true;
    assert_eq!(call.await.unwrap_err().to_string(), "the probe is closed");
}

/// A future that is polled by hand.
struct Manual<F>(std::pin::Pin<Box<F>>);

fn by_hand<F: Future>(future: F) -> Manual<F> {
    Manual(Box::pin(future))
}

impl<F: Future> Manual<F> {
    fn poll(&mut self) -> std::task::Poll<F::Output> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        self.0.as_mut().poll(&mut cx)
    }
}

// ===== the spare =====

/// Fails until the call of this number; counts its clones, and says which name each call was made under.
struct Counted {
    name: &'static str,
    log: Arc<Journal>,
}

#[derive(Default)]
struct Journal {
    clones: Mutex<u32>,
    calls: Mutex<Vec<&'static str>>,
    good_from: usize,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        *self.log.clones.lock().unwrap() += 1;
        Self { name: self.name, log: Arc::clone(&self.log) }
    }
}

impl Service<Request<Body>> for Counted {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Response<Body>, BoxError>>;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut calls = self.log.calls.lock().unwrap();
        calls.push(self.name);
        let status = if calls.len() > self.log.good_from { 200 } else { 503 };
        std::future::ready(Ok(Response::builder().status(status).body(Body::default()).unwrap()))
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_is_cloned_once_and_then_for_those_who_retry() {
    let log = Arc::new(Journal { good_from: 2, ..Journal::default() });
    let clones = || *log.clones.lock().unwrap();
    let counted = Counted { name: "a", log: Arc::clone(&log) };
    let mut service = RetryLayer::new(no_budget().build().unwrap()).layer(counted);
    assert_eq!(service.call(request()).await.unwrap().status(), 200, "at the third attempt");
    assert_eq!(clones(), 2, "the spare, and one for both further attempts");
    for _ in 0..10 {
        assert!(service.call(request()).await.is_ok());
    }
    assert_eq!(clones(), 2);
    // A clone of the service is one of what it holds, and shares the spare.
    let mut other = service.clone();
    assert!(other.call(request()).await.is_ok());
    assert_eq!(clones(), 3);
    drop((service, other));
    assert_eq!(Arc::strong_count(&log), 1, "nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_between_attempts_leaves_no_clone_behind() {
    let log = Arc::new(Journal { good_from: usize::MAX, ..Journal::default() });
    let mut service = RetryLayer::new(no_budget().attempts(20).build().unwrap())
        .layer(Counted { name: "a", log: Arc::clone(&log) });
    // The service's own, the spare, and that of the call; then the call's is gone, and with the service the spare.
    let mut call = Box::pin(service.call(request()));
    assert!(tokio::time::timeout(10 * SECOND, call.as_mut()).await.is_err(), "it waits");
    assert!(log.calls.lock().unwrap().len() >= 2);
    assert_eq!(Arc::strong_count(&log), 4);
    drop(call);
    assert_eq!(Arc::strong_count(&log), 3);
    drop(service);
    assert_eq!(Arc::strong_count(&log), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_changed_is_retried_as_it_is_now() {
    let log = Arc::new(Journal { good_from: 4, ..Journal::default() });
    let mut service = RetryLayer::new(no_budget().attempts(2).build().unwrap())
        .layer(Counted { name: "before", log: Arc::clone(&log) });
    let mut clone = service.clone();
    assert_eq!(service.call(request()).await.unwrap().status(), 503);
    service.get_mut().name = "after";
    assert_eq!(service.call(request()).await.unwrap().status(), 503);
    assert!(clone.call(request()).await.is_ok());
    assert_eq!(*log.calls.lock().unwrap(), ["before", "before", "after", "after", "before"]);
}

// ===== a circuit breaker's probes =====

/// Fails as a probe that found the server down, so often; then as the answer says, and after that for ever.
fn probing(
    failures: usize,
    open: Duration,
    then: Answer,
) -> (Probe, impl Service<Request<Body>, Response = Answered, Error = BoxError, Future = impl Send> + Clone) {
    let script = std::iter::repeat_n(Answer::Io(ErrorKind::ConnectionRefused), failures);
    let probe = Probe::new(script, then);
    let inner = ClassifyLayer::new().layer(probe.clone());
    let service = ServiceBuilder::new()
        .map_err(move |error: BoxError| match find::<std::io::Error>(error.as_ref()) {
            Some(_) => ProbeFailed::new(Instant::now() + open, error).into(),
            None => error,
        })
        .service(inner);
    (probe, service)
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_costs_no_attempt_and_no_token_and_is_no_error_of_its_own() {
    let (log, budget) = (Arc::new(Log::default()), Budget::new(1, 0.5).unwrap());
    let observer = || Arc::clone(&log) as Arc<dyn Observer>;
    let policy =
        RetryPolicy::builder().attempts(2).without_deadline().budget(budget.clone()).observer(observer());
    let policy = policy.build().unwrap();
    // An outage of ten probes, each 15 s after the other.
    let (probe, service) = probing(10, 15 * SECOND, Answer::Ok);
    let response = RetryLayer::new(policy.clone()).layer(service).oneshot(request()).await.unwrap();
    let report = Attempts::of(&response);
    assert_eq!((report.made(), report.probes(), report.waits().len()), (1, 10, 10));
    assert!(report.kinds().is_empty());
    assert_eq!(budget.keys_short(), 0);
    for (n, gap) in gaps(&probe.state()).into_iter().enumerate() {
        // Who has been one lets the others go before.
        let later = Duration::from_millis(10) * (n as u32 + 1);
        assert_eq!(gap, 15 * SECOND + later);
    }
    let told = std::mem::take(&mut *log.0.lock().unwrap());
    assert_eq!(told[..3], ["failed 1 transport", "waiting for 1", "failed 1 transport"]);
    assert_eq!(told.last().unwrap(), "recovered 1");

    // What it did pay for, it keeps.
    let (probe, service) = probing(3, 2 * SECOND, Answer::Ok);
    let down = error(503, "UNAVAILABLE", "down");
    probe.state().lock().unwrap().put_first(down);
    let response = RetryLayer::new(policy.clone()).layer(service).oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), Attempts::of(&response).made()), (200, 2));
    let told = log.0.lock().unwrap().join(", ");
    assert_eq!(told.matches("charged for 2, 0 left").count(), 1, "{told}");
    assert_eq!(budget.keys_short(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_cannot_wait_is_handed_on_as_the_error_that_it_met() {
    for under_tower in [false, true] {
        let policy = no_budget().deadline(60 * SECOND).build().unwrap();
        let (probe, service) = probing(100, 15 * SECOND, Answer::Ok);
        let result = if under_tower {
            tower::retry::RetryLayer::new(policy).layer(service).oneshot(request()).await
        } else {
            RetryLayer::new(policy).layer(service).oneshot(request()).await
        };
        let error = result.expect_err("it is down for longer");
        assert!(error.is::<std::io::Error>(), "the same box, and not in another: {error:?}");
        assert_eq!(probe.state().lock().unwrap().calls.len(), 4, "at 0, 15, 30 and 45 s");
    }
    // Nothing is repeated under a policy of one attempt.
    let policy = no_budget().attempts(1).build().unwrap();
    let (_, service) = probing(1, SECOND, Answer::Ok);
    let error = RetryLayer::new(policy).layer(service).oneshot(request()).await.unwrap_err();
    assert!(error.is::<std::io::Error>());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_may_have_been_processed_is_repeated_as_the_policy_says() {
    for (retries, calls) in [(0, 1), (1, 2), (2, 3)] {
        let probe = Probe::always(Answer::Io(ErrorKind::ConnectionReset));
        let inner = ClassifyLayer::new().layer(probe.clone());
        let service = ServiceBuilder::new()
            .map_err(|error: BoxError| BoxError::from(ProbeFailed::new(Instant::now() + SECOND, error)))
            .service(inner);
        let policy = no_budget().maybe_processed_retries(retries).build().unwrap();
        let error = RetryLayer::new(policy).layer(service).oneshot(request()).await.unwrap_err();
        assert!(error.is::<std::io::Error>());
        assert_eq!(probe.state().lock().unwrap().calls.len(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn under_towers_retry_a_failed_probe_costs_nothing_either() {
    let budget = Budget::new(1, 0.5).unwrap();
    let policy =
        RetryPolicy::builder().attempts(2).without_deadline().budget(budget.clone()).build().unwrap();
    let (_, service) = probing(10, 15 * SECOND, Answer::Ok);
    let response = tower::retry::RetryLayer::new(policy).layer(service).oneshot(request()).await.unwrap();
    assert_eq!((Attempts::of(&response).made(), Attempts::of(&response).probes()), (1, 10));
    assert_eq!(budget.keys_short(), 0);
}
