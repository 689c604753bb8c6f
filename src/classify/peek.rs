//! How far an answer is looked at before it is handed on. Pure.

use http::{Request, Response};

use super::layer::Settings;
use super::reader::{is_event_stream, is_readable};
use crate::context::View;
use crate::request::{Method, Target, may_stream};
use crate::tier::ServiceTier;

/// How far an answer with a 2xx is looked at before it is handed on: see
/// [`ClassifyLayer::peek`](super::ClassifyLayer::peek).
///
/// What is looked at is held: the head waits, and then everything is handed on frame by frame as it came. What turns
/// out to be a failure gets its [`Verdict`](crate::Verdict) as a failed status does, so that retry, limiter and breaker
/// treat a 503 inside a 200 as a 503. The status stays 200. A failure is
///
/// - an error before anything was delivered that a user would see;
/// - a body that is over without such a thing: empty, broken off, blocked;
/// - a transport that fails before it. The request may have been processed then.
///
/// Whatever is to be seen, the head goes on when the body is over or its transport fails, when an error is found, when
/// the text is no answer (plain text, broken JSON, a coding that is not read), and after
/// [`max_error_bytes`](super::ClassifyLayer::max_error_bytes) or 1,024 frames. There is no time limit: an attempt
/// timeout outside covers the wait, as it covers the wait for a head.
///
/// Costs an answer that is peeked at one allocation, a list for what comes in more than one frame, and what a gzip
/// coding takes; others nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peek {
    /// Nothing is held. Errors are seen at the end of the body, with [`watch`](super::ClassifyLayer::watch).
    Off,
    /// A stream's head waits for its first event, which a reader of events would wait for as well: none gets later. A
    /// comment is no event. Of an interaction that is the word that it was created: it is held for up to 500 ms, or until
    /// something was said, so that an error behind it is retried. A later one is told and not retried.
    ///
    /// A stream is what says so (`content-type: text/event-stream`) or was asked for as one
    /// (`streamGenerateContent`, also without `alt=sse`). Other answers pass at once.
    #[default]
    FirstEvent,
    /// The head of every answer of a [generating](crate::Method::is_generation) call waits until there is something
    /// that a user would see: text, a function call, an image. Thoughts are not.
    ///
    /// For [retries of empty answers](crate::retry::RetryPolicyBuilder::empty_answers). It has a price: thoughts that
    /// are shown live come late, all at once with the first words; and the head of an answer that is no stream waits
    /// for its body.
    ///
    /// What can be read are Gemini's own answers (Code Assist's among them), interactions and chat completions. Others
    /// (partners' models) wait for their first event or object only.
    Output,
    /// The head of every answer of a generating call waits for the whole body, up to
    /// [`max_error_bytes`](super::ClassifyLayer::max_error_bytes) and 1,024 frames; of a longer one the rest streams.
    ///
    /// For callers who use a stream to keep the connection busy and read it whole. As nothing was handed on, an answer that breaks off in its midst, ends with a malformed
    /// call or is blocked is a failure like another one: an error in the stream and a transport that fails are retried by their kind, and what is empty, malformed or
    /// broken off as often as [`empty_answers`](crate::retry::RetryPolicyBuilder::empty_answers) says. Each is billed again.
    Whole,
}

/// What the head waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Until {
    Event,
    Output,
    Whole,
}

/// What the request says of its answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    stream: bool,
    generated: bool,
    tier: Option<ServiceTier>,
    /// The model that was asked, where somebody wants to know if another one answers.
    model: u16,
}

impl Asked {
    pub(super) fn of<B>(request: &Request<B>, peek: Peek) -> Self {
        let view = View::of(request);
        let (tier, model) = (view.tier(), view.expected_model());
        match peek {
            Peek::Off => return Self { tier, model, ..Self::default() },
            Peek::FirstEvent if !may_stream(request) => return Self { tier, model, ..Self::default() },
            Peek::FirstEvent | Peek::Output | Peek::Whole => {}
        }
        let target = Target::of(request);
        let method = target.method();
        Self {
            stream: target.is_streaming(),
            // A long operation is answered by its name.
            generated: method.is_generation() && method != Method::PredictLongRunning,
            tier,
            model,
        }
    }

    /// The number of the model that was asked; 0 where nobody wants to know.
    pub(super) const fn model(self) -> u16 {
        self.model
    }

    /// The service tier that was asked for.
    pub(super) const fn tier(self) -> Option<ServiceTier> {
        self.tier
    }

    /// Whether the answer is a stream.
    pub(super) fn streams<B>(self, response: &Response<B>) -> bool {
        self.stream || is_event_stream(response.headers())
    }

    /// What the head of this answer waits for; `None` where it does not wait.
    #[inline]
    pub(super) fn until<B>(self, settings: Settings, response: &Response<B>) -> Option<Until> {
        let until = match settings.peek {
            Peek::Output if self.generated => Until::Output,
            Peek::Whole if self.generated => Until::Whole,
            Peek::FirstEvent | Peek::Output | Peek::Whole if self.streams(response) => Until::Event,
            _ => return None,
        };
        let worth = response.status().is_success() && settings.max_error_bytes > 0;
        (worth && is_readable(response.headers())).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_asks_for_is_read_off_its_path() {
        let asked = |path: &str, peek| {
            let Asked { stream, generated, .. } = Asked::of(
                &Request::post(format!("http://127.0.0.1{path}")).body(()).expect("a request"),
                peek,
            );
            (stream, generated)
        };
        let models = |method: &str| format!("/v1beta/models/gemini-9-flash:{method}");
        let assist = "/v1internal:streamGenerateContent?alt=sse";
        for (path, stream, generated) in [
            (models("streamGenerateContent"), true, true),
            (models("streamGenerateContent/"), true, true),
            ("/v1/models/m%3AstreamGenerateContent".into(), true, true),
            ("/v1/projects/p/locations/l/publishers/x/models/m:streamRawPredict".into(), true, true),
            (assist.into(), true, true),
            (models("generateContent"), false, true),
            (models("countTokens"), false, false),
            (models("predictLongRunning"), false, false),
            ("/v1beta/openai/chat/completions".into(), false, true),
            ("/upstream/v1beta/files".into(), false, false),
        ] {
            assert_eq!(asked(&path, Peek::Output), (stream, generated), "{path}");
            assert_eq!(asked(&path, Peek::FirstEvent).0, stream, "{path}");
            assert_eq!(asked(&path, Peek::Off), (false, false), "{path}");
        }
    }
}
