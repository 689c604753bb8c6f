use std::error::Error;
use std::fmt;

use super::rule::{Finding, Modes, RuleMode};
use crate::error::timed_out::Of;
use crate::error::{BoxError, Rejected};

/// The error of a request that was refused before anything was sent.
///
/// Its `source` is a [`Rejected`] of the kind `invalid_argument`, `context_too_long` or `payload_too_large`, with no end: the
/// same request is refused again. [`RespondLayer`](crate::respond::RespondLayer) makes Google's own answer of it, a 400 (413 for
/// a body that is too large) with the status `INVALID_ARGUMENT` and a field violation for each finding.
#[derive(Debug)]
pub struct PreflightRefused {
    findings: Vec<Finding>,
    /// All of them in one line.
    text: String,
    model: Option<Box<str>>,
    rejected: Rejected,
}

impl PreflightRefused {
    /// `None` where none of the findings is to be refused.
    pub(super) fn of(findings: &[Finding], modes: &Modes, model: Option<&str>) -> Option<Self> {
        let refused = |finding: &&Finding| modes.of(finding.rule()) == RuleMode::Reject;
        let findings: Vec<_> = findings.iter().filter(refused).cloned().collect();
        let kind = findings.first()?.rule().kind();
        let rejected = Rejected::new("the server would refuse the request").with_kind(kind);
        let text: Vec<_> = findings.iter().map(ToString::to_string).collect();
        Some(Self { text: text.join(" "), findings, model: model.map(Into::into), rejected })
    }

    /// What is said of it to the caller.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The model that was asked for, where the path or a hint named one.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Why: one at the least.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl fmt::Display for PreflightRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "preflight{}: not sent: {}", Of(self.model()), self.text)
    }
}

impl Error for PreflightRefused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.rejected)
    }
}

/// The error of a request whose body failed while its beginning was read. Nothing was sent. Its `source` is the body's error.
#[derive(Debug)]
pub struct BodyFailed {
    source: BoxError,
}

impl BodyFailed {
    pub(super) const fn new(source: BoxError) -> Self {
        Self { source }
    }
}

impl fmt::Display for BodyFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("preflight: not sent: the request's body failed while its beginning was read")
    }
}

impl Error for BodyFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}
