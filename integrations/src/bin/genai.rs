//! genai takes an endpoint: its requests go through a `LocalProxy`.

use futures_util::StreamExt;
use genai::chat::{ChatMessage, ChatRequest, ChatStreamEvent};
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ServiceTarget};
use tower_gemini::BoxError;
use tower_gemini::proxy::LocalProxy;
use tower_gemini::reqwest::ReqwestService;
use tower_gemini::stack::GeminiStack;
use tower_gemini_integrations::{MODEL, assert_absorbed, bad_day};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (sim, server) = bad_day().await?;

    let stack = GeminiStack::new().service(ReqwestService::new(reqwest::Client::new()));
    let proxy = LocalProxy::serve(stack, &server.base_url()).await?;
    let base = format!("{}/v1beta/", proxy.base_url());
    let through = move |target: ServiceTarget| -> genai::resolver::Result<ServiceTarget> {
        Ok(ServiceTarget { endpoint: Endpoint::from_owned(base.as_str()), auth: AuthData::from_single("key"), ..target })
    };
    let client = Client::builder().with_service_target_resolver_fn(through).build()?;

    let ask = |text: &str| ChatRequest::new(vec![ChatMessage::user(text)]);
    let whole = client.exec_chat(MODEL, ask("Hello"), None).await?;
    let mut stream = client.exec_chat_stream(MODEL, ask("Hello again"), None).await?.stream;
    let mut streamed = String::new();
    while let Some(event) = stream.next().await {
        if let ChatStreamEvent::Chunk(chunk) = event? {
            streamed += &chunk.content;
        }
    }
    assert_absorbed(&sim, whole.first_text().unwrap_or_default(), &streamed);
    Ok(())
}
