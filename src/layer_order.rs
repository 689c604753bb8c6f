//! Notices layers that stand in a wrong order, where a failed answer shows it.
//!
//! Each layer leaves its mark on the failed answers that pass it, in their extensions. One that finds the mark of a
//! layer that belongs outside of it says so, once, to its observer. A success carries no marks and costs nothing; a
//! failure without a response cannot carry any.

use http::Response;

use crate::event::{Event, LayerKind, Observed};

/// The marks of the layers that a failed answer has passed.
#[derive(Clone, Copy, Default)]
struct LayerMarks(u16);

impl LayerMarks {
    const fn bit(part: LayerKind) -> u16 {
        1 << part as u8
    }

    /// The outermost one that should not be inside `part`.
    fn misplaced_in(self, part: LayerKind) -> Option<LayerKind> {
        const ALL: [LayerKind; 7] = [
            LayerKind::Fallback,
            LayerKind::Places,
            LayerKind::Retry,
            LayerKind::Hedge,
            LayerKind::RateLimit,
            LayerKind::Concurrency,
            LayerKind::CircuitBreaker,
        ];
        // Two limits or two circuits with different keys are a way to use them; two retries are none.
        let outside = |other: &LayerKind| *other < part || (*other == part && part == LayerKind::Retry);
        ALL.into_iter().filter(outside).find(|other| self.0 & Self::bit(*other) != 0)
    }
}

/// Leaves the mark of `part` on a failed answer, and tells if it stands outside of what belongs outside of it.
#[cold]
pub(crate) fn passed<B>(response: &mut Response<B>, part: LayerKind, observer: &Observed) {
    let extensions = response.extensions_mut();
    let before = extensions.get::<LayerMarks>().copied().unwrap_or_default();
    if let Some(inside) = before.misplaced_in(part) {
        observer.tell_once(&Event::Misplaced { layer: part, inside, consequence: part.consequence(inside) });
    }
    extensions.insert(LayerMarks(before.0 | LayerMarks::bit(part)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Default)]
    struct Log(Mutex<Vec<(LayerKind, LayerKind)>>);
    impl crate::event::Observer for Log {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Misplaced { layer, inside, .. } = event {
                self.0.lock().unwrap().push((*layer, *inside));
            }
        }
    }

    fn told(inside_out: &[LayerKind]) -> Vec<(LayerKind, LayerKind)> {
        let log = Arc::new(Log::default());
        let mut response = Response::new(());
        for part in inside_out {
            let observer = Observed::by(Arc::clone(&log) as Arc<dyn crate::event::Observer>);
            passed(&mut response, *part, &observer);
        }
        let told = log.0.lock().unwrap();
        told.clone()
    }

    #[test]
    fn the_recommended_order_is_silent() {
        use LayerKind::{CircuitBreaker, Concurrency, Fallback, Hedge, Places, RateLimit, Retry};
        assert_eq!(told(&[CircuitBreaker, Concurrency, RateLimit, Hedge, Retry, Places, Fallback]), []);
        assert_eq!(told(&[CircuitBreaker, CircuitBreaker, RateLimit, RateLimit, Retry]), []);
        assert_eq!(told(&[RateLimit]), []);
    }

    #[test]
    fn each_wrong_pair_is_told_by_the_outer_one() {
        use LayerKind::{CircuitBreaker, Concurrency, Fallback, Hedge, Places, RateLimit, Retry};
        assert_eq!(told(&[Places, Retry]), [(Retry, Places)]);
        assert_eq!(told(&[Fallback, Places]), [(Places, Fallback)]);
        assert_eq!(told(&[Hedge, RateLimit]), [(RateLimit, Hedge)]);
        assert_eq!(told(&[Retry, Hedge]), [(Hedge, Retry)]);
        assert_eq!(told(&[Retry, RateLimit]), [(RateLimit, Retry)]);
        assert_eq!(told(&[Retry, Retry]), [(Retry, Retry)]);
        assert_eq!(told(&[RateLimit, CircuitBreaker]), [(CircuitBreaker, RateLimit)]);
        assert_eq!(told(&[Concurrency, CircuitBreaker, Retry]), [(CircuitBreaker, Concurrency)]);
        assert_eq!(told(&[Fallback, Retry]), [(Retry, Fallback)]);
        for outer in [Fallback, Places, Retry, Hedge, RateLimit, Concurrency, CircuitBreaker] {
            for inner in [Fallback, Places, Retry, Hedge, RateLimit, Concurrency, CircuitBreaker] {
                assert!(!outer.consequence(inner).is_empty());
            }
        }
    }
}
