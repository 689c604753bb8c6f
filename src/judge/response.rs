//! From bytes to fields: what form does this body have? Pure.
//!
//! The content type is not asked: `text/event-stream` with a 4xx holds a plain object, relays answer HTML as
//! JSON. The first bytes tell.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::response::Parts;
use http::{HeaderMap, StatusCode};

use super::fields::{Fields, Read};
use super::message;
use super::nest::{self, Context};
use super::rules;
use super::sentence;
use super::text;
use super::usual;
use crate::scan::Scanner;
use crate::verdict::{Alternative, Inner, Kind, Piece, Retryability, Sent, Verdict};

/// Bytes of an error's body that are read. Such bodies have a few KiB; a page of a front end is below 64 KiB.
pub(crate) const DEFAULT_LIMIT: usize = 256 * 1024;

const GZIP: &[u8] = &[0x1f, 0x8b];

/// Judges a whole response. See [`Verdict::from_parts`].
pub(crate) fn judge(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Verdict {
    // What is judged is also what the verdict keeps, for its texts are shares of it: the body itself, but for
    // a coded one and one with broken UTF-8, of which the readable form is kept.
    let body = inflate(&body).map_or(body, Bytes::from);
    if status.as_u16() < 400 {
        return judge_answer(status, headers, &body);
    }
    if let Ok(text) = std::str::from_utf8(&body) {
        return judge_error(status, headers, text, &body);
    }
    let body = readable(body);
    judge_error(status, headers, std::str::from_utf8(&body).unwrap_or_default(), &body)
}

fn judge_error(status: StatusCode, headers: &HeaderMap, text: &str, body: &Bytes) -> Verdict {
    let mut fields = Fields::default();
    read(&mut fields, text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']), status.as_u16());
    Verdict::new(rules::error(status, retry_after(headers), &fields, body))
}

/// Judges what is no error by its status.
fn judge_answer(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Verdict {
    let mut scanner = Scanner::new();
    scanner.expect(Scanner::NO_MODEL);
    scanner.feed(body);
    scanner.finish();
    if let Some(error) = error_of(status, retry_after(headers), &scanner) {
        return Verdict::new(Inner { after_output: scanner.error_after_output(), ..error });
    }
    match scanner.fault().filter(|_| status.is_success()) {
        None => Verdict::default(),
        Some(kind) => {
            let body = readable(body.clone());
            Verdict::new(Inner {
                model: scanner.model_version().map(|text| Piece::of(&body, text)),
                body,
                ..fault_of(status, kind, scanner.delivered(), scanner.is_spent())
            })
        }
    }
}

/// The body, or its readable form where its UTF-8 is broken.
fn readable(body: Bytes) -> Bytes {
    // The test passes over ASCII in words; `from_utf8_lossy` takes a byte at a time, half of the time of the whole verdict.
    if std::str::from_utf8(&body).is_ok() {
        return body;
    }
    String::from_utf8_lossy(&body).into_owned().into()
}

/// What is wrong with an answer that was read along with; `None` where nothing is.
///
/// Agrees with [`judge`] about the same bytes.
pub(crate) fn judge_scanned(status: StatusCode, scanner: &Scanner) -> Option<Kind> {
    let error = error_of(status, None, scanner).map(|error| error.kind);
    error.or_else(|| scanner.fault())
}

/// Whether this is a good answer from its beginning to its end: nothing is wrong with it, and it did not end at a limit of its length.
///
/// Bodies under a coding that is not read here are not, as far as anybody knows.
pub(crate) fn is_whole_answer(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> bool {
    let coding = headers.get(http::header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes);
    let inflated = inflate(body);
    let is_read = match coding {
        None | Some(b"identity") => true,
        Some(_) => inflated.is_some(),
    };
    let mut scanner = Scanner::new();
    scanner.feed(inflated.as_deref().unwrap_or(body));
    scanner.finish();
    let is_answer = !scanner.is_blank() && !scanner.is_text() && !scanner.is_cut_short();
    is_read && is_answer && judge_scanned(status, &scanner).is_none()
}

/// The error that stands in an answer, judged as a failed response's body is.
fn error_of(status: StatusCode, header: Option<Duration>, scanner: &Scanner) -> Option<Inner> {
    let body = readable(scanner.error()?);
    let text = std::str::from_utf8(&body).unwrap_or_default();
    let mut fields = Fields::default();
    read(&mut fields, text, status.as_u16());
    let error = fields.has_error.then(|| rules::error(status, header, &fields, &body))?;
    // Half an error that says nothing yet is half an answer. Half a number is another one.
    let says_nothing = error.kind == Kind::Unknown || fields.message.is_empty() && fields.status.is_none();
    let is_half = scanner.ends_early() && says_nothing && fields.code.is_none_or(|code| code < 400);
    (!is_half).then_some(error)
}

/// How far an answer has come that was looked at before it is handed on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Seen {
    /// There is more to come.
    Part,
    /// All of it.
    Whole,
    /// The transport has failed.
    Lost,
}

/// The failure that an answer is of which nothing has been handed on; `None` where there is none, and where output
/// came before it, unless the `output_too` is held. `fault` is what is wrong with the answer as a whole, errors in it aside.
///
/// Agrees with [`judge`] about the same bytes, as [`judge_scanned`] does.
pub(crate) fn judge_held(
    parts: &Parts,
    scanner: &Scanner,
    seen: Seen,
    fault: Option<Kind>,
    output_too: bool,
) -> Option<Verdict> {
    let error = error_of(parts.status, retry_after(&parts.headers), scanner);
    let inner = match (error, seen) {
        (Some(error), _) => Inner { after_output: !output_too && scanner.error_after_output(), ..error },
        (None, _) if scanner.delivered() && !output_too => return None,
        // A login page where a stream was asked for: nothing of what follows will change it.
        (None, Seen::Part) if scanner.is_page() => fault_of(parts.status, Kind::Unknown, false, false),
        (None, Seen::Part) => return None,
        (None, Seen::Whole) => fault_of(parts.status, fault?, false, scanner.is_spent()),
        // The request was sent, and it may have been processed.
        (None, Seen::Lost) => Inner {
            http: Some(parts.status),
            retryability: Retryability::WithBackoff,
            sent: Sent::Maybe,
            ..Inner::new(Kind::Transport)
        },
    };
    (!inner.after_output).then(|| {
        Verdict::new(Inner {
            usage: scanner.usage(),
            finish: scanner.unknown_finish().map(Into::into),
            ..inner
        })
    })
}

/// An answer with something wrong.
fn fault_of(status: StatusCode, kind: Kind, delivered: bool, spent: bool) -> Inner {
    Inner {
        http: Some(status),
        // Whether the fault lies in the prompt or in chance cannot be read; another model may do.
        alternative: if kind == Kind::Unknown { Alternative::None } else { Alternative::Model },
        after_output: delivered,
        no_answer: matches!(kind, Kind::EmptyResponse | Kind::Truncated) && !delivered && !spent,
        ..Inner::new(kind)
    }
}

/// Reads an error's body: a failed status's, or what the scanner has kept of an answer.
fn read<'a>(fields: &mut Fields<'a>, text: &'a str, http: u16) {
    match text.as_bytes().first() {
        None => {}
        Some(b'{') if http >= 400 && usual(fields, text, http) => {}
        Some(b'{' | b'[' | b'"') => {
            let context = Context::new(http, text.len());
            let read = fields.fold(text, &context);
            if read != Read::Whole && !begins_as_json(text) {
                print(fields, text, &context);
            } else if read == Read::Broken && lenient(fields, text, &context) {
                // JSON but for the line feeds in its strings.
            } else if read != Read::Whole || !fields.has_error {
                text::scan(fields, text, http);
            }
        }
        Some(b'<') if is_page(text) => {
            fields.message = Cow::Borrowed(message::title(text).unwrap_or_default());
        }
        Some(_) if is_event_stream(text) && events(fields, text, http) => {}
        Some(_) => match without_times(text) {
            Some(plain) => {
                let mut inner = Fields::default();
                print(&mut inner, &plain, &Context::new(http, plain.len()));
                *fields = inner.into_owned();
            }
            None => print(fields, text, &Context::new(http, text.len())),
        },
    }
}

/// The short way for the usual error.
fn usual<'a>(fields: &mut Fields<'a>, text: &'a str, http: u16) -> bool {
    let is_usual = usual::read(fields, text).is_some();
    if is_usual {
        fields.settle(&Context::new(http, text.len()));
    } else {
        *fields = Fields::default();
    }
    is_usual
}

/// What is JSON in another language's eyes. Whether there was an error in it.
fn lenient(fields: &mut Fields<'_>, text: &str, context: &Context) -> bool {
    match context.body_in(text, 0) {
        Some(inner) => {
            *fields = inner;
            true
        }
        None => false,
    }
}

/// A client's print of an error, or its log line: `ApiError: {"error": …`.
fn print<'a>(fields: &mut Fields<'a>, text: &'a str, context: &Context) {
    lenient(fields, text, context);
    if !fields.has_error || fields.code.is_none() && fields.status.is_none() {
        match nest::plain(text) {
            Cow::Borrowed(text) => text::print(fields, text, context.http),
            Cow::Owned(plain) => {
                let mut inner = std::mem::take(fields).into_owned();
                text::print(&mut inner, &plain, context.http);
                *fields = inner.into_owned();
            }
        }
    }
    fields.conclude(context);
    let (whole, line) = (message::clip(text, 4096), first_line(text));
    fields.has_error |= context.http < 400 && sentence::find(whole, |_| true).is_some();
    if fields.message.is_empty() && (context.http >= 400 || fields.has_error) {
        // A quota's sentence may go on after the first line, a delay stand in a later one, and another sentence begin there.
        let goes_on = message::says(whole, &["uota exceeded"])
            || message::delay(whole).is_some()
            || !sentence::is_known(line) && sentence::is_known(whole);
        fields.message = Cow::Borrowed(if goes_on { whole } else { line });
    }
}

/// A log's lines without the times in front of them, which would stand in the midst of a body that goes over several.
fn without_times(text: &str) -> Option<String> {
    // 2026-01-12T04:51:59.0770384Z
    let rest = |line: &'_ str| {
        let bytes = line.as_bytes();
        let is_time = bytes.len() > 20 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[13] == b':';
        let is_digits = || bytes[..4].iter().chain(&bytes[11..13]).all(u8::is_ascii_digit);
        (is_time && is_digits()).then(|| bytes.iter().position(|b| *b == b' ').unwrap_or(bytes.len()))
    };
    let timed = text.lines().skip(1).filter(|line| rest(line).is_some()).count();
    let is_log = timed > 1 && timed == text.lines().skip(1).filter(|line| !line.is_empty()).count();
    is_log.then(|| {
        let lines = text.lines().map(|line| &line[rest(line).unwrap_or(0)..]);
        lines.fold(String::with_capacity(text.len()), |all, line| all + line.trim_start_matches('\r') + "\n")
    })
}

/// Whether `text` is JSON as far as its first name goes, and not Python's or JavaScript's print of an object.
fn begins_as_json(text: &str) -> bool {
    let blank = [' ', '\n', '\r', '\t'];
    let inside = text.trim_start_matches('[').trim_start_matches(blank);
    match inside.strip_prefix('{') {
        Some(rest) => {
            let rest = rest.trim_start_matches(blank);
            // Ruby's print has the same quotes, and an arrow behind the name.
            let after_name = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
            let is_ruby = after_name.is_some_and(|(_, rest)| rest.trim_start().starts_with("=>"));
            rest.starts_with(['"', '}']) && !is_ruby || rest.is_empty()
        }
        None => text.starts_with('"') || text.starts_with("[]") || inside.is_empty(),
    }
}

/// Whether a text in pointed brackets is a page, and not Python's print of an object (`<_InactiveRpcError of RPC …>`).
fn is_page(text: &str) -> bool {
    const TAGS: [&str; 9] = ["html", "head", "title", "body", "div", "center", "h1", "p", "script"];
    let name = &text[1..];
    let len = name.bytes().take_while(u8::is_ascii_alphanumeric).count();
    name.starts_with(['!', '?', '/']) || TAGS.iter().any(|tag| name[..len].eq_ignore_ascii_case(tag))
}

fn is_event_stream(text: &str) -> bool {
    ["data:", "event:", "id:", "retry:", ":"].iter().any(|field| text.starts_with(field))
}

/// Reads the errors in an event stream. Whether there are any.
fn events(fields: &mut Fields<'_>, text: &str, http: u16) -> bool {
    let mut scanner = Scanner::new();
    scanner.feed(text.as_bytes());
    scanner.finish();
    let Some(errors) = scanner.error().filter(|_| !scanner.is_text()).map(readable) else { return false };
    let mut inner = Fields::default();
    read(&mut inner, std::str::from_utf8(&errors).unwrap_or_default(), http);
    *fields = inner.into_owned();
    fields.has_error
}

fn first_line(text: &str) -> &str {
    message::clip(text.lines().next().unwrap_or_default(), 1024)
}

/// `retry-after-ms`, else `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3).
///
/// No recorded answer of Gemini has either (2026-11); gateways in front of it send them.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: http::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let millis = text(http::HeaderName::from_static("retry-after-ms")).and_then(|ms| ms.trim().parse().ok());
    if let Some(delay) = millis.and_then(|ms: f64| Duration::try_from_secs_f64(ms / 1000.0).ok()) {
        return Some(delay);
    }
    let value = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date that has passed means now.
    Some(date.duration_since(crate::time::wall_clock()).unwrap_or_default())
}

/// The body without its gzip coding, at most 256 KiB of it; `None` where it has none.
///
/// The first two bytes tell, not the header: log files lose headers, and no text begins like this.
#[cfg(feature = "gzip")]
fn inflate(body: &[u8]) -> Option<Vec<u8>> {
    use std::io::Read;
    if !body.starts_with(GZIP) {
        return None;
    }
    let mut plain = Vec::new();
    // A cut gzip body fails at its end; what came before it counts.
    let _ = flate2::read::MultiGzDecoder::new(body).take(DEFAULT_LIMIT as u64).read_to_end(&mut plain);
    Some(plain)
}

/// Without the feature a coded body is judged by its status and headers.
#[cfg(not(feature = "gzip"))]
fn inflate(body: &[u8]) -> Option<Vec<u8>> {
    body.starts_with(GZIP).then(Vec::new)
}

#[cfg(test)]
#[path = "tests/response.rs"]
mod tests;
