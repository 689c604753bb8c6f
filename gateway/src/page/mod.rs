//! The page for browsers, and what it asks for: one file without outside resources, for an administrator's listener.
//!
//! | path | what |
//! |---|---|
//! | `/page` | the page |
//! | `/page/events` | what is going on now, each second, as server-sent events |
//! | `/page/now` | the same, once, as JSON |
//! | `/page/summary` | calls of the last hour, day or week, as JSON; needs a history |
//! | `/page/calls` | single calls, the newest first, as JSON |
//! | `/page/calls.csv` | the same, all of them, as CSV |
//!
//! The last three take `over` (`hour`, `day` or `week`), `client`, `model`, `kind` and `shown` (`failed`, `troubled` or `all`);
//! `/page/calls` takes `before`, the `id` of a call, as well. Without a history they know the last hundred calls that failed or
//! were tried again.
//!
//! Nothing here asks who is calling, so it belongs on an address that only administrators reach. Requests that a browser says
//! come from another site's page are refused.

mod body;
mod live;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc, watch};

pub use self::body::PageBody;
pub use self::live::Live;
use crate::history::{Filter, HEADER, History, Over, Record, Shown, line};

const HTML: &str = include_str!("page.html");
/// Calls in one answer of `/page/calls`.
const CALLS: usize = 100;
/// Calls that one question to the file brings while a CSV is written.
const ROWS: usize = 1000;
/// Streams of events at a time.
const READERS: usize = 32;
/// Questions to the file at a time.
const QUESTIONS: usize = 2;
/// The longest query that is read.
const QUERY: usize = 4096;
const TICK: Duration = Duration::from_secs(1);

type Status = Box<dyn Fn() -> Value + Send + Sync>;
type Responding = Pin<Box<dyn Future<Output = Response<PageBody>> + Send>>;

/// Answers requests for the page. Clones share everything.
#[derive(Clone)]
pub struct Page(Arc<Shared>);

struct Shared {
    live: Arc<Live>,
    history: Option<History>,
    status: Status,
    questions: Arc<Semaphore>,
    /// What is going on, as an event. Empty once the page is closed.
    now: watch::Sender<Bytes>,
}

impl Page {
    /// `status` is what the layers know, as `/status` shows it.
    pub fn new(
        live: Arc<Live>,
        history: Option<History>,
        status: impl Fn() -> Value + Send + Sync + 'static,
    ) -> Self {
        let now = watch::Sender::new(Bytes::from_static(b"\n"));
        let questions = Arc::new(Semaphore::new(QUESTIONS));
        Self(Arc::new(Shared { live, history, status: Box::new(status), questions, now }))
    }

    /// Whether the path is one of the page's.
    pub fn owns(path: &str) -> bool {
        path == "/page" || path.starts_with("/page/")
    }

    /// Ends the streams of events, so that a server can stop. Later ones end at once.
    pub fn close(&self) {
        self.0.now.send_replace(Bytes::new());
    }

    /// The answer to any request; nothing of its body is read.
    pub fn respond<B>(&self, request: &Request<B>) -> Responding {
        let answer = self.route(request);
        Box::pin(async move {
            match answer {
                Ok(answer) => answer.await,
                Err((status, why)) => refusal(status, &why),
            }
        })
    }

    fn route<B>(&self, request: &Request<B>) -> Result<Responding, (StatusCode, Cow<'static, str>)> {
        let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
        let opened = request.headers().get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
        if matches!(site, Some(b"cross-site" | b"same-site")) && !(opened && request.uri().path() == "/page")
        {
            return Err((StatusCode::FORBIDDEN, "Not for other sites.".into()));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.".into()));
        }
        let question = || {
            Question::parse(request.uri().query().unwrap_or(""), Timestamp::now().as_millisecond())
                .map_err(|why| (StatusCode::BAD_REQUEST, why.into()))
        };
        let shared = Arc::clone(&self.0);
        Ok(match request.uri().path() {
            "/page" => Box::pin(std::future::ready(html())),
            "/page/now" => Box::pin(std::future::ready(json_answer(&shared.look()))),
            // A body would never end, and HEAD has none.
            "/page/events" if request.method() == Method::GET => {
                Box::pin(std::future::ready(shared.events()))
            }
            "/page/events" => Box::pin(std::future::ready(answer("text/event-stream", PageBody::whole("")))),
            "/page/summary" => {
                let question = question()?;
                Box::pin(async move { shared.summary(question).await })
            }
            "/page/calls" => {
                let question = question()?;
                Box::pin(async move { shared.calls(question).await })
            }
            "/page/calls.csv" => {
                let question = question()?;
                Box::pin(std::future::ready(shared.csv(question, request.method() == Method::HEAD)))
            }
            _ => return Err((StatusCode::NOT_FOUND, "There is no such page.".into())),
        })
    }
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    filter: Filter,
    before: Option<i64>,
}

impl Question {
    /// The error is a sentence that repeats nothing of the query.
    fn parse(query: &str, now: i64) -> Result<Self, &'static str> {
        if query.len() > QUERY {
            return Err("The query is too long.");
        }
        let (mut over, mut filter, mut before) = (Over::Hour, Filter::default(), None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "over" => over = Over::parse(&value).ok_or("over must be hour, day or week.")?,
                "shown" => {
                    filter.shown = Shown::parse(&value).ok_or("shown must be failed, troubled or all.")?;
                }
                "client" => filter.client = Some(value.into_owned()),
                "model" => filter.model = Some(value.into_owned()),
                "kind" => filter.kind = Some(value.into_owned()),
                "before" => before = Some(value.parse().map_err(|_| "before must be the id of a call.")?),
                _ => return Err("The query has a name that is not known here."),
            }
        }
        let since = now.saturating_sub(i64::try_from(over.duration().as_millis()).unwrap_or(i64::MAX));
        // Sums are of whole minutes, and the list is of the same calls.
        filter.since = since - since.rem_euclid(60_000);
        Ok(Self { filter, before })
    }
}

impl Shared {
    fn look(&self) -> Value {
        let history = self.history.as_ref().map(|history| {
            let status = history.status();
            json!({
                "offered": status.offered,
                "written": status.written,
                "lost": status.lost,
                "queued": status.queued(),
                "bytes": status.bytes,
                "error": status.error,
            })
        });
        json!({
            "time": Timestamp::now().as_millisecond(),
            "live": self.live.look(),
            "status": (self.status)(),
            "history": history,
        })
    }

    fn events(self: Arc<Self>) -> Response<PageBody> {
        if self.now.receiver_count() >= READERS {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open.");
        }
        let first = self.now.receiver_count() == 0;
        let receiver = self.now.subscribe();
        if first {
            tokio::spawn(Self::tick(Arc::clone(&self)));
        }
        // The first event must not be a second away.
        let begin = self.event();
        answer("text/event-stream", PageBody::events(begin, receiver))
    }

    /// Tells what is going on until nobody listens. Two may run for a moment, which harms nothing.
    async fn tick(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if self.now.receiver_count() == 0 || self.now.borrow().is_empty() {
                return;
            }
            let event = self.event();
            self.now.send_if_modified(|now| {
                let open = !now.is_empty();
                if open {
                    *now = event;
                }
                open
            });
        }
    }

    fn event(&self) -> Bytes {
        // JSON has no line feed outside of its strings, and none unescaped inside.
        Bytes::from(format!("data: {}\n\n", self.look()))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Response<PageBody>> {
        let failed = |why: &str| {
            refusal(StatusCode::SERVICE_UNAVAILABLE, &format!("The history cannot be read: {why}."))
        };
        let Ok(permit) = Arc::clone(&self.questions).acquire_owned().await else {
            return Err(failed("closed"));
        };
        let asked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            question()
        });
        match asked.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed("the question failed")),
        }
    }

    async fn summary(&self, question: Question) -> Response<PageBody> {
        let Some(history) = &self.history else { return json_answer(&Value::Null) };
        let reader = history.reader();
        match self.ask(move || reader.summary(&question.filter)).await {
            Ok(summary) => json_answer(&summary),
            Err(refusal) => refusal,
        }
    }

    async fn calls(&self, question: Question) -> Response<PageBody> {
        let found = match &self.history {
            Some(history) => {
                let reader = history.reader();
                self.ask(move || reader.calls(&question.filter, question.before, CALLS)).await
            }
            None => Ok(self.live.calls(&question.filter, question.before, CALLS)),
        };
        match found {
            Ok(calls) => json_answer(&calls.iter().map(shown).collect::<Vec<_>>()),
            Err(refusal) => refusal,
        }
    }

    /// In pieces, each a question of its own, so that a slow reader keeps neither memory nor the file.
    fn csv(self: Arc<Self>, mut question: Question, head: bool) -> Response<PageBody> {
        let (sender, receiver) = mpsc::channel(2);
        if !head {
            tokio::spawn(async move {
                let mut text = HEADER.to_owned();
                loop {
                    let (filter, before) = (question.filter.clone(), question.before);
                    let found = match &self.history {
                        Some(history) => {
                            let reader = history.reader();
                            self.ask(move || reader.calls(&filter, before, ROWS)).await
                        }
                        None => Ok(self.live.calls(&filter, before, ROWS)),
                    };
                    // Whoever gets a part must see that it is one: the body breaks off without its end.
                    let Ok(calls) = found else { return drop(sender.send(None).await) };
                    calls.iter().for_each(|call| line(call, &mut text));
                    let last = calls.len() < ROWS;
                    question.before = calls.last().map(|call| call.id);
                    if sender.send(Some(Bytes::from(std::mem::take(&mut text)))).await.is_err() || last {
                        return;
                    }
                }
            });
        }
        let mut answer = answer("text/csv; charset=utf-8", PageBody::pieces(receiver));
        let name = HeaderValue::from_static("attachment; filename=\"calls.csv\"");
        answer.headers_mut().insert(CONTENT_DISPOSITION, name);
        answer
    }
}

/// A call with what helps: the page knows no kinds.
fn shown(record: &Record) -> Value {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    let kind = record.kind.as_deref().and_then(kind);
    if let (Some(kind), Some(map)) = (kind, value.as_object_mut()) {
        map.insert("remedy".to_owned(), kind.remedy().into());
        map.insert("docs".to_owned(), kind.docs().into());
    }
    value
}

fn kind(name: &str) -> Option<tower_gemini::Kind> {
    tower_gemini::Kind::ALL.iter().copied().find(|kind| kind.as_str() == name)
}

// ===== answers =====

fn html() -> Response<PageBody> {
    static POLICY: OnceLock<HeaderValue> = OnceLock::new();
    let mut answer = answer("text/html; charset=utf-8", PageBody::whole(HTML));
    let policy = POLICY.get_or_init(|| policy(HTML));
    answer.headers_mut().insert("content-security-policy", policy.clone());
    answer
}

/// Only the page's own script and style, and only its own server.
fn policy(html: &str) -> HeaderValue {
    let hash = |tag: &str| {
        let inside =
            html.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        base64(&Sha256::digest(inside.map_or("", |(inside, _)| inside)))
    };
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let digit = (bits >> (18 - 6 * i) & 63) as usize;
            text.push(if i > three.len() { '=' } else { char::from(DIGITS[digit]) });
        }
    }
    text
}

fn json_answer(value: &impl serde::Serialize) -> Response<PageBody> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    answer("application/json", PageBody::whole(text))
}

fn answer(content_type: &'static str, body: PageBody) -> Response<PageBody> {
    let mut answer = Response::new(body);
    let fixed: [(HeaderName, &'static str); 6] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("content-security-policy"), "default-src 'none'"),
    ];
    for (name, value) in fixed {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn refusal(status: StatusCode, why: &str) -> Response<PageBody> {
    let mut answer = answer("text/plain; charset=utf-8", PageBody::whole(format!("{why}\n")));
    *answer.status_mut() = status;
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        _ => {}
    }
    answer
}
