use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::digest::digest;
use super::message::StoreKey;
use super::outage::Outage;
use super::store::Store;
use crate::error::ConfigError;
use crate::request::quota_key::QuotaKey;

/// How a layer takes part in a fleet: the store, and what differs from the defaults.
///
/// Every [`Store`] is one with the defaults.
///
/// ```
/// use tower_gemini::fleet::{Fleet, MemoryStore, Outage};
/// use tower_gemini::rate_limit::{Limits, RateLimitLayer};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_gemini::ConfigError> {
/// let fleet = Fleet::new(MemoryStore::new()).namespace("billing").weight(4).outage(Outage::Closed);
/// let layer = RateLimitLayer::builder()
///     .limits(Limits::new().requests_per_minute(60))
///     .store(fleet)
///     .build()?;
/// # let _ = layer; Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Fleet {
    pub(crate) store: Arc<dyn Store>,
    namespace: Arc<str>,
    pub(crate) weight: u32,
    pub(crate) outage: Outage,
    hides_names: bool,
}

impl Fleet {
    /// A fleet that shares this store, with the defaults.
    pub fn new(store: impl Store + 'static) -> Self {
        Self::shared(Arc::new(store))
    }

    /// The same with a store that others hold, too.
    pub fn shared(store: Arc<dyn Store>) -> Self {
        Self { store, namespace: "".into(), weight: 1, outage: Outage::default(), hides_names: false }
    }

    /// Keeps fleets apart that use one store: only layers of the same namespace share quotas. A secret will do, where nobody
    /// is to guess the names in the store. Default: empty.
    pub fn namespace(mut self, namespace: impl Into<Arc<str>>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// This layer's share beside other members that wait, from 1 to 1,000. Default 1.
    ///
    /// One with 4 gets four requests for each that one with 1 gets: give more to what people wait for, and less to what
    /// runs by night.
    pub const fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// What to do while the store does not answer. Default [`Outage::Strict`].
    pub const fn outage(mut self, outage: Outage) -> Self {
        self.outage = outage;
        self
    }

    /// Leaves names of models and labels out of the store. Default: they stand in it, so that people can tell keys apart;
    /// labels that look like an API key never do.
    pub const fn hide_names(mut self) -> Self {
        self.hides_names = true;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=1_000).contains(&self.weight) {
            return Err(ConfigError::new("weight", "must be from 1 to 1,000"));
        }
        match self.outage {
            // Written so that NaN is outside.
            Outage::Share { share, .. } if !(share > 0.0 && share <= 1.0) => {
                Err(ConfigError::new("share", "must be above 0 and at most 1"))
            }
            Outage::Share { members: 0, .. } => Err(ConfigError::new("members", "must be at least 1")),
            _ if self.store.timeout() < Duration::from_millis(1) => {
                Err(ConfigError::new("timeout", "must be at least 1 ms"))
            }
            _ => Ok(()),
        }
    }

    /// The name of the state of a limit over a span of a key.
    pub(crate) fn span_key(&self, key: &StoreKey, unit: &str, span: Duration) -> StoreKey {
        let nanos = span.as_nanos().to_be_bytes();
        let digest = digest(&[key.digest.as_bytes(), b"span", unit.as_bytes(), &nanos]);
        StoreKey::new(digest, key.name.as_ref().map(|name| format!("{name}, {unit} per {span:?}")))
    }

    /// The name of a key's state. The label itself goes in, also one that is never printed: else all such would be one.
    pub(crate) fn key(&self, key: &QuotaKey) -> StoreKey {
        let target = key.target();
        let surface = format!("{}", target.surface());
        let or_none = |text: Option<&str>| text.map_or(Vec::new(), |text| [b"=", text.as_bytes()].concat());
        let digest = digest(&[
            self.namespace.as_bytes(),
            key.pool().as_str().as_bytes(),
            surface.as_bytes(),
            &or_none(target.project()),
            &or_none(target.location()),
            &or_none(target.model()),
            &or_none(target.label().map(|label| label.as_str())),
        ]);
        StoreKey::new(digest, (!self.hides_names).then(|| key.to_string()))
    }
}

impl<S: Store + 'static> From<S> for Fleet {
    fn from(store: S) -> Self {
        Self::new(store)
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the namespace, which may be a secret.
        f.debug_struct("Fleet")
            .field("store", &self.store)
            .field("weight", &self.weight)
            .field("outage", &self.outage)
            .field("hides_names", &self.hides_names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::MemoryStore;
    use crate::request::{KeyLabel, Target};

    fn key(label: Option<&str>) -> QuotaKey {
        let mut request = http::Request::post("/v1beta/models/m:generateContent").body(()).expect("valid");
        if let Some(label) = label {
            request.extensions_mut().insert(KeyLabel::new(label));
        }
        QuotaKey::of(&Target::of(&request))
    }

    #[test]
    fn keys_of_the_api_are_told_apart_and_never_printed() {
        let fleet = Fleet::new(MemoryStore::new());
        let one = fleet.key(&key(Some("AIzaSyOne")));
        let other = fleet.key(&key(Some("AIzaSyOther")));
        assert_ne!(one.digest, other.digest);
        assert_eq!(one.name, other.name, "both are redacted");
        assert!(!format!("{one:?}{other:?}").contains("AIza"));
        assert_ne!(fleet.key(&key(None)).digest, fleet.key(&key(Some(""))).digest);
        assert_eq!(fleet.key(&key(Some("team"))).name.as_deref(), Some("generate gemini_api m (team)"));
        assert_eq!(fleet.clone().hide_names().key(&key(None)).name, None);
        assert_ne!(fleet.clone().namespace("x").key(&key(None)).digest, fleet.key(&key(None)).digest);
    }

    /// Members of other versions agree by it: it must not change.
    #[test]
    fn a_digest_is_the_same_in_every_process() {
        let fleet = Fleet::new(MemoryStore::new()).namespace("n");
        assert_eq!(fleet.key(&key(Some("team"))).digest, DIGEST);
    }

    const DIGEST: &str = "0a43a8f1ad2aff35257af5d2b1627f93";

    #[test]
    fn bad_settings_name_the_field_and_the_rule() {
        let field = |fleet: Fleet| fleet.check().expect_err("it is out of range").field();
        let fleet = || Fleet::new(MemoryStore::new());
        assert_eq!(field(fleet().weight(0)), "weight");
        assert_eq!(field(fleet().weight(1_001)), "weight");
        for share in [0.0, -1.0, 1.1, f64::NAN] {
            assert_eq!(field(fleet().outage(Outage::share(share, 1))), "share");
        }
        assert_eq!(field(fleet().outage(Outage::share(0.5, 0))), "members");
        assert!(fleet().weight(1_000).outage(Outage::share(1.0, 8)).check().is_ok());
    }
}
