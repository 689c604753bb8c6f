//! The settings of the layer, and what they say of a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, header};
use http_body::Body;

use super::count::{Bucket, CountTokens};
use super::error::PreflightRefused;
use super::facts::Facts;
use super::judge::{Asked, Law};
use super::rule::{Finding, Modes, Rule, RuleMode};
use crate::catalogue::Catalogue;
use crate::event::{Event, Observed};
use crate::rate_limit::{InputTokens, Texts};
use crate::request::{Method, Surface, Target};
use crate::time;

pub(super) struct Settings {
    pub(super) modes: Modes,
    pub(super) hold_bytes: usize,
    pub(super) head_wait: Duration,
    pub(super) max_inline_bytes: u64,
    pub(super) enabled: bool,
    pub(super) catalogue: Option<Arc<Catalogue>>,
    pub(super) count: Option<CountTokens>,
    pub(super) bucket: Bucket,
    pub(super) observer: Observed,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            modes: Modes::default(),
            hold_bytes: 64 * 1024,
            head_wait: Duration::from_secs(10),
            max_inline_bytes: 100 * 1024 * 1024,
            enabled: true,
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
    pub(super) fn finished(mut self) -> Self {
        for rule in Rule::ALL {
            if self.modes.of(*rule) == RuleMode::Warn && !self.observer.is_some() {
                self.modes.set(*rule, RuleMode::Off);
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
        findings.iter().any(|finding| self.modes.of(finding.rule()) == RuleMode::Reject)
    }

    /// Tells what was found; the refusal, where there is to be one.
    #[inline]
    pub(super) fn settle(&self, target: &Target<'_>, findings: &[Finding]) -> Option<PreflightRefused> {
        if findings.is_empty() { None } else { self.tell(target, findings) }
    }

    #[cold]
    fn tell(&self, target: &Target<'_>, findings: &[Finding]) -> Option<PreflightRefused> {
        let refused = PreflightRefused::of(findings, &self.modes, target.model());
        let key = target.key();
        for finding in findings {
            let refused = self.modes.of(finding.rule()) == RuleMode::Reject;
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
