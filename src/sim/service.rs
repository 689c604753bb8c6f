//! The simulator as a Tower service.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::sleep_until;
use tower_service::Service;

use super::fault::Kind;
use super::guard::Guard;
use super::plan::{self, Decision};
use super::prompt::Prompt;
use super::route::{self, Action, Route};
use super::simulator::Shared;
use super::{Fault, SimBody, Simulator, TransportFault, reset};
use crate::BoxError;
use crate::time::{now, saturating_add};

impl<B> Service<Request<B>> for Simulator
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<SimBody>;
    type Error = io::Error;
    type Future = ResponseFuture;

    /// Always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let (head, body) = request.into_parts();
        let route = Route::of(&head.method, &head.uri);
        let key = route::key(&head.headers, &head.uri);
        let guard = self.shared.begin(&head, &route);
        // The rules are asked now, in the order of the calls. Only chat completions and interactions hide their model in the
        // body.
        let fault = match route.action {
            action if action.is_told_by_body() => None,
            action => Some(self.shared.pick(&guard, route.model.as_deref(), action)),
        };
        let shared = self.shared.clone();
        ResponseFuture { inner: Box::pin(run(shared, guard, route, key, fault, body)) }
    }
}

/// The response of a [`Simulator`] to come.
///
/// The call is numbered, logged and met by its rule when `call` makes this future; its quota is charged when
/// the request's body has been read. Dropping it is noted in the log.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    inner: Pin<Box<dyn Future<Output = io::Result<Response<SimBody>>> + Send>>,
}

impl Future for ResponseFuture {
    type Output = io::Result<Response<SimBody>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

async fn run<B>(
    shared: std::sync::Arc<Shared>,
    mut guard: Guard,
    mut route: Route,
    key: Option<String>,
    fault: Option<Option<Fault>>,
    body: B,
) -> io::Result<Response<SimBody>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    if let Some(Some(fault)) = &fault {
        refuse(&mut guard, fault)?;
    }
    let read = match read(body, shared.config.max_request_bytes).await {
        Ok(read) => read,
        Err(error) => {
            guard.fail(TransportFault::RequestFailed);
            return Err(io::Error::other(error));
        }
    };
    let prompt = Prompt::read(&read.bytes);
    if route.action.is_told_by_body() {
        route.model.clone_from(&prompt.model);
    }
    if let Action::CreateInteraction { stream } | Action::Chat { stream } = &mut route.action {
        *stream = prompt.stream;
    }
    guard.note(|call| {
        call.model.clone_from(&route.model);
        call.request_bytes = read.bytes.len() as u64;
        call.prompt_tokens = prompt.tokens;
    });
    let fault = match fault {
        Some(fault) => fault,
        None => {
            let fault = shared.pick(&guard, route.model.as_deref(), route.action);
            if let Some(fault) = &fault {
                refuse(&mut guard, fault)?;
            }
            fault
        }
    };
    let request = plan::Request { number: guard.number(), route, key, prompt };
    let (decision, reply) = shared.decide(&request, fault, read.too_large);
    guard.note(|call| call.cause = decision.cause());
    let head = saturating_add(now(), decision.head_after(shared.config.head_latency));
    sleep_until(head).await;
    let Some(reply) = reply else {
        guard.fail(TransportFault::ResetBeforeHead);
        return Err(reset());
    };
    guard.answered(reply.status);
    let mut response = Response::new(SimBody::new(reply.pieces, reply.sized, head, guard));
    *response.status_mut() = reply.status;
    for (name, value) in reply.headers {
        response.headers_mut().append(name, value);
    }
    Ok(response)
}

/// Refuses the connection, if that is the fault.
fn refuse(guard: &mut Guard, fault: &Fault) -> io::Result<()> {
    if !matches!(fault.kind, Kind::Refused) {
        return Ok(());
    }
    let cause = Decision::Scripted(fault.clone()).cause();
    guard.note(|call| call.cause = cause);
    guard.fail(TransportFault::Refused);
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the simulator refused the connection"))
}

struct Read {
    bytes: Vec<u8>,
    too_large: bool,
}

/// Reads a body, `max` bytes of it at most.
async fn read<B>(body: B, max: usize) -> Result<Read, BoxError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(Into::into)?.into_data() else { continue };
        if data.remaining() > max - bytes.len() {
            data.truncate(max - bytes.len());
            bytes.extend_from_slice(&data);
            return Ok(Read { bytes, too_large: true });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Read { bytes, too_large: false })
}
