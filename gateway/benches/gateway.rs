//! What the gateway costs, beside a plain pass-through of axum and reqwest in the same run.
//!
//! ```text
//! cargo bench -p tower-gemini-gateway
//! ```
//!
//! The upstream, the plain proxy, the gateway (all layers on, its log into nothing) and the clients are processes of their own
//! on one machine, so they share its cores: what counts is the ratio, not the figure. Both proxies are measured in turns, in
//! short rounds, and the medians are compared. Memory and processor time are read from `/proc`, where there is one. Takes
//! about three minutes.
//!
//! The gateway's variables count: `GATEWAY_FALLBACK=gemini-3.5-flash-lite=gemini-3.8-flash` keeps a copy of each request,
//! `GATEWAY_TOKENS_PER_MINUTE=1000000000` counts its tokens.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_secs(2);
/// One at a time, for the latency.
const SINGLE: usize = 2_000;
const STREAMS: usize = 1_000;
const MANY: usize = 200_000;

const QUESTION: &str =
    r#"{"contents":[{"role":"user","parts":[{"text":"Why is the sky blue? Answer in one sentence."}]}]}"#;
const ANSWER: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Because air scatters blue light more than red."}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":12,"candidatesTokenCount":10,"totalTokenCount":22},"modelVersion":"gemini-3.5-flash-lite"}"#;
const EVENT: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"word \"}],\"role\":\"model\"},\"index\":0}]}\r\n\r\n";
const UNARY: &str = "/v1beta/models/gemini-3.5-flash-lite:generateContent";
const SLOW: &str = "/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    // Cargo passes `--bench`; the roles are this program's own.
    let role = args.iter().position(|arg| arg == "--role").map(|at| (&*args[at + 1], args.get(at + 2)));
    let threads = |n| tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build();
    match role {
        Some(("upstream", _)) => {
            threads(1).expect("a runtime").block_on(serve(Router::new().fallback(upstream)));
        }
        Some(("plain", Some(url))) => {
            let (url, client) =
                (url.clone(), reqwest::Client::builder().no_proxy().build().expect("a client"));
            let pass = move |request: Request<Body>| pass(client.clone(), url.clone(), request);
            threads(2).expect("a runtime").block_on(serve(Router::new().fallback(pass)));
        }
        Some(("gateway", Some(url))) => {
            let args = ["--listen", "127.0.0.1:0", "--admin", "off", "--upstream", url].map(OsString::from);
            let (out, mut err) = (Box::new(std::io::stdout()), std::io::stderr());
            let never = std::future::pending();
            let env = |name: &str| std::env::var_os(name);
            threads(2)
                .expect("a runtime")
                .block_on(tower_gemini_gateway::run(args, env, out, &mut err, never));
        }
        _ => threads(1).expect("a runtime").block_on(measure()),
    }
}

// ===== servers =====

async fn serve(router: Router) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    eprintln!("here: http://{}", listener.local_addr().expect("an address"));
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| router.clone().oneshot(request));
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn upstream(request: Request<Body>) -> Response<Body> {
    let streamed = request.uri().query().is_some();
    let _ = request.into_body().collect().await;
    if !streamed {
        let response = Response::builder().header(header::CONTENT_TYPE, "application/json; charset=UTF-8");
        return response.body(Body::from(ANSWER)).expect("a response");
    }
    let events = stream::unfold(0, async |n| {
        if n > 0 {
            sleep(Duration::from_secs(1)).await;
        }
        (n < 20).then_some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(EVENT.as_bytes()))), n + 1))
    });
    let body = http_body_util::StreamBody::new(Box::pin(events));
    Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .body(Body::new(body))
        .expect("a response")
}

/// What people write: nothing is looked at.
async fn pass(client: reqwest::Client, url: String, request: Request<Body>) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.headers.remove(header::HOST);
    let sent = client
        .request(head.method, format!("{url}{path}"))
        .headers(head.headers)
        .body(reqwest::Body::wrap_stream(body.into_data_stream()))
        .send();
    match sent.await {
        Ok(response) => {
            let mut response = Response::from(response).map(Body::new);
            response.headers_mut().remove(header::TRANSFER_ENCODING);
            response
        }
        Err(_) => Response::builder().status(502).body(Body::empty()).expect("a response"),
    }
}

// ===== clients =====

type Sender = SendRequest<Full<Bytes>>;

async fn connect(addr: &str) -> Sender {
    let stream = TcpStream::connect(addr).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut Sender, target: &str) -> Response<Incoming> {
    sender.ready().await.expect("it is kept");
    let request = Request::post(target)
        .header(header::HOST, "gateway")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "bench")
        .header("x-goog-api-key", "a-key-of-nobody")
        .body(Full::from(QUESTION))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    response
}

async fn unary(sender: &mut Sender) {
    let body = ask(sender, UNARY).await.into_body().collect().await.expect("a whole body");
    assert_eq!(body.to_bytes().len(), ANSWER.len());
}

/// Requests a second over all connections.
async fn rate(addr: &str) -> f64 {
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut sender = connect(addr).await;
        tasks.spawn(async move {
            let mut count = 0_u32;
            while Instant::now() - began < ROUND {
                unary(&mut sender).await;
                count += 1;
            }
            count
        });
    }
    let count: u32 = tasks.join_all().await.into_iter().sum();
    f64::from(count) / (Instant::now() - began).as_secs_f64()
}

/// Microseconds at the median, one request at a time.
async fn latency(addr: &str) -> f64 {
    let mut sender = connect(addr).await;
    let mut times = Vec::with_capacity(SINGLE);
    for _ in 0..SINGLE {
        let began = Instant::now();
        unary(&mut sender).await;
        times.push((Instant::now() - began).as_secs_f64() * 1e6);
    }
    median(times)
}

async fn many(addr: &str, count: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut sender = connect(addr).await;
        tasks.spawn(async move {
            for _ in 0..count / CONNECTIONS {
                unary(&mut sender).await;
            }
        });
    }
    tasks.join_all().await;
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

// ===== the run =====

struct Process {
    child: Child,
    url: String,
    addr: String,
}

impl Process {
    fn start(role: &str, upstream: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--role", role, upstream])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let err = child.stderr.take().expect("it is piped");
        BufReader::new(err).read_line(&mut line).expect("a line");
        let url = line.split_whitespace().nth(1).expect("an address").to_owned();
        let addr = url.strip_prefix("http://").expect("http").to_owned();
        Self { child, url, addr }
    }

    /// Seconds of processor time, its own and the system's for it; NaN where the system does not say.
    fn processor(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // Behind the name, which stands in brackets: 11 fields, then the two, in hundredths.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).flat_map(str::parse).collect();
        if ticks.len() == 2 { (ticks[0] + ticks[1]) / 100.0 } else { f64::NAN }
    }

    /// Resident memory in MiB; NaN where the system does not say.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or(f64::NAN) / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn measure() {
    let upstream = Process::start("upstream", "");
    let plain = Process::start("plain", &upstream.url);
    let gate = Process::start("gateway", &upstream.url);
    for process in [&plain, &gate] {
        many(&process.addr, 20_000).await;
    }

    let mut each = Vec::new();
    for process in [&plain, &gate, &gate, &plain] {
        let before = process.processor();
        many(&process.addr, 40_000).await;
        each.push((process.processor() - before) / 40_000.0 * 1e6);
    }
    println!(
        "processor time of a request, {CONNECTIONS} connections: plain {:.1} us, gateway {:.1} us",
        (each[0] + each[3]) / 2.0,
        (each[1] + each[2]) / 2.0
    );

    let (mut rates, mut ratios) = ((Vec::new(), Vec::new()), Vec::new());
    let (mut times, mut more) = ((Vec::new(), Vec::new()), Vec::new());
    for round in 0..ROUNDS {
        // Each is first every other time.
        let (first, second) = if round % 2 == 0 { (&plain, &gate) } else { (&gate, &plain) };
        let of = |a: f64, b: f64| if round % 2 == 0 { (a, b) } else { (b, a) };
        let (p, g) = of(rate(&first.addr).await, rate(&second.addr).await);
        ratios.push(g / p);
        rates.0.push(p);
        rates.1.push(g);
        let (p, g) = of(latency(&first.addr).await, latency(&second.addr).await);
        more.push(g - p);
        times.0.push(p);
        times.1.push(g);
    }
    println!(
        "requests/s, {CONNECTIONS} connections: plain {:.0}, gateway {:.0}",
        median(rates.0),
        median(rates.1)
    );
    println!("  ratio of each pair of rounds, median: {:.3}", median(ratios));
    println!(
        "median latency, one at a time: plain {:.0} us, gateway {:.0} us",
        median(times.0),
        median(times.1)
    );
    println!("  difference of each pair, median: {:+.0} us", median(more));

    let before = gate.memory();
    for part in 1..=4 {
        many(&gate.addr, MANY / 4).await;
        println!(
            "memory after {:6} requests: {:.1} MiB (before {before:.1})",
            part * MANY / 4,
            gate.memory()
        );
    }

    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let mut sender = connect(&gate.addr).await;
        streams.spawn(async move {
            let mut body = ask(&mut sender, SLOW).await.into_body();
            let mut frames = 0;
            while let Some(frame) = body.frame().await {
                frame.expect("a whole stream");
                frames += 1;
            }
            frames
        });
    }
    sleep(Duration::from_secs(10)).await;
    println!("memory with {STREAMS} slow streams: {:.1} MiB", gate.memory());
    let frames: usize = streams.join_all().await.into_iter().sum();
    println!("  all of them ended, {frames} events in all");
}
