//! The error of a setting that cannot be.

use std::error::Error;
use std::fmt;

/// A setting outside its range. Names the field and the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    section: Option<&'static str>,
    field: &'static str,
    rule: &'static str,
}

impl ConfigError {
    pub(crate) const fn new(field: &'static str, rule: &'static str) -> Self {
        Self { section: None, field, rule }
    }

    pub(crate) const fn within(mut self, section: &'static str) -> Self {
        self.section = Some(section);
        self
    }

    /// The section of a [configuration](crate::config) that the setting is in, such as `retry`; `None` where it was set with a
    /// builder.
    #[must_use]
    pub const fn section(&self) -> Option<&'static str> {
        self.section
    }

    /// The setting, by the name of its method.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// What a valid value is, such as `must be from 1 to 100`.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (section, dot) = self.section.map_or(("", ""), |section| (section, "."));
        write!(f, "invalid setting `{section}{dot}{}`: {}", self.field, self.rule)
    }
}

impl Error for ConfigError {}
