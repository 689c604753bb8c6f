use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::{Head, PreflightBody, watch};
use super::config::{Settings, is_read, length_of};
use super::error::BodyFailed;
use super::future::{ResponseFuture, Slow, State};
use super::scan::Scan;
use crate::context::deadline::Deadline;
use crate::error::BoxError;
use crate::request::{Surface, Target};

/// Looks at requests before they are sent. Made by [`PreflightLayer`](super::PreflightLayer); see the
/// [module documentation](super).
///
/// `poll_ready` is the inner service's own.
#[derive(Clone)]
pub struct Preflight<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> Preflight<S> {
    pub(super) const fn new(settings: Arc<Settings>, inner: S) -> Self {
        Self { inner, settings }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change it.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: fmt::Debug> fmt::Debug for Preflight<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preflight").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, RB> Service<Request<B>> for Preflight<S>
where
    S: Service<Request<PreflightBody<B>>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    RB: Body<Data = Bytes>,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future, RB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let mut head = Request::from_parts(parts, ());
        let target = Target::of(&head);
        if !self.settings.enabled || target.surface() == Surface::Unknown {
            drop(target);
            return self.send(head, PreflightBody::new(body));
        }
        let mut found = self.settings.head(&target, &head, length_of(head.headers(), &body));
        if self.settings.refuses(&found) {
            // The body need not be waited for.
            let refused = self.settings.settle(&target, &found).expect("one of them is to be refused");
            return ResponseFuture::refused(refused.into());
        }
        let mut body = PreflightBody::new(body);
        if !is_read(&target, head.headers()) {
            let _ = self.settings.settle(&target, &found);
            drop(target);
            return self.send(head, body);
        }
        let mut scan = Scan::new(self.settings.looks_for_keys());
        // What is there already needs nobody to be woken. What is not is asked for again by the future.
        let mut cx = Context::from_waker(Waker::noop());
        let whole = match body.read(&mut cx, self.settings.hold_bytes, &mut scan) {
            Head::Whole => true,
            Head::Full => false,
            Head::Pending => {
                drop(target);
                let deadline = Deadline::of(&head).map(Deadline::instant);
                return self.slowly(|inner, settings| {
                    Slow::reading(inner, settings, head, body, scan, found, deadline)
                });
            }
            Head::Failed(error) => return ResponseFuture::refused(BodyFailed::new(error.into()).into()),
        };
        self.settings.body(&target, &head, scan.facts(), &mut found);
        if let Some(refused) = self.settings.settle(&target, &found) {
            return ResponseFuture::refused(refused.into());
        }
        if whole && self.settings.counts(&target, &head, scan.facts()) {
            drop(target);
            let deadline = Deadline::of(&head).map(Deadline::instant);
            return self
                .slowly(|inner, settings| Slow::counting(inner, settings, head, body, scan, deadline));
        }
        let texts = if whole { Settings::texts(&target, &head, scan.facts()) } else { None };
        drop(target);
        if let Some(texts) = texts {
            head.extensions_mut().insert(texts);
        }
        if !whole {
            watch(&mut body, scan, &self.settings, &head, &found);
        }
        self.send(head, body)
    }
}

impl<S> Preflight<S> {
    #[inline]
    fn send<B, RB>(
        &mut self,
        head: Request<()>,
        body: PreflightBody<B>,
    ) -> ResponseFuture<S, B, S::Future, RB>
    where
        S: Service<Request<PreflightBody<B>>>,
    {
        ResponseFuture { state: State::Called { future: self.inner.call(head.map(|()| body)) } }
    }

    /// The readiness that the caller obtained goes back while the request waits: others may need it. What waits asks a clone
    /// of its own.
    #[cold]
    fn slowly<B, F, RB>(
        &mut self,
        make: impl FnOnce(S, Arc<Settings>) -> Slow<S, B, F, RB>,
    ) -> ResponseFuture<S, B, F, RB>
    where
        S: Clone,
    {
        let fresh = self.inner.clone();
        drop(std::mem::replace(&mut self.inner, fresh.clone()));
        ResponseFuture {
            state: State::Slow { slow: Some(Box::new(make(fresh, Arc::clone(&self.settings)))) },
        }
    }
}
