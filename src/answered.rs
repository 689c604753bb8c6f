//! Responses of other crates than `http`, as far as the layers leave something in them.

use http::{Extensions, HeaderMap, Response, StatusCode};

mod sealed {
    pub trait Sealed {}
    impl<B> Sealed for http::Response<B> {}
    #[cfg(feature = "reqwest")]
    impl Sealed for ::reqwest::Response {}
    #[cfg(feature = "reqwest-012")]
    impl Sealed for ::reqwest_012::Response {}
}

/// A response in which [`Verdict::of`](crate::Verdict::of) and [`Attempts::of`](crate::retry::Attempts::of) find what the layers
/// left: `http::Response<B>`, and with the features `reqwest` and `reqwest-012` the `reqwest::Response` of that version.
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

#[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
macro_rules! of_reqwest {
    ($response:ty) => {
        impl AnyResponse for $response {
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
    };
}

#[cfg(feature = "reqwest")]
of_reqwest!(::reqwest::Response);
#[cfg(feature = "reqwest-012")]
of_reqwest!(::reqwest_012::Response);
