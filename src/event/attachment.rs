use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Something of the application's own that an observer finds in the [`Call`](crate::observe::Call): a request's id, or who has sent it. An extension that
/// the **caller** puts into the request, outside of the [`ObserveLayer`](crate::observe::ObserveLayer).
///
/// It is kept until the call is over and is never printed. Clones share it.
///
/// ```
/// use std::sync::Arc;
/// use tower_gemini::event::{Event, Observer};
/// use tower_gemini::observe::Attachment;
///
/// struct Id(u64);
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Attachment::new(Arc::new(Id(7))));
///
/// struct Log;
/// impl Observer for Log {
///     fn on_event(&self, event: &Event<'_>) {
///         if let Event::Finished { call, .. } = event {
///             let id = call.attached::<Id>().map(|id| id.0);
///             println!("{id:?} took {:?}", call.latency());
///         }
///     }
/// }
/// # let _ = Log;
/// ```
#[derive(Clone)]
pub struct Attachment(pub(super) Arc<dyn Any + Send + Sync>);

impl Attachment {
    /// An attachment of any type.
    #[must_use]
    pub fn new<T: Send + Sync + 'static>(value: Arc<T>) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").finish_non_exhaustive()
    }
}
