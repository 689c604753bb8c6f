//! What is corrected of a call that was charged: when it is sent, and what it has used.

use super::{Nanos, QuotaState, Receipt};
use crate::tier::ServiceTier;
use crate::verdict::Usage;

impl QuotaState {
    /// Whether a call that the server failed is not charged. In a fleet others would take what is given back.
    pub(super) fn forgives(&self) -> bool {
        #[cfg(feature = "fleet")]
        if self.supply.is_some() {
            return false;
        }
        self.forgiven.is_free(self.seen)
    }

    /// What a call has used, before it is settled, by the model and the tier that answered. Matters only where
    /// `Trial::is_in_spans`.
    pub(in crate::rate_limit) fn bill(
        &mut self,
        receipt: &Receipt,
        usage: &Usage,
        model: Option<&str>,
        tier: Option<ServiceTier>,
    ) {
        if let Some(spans) = &mut self.spans {
            spans.bill(receipt.spans, usage, model, tier);
        }
    }

    /// Charges an admitted call anew, because it is sent only now.
    pub(in crate::rate_limit) fn restamp(&mut self, now: Nanos, receipt: &mut Receipt) {
        let now = self.tick(now);
        self.window.correct(receipt.entry, receipt.charged, 0, false);
        receipt.entry = self.window.charge(now, receipt.charged);
        if receipt.trial.is_in_spans() {
            self.restamp_spans(now, receipt.spans);
        }
        #[cfg(feature = "fleet")]
        if let Some(supply) = &mut self.supply {
            receipt.permit = supply.restamp(now, receipt.permit, receipt.charged);
        }
    }

    #[cold]
    fn restamp_spans(&mut self, now: Nanos, number: u32) {
        if let Some(spans) = &mut self.spans {
            spans.restamp(now, number);
        }
    }
}
