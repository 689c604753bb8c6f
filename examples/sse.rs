//! The texts of a streamed answer, event by event, wherever its frames are cut.

use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;
use tower_gemini::BoxError;
use tower_gemini::sim::Simulator;
use tower_gemini::stack::GeminiStack;

/// Calls `each` with the JSON of every event. Gemini writes an event as one `data:` line and an empty one.
async fn events<B>(body: B, mut each: impl FnMut(serde_json::Value)) -> Result<(), BoxError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (mut body, mut rest) = (std::pin::pin!(body), Vec::new());
    while let Some(frame) = body.frame().await {
        rest.extend(frame.map_err(Into::into)?.into_data().unwrap_or_default());
        // Cut at ends of lines only: a frame may end in the midst of a letter.
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Some(data) = line.strip_prefix(b"data:") {
                each(serde_json::from_slice(data)?);
            }
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let gemini = GeminiStack::new().service(Simulator::builder().answer("The sky is blü.").build()?);
    let uri = "http://127.0.0.1/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse";
    let request = Request::post(uri).body(Full::from(r#"{"contents":[{"parts":[{"text":"Why?"}]}]}"#))?;
    let (mut text, mut count) = (String::new(), 0);
    events(gemini.oneshot(request).await?.into_body(), |event| {
        count += 1;
        text += event["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap_or_default();
    })
    .await?;
    assert_eq!((&*text, count), ("The sky is blü.", 5));
    Ok(())
}
