//! The span of a call: one of tracing's, or none.

#[cfg(feature = "tracing")]
pub(super) use self::real::CallSpan;

#[cfg(feature = "tracing")]
mod real {
    use ::tracing::field::Empty;
    use ::tracing::{Span, info_span};

    use crate::observe::Call;
    use crate::observe::config::Settings;

    /// `None` where none was asked for.
    pub(in crate::observe) struct CallSpan(Option<Span>);

    impl CallSpan {
        pub(in crate::observe) fn open(settings: &Settings, call: &Call) -> Self {
            if !settings.spans {
                return Self(None);
            }
            let span = info_span!(
                target: "tower_gemini",
                "gemini",
                otel.name = Empty,
                otel.kind = "client",
                otel.status_code = Empty,
                gen_ai.operation.name = call.operation(),
                gen_ai.provider.name = call.provider(),
                gen_ai.request.model = call.model(),
                gen_ai.request.stream = call.is_streaming().then_some(true),
                gen_ai.response.model = Empty,
                gen_ai.usage.input_tokens = Empty,
                gen_ai.usage.cache_read.input_tokens = Empty,
                gen_ai.usage.output_tokens = Empty,
                gen_ai.usage.reasoning.output_tokens = Empty,
                http.request.method = call.http_method().as_str(),
                http.request.resend_count = Empty,
                http.response.status_code = Empty,
                url.path = &*call.path(),
                server.address = call.host(),
                server.port = call.port(),
                error.type = Empty,
            );
            if !span.is_disabled() {
                match call.model() {
                    Some(model) => {
                        span.record("otel.name", format_args!("{} {model}", call.operation()).to_string())
                    }
                    None => span.record("otel.name", call.operation()),
                };
            }
            Self(Some(span))
        }

        pub(in crate::observe) fn in_scope<T>(&self, act: impl FnOnce() -> T) -> T {
            match &self.0 {
                Some(span) => span.in_scope(act),
                None => act(),
            }
        }

        /// What the end tells.
        pub(in crate::observe) fn record(&self, call: &Call) {
            let Some(span) = self.0.as_ref().filter(|span| !span.is_disabled()) else { return };
            if let Some(status) = call.status() {
                span.record("http.response.status_code", status.as_u16());
            }
            if call.resends() > 0 {
                span.record("http.request.resend_count", call.resends());
            }
            if let Some(kind) = call.kind() {
                span.record("error.type", kind.as_str());
                span.record("otel.status_code", "ERROR");
            }
            if let Some(model) = call.model_version() {
                span.record("gen_ai.response.model", model);
            }
            if let Some(usage) = call.usage() {
                span.record("gen_ai.usage.input_tokens", usage.input_tokens);
                span.record("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens);
                // By the conventions thoughts are part of the output.
                let output = usage.output_tokens.saturating_add(usage.thought_tokens);
                span.record("gen_ai.usage.output_tokens", output);
                span.record("gen_ai.usage.reasoning.output_tokens", usage.thought_tokens);
            }
        }
    }
}

/// No span.
#[cfg(not(feature = "tracing"))]
pub(super) struct CallSpan;

#[cfg(not(feature = "tracing"))]
impl CallSpan {
    pub(super) const fn open(_: &super::config::Settings, _: &super::Call) -> Self {
        Self
    }

    pub(super) fn in_scope<T>(&self, act: impl FnOnce() -> T) -> T {
        act()
    }

    pub(super) const fn record(&self, _: &super::Call) {}
}
