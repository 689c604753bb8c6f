use std::time::Duration;

use tower_layer::Layer;

use super::config::Settings;
use super::{Classify, Peek};
use crate::config::ClassifyConfig;
use crate::judge::response::DEFAULT_LIMIT;

/// Puts [`Classify`] around a service. See the [module documentation](super).
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct ClassifyLayer {
    pub(super) settings: Settings,
}

impl ClassifyLayer {
    /// A layer with the defaults: 256 KiB, 5 s, not watching, peeking at the first event of a stream.
    pub const fn new() -> Self {
        Self {
            settings: Settings {
                max_error_bytes: DEFAULT_LIMIT,
                read_timeout: Duration::from_secs(5),
                watch: false,
                peek: Peek::FirstEvent,
                enabled: true,
            },
        }
    }

    /// Off, nothing is read, held or published, with the same type: the other layers judge by status, headers and error type.
    /// Default on.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// How much of an error body is read before it is judged, and at most held of an answer that is
    /// [peeked](Self::peek) at, in bytes. Default 256 KiB; 0 reads nothing and judges by status and headers.
    ///
    /// A longer body is judged by its first part and streams through whole.
    pub const fn max_error_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_error_bytes = bytes;
        self
    }

    /// How long reading an error body may take. Default 5 s; zero judges by what has arrived with the head.
    ///
    /// When it is over, what has arrived is judged, and the rest streams through.
    pub const fn read_timeout(mut self, timeout: Duration) -> Self {
        self.settings.read_timeout = timeout;
        self
    }

    /// How far an answer with a 2xx is looked at before it is handed on. Default [`Peek::FirstEvent`].
    pub const fn peek(mut self, peek: Peek) -> Self {
        self.settings.peek = peek;
        self
    }

    /// Reads along with successful bodies, of any length, and publishes at their end how they ended
    /// ([`Verdict::outcome`](crate::Verdict::outcome)): complete, broken off, blocked, empty, with an error in
    /// the stream, or dropped by the caller; and the tokens used ([`Verdict::usage`](crate::Verdict::usage)), as
    /// far as the body was read. A stream without a byte is empty. Default off.
    ///
    /// Costs four allocations a response: the shared cell, and its place in the response's extensions. No byte
    /// is changed, delayed or copied, but for the text of an error and the beginning of a body that is no JSON,
    /// at most 8 KiB of either. A body under `content-encoding: gzip` is decoded for this, 8 KiB at a time and
    /// 64 MiB in all (with the feature `gzip`); of a longer one, and under any other coding, only the
    /// transport's end is judged.
    pub const fn watch(mut self) -> Self {
        self.settings.watch = true;
        self
    }

    #[allow(
        clippy::field_reassign_with_default,
        reason = "one setting a line, some of them worked out between"
    )]
    pub(crate) fn config(&self) -> ClassifyConfig {
        let Settings { max_error_bytes, read_timeout, watch, peek, enabled } = self.settings;
        let mut config = ClassifyConfig::default();
        config.enabled = Some(enabled);
        config.max_error_bytes = Some(max_error_bytes);
        config.read_timeout = Some(read_timeout.into());
        config.peek = Some(peek);
        config.watch = Some(watch);
        config
    }
}

impl Default for ClassifyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ClassifyLayer {
    type Service = Classify<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Classify::new(inner, self.settings)
    }
}
