//! Many streams at once, from a server that goes on only when its client has what it sent.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tower_gemini::verdict::Outcome;

use super::world::{both, circuit, limit, quota, stack, within};

const STREAMS: usize = 64;
const CHUNKS: usize = 6;

fn event(stream: usize, chunk: usize) -> Bytes {
    let end = if chunk + 1 == CHUNKS { r#","finishReason":"STOP""# } else { "" };
    let text = format!(r#"{{"text":"stream {stream}, chunk {chunk}"}}"#);
    let usage = r#""usageMetadata":{"promptTokenCount":3}"#;
    format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{text}]}}{end}}}],{usage}}}\r\n\r\n").into()
}

/// What server and clients tell each other besides HTTP.
struct Wires {
    /// How many chunks the client of a stream has in its hands.
    held: Vec<Semaphore>,
    /// Each stream begins when all have been asked for.
    all: Barrier,
    calls: AtomicUsize,
}

async fn serve(wires: Arc<Wires>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let wires = Arc::clone(&wires);
            let service = hyper::service::service_fn(move |request| answer(Arc::clone(&wires), request));
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(async move { connection.serve_connection(TokioIo::new(socket), service).await });
        }
    });
    base
}

async fn answer(
    wires: Arc<Wires>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    let number: usize = request.headers()["x-stream"].to_str().unwrap().parse().unwrap();
    request.into_body().collect().await?;
    wires.calls.fetch_add(1, Ordering::Relaxed);
    wires.all.wait().await;
    let chunks = stream::iter(0..CHUNKS).then(move |chunk| {
        let wires = Arc::clone(&wires);
        async move {
            if chunk > 0 {
                // Not before the client has the chunk before this one.
                wires.held[number].acquire().await.unwrap().forget();
            }
            Ok(Frame::data(event(number, chunk)))
        }
    });
    let body = StreamBody::new(Box::pin(chunks));
    Ok(Response::builder().header("content-type", "text/event-stream").body(body).unwrap())
}

#[tokio::test]
async fn sixty_four_streams_at_once_get_each_chunk_before_the_next_is_written() {
    for client in 0..2 {
        let wires = Arc::new(Wires {
            held: (0..STREAMS).map(|_| Semaphore::new(0)).collect(),
            all: Barrier::new(STREAMS),
            calls: AtomicUsize::new(0),
        });
        let base = serve(Arc::clone(&wires)).await;
        let stack = stack();
        let gemini = both(&stack, &base)[client].clone();
        let name = gemini.name;
        let mut readers = JoinSet::new();
        for number in 0..STREAMS {
            let (gemini, wires) = (gemini.clone(), Arc::clone(&wires));
            readers.spawn(async move {
                let mut answer = gemini.send_number(number).await.unwrap();
                for chunk in 0..CHUNKS {
                    // A chunk that is held back, or that waits to be merged with the next, never comes.
                    let came = within(answer.chunks.next()).await.unwrap().unwrap();
                    assert_eq!(came, event(number, chunk));
                    wires.held[number].add_permits(1);
                }
                assert!(within(answer.chunks.next()).await.is_none());
                assert_eq!(answer.verdict.outcome(), Some(Outcome::Complete));
            });
        }
        while let Some(read) = within(readers.join_next()).await {
            read.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_eq!(wires.calls.load(Ordering::Relaxed), STREAMS, "{name}");
        let (quota, limit, circuit) = (quota(&stack), limit(&stack), circuit(&stack));
        assert_eq!((quota.in_flight, quota.queued, quota.settled), (0, 0, STREAMS as u64), "{name}");
        assert_eq!(quota.tokens, 3 * STREAMS as u64, "{name}: as the answers said");
        assert_eq!((limit.in_flight(), limit.queued(), limit.cuts()), (0, 0, 0), "{name}");
        assert_eq!(circuit.failures, 0, "{name}");
    }
}
