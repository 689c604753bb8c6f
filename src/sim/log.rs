//! What the simulator remembers of each call.

use std::collections::VecDeque;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::QuotaLimit;

/// One call, as the server saw it. Holds no key and no text of the request.
///
/// Read it with [`Simulator::calls`](super::Simulator::calls). It is a copy: a call that is still under way
/// when it is taken does not change in your hands.
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) number: u64,
    pub(super) at: Duration,
    pub(super) model: Option<String>,
    pub(super) method: &'static str,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) request_bytes: u64,
    pub(super) prompt_tokens: u64,
    pub(super) status: Option<StatusCode>,
    pub(super) transport: Option<TransportFault>,
    pub(super) cause: CallCause,
    pub(super) ended_at: Option<Duration>,
    pub(super) dropped: bool,
}

/// How a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportFault {
    /// The connection was refused; nothing was read of the request.
    Refused,
    /// The connection was reset before the head of the response.
    ResetBeforeHead,
    /// The connection was reset inside the body of the response.
    ResetInBody,
    /// The request's own body failed while it was read.
    RequestFailed,
}

/// Why a call was answered the way it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallCause {
    /// Nothing was wrong.
    Healthy,
    /// A rule applied; this is its [`Fault::name`](super::Fault::name).
    Fault(&'static str),
    /// These limits of the model's quota were exceeded.
    Quota(Vec<QuotaLimit>),
    /// The request itself was turned away: `"no key"`, `"wrong key"`, `"unknown model"`, `"unknown path"` or
    /// `"too large"`.
    Request(&'static str),
}

impl Call {
    /// The number of this call, counted from 1 since the simulator was built: what
    /// [`Rule::on_call`](super::Rule::on_call) counts.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it came, since the first call. The first call's is zero.
    #[must_use]
    pub fn at(&self) -> Duration {
        self.at
    }

    /// The model asked for, without `models/`; `None` where the request names none.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// `generateContent`, `streamGenerateContent`, `countTokens`, `embedContent`, `batchEmbedContents`,
    /// `models.list`, `models.get`, `chat.completions` or `unknown`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// The first value of a header, if
    /// [`record_header`](super::SimulatorBuilder::record_header) was told to keep it and it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n.as_str().eq_ignore_ascii_case(name))?;
        value.to_str().ok()
    }

    /// The length of the request's body, as far as it was read.
    #[must_use]
    pub fn request_bytes(&self) -> u64 {
        self.request_bytes
    }

    /// The prompt's tokens, as the simulator counts them.
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    /// The status of the response; `None` while there is none yet, and where there never was one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// How the connection failed, if it did.
    #[must_use]
    pub fn transport_fault(&self) -> Option<TransportFault> {
        self.transport
    }

    /// Why it was answered the way it was. [`CallCause::Healthy`] also while that is not decided yet.
    #[must_use]
    pub fn cause(&self) -> &CallCause {
        &self.cause
    }

    /// When it ended, since the first call: the last byte, the failure, or the moment when the client let go.
    /// `None` while it is under way.
    #[must_use]
    pub fn ended_at(&self) -> Option<Duration> {
        self.ended_at
    }

    /// Whether the client dropped the call (its future or its body) before the end.
    #[must_use]
    pub fn was_dropped(&self) -> bool {
        self.dropped
    }
}

/// The last calls, at most `capacity` of them.
#[derive(Debug)]
pub(super) struct Log {
    /// In the order of their numbers, without gaps.
    calls: VecDeque<Call>,
    capacity: usize,
}

impl Log {
    pub(super) fn new(capacity: usize) -> Self {
        Self { calls: VecDeque::new(), capacity }
    }

    pub(super) fn push(&mut self, call: Call) {
        if self.calls.len() >= self.capacity {
            self.calls.pop_front();
        }
        if self.capacity > 0 {
            self.calls.push_back(call);
        }
    }

    /// The call of this number, unless it was dropped from the log.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Call> {
        let first = self.calls.front()?.number;
        let index = usize::try_from(number.checked_sub(first)?).ok()?;
        self.calls.get_mut(index)
    }

    pub(super) fn to_vec(&self) -> Vec<Call> {
        self.calls.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.calls.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64) -> Call {
        Call {
            number,
            at: Duration::ZERO,
            model: None,
            method: "unknown",
            headers: Vec::new(),
            request_bytes: 0,
            prompt_tokens: 0,
            status: None,
            transport: None,
            cause: CallCause::Healthy,
            ended_at: None,
            dropped: false,
        }
    }

    #[test]
    fn a_full_log_drops_the_oldest_and_still_finds_the_rest() {
        let mut log = Log::new(2);
        (1..=3).for_each(|n| log.push(call(n)));
        assert!(log.get_mut(1).is_none());
        assert_eq!(log.get_mut(3).map(|c| c.number), Some(3));
        log.clear();
        log.push(call(4));
        assert!(log.get_mut(3).is_none(), "a call from before the clearing is forgotten");
        assert_eq!(log.get_mut(4).map(|c| c.number), Some(4));
        let mut none = Log::new(0);
        none.push(call(1));
        assert!(none.to_vec().is_empty());
    }
}
