use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, header};
use http_body::Body;
use tower_layer::Layer;

use super::count::{Bucket, CountTokens};
use super::error::PreflightRefused;
use super::facts::Facts;
use super::judge::{Asked, Law};
use super::rule::{Finding, Mode, Modes, Rule};
use super::service::Preflight;
use crate::catalogue::Catalogue;
use crate::error::ConfigError;
use crate::event::{Event, Observed, Observer};
use crate::rate_limit::{InputTokens, Texts};
use crate::request::{Method, Surface, Target};
use crate::time;

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
    /// What becomes of a request that breaks `rule`. Default: [`Rule::default_mode`].
    pub fn mode(mut self, rule: Rule, mode: Mode) -> Self {
        self.settings.modes.set(rule, mode);
        self
    }

    /// The same for every rule: [`Mode::Warn`] to see first what would be refused. Those that are off stay off, so a
    /// [`mode`](Self::mode) of one rule counts before and after.
    pub fn every_mode(mut self, mode: Mode) -> Self {
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

pub(super) struct Settings {
    modes: Modes,
    pub(super) hold_bytes: usize,
    pub(super) head_wait: Duration,
    max_inline_bytes: u64,
    catalogue: Option<Arc<Catalogue>>,
    pub(super) count: Option<CountTokens>,
    bucket: Bucket,
    observer: Observed,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            modes: Modes::default(),
            hold_bytes: 64 * 1024,
            head_wait: Duration::from_secs(10),
            max_inline_bytes: 100 * 1024 * 1024,
            catalogue: None,
            count: None,
            bucket: Bucket::default(),
            observer: Observed::default(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("modes", &self.modes)
            .field("hold_bytes", &self.hold_bytes)
            .field("head_wait", &self.head_wait)
            .field("max_inline_bytes", &self.max_inline_bytes)
            .field("count", &self.count)
            .field("observer", &self.observer)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// What nobody would be told is not looked at.
    fn finished(mut self) -> Self {
        for rule in Rule::ALL {
            if self.modes.of(*rule) == Mode::Warn && !self.observer.is_some() {
                self.modes.set(*rule, Mode::Off);
            }
        }
        self
    }

    pub(super) fn looks_for_keys(&self) -> bool {
        self.modes.is_on(Rule::KeyInBody)
    }

    fn by<T>(&self, judge: impl FnOnce(&Law<'_>) -> T) -> T {
        let current = self.catalogue.is_none().then(Catalogue::current);
        let catalogue = self.catalogue.as_ref().or(current.as_ref()).expect("one of the two is there");
        judge(&Law { modes: &self.modes, catalogue, max_inline_bytes: self.max_inline_bytes })
    }

    /// What the head of a request breaks.
    #[inline]
    pub(super) fn head<T>(
        &self,
        target: &Target<'_>,
        head: &Request<T>,
        length: Option<u64>,
    ) -> Vec<Finding> {
        let mut out = Vec::new();
        self.by(|law| law.head(&Asked::of(target, head, length), time::wall_clock, &mut out));
        out
    }

    /// What the body breaks, as far as it was read.
    #[inline]
    pub(super) fn body<T>(
        &self,
        target: &Target<'_>,
        head: &Request<T>,
        facts: &Facts,
        out: &mut Vec<Finding>,
    ) {
        self.by(|law| law.body(&Asked::of(target, head, None), facts, time::wall_clock, out));
    }

    /// What the count of the prompt's tokens breaks.
    pub(super) fn counted<T>(&self, head: &Request<T>, facts: &Facts, tokens: u64) -> Vec<Finding> {
        let mut out = Vec::new();
        let target = Target::of(head);
        let model = target.model().or_else(|| facts.model.as_ref().map(|name| name.as_str()));
        self.by(|law| law.counted(&Asked::of(&target, head, None), model, tokens, &mut out));
        out
    }

    /// Whether a request is to be refused for one of these.
    #[inline]
    pub(super) fn refuses(&self, findings: &[Finding]) -> bool {
        findings.iter().any(|finding| self.modes.of(finding.rule()) == Mode::Reject)
    }

    /// Tells what was found; the refusal, where there is to be one.
    #[inline]
    pub(super) fn settle(&self, target: &Target<'_>, findings: &[Finding]) -> Option<PreflightRefused> {
        if findings.is_empty() { None } else { self.tell(target, findings) }
    }

    #[cold]
    fn tell(&self, target: &Target<'_>, findings: &[Finding]) -> Option<PreflightRefused> {
        let refused = PreflightRefused::of(findings, &self.modes);
        let key = target.key();
        for finding in findings {
            let refused = self.modes.of(finding.rule()) == Mode::Reject;
            self.observer.tell(&Event::Preflight { key: &key, finding, refused });
        }
        refused
    }

    /// What is found when a body that went out has ended: told, and nothing else.
    pub(super) fn after(&self, head: &Request<()>, facts: &Facts, told: &[Rule]) {
        let target = Target::of(head);
        let mut out = Vec::new();
        self.by(|law| law.length(target.surface(), facts.bytes, &mut out));
        self.body(&target, head, facts, &mut out);
        out.retain(|finding| !told.contains(&finding.rule()));
        if out.is_empty() {
            return;
        }
        let key = target.key();
        for finding in &out {
            self.observer.tell(&Event::Preflight { key: &key, finding, refused: false });
        }
    }

    /// The texts of a batch that was read as a whole, for a rate limit that counts them.
    #[inline]
    pub(super) fn texts(target: &Target<'_>, head: &Request<()>, facts: &Facts) -> Option<Texts> {
        let counts =
            target.method() == Method::BatchEmbedContents && head.extensions().get::<Texts>().is_none();
        counts.then(|| Texts(u8::try_from(facts.texts).unwrap_or(u8::MAX)))
    }

    /// Whether the tokens of this request are to be asked for.
    pub(super) fn counts(&self, target: &Target<'_>, head: &Request<()>, facts: &Facts) -> bool {
        let Some(count) = &self.count else { return false };
        target.surface() == Surface::GeminiApi
            && matches!(target.method(), Method::GenerateContent | Method::StreamGenerateContent)
            && (count.min_bytes as u64..=count.max_bytes as u64).contains(&facts.bytes)
            && head.extensions().get::<InputTokens>().is_none()
            && self.bucket.take(count.per_minute, time::now())
    }
}

/// Whether the body of such a request is JSON with something to be looked at.
#[inline]
pub(super) fn is_read(target: &Target<'_>, headers: &HeaderMap) -> bool {
    let method = target.method();
    (method.is_generation() || method.is_embedding() || method == Method::CountTokens)
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// The length of a request's body, as far as it says so.
#[inline]
pub(super) fn length_of<B: Body>(headers: &HeaderMap, body: &B) -> Option<u64> {
    let hint = body.size_hint();
    let said = || headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    // At least so much is known in any case.
    hint.exact().or_else(said).or(Some(hint.lower()).filter(|lower| *lower > 0))
}
