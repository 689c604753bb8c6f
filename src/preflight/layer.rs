use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::config::Settings;
use super::count::CountTokens;
use super::rule::{Rule, RuleMode};
use super::service::Preflight;
use crate::catalogue::Catalogue;
use crate::error::ConfigError;
use crate::event::{Observed, Observer};

/// Puts a [`Preflight`] around a service. See the [module documentation](super).
///
/// Clones and all services it makes share the settings, and the counts of tokens that are left.
#[derive(Clone, Debug)]
#[must_use]
pub struct PreflightLayer {
    settings: Arc<Settings>,
}

impl PreflightLayer {
    /// The defaults: each rule in its [`default_mode`](Rule::default_mode), no count of tokens, nobody told.
    pub fn new() -> Self {
        Self { settings: Arc::new(Settings::default().finished()) }
    }

    /// Settings, beginning with the defaults.
    pub fn builder() -> PreflightBuilder {
        PreflightBuilder { settings: Settings::default() }
    }
}

impl Default for PreflightLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for PreflightLayer {
    type Service = Preflight<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Preflight::new(Arc::clone(&self.settings), inner)
    }
}

/// Collects settings for a [`PreflightLayer`]; [`build`](Self::build) checks them.
#[derive(Debug)]
#[must_use]
pub struct PreflightBuilder {
    settings: Settings,
}

impl PreflightBuilder {
    /// Off, it looks at nothing and holds nothing, with the same type. Default on.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// What becomes of a request that breaks `rule`. Default: [`Rule::default_mode`].
    pub fn mode(mut self, rule: Rule, mode: RuleMode) -> Self {
        self.settings.modes.set(rule, mode);
        self
    }

    /// The same for every rule: [`RuleMode::Warn`] to see first what would be refused. Those that are off stay off, so a
    /// [`mode`](Self::mode) of one rule counts before and after.
    pub fn every_mode(mut self, mode: RuleMode) -> Self {
        for rule in Rule::ALL {
            if self.settings.modes.is_on(*rule) {
                self.settings.modes.set(*rule, mode);
            }
        }
        self
    }

    /// Bytes of a body that are held until it is judged, 1 KiB to 16 MiB. Default 64 KiB.
    ///
    /// A frame is held whole: what is in memory as one piece is judged whole, whatever its size.
    pub fn hold_bytes(mut self, bytes: usize) -> Self {
        self.settings.hold_bytes = bytes;
        self
    }

    /// How long the beginning of a body is waited for, 1 ms to 10 min; then it is judged by what is there, and sent. Default
    /// 10 s, and never beyond the request's deadline.
    pub fn head_wait(mut self, wait: Duration) -> Self {
        self.settings.head_wait = wait;
        self
    }

    /// The largest body that is taken inline, 1 KiB or more. Default 100 MiB, Google's limit since 2026-01
    /// ([announcement](https://blog.google/innovation-and-ai/technology/developers-tools/gemini-api-new-file-limits), read
    /// 2026-11); older regions and gateways have 20 MiB.
    pub fn max_inline_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_inline_bytes = bytes;
        self
    }

    /// The models to judge by. Default: [`Catalogue::current`] at each request.
    pub fn catalogue(mut self, catalogue: Catalogue) -> Self {
        self.settings.catalogue = Some(Arc::new(catalogue));
        self
    }

    /// Asks for the count of a prompt's tokens before it is sent. Default: no.
    pub fn count_tokens(mut self, count: CountTokens) -> Self {
        self.settings.count = Some(count);
        self
    }

    /// Who is told of findings. Default: nobody, and rules that are only told are not looked at.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.settings.observer = Observed::by(observer);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// `hold_bytes`, `head_wait`, `max_inline_bytes`, or a setting of [`CountTokens`] that is outside its range.
    pub fn build(self) -> Result<PreflightLayer, ConfigError> {
        let settings = self.settings;
        if !(1024..=16 * 1024 * 1024).contains(&settings.hold_bytes) {
            return Err(ConfigError::new("hold_bytes", "must be from 1 KiB to 16 MiB"));
        }
        if settings.head_wait < Duration::from_millis(1) || settings.head_wait > Duration::from_secs(600) {
            return Err(ConfigError::new("head_wait", "must be from 1 ms to 10 min"));
        }
        if settings.max_inline_bytes < 1024 {
            return Err(ConfigError::new("max_inline_bytes", "must be 1 KiB or more"));
        }
        if let Some(count) = &settings.count {
            count.check()?;
        }
        Ok(PreflightLayer { settings: Arc::new(settings.finished()) })
    }
}
