//! async-openai takes a service: the stack is that, around its requests.

use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequestArgs};
use futures_util::StreamExt;
use tower_gemini::BoxError;
use tower_gemini::reqwest::ReqwestService;
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::GeminiStack;
use tower_gemini_adapters::async_openai::StackService;
use tower_gemini_integrations::{MODEL, assert_absorbed, bad_day};

fn client(base_url: &str) -> async_openai::Client<OpenAIConfig> {
    let stack = GeminiStack::new().service(ReqwestService::new(reqwest::Client::new()));
    let config = OpenAIConfig::new().with_api_key("key").with_api_base(format!("{base_url}/v1beta/openai"));
    async_openai::Client::with_config(config).with_http_service(StackService::new(stack))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (sim, server) = bad_day().await?;
    let openai = client(&server.base_url());

    let ask = |text: &str| -> Result<_, BoxError> {
        let message = ChatCompletionRequestUserMessageArgs::default().content(text).build()?;
        Ok(CreateChatCompletionRequestArgs::default().model(MODEL).messages([message.into()]).build()?)
    };
    let whole = openai.chat().create(ask("Hello")?).await?;
    let mut stream = openai.chat().create_stream(ask("Hello again")?).await?;
    let mut streamed = String::new();
    while let Some(part) = stream.next().await {
        streamed += part?.choices.first().and_then(|choice| choice.delta.content.as_deref()).unwrap_or_default();
    }
    assert_absorbed(&sim, whole.choices[0].message.content.as_deref().unwrap_or_default(), &streamed);

    // An error that no retry helps arrives as one that async-openai can read, out of Google's array.
    let sim = Simulator::builder().rule(Rule::new(Fault::permission_denied())).build()?;
    let server = sim.serve().await?;
    match client(&server.base_url()).chat().create(ask("Hello")?).await {
        Err(OpenAIError::ApiError(error)) => {
            assert_eq!(error.api_error.code.as_deref(), Some("PERMISSION_DENIED"));
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}
