//! What all services of a layer share.

use std::sync::Arc;

use super::config::Settings;
use super::gate::Gate;
use crate::keyed::Keyed;
use crate::request::{Target, TargetKey};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    pub(super) gates: Keyed<TargetKey, Gate>,
}

impl Shared {
    pub(super) fn gate(&self, target: &Target<'_>) -> Arc<Gate> {
        let make = |key: &TargetKey| Gate::new(key.clone(), Arc::clone(&self.settings));
        self.gates.get(self.settings.key(target), make)
    }
}
