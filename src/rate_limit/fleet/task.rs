//! The task itself: it waits for what is due, for answers, for what the store says, and for the layer's end.

use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::wire::{Answers, Boxed, PAUSES, Told, Wire};
use crate::fleet::{Notice, Notices, Supply};
use crate::rate_limit::common::Common;
use crate::rate_limit::shared::Shared;
use crate::sync::lock;
use crate::time;

/// A calendar that runs so far ahead of the steady clock shows that the machine has slept.
const SLEPT: Duration = Duration::from_secs(1);
/// How long a layer that ends tries to say so.
const GOODBYE: Duration = Duration::from_secs(2);

pub(super) async fn run(wire: Arc<Wire>, shared: Weak<Shared>) {
    let mut notices = wire.store.subscribe();
    let mut asking: Option<Boxed<Answers>> = None;
    let mut telling: Option<Boxed<Told>> = None;
    let mut clocks = Clocks::default();
    let mut tell_at: Option<Instant> = None;
    loop {
        let due = {
            let Some(shared) = shared.upgrade() else { break };
            if clocks.have_slept(&shared.common) {
                each_supply(&shared, Supply::void_all);
            }
            if telling.is_none() && tell_at.is_none_or(|at| at <= time::now()) {
                telling = wire.tell(&shared);
                tell_at = None;
            }
            let (takes, due) = wire.look(&shared, asking.is_none());
            if !takes.is_empty() {
                asking = Some(wire.ask(takes));
            }
            let soonest = due.and_then(|due| shared.common.instant(due));
            [soonest, tell_at].into_iter().flatten().min()
        };
        tokio::select! {
            answers = maybe(&mut asking) => {
                asking = None;
                let Some(shared) = shared.upgrade() else { break };
                wire.accept(&shared, answers);
            }
            told = maybe(&mut telling) => {
                telling = None;
                if !told.untold.is_empty() {
                    tell_at = Some(time::saturating_add(time::now(), PAUSES.0));
                    let now = told.key.common().now();
                    told.key.with_state(now, |scheduler| {
                        if let Some(supply) = &mut scheduler.ledger.supply {
                            supply.keep_closes(told.untold);
                        }
                    });
                }
            }
            notice = next(&mut notices) => {
                let Some(shared) = shared.upgrade() else { break };
                hear(&shared, notice);
            }
            () = wire.bell.notified() => {}
            () = sleep(due) => {}
        }
    }
    drop((telling, notices));
    let last = lock(&wire.last).take();
    if let Some(mut last) = last {
        let goodbye = async {
            if asking.is_some() {
                last.accept(&maybe(&mut asking).await);
            }
            let takes = last.leave();
            while !takes.is_empty() && wire.store.take(&takes).await.is_err() {
                tokio::time::sleep(PAUSES.0).await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

async fn maybe<T>(future: &mut Option<Boxed<T>>) -> T {
    match future {
        Some(future) => future.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn next(notices: &mut Option<Box<dyn Notices>>) -> Option<Notice> {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn each_supply(shared: &Shared, act: impl Fn(&mut Supply)) {
    let now = shared.common.now();
    for (_, key) in shared.keys.all() {
        key.with_state(now, |scheduler| scheduler.ledger.supplies().for_each(&act));
    }
}

/// What the store says of its own accord.
fn hear(shared: &Shared, notice: Option<Notice>) {
    let Some(notice) = notice else {
        // Something may have been missed: all ask.
        each_supply(shared, Supply::touch);
        return;
    };
    let now = shared.common.now();
    for (_, key) in shared.keys.all() {
        key.carry(now, |scheduler| {
            let Some(supply) = scheduler.ledger.supply_of(notice.digest()) else { return };
            match &notice {
                Notice::Born { epoch, .. } => supply.born(*epoch),
                Notice::Closed { close, .. } => {
                    supply.heard(close);
                    scheduler.ledger.told(now, *close);
                }
            }
        });
    }
}

/// Notices that the machine has slept: the steady clock stands still meanwhile, and what was leased is long void.
#[derive(Default)]
struct Clocks {
    begun: Option<(Instant, Timestamp)>,
}

impl Clocks {
    fn have_slept(&mut self, common: &Common) -> bool {
        let now = time::now();
        let read = common.calendar_now();
        let Some((instant, calendar)) = self.begun else {
            self.begun = Some((now, read));
            return false;
        };
        let passed = now.saturating_duration_since(instant);
        let ahead = read
            .duration_since(calendar)
            .checked_sub(jiff::SignedDuration::try_from(passed).unwrap_or_default());
        let leapt =
            ahead.is_some_and(|ahead| ahead > jiff::SignedDuration::try_from(SLEPT).unwrap_or_default());
        let lags = ahead.is_none_or(|ahead| ahead.is_negative());
        if leapt || lags {
            self.begun = Some((now, read));
        }
        leapt
    }
}
