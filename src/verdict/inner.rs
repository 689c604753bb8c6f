//! What a failure's verdict holds.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::{Alternative, Kind, Piece, QuotaViolation, Retryability, Sent, ServerDelay, Usage};
use crate::google_rpc::Code;
use crate::redact::redact;
use crate::tier::ServiceTier;

#[derive(Clone)]
pub(crate) struct Inner {
    pub(crate) kind: Kind,
    pub(crate) retryability: Retryability,
    pub(crate) sent: Sent,
    pub(crate) alternative: Alternative,
    pub(crate) http: Option<StatusCode>,
    pub(crate) code: Option<Code>,
    pub(crate) delay: Option<ServerDelay>,
    pub(crate) quota: Vec<QuotaViolation>,
    pub(crate) message: Piece,
    /// The message stands in JSON, with its escapes.
    pub(crate) escaped: bool,
    pub(crate) reason: Option<Piece>,
    pub(crate) domain: Option<Piece>,
    /// Where no violation has one.
    pub(crate) model: Option<Piece>,
    pub(crate) body: Bytes,
    /// A limit is left out as zeros are, and it may be one whose value was forgotten.
    pub(crate) doubtful_zero: bool,
    /// The quota's window, where the answer names no delay.
    pub(crate) window: Option<Duration>,
    /// The error came after output had been delivered.
    pub(crate) after_output: bool,
    /// What an answer that failed under a 200 says it has used.
    pub(crate) usage: Option<Usage>,
    /// A 200 that holds no answer and no word why, so that the next one may.
    pub(crate) no_answer: bool,
    /// A finish reason that is not known here.
    pub(crate) finish: Option<Box<str>>,
    /// A retry was due, and the request's body was too large to be kept for it.
    pub(crate) replay_refused: bool,
    /// The caller brought it about.
    pub(crate) by_caller: bool,
    /// The service tier that was asked for.
    pub(crate) tier: Option<ServiceTier>,
}

impl Inner {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            retryability: Retryability::Never,
            sent: Sent::Yes,
            alternative: Alternative::None,
            http: None,
            code: None,
            delay: None,
            quota: Vec::new(),
            message: Piece::default(),
            escaped: false,
            reason: None,
            domain: None,
            model: None,
            body: Bytes::new(),
            doubtful_zero: false,
            window: None,
            after_output: false,
            usage: None,
            no_answer: false,
            finish: None,
            replay_refused: false,
            by_caller: false,
            tier: None,
        }
    }

    /// Without its escapes and secrets. Worked out when it is asked for: most messages never are.
    pub(super) fn message(&self) -> Cow<'_, str> {
        let raw = self.message.as_str();
        let plain = || serde_json::from_str::<String>(&format!("\"{raw}\"")).ok();
        match self.escaped.then(plain).flatten() {
            Some(plain) => Cow::Owned(redact(&plain).into_owned()),
            None => redact(raw),
        }
    }
}
