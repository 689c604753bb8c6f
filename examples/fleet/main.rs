//! Several services, one quota: each sends as fast as it may, and together they keep the limit.
//!
//! ```text
//! redis-server --port 7379 --save "" --daemonize yes
//! cargo run --example fleet --features redis -- redis://127.0.0.1:7379
//! ```
//!
//! Start it in several terminals to see it among processes. A minute is six seconds long here.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::fleet::RedisStore;
use tower_gemini::rate_limit::{Limits, RateLimitLayer};

const SERVICES: usize = 3;
const LIMIT: u64 = 30;
const MINUTE: Duration = Duration::from_secs(6);
const USAGE: &str = "usage: fleet redis://[user:password@]host[:port][/db]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(url) = std::env::args().nth(1).filter(|url| url != "--help") else {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    match run(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

async fn run(url: &str) -> Result<(), BoxError> {
    let store = RedisStore::new(url)?.split_brain(Duration::ZERO)?;
    let sent: Arc<[AtomicUsize; SERVICES]> = Arc::default();
    let mut layers = Vec::new();
    for id in 0..SERVICES {
        let layer = RateLimitLayer::builder()
            .limits(Limits::new().requests_per_minute(LIMIT))
            .window(MINUTE)
            .guard(Duration::from_millis(100))
            .store(store.clone())
            .build()?;
        layers.push(layer.handle());
        for _ in 0..100 {
            let sent = Arc::clone(&sent);
            let service = layer.layer(tower::service_fn(move |_: Request<String>| {
                sent[id].fetch_add(1, Ordering::Relaxed);
                async { Ok::<_, std::io::Error>(Response::new(String::new())) }
            }));
            tokio::spawn(async move {
                let request =
                    Request::post("/v1beta/models/gemini-3-flash:generateContent").body(String::new());
                let request = request.expect("a valid request");
                if let Err(error) = service.oneshot(request).await {
                    eprintln!("fleet: {error}");
                }
            });
        }
    }
    println!("{SERVICES} services, {LIMIT} requests in {} s for all of them", MINUTE.as_secs());
    let begun = Instant::now();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let counts: Vec<_> = sent.iter().map(|sent| sent.load(Ordering::Relaxed)).collect();
        let seconds = (Instant::now() - begun).as_secs();
        println!("after {seconds:>2} s: {counts:?}, {} in all", counts.iter().sum::<usize>());
    }
    for handle in layers {
        for status in handle.status() {
            println!("{status}");
        }
        if let Some((_, error)) = handle.store().and_then(|health| health.lost) {
            println!("{error}");
        }
    }
    Ok(())
}
