//! Stub front page.

mod body;
mod count;
mod error;
mod facts;
mod future;
mod judge;
mod keys;
mod layer;
mod nearest;
mod rule;
mod scan;
mod service;
mod value;

pub use self::body::PreflightBody;
pub use self::count::CountTokens;
pub use self::error::{BodyFailed, PreflightRefused};
pub use self::future::ResponseFuture;
pub use self::layer::{PreflightBuilder, PreflightLayer};
pub use self::rule::{Finding, Mode, Rule};
pub use self::service::Preflight;
