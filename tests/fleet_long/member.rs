//! A member as a process of its own, with this crate's limit or another one.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tower::{Layer, ServiceExt};
use tower_gemini::fleet::{Fleet, RedisStore};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};

/// Which limit it keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    Ours,
    LiteLlm,
    Bucket,
}

/// What a member does: sends `count` requests at once, or, with a `wait`, one (the first of all members) and after that time as
/// many as it can for `burst`.
pub(crate) struct Role {
    pub(crate) id: usize,
    pub(crate) how: How,
    pub(crate) count: usize,
    pub(crate) rpm: u64,
    pub(crate) wait: Duration,
    pub(crate) burst: Duration,
    pub(crate) store: u16,
    pub(crate) receiver: u16,
}

pub(crate) struct Process(Child);

/// Starts this program again, as a member.
pub(crate) fn start(role: &Role) -> Process {
    let Role { id, how, count, rpm, wait, burst, store, receiver } = role;
    let how = *how as u8;
    let (wait, burst) = (wait.as_secs(), burst.as_secs());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "member::member", "--nocapture"])
        .env("FLEET_MEMBER", format!("{id} {how} {count} {rpm} {wait} {burst} {store} {receiver}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Process(child)
}

impl Process {
    /// Waits for its end; how many messages it has sent to its store.
    pub(crate) async fn wait(&mut self, most: Duration) -> u64 {
        let until = Instant::now() + most;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "a member is not done after {most:?}");
            sleep(Duration::from_millis(50)).await;
        }
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.0.stdout.take().unwrap(), &mut said).unwrap();
        let asked = said.split_once("asked ").expect("it says so at its end").1;
        asked.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says to the receiver that a request was sent.
#[derive(Clone)]
struct Line(Arc<Mutex<TcpStream>>);

impl Line {
    fn send(&self) {
        self.0.lock().unwrap().write_all(b"x").unwrap();
    }
}

/// No test: what the processes run.
#[tokio::test]
#[ignore = "the body of a process that the other tests start"]
async fn member() {
    let Ok(role) = std::env::var("FLEET_MEMBER") else { return };
    let role: Vec<u64> = role.split(' ').map(|word| word.parse().unwrap()).collect();
    let [id, how, count, rpm, wait, burst, store, receiver] = role[..] else { panic!("eight numbers") };
    let line = TcpStream::connect(("127.0.0.1", u16::try_from(receiver).unwrap())).unwrap();
    line.set_nodelay(true).unwrap();
    let line = Line(Arc::new(Mutex::new(line)));
    let url = format!("redis://127.0.0.1:{store}");
    let (wait, burst) = (Duration::from_secs(wait), Duration::from_secs(burst));
    let first = id == 0;
    let asked = match how {
        0 => ours(&url, rpm, count, (first, wait, burst), &line).await,
        how => {
            let limit = Other::connect(&url, how == 1, rpm).await;
            limit.run((first, wait, burst), &line).await
        }
    };
    println!("asked {asked}");
}

async fn ours(
    url: &str,
    rpm: u64,
    count: u64,
    (first, wait, burst): (bool, Duration, Duration),
    line: &Line,
) -> u64 {
    let store = RedisStore::new(url).unwrap().split_brain(Duration::ZERO).unwrap();
    let layer = RateLimitLayer::builder()
        .limits(Limits::new().requests_per_minute(rpm))
        .store(Fleet::new(store))
        .build()
        .unwrap();
    let send = |all: &mut JoinSet<()>| {
        let line = line.clone();
        let service = layer.layer(tower::service_fn(move |_: Request<Full<Bytes>>| {
            line.send();
            std::future::ready(Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default())))
        }));
        all.spawn(async move {
            let request = Request::post("/v1beta/models/m:generateContent").body(Full::default()).unwrap();
            drop(service.oneshot(request).await.unwrap());
        });
    };
    let mut all = JoinSet::new();
    if wait.is_zero() {
        (0..count).for_each(|_| send(&mut all));
        while let Some(sent) = all.join_next().await {
            sent.unwrap();
        }
    } else {
        if first {
            send(&mut all);
        }
        sleep(wait).await;
        (0..rpm * 60 / 8).for_each(|_| send(&mut all));
        let until = Instant::now() + burst;
        while let Ok(Some(_)) = timeout_at(until, all.join_next()).await {}
    }
    let status = layer.handle().status();
    let asked = status.first().and_then(|status| status.fleet.as_ref()).map_or(0, |fleet| fleet.asked);
    // The others have what this one does not use any more, once the store has been told: a layer that ends tries for two
    // seconds.
    drop((all, layer));
    sleep(Duration::from_millis(2_500)).await;
    asked
}

/// A limiter of another sort: a script that says yes or no, which is asked again 50 ms after a no.
struct Other {
    connection: MultiplexedConnection,
    script: redis::Script,
    lite: bool,
    rpm: u64,
}

/// Full at first, one token for each 60 s / limit since it was last looked at.
const BUCKET: &str = r"
local limit = tonumber(ARGV[1])
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(limit, (tonumber(state[1]) or limit) + (now - (tonumber(state[2]) or now)) * limit / 60)
local granted = 0
if tokens >= 1 then
  granted, tokens = 1, tokens - 1
end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(now))
return granted";

impl Other {
    async fn connect(url: &str, lite: bool, rpm: u64) -> Self {
        let text = match lite {
            true => {
                let path = std::env::var_os("LITELLM_LIMITER").expect("it was looked at before");
                let module = std::fs::read_to_string(path).unwrap();
                let after = module.split_once("BATCH_RATE_LIMITER_SCRIPT = \"\"\"").expect("its script").1;
                after.split_once("\"\"\"").expect("the end of its script").0.to_owned()
            }
            false => BUCKET.to_owned(),
        };
        let client = redis::Client::open(url).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        Self { connection, script: redis::Script::new(&text), lite, rpm }
    }

    /// Whether a request may go.
    async fn may_go(&self) -> bool {
        let mut connection = self.connection.clone();
        if !self.lite {
            let mut ask = self.script.key("bucket");
            return ask.arg(self.rpm).invoke_async::<u64>(&mut connection).await.unwrap() == 1;
        }
        // The start of the window and the counter; now, and the window's length. It answers with both.
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let mut ask = self.script.key("{project}:window");
        ask.key("{project}:requests").arg(now).arg(60);
        let answer: Vec<redis::Value> = ask.invoke_async(&mut connection).await.unwrap();
        let count: u64 = redis::from_redis_value(answer[1].clone()).unwrap();
        count <= self.rpm
    }

    async fn run(&self, (first, wait, burst): (bool, Duration, Duration), line: &Line) -> u64 {
        let mut asked = 0;
        if first {
            asked += 1;
            assert!(self.may_go().await, "the first request of all");
            line.send();
        }
        sleep(wait).await;
        let until = Instant::now() + burst;
        while Instant::now() < until {
            asked += 1;
            match self.may_go().await {
                true => line.send(),
                false => sleep(Duration::from_millis(50)).await,
            }
        }
        asked
    }
}
