use std::fmt;
use std::sync::Arc;

use super::shared::Shared;
use super::state::ConcurrencyState;
use crate::request::{Target, TargetKey};

/// Reads the limits of a layer, and resets them. Clones and the layer share the same state; dropping it changes
/// nothing.
///
/// ```
/// use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
///
/// let layer = AdaptiveConcurrencyLayer::new();
/// let handle = layer.handle();
/// for (key, state) in handle.all() {
///     println!("{key}: {} in flight, {} waiting", state.in_flight(), state.queued());
/// }
/// ```
#[derive(Clone)]
pub struct ConcurrencyHandle {
    shared: Arc<Shared>,
}

impl ConcurrencyHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Every key that the layer knows and its state, in no order. A call that found no room among
    /// [`max_keys`](super::AdaptiveConcurrencyBuilder::max_keys) is not among them.
    #[must_use]
    pub fn all(&self) -> Vec<(TargetKey, ConcurrencyState)> {
        self.shared.gates.all().into_iter().map(|(key, gate)| (key, gate.state())).collect()
    }

    /// The state of one key; `None` when there was no request for it yet, or none for so long that it was
    /// forgotten.
    #[must_use]
    pub fn get(&self, key: &TargetKey) -> Option<ConcurrencyState> {
        self.shared.gates.peek(key).map(|gate| gate.state())
    }

    /// Whether the calls in flight for this target are limited, or somebody waits for a turn.
    pub(crate) fn is_limited(&self, target: &Target<'_>) -> bool {
        let gate = self.shared.gates.peek(&self.shared.settings.key(target));
        gate.is_some_and(|gate| {
            let state = gate.state();
            state.limit.is_some() || state.queued > 0
        })
    }

    /// Takes this key's limit away: all that wait go at once, and the next timeout of a call that starts from now on
    /// makes a new one. A key that is not known has no limit to take away.
    pub fn reset(&self, key: &TargetKey) {
        if let Some(gate) = self.shared.gates.peek(key) {
            gate.reset();
        }
    }

    /// Takes all limits away, as [`reset`](Self::reset) does.
    pub fn reset_all(&self) {
        for (_, gate) in self.shared.gates.all() {
            gate.reset();
        }
    }

    /// Forgets the keys that nobody uses and that have no limit. Done unasked when the map of keys is full.
    pub fn evict_idle(&self) {
        self.shared.gates.evict_idle();
    }
}

/// How many limits `Debug` shows.
const MAX_PRINTED: usize = 16;

impl fmt::Debug for ConcurrencyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all();
        let limited =
            all.iter().filter_map(|(key, state)| Some((key, state, state.limit?))).take(MAX_PRINTED);
        let limited = limited.map(|(key, state, limit)| {
            format!("{key}: limit {limit:.2}, {} in flight, {} waiting", state.in_flight, state.queued)
        });
        f.debug_struct("ConcurrencyHandle")
            .field("keys", &all.len())
            .field("limited", &limited.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
