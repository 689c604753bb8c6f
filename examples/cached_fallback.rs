//! Another model where the first is down, and the last good answer where both are.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceExt};
use tower_gemini::coalesce::whole_body;
use tower_gemini::fallback::{AnsweredBy, ModelFallbackLayer};
use tower_gemini::last_good::{LastGood, LastGoodLayer};
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::{BoxError, stack::Preset};

const URI: &str = "http://127.0.0.1/v1beta/models/gemini-3.8-flash:generateContent";
const QUESTION: &str = r#"{"contents":[{"parts":[{"text":"Hours?"}]}]}"#;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let sim =
        Simulator::builder().rule(Rule::new(Fault::overloaded()).for_model("gemini-3.8-flash")).build()?;
    let chain = ModelFallbackLayer::builder().chain("gemini-3.8-flash", ["gemini-3.5-flash-lite"]);
    // The same question has the same answer: the key is the whole body.
    let last_good = LastGoodLayer::builder(whole_body::<Full<Bytes>>).build()?;
    let stack = Preset::interactive().stack().falling_back(chain)?.last_good(last_good);
    let mut gemini = stack.service(sim.clone());
    for is_down in [false, true] {
        if is_down {
            sim.push(Fault::overloaded())?;
        }
        let request = Request::post(URI).body(Full::<Bytes>::from(QUESTION))?;
        let response = gemini.ready().await?.call(request).await?;
        let is_old = LastGood::of(&response).is_some();
        assert_eq!((is_old, AnsweredBy::of(&response).is_some()), (is_down, !is_down));
        let answer = response.into_body().collect().await?.to_bytes();
        assert!(String::from_utf8_lossy(&answer).contains("Hours?"));
    }
    Ok(())
}
