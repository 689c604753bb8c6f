//! Over the simulator.

use http::Request;
use http_body_util::BodyExt;
use tower::{ServiceBuilder, ServiceExt};
use tower_gemini::Kind;
use tower_gemini::classify::{ClassifyLayer, StrictBodyLayer};
use tower_gemini::retry::{Attempts, RetryLayer};
use tower_gemini::sim::{Fault, Rule, Simulator};

use crate::support::Body;

#[tokio::test(start_paused = true)]
async fn a_bad_beginning_at_the_simulator_is_absorbed() {
    for sse in [true, false] {
        let sim = Simulator::builder()
            .rule(Rule::new(Fault::overloaded().in_stream_after(0)).on_call(1))
            .rule(Rule::new(Fault::overloaded().as_stream_tail_after(0)).on_call(2))
            .rule(Rule::new(Fault::reset_after_bytes(10)).on_call(3))
            .build()
            .unwrap();
        let service = ServiceBuilder::new()
            .layer(StrictBodyLayer::new())
            .layer(RetryLayer::default())
            .layer(ClassifyLayer::new().watch())
            .service(sim.clone());
        let query = if sse { "?alt=sse" } else { "" };
        let uri = format!("/v1beta/models/gemini-3.5-flash:streamGenerateContent{query}");
        let request =
            Request::post(uri).body(Body::from(r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#)).unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(Attempts::of(&response).kinds(), [Kind::Overloaded, Kind::Overloaded, Kind::Transport]);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&text).contains("STOP"));
        assert_eq!(sim.calls().len(), 4);
    }
}
