//! What went wrong with a question: one line, with the remedy and where to read on.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use tower_gemini::{Kind, Verdict};

use super::answer::clean;

/// How much is repeated of what the endpoint said.
const SAID: usize = 200;

#[derive(Debug)]
pub(crate) struct Problem {
    what: String,
    kind: Kind,
    said: String,
}

impl Problem {
    pub(crate) fn of_kind(kind: Kind) -> Self {
        Self { what: kind.to_string(), kind, said: String::new() }
    }

    pub(crate) fn of_verdict(verdict: &Verdict) -> Self {
        let kind = verdict.kind().unwrap_or(Kind::Unknown);
        let what = match verdict.http_status() {
            Some(status) => format!("{kind} (HTTP {})", status.as_u16()),
            None => kind.to_string(),
        };
        Self { what, kind, said: excerpt(&verdict.message()) }
    }

    /// Nothing, or not the whole answer, was received.
    pub(crate) fn of_error(what: &str, error: &(dyn Error + 'static)) -> Self {
        let kind = Verdict::from_error(error).kind().unwrap_or(Kind::Transport);
        // The outermost says "error sending request", the innermost why.
        let cause = std::iter::successors(Some(error), |error| (*error).source()).take(32).last();
        let cause = cause.map(ToString::to_string).unwrap_or_default();
        Self { what: format!("{kind}, {what} ({})", excerpt(&cause)), kind, said: String::new() }
    }

    pub(crate) fn late(deadline: Duration) -> Self {
        let kind = Kind::DeadlineExceeded;
        let seconds = deadline.as_secs_f64();
        Self { what: format!("{kind}, no whole answer within {seconds} s"), kind, said: String::new() }
    }

    /// Neither an answer nor an error: a redirect, mostly.
    pub(crate) fn odd_status(status: StatusCode) -> Self {
        let what = match status.is_redirection() {
            true => format!("HTTP {}, a redirect, which is not followed with a key", status.as_u16()),
            false => format!("HTTP {}", status.as_u16()),
        };
        Self { what, kind: Kind::Unknown, said: String::new() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} See {}", self.what, self.kind.remedy(), self.kind.docs())?;
        if self.said.is_empty() { Ok(()) } else { write!(f, " (it said: {})", self.said) }
    }
}

/// Whole words only, on one line. Half a word might be half a key, which nobody would recognise as one.
fn excerpt(text: &str) -> String {
    let mut excerpt = String::new();
    for word in clean(text).split_whitespace() {
        if excerpt.len() + 1 + word.len() > SAID {
            excerpt += " \u{2026}";
            break;
        }
        if !excerpt.is_empty() {
            excerpt.push(' ');
        }
        excerpt += word;
    }
    excerpt
}
