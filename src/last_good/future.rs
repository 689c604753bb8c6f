use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body::Body;
use pin_project_lite::pin_project;

use super::asked::Asked;
use super::body::LastGoodBody;
use super::store::Answer;
use crate::error::BoxError;
use crate::event::Event;
use crate::retry::Attempts;
use crate::verdict::Verdict;

pin_project! {
    /// The future of [`WithLastGood`](super::WithLastGood).
    ///
    /// Dropping it drops the call; nothing is kept.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        pub(super) future: F,
        // `None` for a request without a key.
        pub(super) asked: Option<Box<Asked>>,
    }
}

impl Asked {
    /// A kept answer, where one would help.
    fn stand_in(&self, verdict: &Verdict) -> Option<(Answer, Duration)> {
        if !self.settings.helps(verdict) {
            return None;
        }
        let answer = self.settings.store.get(&self.key)?;
        let age = answer.age();
        (age <= self.settings.max_age).then_some((answer, age))
    }

    fn respond<B>(&self, answer: Answer, age: Duration, verdict: Verdict) -> Response<LastGoodBody<B>> {
        if let Some(key) = &self.target {
            self.settings.observer.tell(&Event::LastGoodUsed { key, age, verdict: &verdict });
        }
        let mut response = Response::new(LastGoodBody::own(answer.body().clone()));
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        if let Some(name) = &self.settings.header {
            response.headers_mut().insert(name.clone(), HeaderValue::from(age.as_secs()));
        }
        response.extensions_mut().insert(LastGood { age, instead_of: verdict });
        response
    }
}

impl<F, RB, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<LastGoodBody<RB>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.future.poll(cx)).map_err(Into::into);
        let Some(asked) = this.asked.take() else {
            return Poll::Ready(result.map(|response| response.map(LastGoodBody::inner)));
        };
        Poll::Ready(match result {
            Ok(response) if Verdict::is_good(&response) => Ok(LastGoodBody::reading(response, asked)),
            Ok(response) => {
                let verdict = Verdict::of(&response);
                match asked.stand_in(&verdict) {
                    None => Ok(response.map(LastGoodBody::inner)),
                    Some((answer, age)) => {
                        // What it took is told, whoever answers in the end.
                        let attempts = response.extensions().get::<Attempts>().cloned();
                        let mut response = asked.respond(answer, age, verdict);
                        if let Some(attempts) = attempts {
                            response.extensions_mut().insert(attempts);
                        }
                        Ok(response)
                    }
                }
            }
            Err(error) => {
                let verdict = Verdict::from_error(error.as_ref());
                match asked.stand_in(&verdict) {
                    None => Err(error),
                    Some((answer, age)) => Ok(asked.respond(answer, age, verdict)),
                }
            }
        })
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("last_good::ResponseFuture").finish_non_exhaustive()
    }
}

/// In the extensions of an answer that stands in for one that failed.
#[derive(Clone, Debug)]
pub struct LastGood {
    age: Duration,
    instead_of: Verdict,
}

impl LastGood {
    /// What is known of this response; `None` where it is no stand-in.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<&Self> {
        response.extensions().get()
    }

    /// How long ago the answer came.
    #[must_use]
    pub const fn age(&self) -> Duration {
        self.age
    }

    /// The failure that it stands in for.
    #[must_use]
    pub const fn instead_of(&self) -> &Verdict {
        &self.instead_of
    }
}
