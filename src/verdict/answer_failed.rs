//! The error that carries a verdict.

use std::error::Error;
use std::fmt;

use super::{Kind, Verdict};

/// The answer failed, after its status had promised a good one: with this a [`StrictBody`](crate::classify::StrictBody) ends.
///
/// [`error::find`](crate::error::find) finds it at any depth, and [`Verdict::from_error`] gives its verdict.
#[derive(Clone, Debug)]
pub struct AnswerFailed(Verdict);

impl AnswerFailed {
    pub(crate) const fn new(verdict: Verdict) -> Self {
        Self(verdict)
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind().unwrap_or(Kind::Unknown)
    }

    /// What is known of it: everything where it was known before the answer was handed on, else the kind. Then it is
    /// [after output](Verdict::after_output), too, as the caller has had what came before.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.0
    }
}

impl fmt::Display for AnswerFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = self.0.remedy().trim_end_matches('.');
        write!(f, "classify: the answer failed: {}: {remedy}", self.kind())
    }
}

impl Error for AnswerFailed {}
