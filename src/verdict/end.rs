//! How a body ended, and the cell in which whoever reads along with it publishes that.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::{Kind, Outcome, Usage};
use crate::tier::ServiceTier;

/// What is known at the end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub(crate) outcome: Outcome,
    /// As far as the body was read.
    pub(crate) usage: Option<Usage>,
    /// A failure that the caller brought about.
    pub(crate) by_caller: bool,
}

impl End {
    pub(crate) const fn new(outcome: Outcome, usage: Option<Usage>) -> Self {
        Self { outcome, usage, by_caller: false }
    }
}

/// The shared cell in which the end of a body is published, once.
#[derive(Clone)]
pub struct EndCell(Arc<Cell<dyn Says>>);

/// What the publisher of an end can be asked for.
pub(crate) trait Says: Send + Sync {
    /// The model that the answer says has answered, as far as it was read, where it is not the one that was asked.
    fn model_version(&self) -> Option<String>;

    /// What is known of tiers by the request and the answer's head.
    fn tiers(&self) -> Tiers;

    /// The service tier that the answer's usage says has served, as far as it was read.
    fn tier(&self) -> Option<ServiceTier>;
}

/// The service tier that a request asked for, and the one that the answer's head names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiers {
    pub(crate) asked: Option<ServiceTier>,
    pub(crate) served: Option<ServiceTier>,
}

impl Tiers {
    pub(crate) const NONE: Self = Self { asked: None, served: None };
}

/// What the cell holds. Whoever reads along with the body keeps what it reads with in the same allocation, so that the
/// response, which each layer moves, need not carry it.
pub(crate) struct Cell<T: ?Sized> {
    end: OnceLock<End>,
    cut: OnceLock<(Kind, bool)>,
    finish: OnceLock<Box<str>>,
    /// The publisher's own.
    pub(crate) with: T,
}

impl<T: Says + 'static> Cell<T> {
    /// A cell, and its publisher's share of it.
    // Inlined up to where `with` is made, so that some hundred bytes are built once and not moved three times.
    #[inline(always)]
    pub(crate) fn new(with: T) -> (EndCell, Arc<Self>) {
        let cell =
            Arc::new(Self { end: OnceLock::new(), cut: OnceLock::new(), finish: OnceLock::new(), with });
        (EndCell(Arc::<Self>::clone(&cell)), cell)
    }
}

impl<T: ?Sized> Cell<T> {
    pub(crate) fn get(&self) -> Option<End> {
        self.end.get().copied()
    }

    /// The first word stands.
    pub(crate) fn publish(&self, end: End) {
        let _ = self.end.set(end);
    }

    /// Before [`publish`](Self::publish): a finish reason that is not known here.
    pub(crate) fn finished(&self, reason: &str) {
        let _ = self.finish.set(reason.into());
    }

    /// What the drop of the body means, where so much was read of it.
    pub(crate) fn dropped(&self, usage: Option<Usage>) -> End {
        match self.cut.get() {
            Some((kind, by_caller)) => {
                End { by_caller: *by_caller, ..End::new(Outcome::Failed(*kind), usage) }
            }
            None => End::new(Outcome::Dropped, usage),
        }
    }
}

impl fmt::Debug for EndCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EndCell").field(&self.get()).finish()
    }
}

impl EndCell {
    pub(crate) fn get(&self) -> Option<End> {
        self.0.get()
    }

    /// The model that the answer names, where that is not the expected one.
    pub(crate) fn model_version(&self) -> Option<String> {
        self.0.with.model_version()
    }

    /// The tier that has served, by the answer's usage or else by its head.
    pub(crate) fn tier_served(&self) -> Option<ServiceTier> {
        self.0.with.tier().or_else(|| self.0.with.tiers().served)
    }

    /// The tier that was asked for.
    pub(crate) fn tier_asked(&self) -> Option<ServiceTier> {
        self.0.with.tiers().asked
    }

    /// The tier that has served: by the answer's head, or by its usage once it is over.
    pub(crate) fn tier_at_end(&self) -> Option<ServiceTier> {
        self.0.with.tiers().served.or_else(|| self.0.get().and(self.0.with.tier()))
    }

    /// A finish reason that is not known here, once the answer is over.
    pub(crate) fn unknown_finish(&self) -> Option<&str> {
        self.0.get().and(self.0.finish.get()).map(AsRef::as_ref)
    }

    /// Says of a body that is dropped right after this why it is: it failed in this way, and whether its reader
    /// brought that about.
    pub(crate) fn cut(&self, kind: Kind, by_caller: bool) {
        let _ = self.0.cut.set((kind, by_caller));
    }
}
