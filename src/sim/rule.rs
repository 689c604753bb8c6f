//! When a fault applies.

use std::ops::{Bound, Range, RangeBounds};
use std::time::Duration;

use super::route::Action;
use super::{ConfigError, Fault};

/// A [`Fault`] and the conditions under which it applies, all of which must hold. Without any it applies to
/// every call.
///
/// The first rule that matches a call wins; later ones are not looked at. A fault that only a streamed (or
/// only a generated) answer can have does not match other calls, and is not used up by them.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::sim::{Fault, Rule};
///
/// // An outage of ten seconds, a minute after the first call, which one call in ten survives.
/// let outage = Rule::new(Fault::overloaded())
///     .between(Duration::from_secs(60)..Duration::from_secs(70))
///     .with_probability(0.9);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a rule does nothing until a simulator has it"]
pub struct Rule {
    pub(super) fault: Fault,
    /// First and last number, both included.
    calls: Option<(u64, u64)>,
    model: Option<String>,
    probability: Option<f64>,
    during: Option<Range<Duration>>,
    times: Option<u64>,
}

impl From<Fault> for Rule {
    fn from(fault: Fault) -> Self {
        Self::new(fault)
    }
}

impl Rule {
    /// Always, for ever, for all models.
    pub fn new(fault: Fault) -> Self {
        Self { fault, calls: None, model: None, probability: None, during: None, times: None }
    }

    /// Only for the simulator's `n`-th call, counted from 1 over all models and methods since it was built.
    ///
    /// For the n-th call *of a model*, use [`for_model`](Self::for_model) and [`times`](Self::times).
    pub fn on_call(self, n: u64) -> Self {
        self.on_calls(n..=n)
    }

    /// Only for calls of these numbers, counted like [`on_call`](Self::on_call).
    pub fn on_calls(mut self, numbers: impl RangeBounds<u64>) -> Self {
        let first = match numbers.start_bound() {
            Bound::Included(n) => *n,
            Bound::Excluded(n) => n.saturating_add(1),
            Bound::Unbounded => 1,
        };
        let last = match numbers.end_bound() {
            Bound::Included(n) => *n,
            Bound::Excluded(n) => n.saturating_sub(1),
            Bound::Unbounded => u64::MAX,
        };
        self.calls = Some((first, last));
        self
    }

    /// Only for calls to this model (with or without `models/` in front).
    pub fn for_model(mut self, model: impl Into<String>) -> Self {
        let model = model.into();
        self.model = Some(model.strip_prefix("models/").map(str::to_owned).unwrap_or(model));
        self
    }

    /// Only with probability `p`, from 0 to 1, drawn for each call that meets the other conditions. The draws
    /// follow from the simulator's [`seed`](super::SimulatorBuilder::seed).
    pub fn with_probability(mut self, p: f64) -> Self {
        self.probability = Some(p);
        self
    }

    /// Only for calls that come in this span of time, its end excluded, since the simulator's first call.
    pub fn between(mut self, span: Range<Duration>) -> Self {
        self.during = Some(span);
        self
    }

    /// At most `n` times.
    pub fn times(mut self, n: u64) -> Self {
        self.times = Some(n);
        self
    }

    /// Whether every setting has a meaning.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Some((first, last)) = self.calls {
            if first == 0 {
                return Err(ConfigError::new("Rule::on_calls", "calls are counted from 1"));
            }
            if last < first {
                return Err(ConfigError::new("Rule::on_calls", "must not be empty"));
            }
        }
        // NOTE: written so that a NaN fails.
        if self.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Err(ConfigError::new("Rule::with_probability", "must be a number from 0 to 1"));
        }
        if self.during.as_ref().is_some_and(Range::is_empty) {
            return Err(ConfigError::new("Rule::between", "must not be empty"));
        }
        if self.times == Some(0) {
            return Err(ConfigError::new("Rule::times", "must be at least 1"));
        }
        self.fault.check()
    }
}

/// A rule in force.
#[derive(Debug)]
pub(super) struct Armed {
    rule: Rule,
    fired: u64,
}

impl Armed {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, fired: 0 }
    }

    /// The fault, if all conditions hold. `draw` is asked for a number from 0 to 1 only if chance decides.
    pub(super) fn fire(
        &mut self,
        number: u64,
        at: Duration,
        model: Option<&str>,
        action: Action,
        draw: impl FnOnce() -> f64,
    ) -> Option<Fault> {
        let rule = &self.rule;
        let matches = rule.fault.applies_to(action)
            && rule.calls.is_none_or(|(first, last)| (first..=last).contains(&number))
            && rule.model.as_deref().is_none_or(|wanted| model == Some(wanted))
            && rule.during.as_ref().is_none_or(|span| span.contains(&at))
            && rule.times.is_none_or(|times| self.fired < times)
            && rule.probability.is_none_or(|p| draw() < p);
        if !matches {
            return None;
        }
        self.fired += 1;
        Some(rule.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(rule: Rule) -> Option<&'static str> {
        rule.check().err().map(|e| e.field())
    }

    #[test]
    fn settings_without_a_meaning_are_refused() {
        let rule = || Rule::new(Fault::internal());
        assert_eq!(field(rule()), None);
        assert_eq!(field(rule().on_call(0)), Some("Rule::on_calls"));
        assert_eq!(field(rule().on_calls(0..3)), Some("Rule::on_calls"));
        assert_eq!(field(rule().on_calls(..0)), Some("Rule::on_calls"));
        assert_eq!(field(rule().on_calls(..)), None);
        for p in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
            assert_eq!(field(rule().with_probability(p)), Some("Rule::with_probability"), "{p}");
        }
        assert_eq!(field(rule().with_probability(0.0).with_probability(1.0)), None);
        assert_eq!(field(rule().between(Duration::ZERO..Duration::ZERO)), Some("Rule::between"));
        assert_eq!(field(rule().times(0)), Some("Rule::times"));
    }

    #[test]
    fn all_conditions_must_hold_and_only_a_match_is_counted() {
        let rule = Rule::new(Fault::internal()).on_calls(2..).for_model("models/m").times(1);
        let mut armed = Armed::new(rule.between(Duration::ZERO..Duration::from_secs(5)));
        let mut fire = |number, secs, model| {
            armed.fire(number, Duration::from_secs(secs), Some(model), Action::Generate, || 0.0).is_some()
        };
        assert!(!fire(1, 0, "m"));
        assert!(!fire(2, 0, "other"));
        assert!(!fire(3, 5, "m"), "the end is excluded");
        assert!(fire(4, 4, "m"));
        assert!(!fire(5, 4, "m"), "at most once");
    }

    #[test]
    fn probability_zero_never_fires_and_one_always_does() {
        let fires = |p, draw| {
            let mut armed = Armed::new(Rule::new(Fault::internal()).with_probability(p));
            armed.fire(1, Duration::ZERO, None, Action::Generate, || draw).is_some()
        };
        assert!(!fires(0.0, 0.0));
        assert!(fires(1.0, 1.0 - f64::EPSILON));
    }
}
