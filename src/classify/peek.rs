//! How far an answer is looked at before it is handed on. Pure.

use http::{Request, Response};

use super::config::{Peek, Settings};
use super::reader::{Until, is_event_stream, is_readable};
use crate::context::View;
use crate::request::{Method, Target, may_stream};
use crate::tier::ServiceTier;

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
    #[inline(always)]
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

    /// What the head of this answer, which [is a stream](Self::streams) or not, waits for; `None` where it does not wait.
    #[inline]
    pub(super) fn until<B>(self, settings: Settings, response: &Response<B>, streams: bool) -> Option<Until> {
        let until = match settings.peek {
            Peek::Output if self.generated => Until::Output,
            Peek::Whole if self.generated => Until::Whole,
            Peek::FirstEvent | Peek::Output | Peek::Whole if streams => Until::Event,
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
