//! What reading along with an answer costs, beside a copy of the same bytes and a parser that keeps nothing.
//!
//! `cargo bench --bench scan` prints a table, and one of what is judged slowest: brackets, quotes and backslashes, at two sizes.
//! A cost per byte that stays the same says that the time is linear. Rows take turns in many short passes, so that a drift of the
//! machine hits them alike; a figure is the median over passes. `/ fields` is the time of reading along over that of serde_json
//! reading the same fields of the same texts without their frames (promised for small events: at most 1.0). The last column is the best pass, as other work on
//! the machine only ever adds to the time. Quote ratios: times differ between machines.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a bench reads the real clock"
)]

use std::borrow::Cow;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use serde::de::IgnoredAny;
use tower::{Layer, Service};
use tower_gemini::Verdict;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::verdict::Outcome;

/// Passes are shorter than a slice of the scheduler's, so that on a busy machine most of them are whole.
const PASSES: usize = 101;

fn main() {
    let answers = [
        Answer::new("8 MiB image", vec![image(8 << 20)], 64 << 10),
        Answer::new("events of 4 KiB", (0..200).map(|n| event(n, 4 << 10)).collect(), 0),
        Answer::new("events of 500 bytes", (0..1000).map(|n| event(n, 500)).collect(), 0),
        Answer::new("events of 120 bytes", (0..1000).map(|n| event(n, 120)).collect(), 0),
        Answer::new("events of 20 bytes", (0..1000).map(|n| event(n, 20)).collect(), 0),
        Answer::new("one text of 1 MiB", vec![long_text(1 << 20)], 16 << 10),
        Answer::new("1 MiB of escapes and quotes", vec![long_code(1 << 20)], 16 << 10),
        Answer::new("4 MiB of numbers", vec![embedding(4 << 20)], 64 << 10),
    ];
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} | {:>10} {:>10} {:>10} | {:>13}",
        "MB/s",
        "memcpy",
        "passing",
        "watched",
        "ignored",
        "fields",
        "judged",
        "of memcpy",
        "x ignored",
        "/ fields",
        "watched, best"
    );
    for answer in answers.iter().filter(|answer| only.as_ref().is_none_or(|only| answer.name.contains(only)))
    {
        answer.row();
    }
    if only.as_ref().is_none_or(|only| "hostile".contains(only.as_str())) {
        hostile();
    }
}

/// What an error body of nothing but punctuation costs.
fn hostile() {
    println!("\n{:<28} {:>12} {:>12} {:>8}", "ns per byte, judged", "64 KiB", "1 MiB", "ratio");
    let shapes = [
        "[",
        "{",
        "\"",
        "\\",
        "{\"",
        "{\\\"",
        "\\\\\"",
        "{'",
        "\\n{",
        "[{",
        "{a:",
        "{a=b(",
        "'",
        "{'a': 'b', ",
        "{\"error\":",
        "{\"error\":\"{",
        "b'{\\\\\"",
        "429 X. {",
        "message: ",
        "limit: 0 uota ",
        "Status: INTERNAL ",
        "uota exceeded for metric: a, ",
        "<EOL>{",
    ];
    for shape in shapes {
        let cost = |bytes: usize| {
            let text = shape.repeat(bytes / shape.len());
            let plain = Bytes::from(text.clone());
            let quoted = serde_json::to_string(&text).unwrap();
            let message = Bytes::from(format!("{{\"error\":{{\"code\":500,\"message\":{quoted}}}}}"));
            let member = Bytes::from(format!("{{\"detail\":{quoted}}}"));
            let bodies = [plain, message, member];
            let total: usize = bodies.iter().map(Bytes::len).sum();
            let best = (0..5)
                .map(|_| {
                    let start = Instant::now();
                    for body in &bodies {
                        black_box(Verdict::from_parts(
                            StatusCode::INTERNAL_SERVER_ERROR,
                            &HeaderMap::new(),
                            body.clone(),
                        ));
                    }
                    start.elapsed()
                })
                .min();
            best.unwrap().as_secs_f64() * 1e9 / total as f64
        };
        let (small, large) = (cost(64 << 10), cost(1 << 20));
        println!("{shape:<28} {small:>12.2} {large:>12.2} {:>8.2}", large / small);
    }
}

struct Answer {
    name: &'static str,
    frames: Vec<Bytes>,
    /// Each event's JSON.
    texts: Vec<String>,
    whole: Bytes,
}

impl Answer {
    /// In frames of this size; 0 for a frame per text, as an event.
    fn new(name: &'static str, texts: Vec<String>, frame: usize) -> Self {
        let events: Vec<Bytes> = match frame {
            0 => texts.iter().map(|text| format!("data: {text}\r\n\r\n").into()).collect(),
            _ => vec![texts[0].clone().into()],
        };
        let whole = Bytes::from(events.concat());
        let frames = match frame {
            0 => events,
            _ => (0..whole.len())
                .step_by(frame)
                .map(|at| whole.slice(at..whole.len().min(at + frame)))
                .collect(),
        };
        Self { name, frames, texts, whole }
    }

    fn row(&self) {
        let mut copy = vec![0_u8; self.frames.iter().map(Bytes::len).max().unwrap()];
        let plain = ClassifyLayer::new();
        let headers = HeaderMap::new();
        let mut work: [Box<dyn FnMut()>; 6] = [
            Box::new(|| {
                for frame in &self.frames {
                    copy[..frame.len()].copy_from_slice(frame);
                    black_box(&mut copy);
                }
            }),
            Box::new(|| assert_eq!(self.pass(plain), None)),
            Box::new(|| assert_eq!(self.pass(plain.watch()), Some(Outcome::Complete))),
            Box::new(|| {
                for text in &self.texts {
                    serde_json::from_str::<IgnoredAny>(text).unwrap();
                }
            }),
            Box::new(|| {
                let verdict = Verdict::from_parts(StatusCode::OK, &headers, self.whole.clone());
                assert!(verdict.is_success());
            }),
            Box::new(|| {
                for text in &self.texts {
                    black_box(serde_json::from_str::<Fields<'_>>(text).unwrap());
                }
            }),
        ];
        let mut times: [Vec<f64>; 6] = Default::default();
        for _ in 0..PASSES {
            for (work, times) in work.iter_mut().zip(&mut times) {
                let start = Instant::now();
                work();
                times.push(start.elapsed().as_secs_f64());
            }
        }
        times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
        let speed = |time: f64| self.whole.len() as f64 / time / 1e6;
        let best = speed(times[2][0]);
        let [memcpy, passing, watched, ignored, judged, fields] =
            times.map(|times| speed(times[times.len() / 2]));
        println!(
            "{:<28} {memcpy:>9.0} {passing:>9.0} {watched:>9.0} {ignored:>9.0} {fields:>9.0} {judged:>9.0} | {:>10.2} {:>10.1} {:>10.2} | {best:>13.0}",
            self.name,
            watched / memcpy,
            watched / ignored,
            fields / watched
        );
    }

    /// Reads the body through the layer.
    fn pass(&self, layer: ClassifyLayer) -> Option<Outcome> {
        let mut service = layer.layer(Canned(self.frames.iter().cloned().collect()));
        let mut cx = Context::from_waker(Waker::noop());
        let mut call = std::pin::pin!(service.call(Request::new(())));
        let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut cx) else {
            unreachable!("it is ready at once")
        };
        let verdict = Verdict::of(&response);
        let mut body = std::pin::pin!(response.into_body());
        while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
            black_box(&frame);
        }
        verdict.outcome()
    }
}

/// What is read along for, as serde_json reads it. A text is only asked whether it is empty.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "it is read and looked at no further")]
struct Fields<'a> {
    #[serde(borrow, default)]
    candidates: Vec<Candidate<'a>>,
    #[serde(borrow)]
    prompt_feedback: Option<Feedback<'a>>,
    usage_metadata: Option<Usage>,
    error: Option<IgnoredAny>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "it is read and looked at no further")]
struct Candidate<'a> {
    #[serde(borrow)]
    content: Option<Content<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
    index: Option<u32>,
}

#[derive(serde::Deserialize)]
#[allow(dead_code, reason = "it is read and looked at no further")]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: Vec<Part<'a>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "it is read and looked at no further")]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<&'a serde_json::value::RawValue>,
    thought: Option<bool>,
    function_call: Option<IgnoredAny>,
    inline_data: Option<IgnoredAny>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "it is read and looked at no further")]
struct Feedback<'a> {
    #[serde(borrow)]
    block_reason: Option<Cow<'a, str>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "it is read and looked at no further")]
struct Usage {
    prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    total_token_count: Option<u64>,
}

struct Canned(VecDeque<Bytes>);

impl Service<Request<()>> for Canned {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Frames>, Infallible>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Frames(std::mem::take(&mut self.0)))))
    }
}

struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

// ===== answers as Gemini writes them =====

fn answer(part: &str) -> String {
    format!(
        r#"{{"candidates": [{{"content": {{"parts": [{{{part}}}],"role": "model"}},"finishReason": "STOP","index": 0}}],"usageMetadata": {{"promptTokenCount": 11,"candidatesTokenCount": 37,"totalTokenCount": 1290,"promptTokensDetails": [{{"modality": "TEXT","tokenCount": 11}}],"thoughtsTokenCount": 1242}},"modelVersion": "gemini-9-flash","responseId": "Zm9yIHRoZSBiZW5jaCBvbmx5"}}"#
    )
}

const WORDS: &str = "The sky looks blue because air scatters short waves more than long ones, and more of them come \
    from everywhere. At dusk the way through the air is longer, and what is left of the light is red.";

fn event(n: usize, bytes: usize) -> String {
    let text: String = WORDS.chars().cycle().skip(n % WORDS.len()).take(bytes).collect();
    answer(&format!(r#""text": "{text}\n""#))
}

fn long_text(bytes: usize) -> String {
    answer(&format!(r#""text": "{}""#, format!("{WORDS}\\n\\n").repeat(bytes / WORDS.len())))
}

fn long_code(bytes: usize) -> String {
    let line = r#"    println!(\"{}: {}\", name, \u003cu8\u003e::from(value)); // \"quoted\"\n"#;
    answer(&format!(r#""text": "{}""#, line.repeat(bytes / line.len())))
}

fn image(bytes: usize) -> String {
    let data = "iVBORw0KGgoAAAANSUhEUgAABAAAAAQACAIAAADwf7zU".repeat(bytes / 44);
    answer(&format!(r#""inlineData": {{"mimeType": "image/png","data": "{data}"}}"#))
}

fn embedding(bytes: usize) -> String {
    let values = "-0.013728376, 0.0059872,\n      ".repeat(bytes / 31);
    format!(r#"{{"embeddings": [{{"values": [{values}0.5]}}]}}"#)
}
