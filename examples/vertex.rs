//! Vertex AI: another path, and an access token that is set for each attempt, because it may expire while one waits.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Request, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt};
use tower_gemini::retry::Attempts;
use tower_gemini::stack::GeminiStack;
use tower_gemini::{BoxError, Surface, Target};

static TOKENS: AtomicU32 = AtomicU32::new(0);

/// A fresh token, say from `google-cloud-auth`.
fn token() -> String {
    format!("Bearer token-{}", TOKENS.fetch_add(1, Ordering::Relaxed) + 1)
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    // In place of the client: it takes the second token only.
    let client = tower::service_fn(async |request: Request<Full<Bytes>>| {
        let good = request.headers()[AUTHORIZATION] == "Bearer token-2";
        let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        http::Response::builder().status(status).body(Full::<Bytes>::default())
    });
    let signed = ServiceBuilder::new()
        .map_request(|mut request: Request<Full<Bytes>>| {
            request
                .headers_mut()
                .insert(AUTHORIZATION, token().parse().expect("a token is a header's value"));
            request
        })
        .service(client);
    let gemini = GeminiStack::new().service(signed);

    let path =
        "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-3.5-flash-lite:generateContent";
    let request =
        Request::post(format!("https://us-central1-aiplatform.googleapis.com{path}")).body(Full::default())?;
    assert_eq!(Target::of(&request).surface(), Surface::Vertex);
    let response = gemini.oneshot(request).await?;
    assert_eq!((response.status(), Attempts::of(&response).made()), (StatusCode::OK, 2));
    Ok(())
}
