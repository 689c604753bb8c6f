//! Responses of other crates than `http`, as far as the layers leave something in them.

use http::{Extensions, HeaderMap, Response, StatusCode};

mod sealed {
    pub trait Sealed {}
    impl<B> Sealed for http::Response<B> {}
    #[cfg(feature = "reqwest")]
    impl Sealed for ::reqwest::Response {}
}

/// A response in which [`Verdict::of`](crate::Verdict::of) and [`Attempts::of`](crate::retry::Attempts::of) find what the layers
/// left: `http::Response<B>`, and with the feature `reqwest` a `reqwest::Response`.
///
/// Sealed: nobody else implements it.
pub trait AnyResponse: sealed::Sealed {
    /// Its status.
    fn status(&self) -> StatusCode;
    /// Its headers.
    fn headers(&self) -> &HeaderMap;
    /// Its extensions.
    fn extensions(&self) -> &Extensions;
}

impl<B> AnyResponse for Response<B> {
    #[inline]
    fn status(&self) -> StatusCode {
        self.status()
    }

    #[inline]
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    #[inline]
    fn extensions(&self) -> &Extensions {
        self.extensions()
    }
}

#[cfg(feature = "reqwest")]
impl AnyResponse for ::reqwest::Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions(&self) -> &Extensions {
        self.extensions()
    }
}
