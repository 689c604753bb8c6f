//! The Interactions API: what the simulator remembers of each, and the bodies that it answers with. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use super::Fault;
use super::answer::Flavour;
use super::fault::{Asked, Delivery, Kind, interaction_error};
use super::json::{Json, object};
use super::pieces::{Event, Piece};
use super::prompt::{Prompt, tokens_of};

/// Interactions that are remembered; the oldest go first.
const MAX_KEPT: usize = 1_000;

/// Those that were created, oldest first.
#[derive(Debug, Default)]
pub(super) struct Interactions(VecDeque<Interaction>);

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Interaction {
    id: String,
    number: u64,
    model: String,
    /// What this one says, and what is left for those that continue it.
    text: String,
    rest: String,
    input_tokens: u64,
    flavour: Flavour,
    /// When it was created, and when it is complete.
    at: Duration,
    done_at: Duration,
    cancelled_at: Option<Duration>,
    chunks: usize,
    interval: Duration,
}

/// What there is to know for a new one.
pub(super) struct New<'a> {
    pub(super) number: u64,
    pub(super) model: &'a str,
    pub(super) prompt: &'a Prompt,
    /// What the model says, unless an earlier one is continued.
    pub(super) text: String,
    pub(super) flavour: Flavour,
    pub(super) chunks: usize,
    pub(super) interval: Duration,
    /// The most tokens of one answer.
    pub(super) decode_tokens: Option<u64>,
    /// When its head comes.
    pub(super) at: Duration,
}

impl Interactions {
    /// Makes a new one; `None` where the token of another is given that is not known.
    pub(super) fn create(&mut self, new: New<'_>) -> Option<Interaction> {
        let text = match &new.prompt.continuation {
            None => new.text,
            Some(token) => {
                let number: u64 = token.strip_prefix("ct-")?.parse().ok()?;
                self.0.iter().find(|known| known.number == number && !known.rest.is_empty())?.rest.clone()
            }
        };
        let most =
            new.decode_tokens.map_or(usize::MAX, |tokens| usize::try_from(tokens * 4).unwrap_or(usize::MAX));
        let cut = text.char_indices().nth(most).map_or(text.len(), |(at, _)| at);
        let made = Interaction {
            id: format!("v1_sim{:06}", new.number),
            number: new.number,
            model: new.model.to_owned(),
            rest: text[cut..].to_owned(),
            text: text[..cut].to_owned(),
            input_tokens: new.prompt.tokens,
            flavour: new.flavour,
            at: new.at,
            done_at: new.at.saturating_add(new.interval * u32::try_from(new.chunks).unwrap_or(u32::MAX)),
            cancelled_at: None,
            chunks: new.chunks.max(1),
            interval: new.interval,
        };
        if self.0.len() >= MAX_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(made.clone());
        Some(made)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Interaction> {
        self.0.iter().find(|known| known.id == id)
    }

    /// Cancels it, unless it is over.
    pub(super) fn cancel(&mut self, id: &str, now: Duration) -> Option<&Interaction> {
        let found = self.0.iter_mut().find(|known| known.id == id)?;
        if now < found.done_at && found.cancelled_at.is_none() {
            found.cancelled_at = Some(now);
        }
        Some(found)
    }

    /// Forgets it; whether it was there.
    pub(super) fn delete(&mut self, id: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|known| known.id != id);
        self.0.len() < before
    }
}

impl Interaction {
    /// How it ends.
    fn end(&self) -> &'static str {
        match self.flavour {
            Flavour::BlockedPrompt | Flavour::BlockedAnswer => "failed",
            _ if self.rest.is_empty() => "completed",
            _ => "requires_continuation",
        }
    }

    fn status(&self, now: Duration) -> &'static str {
        match self.cancelled_at {
            Some(_) => "cancelled",
            None if now < self.done_at => "in_progress",
            None => self.end(),
        }
    }

    fn usage(&self, text: &str) -> Json {
        let output = tokens_of(text);
        object([
            ("total_tokens", self.input_tokens.saturating_add(output).into()),
            ("total_input_tokens", self.input_tokens.into()),
            ("total_output_tokens", output.into()),
        ])
    }

    fn named(&self, status: &str) -> Json {
        object([
            ("id", self.id.as_str().into()),
            ("status", status.into()),
            ("model", self.model.as_str().into()),
        ])
    }

    /// The resource, complete: of one that is not made in the background.
    pub(super) fn whole(&self) -> Json {
        self.resource(self.end())
    }

    /// The resource as it stands.
    pub(super) fn now(&self, now: Duration) -> Json {
        self.resource(self.status(now))
    }

    fn resource(&self, status: &str) -> Json {
        let body = self.named(status).and("object", "interaction").and("created", "2026-11-29T00:00:00Z");
        let body = body.and("updated", "2026-11-29T00:00:00Z");
        match status {
            "completed" | "requires_continuation" => {
                let says = self.flavour == Flavour::Good;
                let steps = if says { vec![step(&self.text)] } else { Vec::new() };
                let body = body.and("steps", steps).and("usage", self.usage(&self.text));
                if self.rest.is_empty() { body } else { body.and("continuation_token", self.token()) }
            }
            "failed" => {
                let error =
                    object([("code", "safety".into()), ("message", "The content was blocked.".into())]);
                body.and("errors", vec![error])
            }
            _ => body,
        }
    }

    fn token(&self) -> String {
        format!("ct-{}", self.number)
    }

    /// The events of its stream with the time of each since it was created, and whether each is output.
    fn events(&self) -> Vec<(Duration, bool, Json)> {
        let mut events = Vec::new();
        let mut tell =
            |at: Duration, output: bool, kind: &'static str, members: Vec<(&'static str, Json)>| {
                let number = events.len() as u64 + 1;
                let head = object([("event_type", kind.into()), ("event_id", number.to_string().into())]);
                let event = members.into_iter().fold(head, |event, (name, value)| event.and(name, value));
                events.push((at, output, event));
            };
        tell(Duration::ZERO, false, "interaction.created", vec![("interaction", self.named("in_progress"))]);
        let status = vec![("interaction_id", self.id.as_str().into()), ("status", "in_progress".into())];
        tell(Duration::ZERO, false, "interaction.status_update", status);
        let mut at = Duration::ZERO;
        let ends = self.cancelled_at.map(|cancelled| cancelled.saturating_sub(self.at));
        if self.flavour == Flavour::Good {
            let begins = object([("type", "model_output".into()), ("content", Vec::new().into())]);
            tell(at, false, "step.start", vec![("index", 0.into()), ("step", begins)]);
            let chars: Vec<char> = self.text.chars().collect();
            for i in 0..self.chunks {
                let (start, end) = (i * chars.len() / self.chunks, (i + 1) * chars.len() / self.chunks);
                if start == end || ends.is_some_and(|ends| at >= ends) {
                    continue;
                }
                let text: String = chars[start..end].iter().collect();
                let delta = object([("type", "text".into()), ("text", text.into())]);
                tell(at, true, "step.delta", vec![("index", 0.into()), ("delta", delta)]);
                at = at.saturating_add(self.interval);
            }
            if ends.is_none() {
                tell(at, false, "step.stop", vec![("index", 0.into())]);
            }
        }
        let end = if ends.is_some() { "cancelled" } else { self.end() };
        let mut last = self.named(end);
        if ends.is_none() {
            last = last.and("usage", self.usage(&self.text));
        }
        if end == "requires_continuation" {
            last = last.and("continuation_token", self.token());
        }
        tell(at, false, "interaction.completed", vec![("interaction", last)]);
        events
    }

    /// The pieces of its stream behind the event `after`, with what the fault does to them. What has happened by `now`, of one
    /// that is taken up again, comes at once.
    pub(super) fn stream(
        &self,
        after: u64,
        now: Option<Duration>,
        fault: Option<&Fault>,
        asked: &Asked<'_>,
    ) -> Vec<Piece> {
        let past = now.map_or(Duration::ZERO, |now| now.saturating_sub(self.at));
        let mut events: Vec<_> =
            self.events().into_iter().skip(usize::try_from(after).unwrap_or(usize::MAX)).collect();
        // So many outputs are let through, and what comes before the next one.
        let up_to = |events: &[(Duration, bool, Json)], outputs: u32| {
            let mut left = outputs;
            let next = events.iter().position(|(_, output, _)| {
                let over = *output && left == 0;
                left -= u32::from(*output && left > 0);
                over
            });
            // Behind the last output the stream is not over yet.
            next.unwrap_or_else(|| events.iter().rposition(|(_, output, _)| *output).map_or(0, |at| at + 1))
        };
        let (mut error, mut end, mut silence) = (None, Event::End, None);
        if let Some(Fault { kind, shape }) = fault {
            match (kind, shape.delivery) {
                (Kind::CutStream(n), _) => events.truncate(up_to(&events, *n)),
                (Kind::ResetAfterChunks(n), _) => {
                    events.truncate(up_to(&events, *n));
                    end = Event::Reset;
                }
                (Kind::StalledStream { chunks, silence: by }, _) => {
                    silence = Some((up_to(&events, *chunks), *by))
                }
                (Kind::Error(kind), Delivery::Event(n) | Delivery::Tail(n)) => {
                    events.truncate(up_to(&events, n));
                    let body = object([("event_type", "error".into())]);
                    error = Some(body.and("error", interaction_error(*kind, shape, asked)));
                }
                _ => {}
            }
        }
        let whole = error.is_none()
            && matches!(end, Event::End)
            && !matches!(fault.map(|f| &f.kind), Some(Kind::CutStream(_)));
        let mut last = past;
        let mut pieces: Vec<Piece> = events
            .into_iter()
            .map(|(at, _, event)| {
                let gap = at.saturating_sub(last);
                last = last.max(at);
                frame(gap, &event)
            })
            .collect();
        pieces.extend(error.map(|error| frame(self.interval, &error)));
        if whole {
            pieces.push(Piece {
                gap: Duration::ZERO,
                event: Event::Data("event: done\ndata: [DONE]\n\n".into()),
            });
        }
        pieces.push(Piece { gap: Duration::ZERO, event: end });
        if let Some((at, by)) = silence {
            let at = at.min(pieces.len() - 1);
            pieces[at].gap = pieces[at].gap.saturating_add(by);
        }
        pieces
    }
}

fn step(text: &str) -> Json {
    let content = object([("type", "text".into()), ("text", text.into())]);
    object([("type", "model_output".into()), ("content", vec![content].into())])
}

fn frame(gap: Duration, event: &Json) -> Piece {
    let name = match event {
        Json::Map(members) => members.iter().find_map(|(name, value)| match value {
            Json::Text(text) if *name == "event_type" => Some(text.as_str()),
            _ => None,
        }),
        _ => None,
    };
    let text = format!("event: {}\ndata: {}\n\n", name.unwrap_or("message"), event.compact());
    Piece { gap, event: Event::Data(text.into()) }
}
