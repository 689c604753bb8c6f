//! A call on its way, and the telling of its end.

use http::Response;

use super::Call;
use super::span::CallSpan;
use crate::body::on_end::OnEnd;
use crate::error::BoxError;
use crate::event::{Event, Observed};
use crate::verdict::{End, Kind, Outcome, Verdict};

/// A call that is not over. Told exactly once: by its end, or by its drop.
pub(super) struct Report {
    /// `None` once it was told.
    call: Option<Box<Call>>,
    observer: Observed,
    span: CallSpan,
}

impl Report {
    pub(super) fn new(call: Box<Call>, observer: Observed, span: CallSpan) -> Self {
        Self { call: Some(call), observer, span }
    }

    pub(super) const fn span(&self) -> &CallSpan {
        &self.span
    }

    /// The head has come. Whoever waits for the end of the body is returned, if the answer is a good one; a failure
    /// is told at once, for its verdict is there.
    pub(super) fn answered<B>(mut self, response: &Response<B>) -> Option<Self> {
        let call = self.call.as_mut()?;
        call.answered(response);
        if Verdict::is_good(response) {
            return Some(self);
        }
        self.tell_failed();
        None
    }

    /// There is no answer.
    pub(super) fn errored(mut self, error: &BoxError) {
        if let Some(call) = &mut self.call {
            call.errored(error);
        }
        self.tell_failed();
    }

    fn tell_failed(&mut self) {
        let kind = self.call.as_ref().and_then(|call| call.verdict().kind()).unwrap_or(Kind::Unknown);
        self.tell(End::new(Outcome::Failed(kind), None));
    }

    fn tell(&mut self, end: End) {
        let Some(mut call) = self.call.take() else { return };
        call.end(end);
        self.span.record(&call);
        self.span.in_scope(|| {
            if let Some((asked, served)) = call.verdict().downgraded() {
                self.observer.tell(&Event::Downgraded { model: call.sent_model(), asked, served });
            }
            if let (Some(asked), Some(answered)) = (call.sent_model(), call.redirected()) {
                self.observer.tell_redirect(asked, answered);
            }
            self.observer.tell(&Event::Finished { call: &call });
        });
    }
}

impl OnEnd for Report {
    fn wants_usage(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.uses_tokens())
    }

    fn in_scope<T>(&self, act: impl FnOnce() -> T) -> T {
        self.span.in_scope(act)
    }

    fn on_end(mut self, end: End) {
        self.tell(end);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.tell(End::new(Outcome::Dropped, None));
    }
}
