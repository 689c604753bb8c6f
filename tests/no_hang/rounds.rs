//! 300 rounds of 64 callers on two threads, watched from a third.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tokio::task::JoinSet;
use tower::{Service, ServiceExt};

use crate::server::{Server, draw};

pub(crate) const ROUNDS: usize = 300;
pub(crate) const TASKS: usize = 64;
/// A round takes milliseconds. What is not over by then hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the calls of a test ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    /// With a 2xx, read to its end.
    pub(crate) good: usize,
    /// With another status, an error, or a body that broke off.
    pub(crate) failed: usize,
    /// Dropped by the caller: the future, or the body.
    pub(crate) left: usize,
}

enum End {
    Good,
    Failed,
    Left,
}

/// When a test may change something by hand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    /// Before a round's tasks exist.
    Before,
    /// While they are at work.
    During,
}

/// Runs all rounds through one service, of which each task has a clone, and checks that every task ended and that nothing
/// is left inside the server.
///
/// The watch is a thread and not a timer of tokio's, which would not fire while both workers block.
pub(crate) fn rounds<S, B, R>(
    server: &Server,
    service: S,
    request: fn(u64) -> Request<B>,
    mut act: impl FnMut(usize, When) + Send + 'static,
) -> Ends
where
    S: Service<Request<B>, Response = Response<R>, Error: fmt::Debug + Send, Future: Send>,
    S: Clone + Send + 'static,
    B: Send + 'static,
    R: Body<Data: Send, Error: Send> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime of two workers");
    let pending = Arc::new(AtomicUsize::new(0));
    let (sender, ended) = channel();
    let counted = Arc::clone(&pending);
    let work = runtime.spawn(async move {
        for round in 0..ROUNDS {
            act(round, When::Before);
            counted.store(TASKS, SeqCst);
            let mut tasks = JoinSet::new();
            for task in 0..TASKS {
                let number = (round * TASKS + task) as u64;
                let call = service.clone().oneshot(request(number));
                let counted = Arc::clone(&counted);
                tasks.spawn(async move {
                    let end = call_and_read(call, draw(number + 1_000_000_007)).await;
                    counted.fetch_sub(1, SeqCst);
                    end
                });
            }
            // Some have got somewhere by now, and some have not begun.
            for _ in 0..round % 8 {
                tokio::task::yield_now().await;
            }
            act(round, When::During);
            let ends = tasks.join_all().await;
            if sender.send(ends).is_err() {
                return;
            }
        }
    });
    let mut sum = Ends::default();
    for round in 0..ROUNDS {
        match ended.recv_timeout(PATIENCE) {
            Ok(ends) => ends.iter().for_each(|end| match end {
                End::Good => sum.good += 1,
                End::Failed => sum.failed += 1,
                End::Left => sum.left += 1,
            }),
            Err(why) => {
                // Waiting for workers that hang would hang.
                runtime.shutdown_background();
                let what = if why == RecvTimeoutError::Timeout { "hangs" } else { "panicked" };
                panic!("round {round} {what} with {} of {TASKS} tasks pending", pending.load(SeqCst));
            }
        }
    }
    runtime.block_on(work).expect("all rounds are over");
    assert_eq!(sum.good + sum.failed + sum.left, ROUNDS * TASKS);
    assert_eq!(
        (server.inside(), server.violations()),
        (0, 0),
        "inside the server, and called when not ready"
    );
    sum
}

/// One caller. A fifth of them lose patience after a few polls, some before the first; an eighth of the others do not
/// read their answer to the end.
async fn call_and_read<E, R>(call: impl Future<Output = Result<Response<R>, E>>, chance: u64) -> End
where
    R: Body,
{
    let polls = (chance % 5 == 0).then_some(chance >> 8 & 7);
    let response = match within(call, polls).await {
        Some(Ok(response)) => response,
        Some(Err(_)) => return End::Failed,
        None => return End::Left,
    };
    let good = response.status().is_success();
    let mut body = std::pin::pin!(response.into_body());
    let leaves = (chance >> 16) % 8 == 0;
    loop {
        match std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            Some(Ok(_)) if leaves => return End::Left,
            Some(Ok(_)) => {}
            None if good => return End::Good,
            Some(Err(_)) | None => return End::Failed,
        }
    }
}

/// Drops the call when it is pending at the last of so many polls, and sees to it that it is polled so often.
async fn within<F: Future>(call: F, polls: Option<u64>) -> Option<F::Output> {
    let mut call = std::pin::pin!(call);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == Some(0) {
            return Poll::Ready(None);
        }
        if let Poll::Ready(output) = call.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if let Some(polls) = &mut left {
            *polls -= 1;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}
