//! What becomes of a request that breaks a rule.

pub(super) use crate::event::{Finding, Rule};

/// What becomes of a request that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RuleMode {
    /// The rule is not looked at.
    Off,
    /// The [event](crate::event::Event::Preflight) is told, and the request is sent.
    Warn,
    /// The event is told, and the request is refused, as long as it can be.
    Reject,
}

impl Rule {
    /// What becomes of a request that breaks it, unless set: refused where the server is sure to refuse it, else told.
    #[must_use]
    pub const fn default_mode(self) -> RuleMode {
        match self {
            Self::CandidateCount
            | Self::Temperature
            | Self::TopP
            | Self::TopK
            | Self::OutputTokens
            | Self::Thinking
            | Self::ContextSize
            | Self::InlineSize
            | Self::BatchSize => RuleMode::Reject,
            Self::LowTemperature
            | Self::UnknownModel
            | Self::RetiredModel
            | Self::ApiVersion
            | Self::KeyInUrl
            | Self::KeyInBody => RuleMode::Warn,
        }
    }
}

/// A mode for each rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Modes([RuleMode; Rule::ALL.len()]);

impl Default for Modes {
    fn default() -> Self {
        let mut modes = [RuleMode::Off; Rule::ALL.len()];
        for rule in Rule::ALL {
            modes[*rule as usize] = rule.default_mode();
        }
        Self(modes)
    }
}

impl Modes {
    #[inline]
    pub(super) const fn of(&self, rule: Rule) -> RuleMode {
        self.0[rule as usize]
    }

    #[inline]
    pub(super) fn is_on(&self, rule: Rule) -> bool {
        self.of(rule) != RuleMode::Off
    }

    pub(super) const fn set(&mut self, rule: Rule, mode: RuleMode) {
        self.0[rule as usize] = mode;
    }
}
