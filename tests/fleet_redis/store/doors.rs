//! A 429 that one member meets, told through a real server: the others stop within a round trip and 5 ms.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::fleet::{Fleet, RedisStore};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};

use super::member::millis;
use crate::redis::Server;

const REFUSAL: &str = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"quota","details":[
  {"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests",
   "quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier","quotaValue":"60000"}]},
  {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"20s"}]}}"#;

#[derive(Clone)]
struct Caller {
    layer: RateLimitLayer,
    refuses: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Instant>>>,
}

impl Caller {
    fn new(server: &Server) -> Self {
        let store = RedisStore::new(&server.url()).unwrap().split_brain(Duration::ZERO).unwrap();
        let limits = Limits::new().requests_per_minute(60_000);
        let layer = RateLimitLayer::builder().limits(limits).store(Fleet::new(store)).build().unwrap();
        Self { layer, refuses: Arc::default(), log: Arc::default() }
    }

    async fn send(&self, model: &str) -> Result<(), BoxError> {
        let (log, refuses) = (Arc::clone(&self.log), Arc::clone(&self.refuses));
        let inner = tower::service_fn(move |_: Request<Full<Bytes>>| {
            log.lock().unwrap().push(Instant::now());
            let (status, body) = if refuses.load(Ordering::Relaxed) { (429, REFUSAL) } else { (200, "{}") };
            let response = Response::builder().status(status).body(Full::from(body)).unwrap();
            std::future::ready(Ok::<_, std::io::Error>(response))
        });
        let service = self.layer.layer(ClassifyLayer::new().layer(inner));
        let request =
            Request::post(format!("/v1beta/models/{model}:generateContent")).body(Full::default())?;
        service.oneshot(request).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_stop_within_a_round_trip_and_5_ms() {
    let Some(server) = Server::start(&[]).await else { return };
    let (one, other) = (Caller::new(&server), Caller::new(&server));
    let client = ::redis::Client::open(server.url()).unwrap();
    let ping = client.get_multiplexed_async_connection().await.unwrap();
    for round in 0..5 {
        let model = format!("m{round}");
        one.refuses.store(false, Ordering::Relaxed);
        one.send(&model).await.unwrap();
        other.send(&model).await.unwrap();
        // What a round trip takes here and now, at the worst.
        let (worst, mut ping) = (Arc::new(Mutex::new(Duration::ZERO)), ping.clone());
        let kept = Arc::clone(&worst);
        let trips = tokio::spawn(async move {
            loop {
                let begun = Instant::now();
                ::redis::cmd("PING").query_async::<String>(&mut ping).await.unwrap();
                let took = Instant::now() - begun;
                kept.lock().map(|mut worst| *worst = took.max(*worst)).unwrap();
                tokio::time::sleep(millis(1)).await;
            }
        });
        let stream = {
            let (other, model) = (other.clone(), model.clone());
            tokio::spawn(async move {
                let mut all = JoinSet::new();
                for _ in 0..400 {
                    let (other, model) = (other.clone(), model.clone());
                    all.spawn(async move { other.send(&model).await });
                    tokio::time::sleep(millis(2)).await;
                }
                // Those that wait for the door are given up.
            })
        };
        tokio::time::sleep(millis(300)).await;
        one.refuses.store(true, Ordering::Relaxed);
        one.send(&model).await.unwrap();
        let met = *one.log.lock().unwrap().last().unwrap();
        stream.await.unwrap();
        trips.abort();
        let trip = *worst.lock().unwrap();
        let log = other.log.lock().unwrap().clone();
        let before = log.iter().filter(|at| **at < met).count();
        let late = log.iter().filter(|at| **at > met + trip + millis(5)).count();
        let last = log.iter().filter(|at| **at > met).max().map_or(Duration::ZERO, |last| *last - met);
        println!("round {round}: the last {last:?} after the 429, a round trip of {trip:?} at the worst");
        let sending = log.iter().filter(|at| **at < met && **at + millis(100) > met).count();
        assert!(before > 20 * (round + 1) && sending > 5, "{before}, {sending}: it was sending");
        assert_eq!(late, 0, "round {round}: the last {last:?} after the 429, a round trip {trip:?}");
    }
}
