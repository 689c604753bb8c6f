//! When two requests are equal, and the calls that are under way.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use http::{HeaderName, HeaderValue, Method, Request, Uri, header};

use super::flight::{Flight, Seat};
use crate::event::{Event, Observed};
use crate::lock::lock;
use crate::request::{KeyLabel, ModelHint, Target};
use crate::tier::ServiceTier;
use crate::time;
use crate::timeout::Deadline;

/// Headers that say whose request it is, or in which form its answer has to be.
const COUNT: usize = 5;
const HEADERS: [HeaderName; COUNT] = [
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("x-goog-user-project"),
    header::AUTHORIZATION,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
];

/// The caller's key, and what tells requests apart in any case: an answer must never go to somebody with other credentials.
///
/// It holds credentials: it is never printed.
#[derive(PartialEq, Eq, Hash)]
struct Whole<K> {
    key: K,
    method: Method,
    uri: Uri,
    label: Option<KeyLabel>,
    hint: Option<Box<str>>,
    tier: Option<ServiceTier>,
    headers: [Option<HeaderValue>; COUNT],
}

impl<K> Whole<K> {
    fn of<B>(key: K, request: &Request<B>) -> Self {
        let extensions = request.extensions();
        Self {
            key,
            method: request.method().clone(),
            uri: request.uri().clone(),
            label: extensions.get().cloned(),
            hint: extensions.get::<ModelHint>().map(|hint| hint.as_str().into()),
            tier: ServiceTier::of(request),
            headers: HEADERS.map(|name| request.headers().get(name).cloned()),
        }
    }
}

/// The calls under way that newcomers can join, of all services of one layer.
pub(super) struct Shared<K> {
    pub(super) enabled: bool,
    calls: Mutex<Calls<K>>,
    max_calls: usize,
    max_bytes: usize,
    observer: Observed,
}

struct Calls<K> {
    by_key: HashMap<Arc<Whole<K>>, (u64, Arc<Flight>)>,
    /// Tells a call from a later one of the same key.
    next: u64,
}

/// What a request with a key does.
pub(super) enum Entered {
    /// It waits with others.
    Joined(Seat),
    /// It makes the call.
    Leads(Seat),
    /// There are as many calls as may be shared: it goes alone.
    Alone,
}

impl<K: Hash + Eq + Send + Sync + 'static> Shared<K> {
    pub(super) fn new(enabled: bool, max_calls: usize, max_bytes: usize, observer: Observed) -> Arc<Self> {
        let calls = Mutex::new(Calls { by_key: HashMap::new(), next: 0 });
        Arc::new(Self { enabled, calls, max_calls, max_bytes, observer })
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.calls).by_key.len()
    }

    /// Finds the call to join, or lists a new one.
    pub(super) fn enter<B>(self: &Arc<Self>, key: K, request: &Request<B>) -> Entered {
        let whole = Arc::new(Whole::of(key, request));
        let deadline = Deadline::of(request).map(Deadline::instant);
        let now = deadline.map(|_| time::now());
        let mut calls = lock(&self.calls);
        let is_full = calls.by_key.len() >= self.max_calls;
        let number = calls.next;
        let unlist = |whole: &Arc<Whole<K>>| {
            let (weak, whole) = (Arc::downgrade(self), Arc::clone(whole));
            Box::new(move || {
                if let Some(shared) = weak.upgrade() {
                    shared.unlist(&whole, number);
                }
            })
        };
        // What is replaced has dropped nothing yet: it is dropped after the lock.
        let mut replaced = None;
        let entered = match calls.by_key.entry(whole) {
            Entry::Occupied(mut entry) => match entry.get().1.join(now) {
                Some(seat) => Entered::Joined(seat),
                None => {
                    let seat = Flight::prepare(self.max_bytes, deadline, unlist(entry.key()));
                    replaced = Some(entry.insert((number, Arc::clone(seat.flight()))));
                    Entered::Leads(seat)
                }
            },
            Entry::Vacant(_) if is_full => Entered::Alone,
            Entry::Vacant(entry) => {
                let seat = Flight::prepare(self.max_bytes, deadline, unlist(entry.key()));
                entry.insert((number, Arc::clone(seat.flight())));
                Entered::Leads(seat)
            }
        };
        calls.next += u64::from(matches!(entered, Entered::Leads(_)));
        drop(calls);
        drop(replaced);
        if matches!(entered, Entered::Joined(_)) && self.observer.is_some() {
            self.observer.tell(&Event::Coalesced { key: &Target::of(request).key() });
        }
        entered
    }

    fn unlist(&self, whole: &Arc<Whole<K>>, number: u64) {
        let mut calls = lock(&self.calls);
        let is_it = calls.by_key.get(whole).is_some_and(|(listed, _)| *listed == number);
        let removed = if is_it { calls.by_key.remove_entry(whole) } else { None };
        drop(calls);
        drop(removed);
    }
}
