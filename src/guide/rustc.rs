//! What rustc says, and what to do about it.
//!
//! Build the stack by [`GeminiStack::service`](crate::stack::GeminiStack::service), or put
//! [`stack::check`](crate::stack::check)`(&client)` before it: then the first line of the compiler's text names the cause. By `layer` the error
//! comes where the first request is sent, and reads "the method `oneshot` exists …, but its trait bounds were not satisfied".
//!
//! | rustc says | do |
//! |---|---|
//! | the request body `…` is not `Clone`, so a request cannot be sent a second time | send a `Full<Bytes>`; or `GeminiStack::new().replay(ReplayLayer::new())`, under which the client takes a `ReplayBody<…>` |
//! | the request body `…` is not `Clone + From<Bytes>` with `http_body::Body<Data = Bytes>` | send a `Full<Bytes>` in place of a `String`; or implement [`RewriteBody`](crate::fallback::RewriteBody) for it; or a `ReplayLayer` |
//! | the client's error type `…` is not `Into<BoxError>` | implement `std::error::Error` for it; or `.map_err(…)` under the stack |
//! | the response body `…` is not an `http_body::Body<Data = bytes::Bytes>` | `.map_response(…)` under the stack: `Full::<Bytes>::from(text)`, or `BodyExt::map_frame` |
//! | `reqwest::Client` is not a `tower::Service<http::Request<_>>` | [`ReqwestService::new(client)`](crate::guide::recipes) |
//! | `…` is not a `tower::Service<http::Request<Full<Bytes>>>`, of a client that is one | the client takes another body: look at its type (hyper-util's `Client<C, B>` takes `B` alone) |
//! | the trait bound `MyClient: Clone` is not satisfied | derive it, or `tower::buffer::Buffer`: each retry makes a clone ready |
//! | type annotations needed, at `.service(client)` | no request is sent through it yet; send one, or name the body: `.service::<_, Full<Bytes>>(client)` |
//! | type annotations needed, at `.ready().await` | the client takes any body: `gemini.clone().oneshot(request)`, or `ServiceExt::<Request<Full<Bytes>>>::ready(&mut gemini)` |
//! | implementation of `From` is not general enough, at `tokio::spawn(async move { … })` | spawn `gemini.oneshot(request)` itself, or `gemini.ready().await?.call(request)` ([rust-lang/rust#64552](https://github.com/rust-lang/rust/issues/64552)) |
//! | no method named `oneshot` / `layer` found | `use tower::ServiceExt` (tower's feature `util`) / `use tower::Layer` |
//! | expected `Option<…>`, found …, with `option_layer` | the layers change the response's body: switch a layer off by its settings, or box both sides |
//! | a struct's field needs the type of the stack | [`GeminiService<S, B>`](crate::stack::GeminiService); for another stack `tower::util::BoxCloneSyncService` |
