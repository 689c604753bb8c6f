//! The verdict for tower-http's `TraceLayer`.

use std::any::Any;
use std::fmt;

use http::{HeaderMap, Request, Response};

use crate::error::BoxError;
use crate::verdict::{Kind, Outcome, Verdict};

/// Tells tower-http's `TraceLayer` what a failure was, in Gemini's terms.
///
/// Works with the `classify` traits of tower-http 0.6 (feature `tower-http-06`) and 0.7 (feature
/// `tower-http-07`), which are different traits with the same text; both may be in one tree. Put the trace layer
/// outside [`ClassifyLayer`](super::ClassifyLayer), whose verdict it reads: tower-http's classifiers never see a
/// body. Without that layer it judges by status and error type.
///
/// A success is classified at the end of its body, so that a body which breaks off is logged as a failure; with
/// [`watch`](super::ClassifyLayer::watch) on, so is one that was blocked, empty or held an error.
///
/// ```
/// # #[cfg(feature = "tower-http-07")] {
/// # use tower_http_07 as tower_http;
/// use tower::ServiceBuilder;
/// use tower_gemini::classify::{ClassifyLayer, GeminiClassifier};
/// use tower_http::trace::TraceLayer;
///
/// # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
/// #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
/// let service = ServiceBuilder::new()
///     .layer(TraceLayer::new(GeminiClassifier::new()))
///     .layer(ClassifyLayer::new().watch())
///     .service(client);
/// # let _ = service; }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GeminiClassifier {
    _private: (),
}

impl GeminiClassifier {
    /// The classifier. It has no settings.
    #[must_use]
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

/// Why `TraceLayer` logs a failure. Prints as `rate_limited (429)`, or without a status as `transport`.
#[derive(Clone, Debug)]
pub struct GeminiFailure {
    kind: Kind,
    verdict: Verdict,
}

impl GeminiFailure {
    fn of(verdict: Verdict) -> Option<Self> {
        let kind = match verdict.outcome() {
            Some(Outcome::Failed(kind)) => Some(kind),
            _ => verdict.kind(),
        };
        kind.map(|kind| Self { kind, verdict })
    }

    /// `TraceLayer` hands over errors as anything that prints, but `'static`, so their types can be asked for.
    fn of_error<E: 'static>(error: &E) -> Self {
        let error: &dyn Any = error;
        let verdict = if let Some(boxed) = error.downcast_ref::<BoxError>() {
            Verdict::from_error(boxed.as_ref())
        } else if let Some(io) = error.downcast_ref::<std::io::Error>() {
            Verdict::from_error(io)
        } else {
            Self::of_client_error(error)
        };
        Self { kind: verdict.kind().unwrap_or(Kind::Transport), verdict }
    }

    fn of_client_error(error: &dyn Any) -> Verdict {
        #[cfg(feature = "hyper")]
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return Verdict::from_error(error);
        }
        #[cfg(feature = "hyper")]
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return Verdict::from_error(error);
        }
        #[cfg(feature = "reqwest")]
        if let Some(error) = error.downcast_ref::<::reqwest::Error>() {
            return Verdict::from_error(error);
        }
        #[cfg(feature = "reqwest-012")]
        if let Some(error) = error.downcast_ref::<::reqwest_012::Error>() {
            return Verdict::from_error(error);
        }
        let _ = error;
        Verdict::from_error(&fmt::Error)
    }

    /// The kind of failure; for a body that ended badly, that of its end.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The verdict it was read from.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}

impl fmt::Display for GeminiFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict.http_status() {
            Some(status) => write!(f, "{} ({})", self.kind, status.as_u16()),
            None => self.kind.fmt(f),
        }
    }
}

/// Classifies a successful response at the end of its body. See [`GeminiClassifier`].
#[derive(Clone, Debug)]
pub struct GeminiEos {
    verdict: Verdict,
}

/// The same text against two versions of the same traits.
macro_rules! plug_into {
    ($feature:literal, $tower_http:ident) => {
        #[cfg(feature = $feature)]
        const _: () = {
            use $tower_http::classify::{ClassifiedResponse, ClassifyEos, ClassifyResponse, MakeClassifier};

            impl MakeClassifier for GeminiClassifier {
                type Classifier = Self;
                type FailureClass = GeminiFailure;
                type ClassifyEos = GeminiEos;

                fn make_classifier<B>(&self, _: &Request<B>) -> Self {
                    *self
                }
            }

            impl ClassifyResponse for GeminiClassifier {
                type FailureClass = GeminiFailure;
                type ClassifyEos = GeminiEos;

                fn classify_response<B>(
                    self,
                    response: &Response<B>,
                ) -> ClassifiedResponse<GeminiFailure, GeminiEos> {
                    let verdict = Verdict::of(response);
                    match GeminiFailure::of(verdict.clone()) {
                        Some(failure) => ClassifiedResponse::Ready(Err(failure)),
                        None => ClassifiedResponse::RequiresEos(GeminiEos { verdict }),
                    }
                }

                fn classify_error<E: fmt::Display + 'static>(self, error: &E) -> GeminiFailure {
                    GeminiFailure::of_error(error)
                }
            }

            impl ClassifyEos for GeminiEos {
                type FailureClass = GeminiFailure;

                fn classify_eos(self, _: Option<&HeaderMap>) -> Result<(), GeminiFailure> {
                    GeminiFailure::of(self.verdict).map_or(Ok(()), Err)
                }

                fn classify_error<E: fmt::Display + 'static>(self, error: &E) -> GeminiFailure {
                    GeminiFailure::of_error(error)
                }
            }
        };
    };
}

plug_into!("tower-http-06", tower_http_06);
plug_into!("tower-http-07", tower_http_07);
