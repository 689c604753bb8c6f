//! The settings of the layer.

use crate::event::Observed;

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) observer: Observed,
    #[cfg(feature = "tracing")]
    pub(super) spans: bool,
}
