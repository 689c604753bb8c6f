//! Where the body names the model, and bodies that can be sent once only.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use tower::{ServiceBuilder, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::request::ModelHint;
use tower_gemini::retry::{ReplayBody, ReplayLayer, RetryLayer, RetryPolicy};

use super::world::{Body, Notes, Server, chain, run, told};
use crate::support::{Answer, error};

fn busy() -> Answer {
    error(503, "UNAVAILABLE", "The model is overloaded.")
}

fn post(path: &str, body: &str) -> Request<Body> {
    Request::post(format!("http://127.0.0.1{path}")).body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn a_body_that_names_the_model_is_rewritten_in_that_name_alone() {
    for (path, before, after) in [
        (
            "/v1beta/openai/chat/completions",
            r#"{ "messages":[{"content":"pro"}], "model": "pro" , "t": 1.50}"#,
            r#"{ "messages":[{"content":"pro"}], "model": "flash" , "t": 1.50}"#,
        ),
        (
            "/v1beta/interactions",
            r#"{"model":"models/pro","input":"hi"}"#,
            r#"{"model":"models/flash","input":"hi"}"#,
        ),
        (
            "/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
            r#"{"model":"google/pro"}"#,
            r#"{"model":"google/flash"}"#,
        ),
        (
            "/v1internal:generateContent",
            r#"{"model":"pro","request":{"model":"x"}}"#,
            r#"{"model":"flash","request":{"model":"x"}}"#,
        ),
    ] {
        let server = Server::new([("pro", busy())]);
        let mut request = post(path, before);
        request.headers_mut().insert(header::CONTENT_LENGTH, before.len().into());
        let answered = run(chain(), &server, request).await.unwrap();
        assert_eq!(answered, (200, Some("flash".into())), "{path}");
        let seen = server.seen();
        assert_eq!((&*seen[0].body, &*seen[1].body), (before, after));
        assert!(seen.iter().all(|call| call.uri.ends_with(path)));
        assert_eq!(seen[1].headers[header::CONTENT_LENGTH], after.len().to_string());
        // What the layers inside keep their state by.
        assert_eq!((seen[0].hint.as_deref(), seen[1].hint.as_deref()), (Some("pro"), Some("flash")));
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_rewritten_is_sent_once_and_an_event_says_so() {
    let path = "/v1beta/openai/chat/completions";
    for (hint, body, told) in [
        // Nobody knows the model, so nobody knows of a chain.
        (None, r#"{"messages":[]}"#, &[][..]),
        (None, r#"{"model":"other"}"#, &[]),
        (None, "not JSON", &[]),
        (Some("other"), r#"{"model":"pro"}"#, &[]),
        // The hint and the body disagree.
        (
            Some("pro"),
            r#"{"model":"other"}"#,
            &["pro -> nobody, the request cannot be rewritten for another model: overloaded"],
        ),
        (
            Some("pro"),
            "not JSON",
            &["pro -> nobody, the request cannot be rewritten for another model: overloaded"],
        ),
    ] {
        let notes = Arc::new(Notes::default());
        let server = Server::new([("pro", busy()), ("other", busy()), ("?", busy())]);
        let mut request = post(path, body);
        if let Some(hint) = hint {
            request.extensions_mut().insert(ModelHint::new(hint));
        }
        let (status, by) = run(chain().observer(notes.clone()), &server, request).await.unwrap();
        assert_eq!((status, by, server.seen().len()), (503, None, 1), "{body}");
        assert_eq!(notes.all(), told, "{body}");
    }
}

#[tokio::test]
async fn a_hint_follows_the_model_in_the_path() {
    let server = Server::new([("pro", busy())]);
    let mut request = super::world::ask("pro");
    request.extensions_mut().insert(ModelHint::new("pro"));
    run(chain(), &server, request).await.unwrap();
    let hints: Vec<_> = server.seen().into_iter().map(|call| call.hint.unwrap()).collect();
    assert_eq!(hints, ["pro", "flash"]);
}

// ===== streamed bodies =====

/// A body of these pieces that cannot be cloned.
fn stream(
    pieces: &'static [&'static str],
) -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send> {
    let frames = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
    StreamBody::new(futures_util::stream::iter(frames))
}

/// Through a replay of so many bytes, the fallback, retry and classifier.
async fn streamed(
    max_bytes: usize,
    server: &Server,
    notes: &Arc<Notes>,
    path: &str,
    pieces: &'static [&'static str],
) -> Result<(u16, Option<String>), BoxError> {
    let stack = ServiceBuilder::new()
        .layer(ReplayLayer::new().max_bytes(max_bytes))
        .layer(chain().observer(notes.clone()).build().unwrap())
        .layer(RetryLayer::new(RetryPolicy::builder().attempts(4).without_budget().build().unwrap()))
        .layer(ClassifyLayer::new())
        .service(server.service::<ReplayBody<_>>());
    told(stack.oneshot(Request::post(format!("http://127.0.0.1{path}")).body(stream(pieces)).unwrap()).await)
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_arrives_whole_at_every_model() {
    let (notes, server) = (Arc::new(Notes::default()), Server::new([("pro", busy()), ("flash", busy())]));
    let path = "/v1beta/models/pro:generateContent";
    let answered = streamed(1000, &server, &notes, path, &["{\"contents\":", "[]}"]).await.unwrap();
    assert_eq!(answered, (200, Some("lite".into())));
    assert_eq!(server.models(), ["pro", "flash", "lite"], "4 attempts, one kept for each that comes after");
    assert!(server.seen().iter().all(|call| call.body == "{\"contents\":[]}"));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_that_names_the_model_is_read_once_it_was_sent() {
    let (notes, server) = (Arc::new(Notes::default()), Server::new([("pro", busy()), ("flash", busy())]));
    let path = "/v1beta/openai/chat/completions";
    let answered = streamed(1000, &server, &notes, path, &["{\"model\":", "\"pro\"}"]).await.unwrap();
    assert_eq!(answered, (200, Some("lite".into())));
    // Nobody knew of the chain at first, so the first model had all four attempts.
    assert_eq!(server.models(), ["pro", "pro", "pro", "pro", "flash", "lite"]);
    assert_eq!(server.seen()[5].body, r#"{"model":"lite"}"#);
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_bytes_at_hand_is_read_before_it_is_sent() {
    let server = Server::new([("pro", busy()), ("flash", busy())]);
    let stack = ServiceBuilder::new()
        .layer(chain().build().unwrap())
        .layer(RetryLayer::new(RetryPolicy::builder().attempts(4).without_budget().build().unwrap()))
        .layer(ClassifyLayer::new())
        .service(server.service::<ReplayBody<Full<Bytes>>>());
    let body = ReplayBody::from_bytes(r#"{"model":"pro"}"#.into());
    let mut request = Request::post("http://127.0.0.1/v1beta/openai/chat/completions").body(body).unwrap();
    let replay = request.body().replay();
    request.extensions_mut().insert(replay);
    assert_eq!(told(stack.oneshot(request).await).unwrap(), (200, Some("lite".into())));
    assert_eq!(server.models(), ["pro", "flash", "lite"], "the chain was known from the start");
    assert_eq!(server.seen()[2].body, r#"{"model":"lite"}"#);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_that_was_too_large_to_keep_falls_back_no_more() {
    let server = Server::new([("pro", busy())]);
    for (path, pieces, note) in [
        (
            "/v1beta/models/pro:generateContent",
            &["{\"contents\":", "[]}"][..],
            "pro -> nobody, the request's body is gone: overloaded",
        ),
        (
            "/v1beta/openai/chat/completions",
            &["{\"model\":", "\"pro\"}"],
            "? -> nobody, the request cannot be rewritten for another model: overloaded",
        ),
    ] {
        let notes = Arc::new(Notes::default());
        assert_eq!(streamed(3, &server, &notes, path, pieces).await.unwrap(), (503, None));
        assert_eq!(notes.all(), [note]);
    }
}
