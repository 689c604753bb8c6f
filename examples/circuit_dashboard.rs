//! A circuit that is seen opening and closing, as a row of a dashboard. (Events and metrics tell the same: `observe`.)

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::ServiceExt;
use tower_gemini::BoxError;
use tower_gemini::circuit_breaker::CircuitState::{Closed, Open};
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::Preset;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let outage = Rule::new(Fault::unavailable()).between(Duration::ZERO..Duration::from_secs(10));
    let stack = Preset::new().stack();
    let circuits = stack.get_circuit_breaker().handle();
    let gemini = stack.service(Simulator::builder().rule(outage).build()?);

    let calls = (0..40).map(|_| {
        let uri = "http://127.0.0.1/v1beta/models/gemini-3.5-flash-lite:generateContent";
        gemini.clone().oneshot(Request::post(uri).body(Full::<Bytes>::default()).expect("a request"))
    });
    let calls = tokio::spawn(futures_util::future::join_all(calls));
    let mut was_open = false;
    for second in 1..=40 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for row in circuits.all() {
            let failed = format!("{} of {} calls failed", row.failures, row.calls);
            was_open |= row.state == Open;
            println!("{second:>2} s  {}  {:?}  {failed}", row.key, row.state);
        }
    }
    assert!(calls.await?.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 200)));
    assert!(was_open && circuits.all().iter().all(|row| row.state == Closed));
    Ok(())
}
