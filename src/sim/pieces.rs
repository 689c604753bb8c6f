//! The body of a response as a list of pieces, each with its time. Pure.

use std::time::Duration;

use bytes::Bytes;

use super::Fault;
use super::fault::{Asked, Delivery, Kind, Shape, error_json, html};
use super::json::Json;

/// What happens `gap` after the piece before it, or after the head.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) gap: Duration,
    pub(super) event: Event,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Data(Bytes),
    Reset,
    End,
}

/// A body in one piece.
pub(super) fn whole(body: String) -> Vec<Piece> {
    vec![data(Duration::ZERO, body), Piece { gap: Duration::ZERO, event: Event::End }]
}

fn data(gap: Duration, text: String) -> Piece {
    Piece { gap, event: Event::Data(Bytes::from(text)) }
}

/// The pieces of a streamed answer, with what the fault does to them.
pub(super) fn stream(
    mut parts: Vec<Json>,
    sse: bool,
    fault: Option<&Fault>,
    asked: &Asked<'_>,
    interval: Duration,
) -> Vec<Piece> {
    let mut closed = true;
    let mut error = None;
    let mut end = Piece { gap: Duration::ZERO, event: Event::End };
    if let Some(Fault { kind, shape }) = fault {
        let keep = |n: &u32| usize::try_from(*n).unwrap_or(usize::MAX);
        match (kind, shape.delivery) {
            (Kind::CutStream(n), _) => {
                closed = false;
                parts.truncate(keep(n).min(parts.len() - 1));
            }
            (Kind::ResetAfterChunks(n), _) => {
                closed = false;
                parts.truncate(keep(n));
                end = Piece { gap: Duration::ZERO, event: Event::Reset };
            }
            (_, Delivery::Event(n) | Delivery::Tail(n)) => {
                parts.truncate(keep(&n));
                let bare = matches!(shape.delivery, Delivery::Tail(_));
                error = Some((in_stream(kind, shape, asked, sse && !bare), bare));
            }
            _ => {}
        }
    }
    let mut frames: Vec<String> = parts
        .iter()
        .map(|part| if sse { format!("data: {}\r\n\r\n", part.compact()) } else { part.pretty() })
        .collect();
    match error {
        Some((text, false)) if sse => frames.push(format!("data: {text}\r\n\r\n")),
        Some((text, true)) if sse => frames.push(text + "\n"),
        Some((text, _)) => frames.push(text),
        None => {}
    }
    if !sse {
        let last = frames.len();
        for (i, frame) in frames.iter_mut().enumerate() {
            frame.insert_str(0, if i == 0 { "[" } else { "\n,\r\n" });
            if closed && i + 1 == last {
                frame.push_str("\n]");
            }
        }
    }
    let gap = |i| if i == 0 { Duration::ZERO } else { interval };
    let mut pieces: Vec<Piece> = frames.into_iter().enumerate().map(|(i, f)| data(gap(i), f)).collect();
    pieces.push(end);
    if let Some(Kind::StalledStream { chunks, silence }) = fault.map(|f| &f.kind) {
        let at = usize::try_from(*chunks).unwrap_or(usize::MAX).min(pieces.len() - 1);
        pieces[at].gap = pieces[at].gap.saturating_add(*silence);
    }
    pieces
}

/// The text of an error inside a stream; on one line if it is to follow `data:`.
fn in_stream(kind: &Kind, shape: &Shape, asked: &Asked<'_>, one_line: bool) -> String {
    match kind {
        Kind::Error(kind) if kind.is_html() => html(*kind),
        Kind::Error(kind) => {
            let body = error_json(*kind, shape, asked);
            if one_line { body.compact() } else { body.pretty() }
        }
        Kind::Response { body, .. } => String::from_utf8_lossy(body).into_owned(),
        _ => String::new(),
    }
}

/// Cuts the pieces after `bytes` bytes and ends them with a reset.
pub(super) fn reset_after(pieces: &mut Vec<Piece>, bytes: u64) {
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut kept = 0;
    for piece in pieces.iter_mut() {
        let Event::Data(data) = &mut piece.event else { break };
        if left == 0 {
            break;
        }
        data.truncate(left);
        left -= data.len();
        kept += 1;
    }
    pieces.truncate(kept);
    pieces.push(Piece { gap: Duration::ZERO, event: Event::Reset });
}
