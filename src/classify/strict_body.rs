//! Bodies that do not end well where their answer failed.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::error::BoxError;
use crate::verdict::{AnswerFailed, EndCell, Inner, Kind, Outcome, Verdict};

pin_project! {
    /// A body that ends with an [`AnswerFailed`] where the answer has failed. Made by [`StrictBodies`](super::StrictBodies).
    pub struct StrictBody<B> {
        #[pin]
        inner: B,
        end: End,
    }
}

/// How the body is to end.
enum End {
    /// As it does.
    Own,
    /// As the classifier will have published.
    Published { cell: EndCell, status: StatusCode, all: bool },
    /// With this failure, which was known with the head.
    Failed(Verdict),
}

impl End {
    fn of<B>(response: &Response<B>, all: bool) -> Self {
        let status = response.status();
        match response.extensions().get::<Verdict>().filter(|_| status.is_success()) {
            None => Self::Own,
            Some(verdict) => match verdict.end_cell() {
                Some(cell) => Self::Published { cell: EndCell::clone(cell), status, all },
                None if verdict.kind().is_some_and(|kind| ends_badly(kind, all)) => {
                    Self::Failed(verdict.clone())
                }
                None => Self::Own,
            },
        }
    }

    /// The failure that is to be told, if the body is over.
    fn failure(&self) -> Option<Verdict> {
        match self {
            Self::Own => None,
            Self::Failed(verdict) => Some(verdict.clone()),
            Self::Published { cell, status, all } => match cell.get()?.outcome {
                Outcome::Failed(kind) if ends_badly(kind, *all) => {
                    let inner = Inner { http: Some(*status), after_output: true, ..Inner::new(kind) };
                    Some(Verdict::new(inner))
                }
                _ => None,
            },
        }
    }

    fn fails(&self) -> bool {
        match self {
            Self::Own => false,
            Self::Failed(_) => true,
            Self::Published { cell, all, .. } => cell
                .get()
                .is_some_and(|end| matches!(end.outcome, Outcome::Failed(kind) if ends_badly(kind, *all))),
        }
    }
}

/// Whether the answer is not whole. A blocked or empty one is, such as it is, and so is one that is no answer of Gemini's.
fn ends_badly(kind: Kind, all: bool) -> bool {
    all || !matches!(kind, Kind::ContentBlocked | Kind::EmptyResponse | Kind::Unknown)
}

impl<B> StrictBody<B> {
    pub(super) fn of(response: Response<B>, all: bool) -> Response<Self> {
        let end = End::of(&response, all);
        response.map(|inner| Self { inner, end })
    }

    /// With the end that it has.
    pub(super) fn as_it_is(response: Response<B>) -> Response<Self> {
        response.map(|inner| Self { inner, end: End::Own })
    }
}

impl<B> Body for StrictBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let mut this = self.project();
        let frame = if this.end.fails() && this.inner.is_end_stream() {
            // It may not like to be asked again.
            None
        } else {
            ready!(this.inner.as_mut().poll_frame(cx))
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => {
                // One error is enough.
                *this.end = End::Own;
                Some(Err(error.into()))
            }
            None => {
                let failure = this.end.failure();
                *this.end = End::Own;
                failure.map(|verdict| Err(AnswerFailed::new(verdict).into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && !self.end.fails()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint();
        match &self.end {
            End::Own => inner,
            End::Published { .. } | End::Failed(_) => {
                let mut hint = SizeHint::new();
                hint.set_lower(inner.lower());
                hint
            }
        }
    }
}

impl<B> fmt::Debug for StrictBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may hold an answer or an echoed key.
        f.debug_struct("StrictBody").finish_non_exhaustive()
    }
}
