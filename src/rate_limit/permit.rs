//! An admission on its way through a call, and the end of it.

use std::fmt;
use std::sync::Arc;

use super::decision::{Receipt, Settlement};
use super::gate::Key;
use crate::body::on_end::OnEnd;
use crate::context::quota_wait::QuotaWait;
use crate::event::Observed;
use crate::request::quota_key::QuotaKey;
use crate::verdict::{End, EndCell, Verdict};

/// What was charged for a call that is under way. It is settled exactly once: by the answer's end, by a failure, or
/// by its drop.
pub struct Permit {
    key: Arc<Key>,
    /// `None` once settled.
    receipt: Option<Receipt>,
    sent: Sent,
    /// How long the call takes is a sample for others.
    is_sample: bool,
}

/// Whether the call may have reached the server.
#[derive(Clone, Copy, PartialEq)]
enum Sent {
    /// It was not polled yet.
    No,
    /// It is being polled for the first time.
    Beginning,
    /// A layer inside holds it back.
    Held,
    /// It was held back, and is being polled again.
    Leaving,
    /// For good: what was sent stays sent.
    Yes,
}

impl Permit {
    #[inline]
    pub(super) const fn new(key: Arc<Key>, receipt: Receipt, is_sample: bool) -> Self {
        Self { key, receipt: Some(receipt), sent: Sent::No, is_sample }
    }

    /// The call is about to be polled. What is dropped from here on may have reached the server.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.sent = match self.sent {
            Sent::Held => Sent::Leaving,
            Sent::No => Sent::Beginning,
            other => other,
        };
    }

    /// The call was polled and is pending; whether a layer inside holds it back.
    pub(super) fn is_pending(&mut self, held: bool) {
        match self.sent {
            Sent::Beginning | Sent::Leaving if held => self.sent = Sent::Held,
            _ => {
                self.leave();
                self.sent = Sent::Yes;
            }
        }
    }

    #[inline]
    fn leave(&mut self) {
        if self.sent == Sent::Leaving {
            // The server counts from now on, not from the admission.
            self.restamp();
        }
    }

    /// Charges the call anew: it was admitted a while ago and is sent only now.
    pub(super) fn restamp(&mut self) {
        if let Some(receipt) = &mut self.receipt {
            self.key.restamp(receipt);
        }
    }

    /// The head has come, and it is a good one. The permit waits for the end of the body.
    #[inline]
    pub(super) fn is_answered(&mut self) {
        self.leave();
        self.welcomed();
    }

    #[inline]
    fn welcomed(&mut self) {
        if let Some(receipt) = &mut self.receipt {
            self.key.welcomed(receipt, self.is_sample);
        }
    }

    pub(super) fn observer(&self) -> &Observed {
        &self.key.common().observer
    }

    pub(super) fn key(&self) -> &QuotaKey {
        self.key.id()
    }

    /// There is no answer, or it is none. What there is to say to a retry layer outside.
    #[cold]
    pub(super) fn refused(mut self, verdict: &Verdict) -> Option<QuotaWait> {
        self.leave();
        self.receipt.take().and_then(|receipt| self.key.failed(receipt, verdict, self.is_sample))
    }

    /// Works out what the call has cost.
    #[cold]
    fn bill(&self, receipt: &Receipt, end: &End, cell: Option<&EndCell>) {
        if let Some(usage) = &end.usage {
            let model = cell.and_then(EndCell::model_version);
            self.key.bill(receipt, usage, model.as_deref(), cell.and_then(EndCell::tier_served));
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

impl OnEnd for Permit {
    fn wants_usage(&self) -> bool {
        self.receipt.as_ref().is_some_and(Receipt::wants_usage)
    }

    fn on_end_of(self, end: End, cell: Option<&EndCell>) {
        if let Some(receipt) = self.receipt.as_ref().filter(|receipt| receipt.trial.is_in_spans()) {
            self.bill(receipt, &end, cell);
        }
        self.on_end(end);
    }

    fn on_end(mut self, end: End) {
        let used = end
            .usage
            .map_or(Settlement::Unknown, |usage| Settlement::Used { input_tokens: usage.input_tokens });
        if let Some(receipt) = self.receipt.take() {
            self.key.settle(receipt, used);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            match self.sent {
                Sent::No | Sent::Held => self.key.settle(receipt, Settlement::NotSent),
                Sent::Beginning | Sent::Leaving | Sent::Yes => self.key.dropped(receipt, self.is_sample),
            }
        }
    }
}
