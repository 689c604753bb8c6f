//! async-openai takes a service: the stack is that, around its requests.

use async_openai::{Client, config::OpenAIConfig, middleware::HttpRequestFactory};
use async_openai::types::chat::{ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequestArgs};
use futures_util::StreamExt;
use tower_gemini::BoxError;
use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
use tower_gemini::stack::GeminiStack;
use tower_gemini_integrations::{MODEL, assert_absorbed, bad_day};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (sim, server) = bad_day().await?;

    let gemini = ReqwestClient::new(GeminiStack::new().service(ReqwestService::new(reqwest::Client::new())));
    let service = tower::service_fn(move |request: HttpRequestFactory| {
        let gemini = gemini.clone();
        async move { gemini.execute(request.build().await?).await }
    });
    let config = OpenAIConfig::new().with_api_key("key").with_api_base(server.base_url() + "/v1beta/openai");
    let client = Client::with_config(config).with_http_service(service);

    let ask = |text: &str| -> Result<_, BoxError> {
        let message = ChatCompletionRequestUserMessageArgs::default().content(text).build()?;
        Ok(CreateChatCompletionRequestArgs::default().model(MODEL).messages([message.into()]).build()?)
    };
    let whole = client.chat().create(ask("Hello")?).await?;
    let mut stream = client.chat().create_stream(ask("Hello again")?).await?;
    let mut streamed = String::new();
    while let Some(part) = stream.next().await {
        streamed += part?.choices.first().and_then(|choice| choice.delta.content.as_deref()).unwrap_or_default();
    }
    assert_absorbed(&sim, whole.choices[0].message.content.as_deref().unwrap_or_default(), &streamed);
    Ok(())
}
