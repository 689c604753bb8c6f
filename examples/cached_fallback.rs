//! Another model where the first is down, and the last good answer where both are.

use std::collections::HashMap;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceExt};
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::{BoxError, Verdict, stack::Preset};

const URI: &str = "http://127.0.0.1/v1beta/models/gemini-3.8-flash:generateContent";
const QUESTION: &str = r#"{"contents":[{"parts":[{"text":"Hours?"}]}]}"#;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let sim =
        Simulator::builder().rule(Rule::new(Fault::overloaded()).for_model("gemini-3.8-flash")).build()?;
    let chain = ModelFallbackLayer::builder().chain("gemini-3.8-flash", ["gemini-3.5-flash-lite"]);
    let mut gemini = Preset::interactive().stack().falling_back(chain)?.service(sim.clone());
    let mut kept = HashMap::<&str, Bytes>::new();
    for is_down in [false, true] {
        if is_down {
            sim.push(Fault::overloaded())?;
        }
        let request = Request::post(URI).body(Full::<Bytes>::from(QUESTION))?;
        let fresh = match gemini.ready().await?.call(request).await {
            Ok(response) if Verdict::of(&response).is_success() => Some(response.into_body()),
            _ => None,
        };
        assert_eq!(fresh.is_some(), !is_down, "the other model answers as long as it is up");
        if let Some(body) = fresh {
            kept.insert(QUESTION, body.collect().await?.to_bytes());
        }
        assert!(String::from_utf8_lossy(&kept[QUESTION]).contains("Hours?"));
    }
    Ok(())
}
