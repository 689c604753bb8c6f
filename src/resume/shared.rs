//! What all services of a layer share.

use std::sync::Mutex;

use super::bucket::Bucket;
use super::report::ResumeMode;
use crate::event::Observed;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) mode: ResumeMode,
    pub(super) enabled: bool,
    pub(super) most: u32,
    pub(super) max_text_bytes: usize,
    pub(super) observer: Observed,
    pub(super) bucket: Mutex<Bucket>,
}
