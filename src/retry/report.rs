//! What is told of a request's attempts: events, the report in the response, and what layers inside are told.

use std::time::Duration;

use http::{Request, Response};

use super::GaveUp;
use super::budget::Withdrawal;
use super::config::Settings;
use super::failure::Failure;
use super::progress::Progress;
use crate::context::Context;
use crate::error::BoxError;
use crate::event::attempts::Attempts;
use crate::event::{Event, LayerKind};
use crate::layer_order;
use crate::verdict::{Kind, Verdict};

impl Settings {
    pub(super) fn note_order<RB>(&self, result: &mut Result<Response<RB>, BoxError>) {
        if let Ok(response) = result {
            layer_order::passed(response, LayerKind::Retry, &self.observer);
        }
    }

    pub(super) fn tell_failed(&self, progress: &Progress, failure: &Failure<'_>) {
        // The attempt is not counted yet.
        self.observer.tell(&Event::AttemptFailed {
            request: progress.request,
            attempt: progress.attempts + 1,
            verdict: failure.verdict(),
        });
    }

    pub(super) fn tell_charged(&self, progress: &Progress, token: &Withdrawal) {
        let (request, attempt) = (progress.request, progress.attempts + 1);
        let (cost, left) = (token.cost(), token.left());
        self.observer.tell(&Event::BudgetCharged { request, attempt, cost, left });
    }

    pub(super) fn tell_waiting(&self, progress: &Progress, failure: &Failure<'_>, wait: Duration) {
        self.observer.tell(&Event::Waiting {
            request: progress.request,
            attempt: progress.attempts + 1,
            wait,
            verdict: failure.verdict(),
        });
    }

    pub(super) fn tell_gave_up(&self, progress: &Progress, failure: &Failure<'_>, why: GaveUp) {
        self.observer.tell(&Event::GaveUp {
            request: progress.request,
            attempts: progress.attempts,
            why,
            verdict: failure.verdict(),
        });
    }
}

impl Progress {
    /// Tells the layers inside which attempt this request is, and how many before it took too long.
    pub(super) fn mark<B>(&self, request: &mut Request<B>) {
        let late = self.kinds.iter().filter(|kind| **kind == Kind::DeadlineExceeded).count();
        Context::write_more(request, |more| {
            more.attempt = self.attempts + 1;
            more.timeouts = u32::try_from(late).unwrap_or(u32::MAX);
            more.quota = self.quota;
            if let Some(trail) = &more.trail {
                trail.note(more.attempt, self.waits.iter().sum());
            }
        });
    }

    /// Puts the report into the final response, where there is one.
    pub(super) fn publish<RB>(&mut self, response: Result<&mut Response<RB>, ()>, gave_up: Option<GaveUp>) {
        let Ok(response) = response else { return };
        if gave_up == Some(GaveUp::BodyTooLarge) {
            let verdict = Verdict::of(response).with_replay_refused();
            response.extensions_mut().insert(verdict);
        }
        response.extensions_mut().insert(Attempts {
            made: self.attempts,
            probes: self.probes,
            waits: std::mem::take(&mut self.waits),
            kinds: std::mem::take(&mut self.kinds),
            gave_up,
        });
    }
}
