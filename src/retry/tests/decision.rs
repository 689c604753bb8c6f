use proptest::prelude::*;

use super::*;
use crate::retry::{Budget, RetryPolicy, RetryPolicyBuilder};

fn failed(status: u16, body: &'static str) -> Verdict {
    let status = http::StatusCode::from_u16(status).expect("a status");
    Verdict::from_parts(status, &http::HeaderMap::new(), bytes::Bytes::from_static(body.as_bytes()))
}

#[test]
fn it_says_whether_it_would_retry_and_when_at_the_least() {
    const QUOTA: &str = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[
        {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"5.5s"}]}}"#;
    let quota = failed(429, QUOTA);
    let b = RetryPolicy::builder;
    let would =
        |builder: RetryPolicyBuilder, verdict: &Verdict| builder.build().expect("valid").would_retry(verdict);
    let wait = Duration::from_millis(5500);
    assert_eq!(would(b(), &quota), Some(wait));
    assert_eq!(would(b().without_deadline(), &quota), Some(wait));
    assert_eq!(would(b().deadline(wait), &quota), None, "it would end at the deadline");
    assert_eq!(would(b().deadline(wait + Duration::from_nanos(1)), &quota), Some(wait));
    assert_eq!(would(b().attempts(1), &quota), None);
    assert_eq!(would(b().attempts(2), &quota), Some(wait));
    assert_eq!(would(b(), &failed(503, "")), Some(Duration::ZERO), "the least of a full jitter");
    assert_eq!(would(b(), &failed(400, "")), None);
    let equal = || b().backoff(Backoff::new(wait * 2, wait * 2).jitter(crate::retry::Jitter::Equal));
    assert_eq!(would(equal(), &failed(503, "")), Some(Duration::ZERO), "the first one comes soon");
    for slow in [equal().quick_retries(0), equal().without_budget()] {
        assert_eq!(would(slow.clone(), &failed(503, "")), Some(wait));
        assert_eq!(would(slow.clone().deadline(wait), &failed(503, "")), Some(wait / 4), "fitted");
        assert_eq!(would(slow.deadline(LEAST_LEFT - Duration::from_nanos(1)), &failed(503, "")), None);
    }
    let empty = failed(200, r#"{"candidates":[]}"#);
    assert_eq!(would(b().empty_answers(1), &empty), Some(Duration::ZERO));
    let settings = b().build().expect("valid").settings;
    let gave_up = settings.schedule(&Progress::default(), &empty, false, |_| 0.0);
    assert_eq!(gave_up, Err(GaveUp::NotRetryable), "no attempt is missing: it was not asked for");
}

const QUOTA_OF_A_SECOND: &str = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[
    {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.5s"}]}}"#;

#[test]
fn a_backoff_that_ends_at_the_deadline_is_fitted_and_a_servers_delay_is_not() {
    let (second, least) = (Duration::from_secs(1), Duration::from_nanos(1));
    let backoff = Backoff::new(second, second).jitter(crate::retry::Jitter::Proportional(0.0));
    let policy = RetryPolicy::builder().backoff(backoff).quick_retries(0).server_delay_jitter(0.0);
    let (policy, now) = (policy.build().expect("valid"), crate::time::now());
    let decide = |verdict: &Verdict, ahead: Duration| {
        let (failure, deadline) = (Failure::Verdict(verdict), Some(now + ahead));
        let mut progress = Progress::default();
        let again = policy.settings.decide(&mut progress, &failure, now, deadline, || 0)?;
        Ok::<_, GaveUp>(again.wait)
    };
    let down = failed(503, "");
    assert_eq!(decide(&down, second + least), Ok(second));
    for _ in 0..100 {
        let wait = decide(&down, second).expect("fitted");
        assert!((second / 4..second * 3 / 4).contains(&wait), "{wait:?}");
    }
    assert!(decide(&down, LEAST_LEFT).is_ok());
    assert_eq!(decide(&down, LEAST_LEFT - least), Err(GaveUp::Deadline));
    let quota = failed(429, QUOTA_OF_A_SECOND);
    assert_eq!(decide(&quota, second * 3 / 2 + least), Ok(second * 3 / 2));
    assert_eq!(decide(&quota, second * 3 / 2), Err(GaveUp::Deadline));
}

/// Ends attempts of one request with this verdict at once, each after the wait of the one before, until it gives up.
fn waits(policy: &RetryPolicy, verdict: &Verdict) -> Vec<Duration> {
    let (mut progress, mut now) = (Progress::default(), crate::time::now());
    while let Ok(again) = policy.settings.decide(&mut progress, &Failure::Verdict(verdict), now, None, || 0) {
        now += again.wait;
        let _ = again.token.map(Withdrawal::spend);
    }
    progress.waits
}

// Full jitter hides a wait behind its draw, so the most of many requests is what tells the schedule.
fn longest(verdict: &Verdict, policy: impl Fn() -> RetryPolicyBuilder) -> Vec<Duration> {
    let requests = (0..400).map(|seed| waits(&policy().seed(seed).build().expect("valid"), verdict));
    requests.fold(Vec::new(), |mut most, waits| {
        most.resize(waits.len().max(most.len()), Duration::ZERO);
        most.iter_mut().zip(waits).for_each(|(most, wait)| *most = wait.max(*most));
        most
    })
}

#[test]
fn the_first_retries_come_soon_where_others_succeed_and_the_backoff_follows_from_its_beginning() {
    // Each request has a bucket that is full.
    let b = || RetryPolicy::builder().attempts(6).budget(Budget::new(100, 3.0).expect("valid"));
    let soon: &[u64] = &[50, 100, 200, 1_000, 2_000];
    let slow: &[u64] = &[1_000, 2_000, 4_000, 8_000, 16_000];
    let named = r#"{"error":{"code":503,"status":"UNAVAILABLE","details":[
        {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.001s"}]}}"#;
    let overloaded = r#"{"error":{"code":503,"status":"UNAVAILABLE","message":"The model is overloaded."}}"#;
    let check = |verdict: &Verdict, policy: &dyn Fn() -> RetryPolicyBuilder, most: &[u64]| {
        let longest = longest(verdict, policy);
        assert_eq!(longest.len(), most.len(), "{verdict:?}");
        for (longest, most) in longest.iter().zip(most) {
            let most = Duration::from_millis(*most);
            assert!(*longest <= most && *longest > most * 19 / 20, "{verdict:?}: {longest:?} of {most:?}");
        }
    };
    check(&failed(503, ""), &b, soon);
    check(&failed(500, ""), &b, soon);
    check(&failed(503, overloaded), &b, &[50, 100, 200, 2_000, 4_000]);
    check(&failed(503, ""), &|| b().quick_retries(1), &[50, 1_000, 2_000, 4_000, 8_000]);
    check(&failed(503, ""), &|| b().quick_retries(0), slow);
    check(&failed(503, ""), &|| b().without_budget(), slow);
    check(&failed(504, ""), &|| b().attempts(4), &slow[..3]);
    check(&failed(429, ""), &b, slow);
    check(&failed(503, named), &|| b().server_delay_jitter(0.0), slow);
    // An explicit backoff is that of the retries after them.
    let backoff = || b().backoff(Backoff::new(Duration::from_secs(3), Duration::from_secs(3)));
    check(&failed(500, ""), &backoff, &[50, 100, 200, 3_000, 3_000]);
}

proptest! {
    #[test]
    fn no_wait_is_over_the_cap_or_ends_at_the_deadline_and_no_attempt_is_over_the_limit(
        attempts in 1..20_u32, quick in 0..8_u32, cap in 1..20_000_u64, deadline in 1..60_000_u64,
        failures in prop::collection::vec((0..6_usize, 0..3_000_u64), 1..40), seed: u64,
    ) {
        let cap = Duration::from_millis(cap);
        let backoff = Backoff::new(cap / 4 + Duration::from_nanos(1), cap);
        let policy = RetryPolicy::builder().attempts(attempts).quick_retries(quick).backoff(backoff);
        let policy = policy.server_delay_jitter(0.0).seed(seed).build().expect("valid");
        let verdicts =
            [500, 502, 503, 504, 429].map(|status| failed(status, ""));
        let quota = failed(429, QUOTA_OF_A_SECOND);
        let asked = Duration::from_millis(1500);
        let start = crate::time::now();
        let end = start + Duration::from_millis(deadline);
        let (mut progress, mut now, mut made) = (Progress::default(), start, 0);
        for (what, took) in failures {
            made += 1;
            now += Duration::from_millis(took);
            let verdict = verdicts.get(what).unwrap_or(&quota);
            let left = end.saturating_duration_since(now);
            let decided =
                policy.settings.decide(&mut progress, &Failure::Verdict(verdict), now, Some(end), || 0);
            let Ok(again) = decided else { break };
            let _ = again.token.map(Withdrawal::spend);
            if what == 5 {
                prop_assert!(again.wait >= asked, "{:?}", again.wait);
                prop_assert!(again.wait <= asked.max(cap), "{:?}", again.wait);
            } else {
                prop_assert!(again.wait <= cap.max(QUICK.delay(quick, None, 1.0)), "{:?}", again.wait);
            }
            prop_assert!(again.wait < left, "{:?} of {:?}", again.wait, left);
            now += again.wait;
        }
        prop_assert!(made <= attempts, "{made} attempts of {attempts}");
        prop_assert!(progress.quick <= quick);
        let waited: Duration = progress.waits.iter().sum();
        prop_assert!(waited < Duration::from_millis(deadline));
    }
}

#[test]
fn a_clone_of_a_requests_progress_is_for_another_request_from_the_same_start() {
    let started = Some(crate::time::now());
    let progress = Progress { started, attempts: 3, request: 7, ..Progress::default() };
    let copy = progress.clone();
    assert_eq!((copy.started, copy.attempts, copy.request), (started, 0, 0));
}

/// How many attempts are made of a request with two minutes, each of which times out after `took`; `failures` of the
/// budget's key have gone before.
fn timeouts_of_two_minutes(took: u64, failures: u32) -> u32 {
    let policy = RetryPolicy::builder().seed(3).build().unwrap();
    let budget = policy.settings.budget.clone().unwrap();
    for _ in 0..failures {
        let _ = budget.withdraw(0, Charge::FAILURE, crate::time::now()).map(Withdrawal::spend);
    }
    let timeout = failed(504, "");
    let start = crate::time::now();
    let (end, mut now) = (start + Duration::from_secs(120), start);
    let (mut progress, mut made) = (Progress { started: Some(start), ..Progress::default() }, 0);
    loop {
        made += 1;
        now += Duration::from_secs(took).min(end.saturating_duration_since(now));
        match policy.settings.decide(&mut progress, &Failure::Verdict(&timeout), now, Some(end), || 0) {
            Ok(again) => {
                let _ = again.token.map(Withdrawal::spend);
                now += again.wait;
            }
            Err(_) => return made,
        }
    }
}

#[test]
fn an_attempt_that_has_less_time_than_the_one_that_timed_out_is_made_only_while_others_succeed() {
    assert_eq!(timeouts_of_two_minutes(85, 0), 2, "as far as is known, others succeed");
    assert_eq!(timeouts_of_two_minutes(85, 12), 1, "35 s are left, and 85 were not enough");
    let (well, not) = (timeouts_of_two_minutes(10, 0), timeouts_of_two_minutes(10, 12));
    assert!(not >= well - 1 && not >= 5, "those that have as much time are made: {not} of {well}");
}

#[test]
fn a_third_timeout_in_a_row_gets_no_attempt_that_has_less_time() {
    let policy = RetryPolicy::builder().seed(3).build().unwrap();
    let (timeout, start) = (failed(504, ""), crate::time::now());
    let end = Some(start + Duration::from_secs(120));
    let decide = |late: u64, probe: bool| {
        let now = start + Duration::from_secs(late);
        let failure = if probe { Failure::Probe(now, &timeout) } else { Failure::Verdict(&timeout) };
        let mut progress = Progress { started: Some(start), ..Progress::default() };
        let again = policy.settings.decide(&mut progress, &failure, now, end, || 0)?;
        let _ = again.token.map(Withdrawal::spend);
        Ok::<_, GaveUp>(())
    };
    let in_vain = Err(GaveUp::Deadline);
    assert_eq!([decide(61, true), decide(61, false)], [Ok(()), Ok(())], "one alone may be chance");
    assert_eq!(decide(61, false), Ok(()), "and so may two");
    assert_eq!([decide(61, true), decide(61, false)], [in_vain, in_vain], "a probe's, too");
    assert_eq!([decide(20, true), decide(20, false)], [Ok(()), Ok(())], "there is as much time again");
    policy.settings.budget.as_ref().unwrap().deposit(0, 0);
    assert_eq!(decide(61, false), Ok(()), "something was answered since");
}
