//! The settings of the layer.

use crate::event::Observed;

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) observer: Observed,
    pub(super) enabled: bool,
    #[cfg(feature = "tracing")]
    pub(super) spans: bool,
}
