//! What the whole stack adds to an answer's way over a loopback socket: to its first chunk, to each later one, and to a
//! whole one.
//!
//! `cargo bench --bench first_chunk` prints a table. The same client asks the same server with `GeminiStack::new()`
//! around it (watching and peeking) and without, in turns, so that a drift of the machine hits both alike. Client and
//! server share one thread, so that no wake-up of another one is in the figures.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a bench reads the real clock"
)]

use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body::Frame;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_gemini::stack::GeminiStack;

/// Of each kind, with the stack and without.
const ANSWERS: usize = 4_000;
const WARM: usize = 400;
const CHUNKS: usize = 33;

const STREAM: &str = "streamGenerateContent?alt=sse";
const UNARY: &str = "generateContent";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let base = serve().await;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
        let (mut bare, mut stacked) = (client.clone(), GeminiStack::new().layer(client));
        println!(
            "{:<28} {:>10} {:>10} {:>10} {:>10} {:>12}",
            "µs", "bare p50", "stack p50", "bare p99", "stack p99", "added at p50"
        );
        let streams = Sample::take(&mut bare, &mut stacked, &format!("{base}{STREAM}")).await;
        streams.row("to the first chunk", |took| took.first);
        println!("{:<28} {:>56}", "", "promised: under 100 µs at the median");
        streams.row("each later chunk", |took| took.rest / (CHUNKS as u32 - 1));
        let unary = Sample::take(&mut bare, &mut stacked, &format!("{base}{UNARY}")).await;
        unary.row("a whole answer", |took| took.first + took.rest);
    });
}

// ===== the two sides of the comparison =====

/// From the call to the first chunk, and from there to the end.
#[derive(Clone, Copy)]
struct Took {
    first: Duration,
    rest: Duration,
}

struct Sample {
    bare: Vec<Took>,
    stacked: Vec<Took>,
}

impl Sample {
    async fn take<A, B, X, Y>(bare: &mut A, stacked: &mut B, uri: &str) -> Self
    where
        A: Service<Request<Full<Bytes>>, Response = Response<X>, Error: Into<BoxError>>,
        B: Service<Request<Full<Bytes>>, Response = Response<Y>, Error: Into<BoxError>>,
        X: Body<Data = Bytes, Error: Into<BoxError>>,
        Y: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let mut sample = Self { bare: Vec::new(), stacked: Vec::new() };
        for n in 0..WARM + ANSWERS {
            // Who goes first changes, too.
            let (mut without, mut with) = (None, None);
            if n % 2 == 0 {
                without = Some(ask(bare, uri).await);
            }
            with.replace(ask(stacked, uri).await);
            if n % 2 == 1 {
                without = Some(ask(bare, uri).await);
            }
            if n >= WARM {
                sample.bare.extend(without);
                sample.stacked.extend(with);
            }
        }
        sample
    }

    fn row(&self, name: &str, of: impl Fn(&Took) -> Duration) {
        let sorted = |tooks: &[Took]| {
            let mut times: Vec<_> = tooks.iter().map(|took| of(took).as_secs_f64() * 1e6).collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let (bare, stacked) = (sorted(&self.bare), sorted(&self.stacked));
        let at = |times: &[f64], share: f64| times[(times.len() as f64 * share) as usize];
        println!(
            "{name:<28} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {:>12.2}",
            at(&bare, 0.5),
            at(&stacked, 0.5),
            at(&bare, 0.99),
            at(&stacked, 0.99),
            at(&stacked, 0.5) - at(&bare, 0.5),
        );
    }
}

async fn ask<S, B>(service: &mut S, uri: &str) -> Took
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>>,
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let request = Request::post(uri)
        .header("content-type", "application/json")
        .header("x-goog-api-key", "one that is not real")
        .body(Full::from(PROMPT))
        .unwrap();
    let start = Instant::now();
    let service = service.ready().await.map_err(Into::into).unwrap();
    let response = service.call(request).await.map_err(Into::into).unwrap();
    let mut body = pin!(response.into_body());
    let mut first = None;
    while let Some(frame) = body.frame().await {
        assert!(frame.map_err(Into::into).unwrap().is_data());
        first.get_or_insert_with(|| start.elapsed());
    }
    let first = first.unwrap();
    Took { first, rest: start.elapsed() - first }
}

const PROMPT: &str =
    r#"{"contents":[{"role":"user","parts":[{"text":"Why is the sky blue, and why not always?"}]}]}"#;

// ===== the server =====

async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1beta/models/gemini-9-flash:", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let connection = hyper::server::conn::http1::Builder::new();
            let service = hyper::service::service_fn(answer);
            tokio::spawn(async move { connection.serve_connection(TokioIo::new(socket), service).await });
        }
    });
    base
}

async fn answer(
    request: Request<hyper::body::Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = BoxError>>, hyper::Error> {
    let streams = request.uri().path().ends_with("streamGenerateContent");
    request.into_body().collect().await?;
    let response = Response::builder();
    Ok(if streams {
        let frames =
            futures_util::stream::iter((0..CHUNKS).map(|n| Ok::<_, Infallible>(Frame::data(event(n)))));
        let response = response.header("content-type", "text/event-stream");
        response.body(Either::Left(StreamBody::new(frames))).unwrap()
    } else {
        let response = response.header("content-type", "application/json");
        response.body(Either::Right(Full::from(json(0, 500)))).unwrap()
    })
}

fn event(n: usize) -> Bytes {
    format!("data: {}\r\n\r\n", json(n, 120)).into()
}

fn json(n: usize, bytes: usize) -> String {
    let words = "The sky looks blue because air scatters short waves more than long ones. ";
    let text: String = words.chars().cycle().skip(n).take(bytes).collect();
    format!(
        r#"{{"candidates": [{{"content": {{"parts": [{{"text": "{text}"}}],"role": "model"}},"finishReason": "STOP","index": 0}}],"usageMetadata": {{"promptTokenCount": 11,"candidatesTokenCount": 37,"totalTokenCount": 48,"promptTokensDetails": [{{"modality": "TEXT","tokenCount": 11}}]}},"modelVersion": "gemini-9-flash","responseId": "Zm9yIHRoZSBiZW5jaCBvbmx5"}}"#
    )
}
