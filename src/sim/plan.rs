//! From a request and a decision to the bytes of the response and their times. Pure.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, SERVER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::answer::{self, Answer, Flavour};
use super::builder::Config;
use super::fault::{Asked, ErrorKind, Kind, QuotaExceeded, Shape, error_json, html, interaction_error};
use super::interaction::{Interactions, New};
use super::json::object;
use super::pieces::{Event, Piece, reset_after, stream, whole};
use super::prompt::Prompt;
use super::quota::Denied;
use super::route::{Action, Route};
use super::{CallCause, Fault, QuotaLimit};
use crate::tier::X_GEMINI_SERVICE_TIER;

const JSON: &str = "application/json; charset=UTF-8";
const EVENTS: &str = "text/event-stream";

/// One call, read. Without `Debug`, for it holds the key.
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) route: Route,
    pub(super) key: Option<String>,
    pub(super) prompt: Prompt,
}

impl Request {
    pub(super) fn model(&self) -> &str {
        self.route.model.as_deref().or(self.prompt.model.as_deref()).unwrap_or_default()
    }
}

/// What was decided about a call.
#[derive(Debug)]
pub(super) enum Decision {
    /// A good answer, spoilt by the fault if there is one.
    Admitted(Option<Fault>),
    /// A scripted error, or a scripted end of the connection.
    Scripted(Fault),
    /// Turned away for its own sake.
    Turned(ErrorKind, &'static str),
    Denied(Denied),
}

impl Decision {
    pub(super) fn cause(&self) -> CallCause {
        match self {
            Decision::Admitted(None) => CallCause::Healthy,
            Decision::Admitted(Some(fault)) | Decision::Scripted(fault) => CallCause::Fault(fault.name()),
            Decision::Turned(_, why) => CallCause::Request(why),
            Decision::Denied(denied) => {
                CallCause::Quota(denied.violations.iter().map(|(dimension, _)| *dimension).collect())
            }
        }
    }

    /// The time from the end of the request to the head of the response.
    pub(super) fn head_after(&self, usual: Duration) -> Duration {
        let (Decision::Admitted(Some(fault)) | Decision::Scripted(fault)) = self else { return usual };
        let time = match fault.kind {
            Kind::Stalled(silence) => silence,
            Kind::Slow(by) => usual.saturating_add(by),
            _ => usual,
        };
        time.saturating_add(fault.shape.delay)
    }
}

/// A response.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) pieces: Vec<Piece>,
    /// Whether the length is announced.
    pub(super) sized: bool,
}

/// The response to `request`, as decided; `None` is a reset before the head. `models` are the names to list, `now` is the time since
/// the first call.
pub(super) fn reply<'a>(
    config: &Config,
    request: &Request,
    decision: &Decision,
    models: impl Iterator<Item = &'a str>,
    interactions: &mut Interactions,
    now: Duration,
) -> Option<Reply> {
    let asked = Asked {
        model: request.model(),
        key: request.key.as_deref(),
        version: request.route.version,
        method: request.route.action.name(),
        tokens: request.prompt.tokens,
        max_bytes: config.max_request_bytes,
    };
    let action = request.route.action;
    let fault = match decision {
        Decision::Denied(Denied { violations, retry_in, .. }) if action.is_interaction() => {
            let daily = violations.iter().any(|(dimension, _)| *dimension == QuotaLimit::RequestsPerDay);
            let kind = if daily { ErrorKind::DailyQuota } else { ErrorKind::RateLimited };
            let shape = Shape { retry_in: Some(*retry_in), ..Shape::default() };
            return scripted(action, &Kind::Error(kind), &shape, &asked);
        }
        Decision::Denied(Denied { violations, retry_in, paid }) => {
            let exceeded = QuotaExceeded { violations, retry_in: *retry_in, paid: *paid };
            let body = exceeded.to_json(asked.model);
            return Some(error(
                Some(action),
                StatusCode::TOO_MANY_REQUESTS,
                JSON,
                body.pretty().into(),
                &Shape::default(),
            ));
        }
        Decision::Turned(kind, _) => {
            return scripted(action, &Kind::Error(*kind), &Shape::default(), &asked);
        }
        Decision::Scripted(fault) => return scripted(action, &fault.kind, &fault.shape, &asked),
        Decision::Admitted(fault) => fault.as_ref(),
    };
    let flavour = match fault.map(|f| &f.kind) {
        Some(Kind::BlockedPrompt) => Flavour::BlockedPrompt,
        Some(Kind::BlockedAnswer) => Flavour::BlockedAnswer,
        Some(Kind::EmptyAnswer) => Flavour::Empty,
        _ => Flavour::Good,
    };
    if action.is_interaction() {
        let head = now.saturating_add(decision.head_after(config.head_latency));
        return interaction(config, request, fault, flavour, &asked, interactions, now, head);
    }
    let answer = Answer {
        number: request.number,
        model: asked.model,
        prompt: &request.prompt,
        text: answer::text(config.answer.as_deref(), &request.prompt),
        chunks: config.chunks,
        flavour,
    };
    let mut pieces = match action {
        Action::Stream { sse } => stream(answer.parts(), sse, fault, &asked, config.chunk_interval),
        Action::Generate => whole(answer.whole().pretty()),
        Action::CountTokens => whole(answer::token_count(&request.prompt).pretty()),
        Action::Embed => whole(answer::embeddings(&request.prompt, false).pretty()),
        Action::BatchEmbed => whole(answer::embeddings(&request.prompt, true).pretty()),
        Action::ListModels => whole(answer::models(models).pretty()),
        Action::GetModel => whole(answer::model(asked.model).pretty()),
        Action::Chat { stream: false } => whole(answer.chat().compact()),
        Action::Chat { stream: true } => {
            let mut pieces = stream(answer.chat_parts(), true, fault, &asked, config.chunk_interval);
            if fault.is_none_or(Fault::leaves_the_end) {
                let done = Event::Data(Bytes::from_static(b"data: [DONE]\n\n"));
                pieces.insert(pieces.len() - 1, Piece { gap: Duration::ZERO, event: done });
            }
            pieces
        }
        Action::CreateInteraction { .. }
        | Action::GetInteraction { .. }
        | Action::CancelInteraction
        | Action::DeleteInteraction
        | Action::Unknown => Vec::new(),
    };
    if let Some(Kind::ResetAfterBytes(bytes)) = fault.map(|f| &f.kind) {
        reset_after(&mut pieces, *bytes);
    }
    let is_events = matches!(action, Action::Stream { sse: true } | Action::Chat { stream: true });
    let content_type = if is_events { EVENTS } else { JSON };
    let sized = !action.is_stream() && matches!(pieces.last(), Some(Piece { event: Event::End, .. }));
    let mut headers = headers(content_type);
    if let Some(tier) = request.prompt.tier {
        headers.push((X_GEMINI_SERVICE_TIER.clone(), HeaderValue::from_static(tier.as_str())));
    }
    Some(Reply { status: StatusCode::OK, headers, pieces, sized })
}

/// The response to a call of the Interactions API.
#[allow(clippy::too_many_arguments, reason = "it is a part of `reply`")]
fn interaction(
    config: &Config,
    request: &Request,
    fault: Option<&Fault>,
    flavour: Flavour,
    asked: &Asked<'_>,
    interactions: &mut Interactions,
    now: Duration,
    head: Duration,
) -> Option<Reply> {
    let action = request.route.action;
    let (id, after) = request.route.interaction.clone().unwrap_or_default();
    let turned = |kind| scripted(action, &Kind::Error(kind), &Shape::default(), asked);
    let mut pieces = match action {
        Action::CreateInteraction { stream } => {
            let made = interactions.create(New {
                number: request.number,
                model: asked.model,
                prompt: &request.prompt,
                text: answer::text(config.answer.as_deref(), &request.prompt),
                flavour,
                chunks: config.chunks,
                interval: config.chunk_interval,
                decode_tokens: config.decode_tokens,
                at: head,
            });
            let Some(made) = made else { return turned(ErrorKind::InvalidArgument) };
            match (stream, request.prompt.background) {
                (true, _) => made.stream(0, None, fault, asked),
                (false, true) => whole(made.now(head).pretty()),
                (false, false) => whole(made.whole().pretty()),
            }
        }
        Action::GetInteraction { stream } => match interactions.get(&id) {
            Some(found) if stream => found.stream(after, Some(head), fault, asked),
            Some(found) => whole(found.now(head).pretty()),
            None => return turned(ErrorKind::NotFoundHtml),
        },
        Action::CancelInteraction => match interactions.cancel(&id, now) {
            Some(found) => whole(found.now(now).pretty()),
            None => return turned(ErrorKind::NotFoundHtml),
        },
        _ if interactions.delete(&id) => whole(object([]).compact()),
        _ => return turned(ErrorKind::NotFoundHtml),
    };
    if let Some(Kind::ResetAfterBytes(bytes)) = fault.map(|f| &f.kind) {
        reset_after(&mut pieces, *bytes);
    }
    let content_type = if action.is_stream() { EVENTS } else { JSON };
    let sized = !action.is_stream() && matches!(pieces.last(), Some(Piece { event: Event::End, .. }));
    Some(Reply { status: StatusCode::OK, headers: headers(content_type), pieces, sized })
}

fn headers(content_type: &str) -> Vec<(HeaderName, HeaderValue)> {
    let content_type = HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static(JSON));
    vec![(CONTENT_TYPE, content_type), (SERVER, HeaderValue::from_static("scaffolding on HTTPServer2"))]
}

/// The answer of a fault that takes the place of the whole call.
fn scripted(action: Action, kind: &Kind, shape: &Shape, asked: &Asked<'_>) -> Option<Reply> {
    match kind {
        Kind::Error(kind) if action.is_interaction() && *kind != ErrorKind::BadGatewayHtml => {
            let body = object([("error", interaction_error(*kind, shape, asked))]);
            Some(error(Some(action), kind.status(), JSON, body.pretty().into(), shape))
        }
        Kind::Error(kind) if kind.is_html() => {
            Some(error(None, kind.status(), "text/html; charset=UTF-8", html(*kind).into(), shape))
        }
        Kind::Error(kind) => {
            let body = error_json(*kind, shape, asked).pretty();
            let mut reply = error(Some(action), kind.status(), JSON, body.into(), shape);
            if *kind == ErrorKind::Unauthenticated {
                let challenge = HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\"");
                reply.headers.push((WWW_AUTHENTICATE, challenge));
            }
            Some(reply)
        }
        Kind::Response { status, content_type, body } => {
            Some(error(None, *status, content_type, body.clone(), shape))
        }
        _ => None,
    }
}

/// An error. `action` is the call from which it takes its form; `None` leaves recorded bodies and pages as
/// they are.
fn error(
    action: Option<Action>,
    status: StatusCode,
    content_type: &str,
    body: Bytes,
    shape: &Shape,
) -> Reply {
    let mut body = Vec::from(body);
    if shape.array || action.is_some_and(Action::errors_as_array) {
        body.insert(0, b'[');
        body.extend_from_slice(b"\n]");
    }
    let as_events = shape.event_stream || action == Some(Action::Stream { sse: true });
    let mut headers = headers(if as_events { EVENTS } else { content_type });
    if shape.gzip {
        body = gzip(body);
        headers.push((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
    }
    body.truncate(shape.truncate.unwrap_or(usize::MAX));
    headers.extend(shape.headers.iter().cloned());
    let pieces = vec![
        Piece { gap: Duration::ZERO, event: Event::Data(body.into()) },
        Piece { gap: Duration::ZERO, event: Event::End },
    ];
    // A truncated body that announced its length would be a truncated message; it comes in chunks.
    Reply { status, headers, pieces, sized: shape.truncate.is_none() }
}

fn gzip(body: Vec<u8>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing to a vector cannot fail; if it did, the plain body is the more useful answer.
    match encoder.write_all(&body).and_then(|()| encoder.finish()) {
        Ok(compressed) => compressed,
        Err(_) => body,
    }
}
