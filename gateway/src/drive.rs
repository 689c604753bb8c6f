//! Connections to the upstream that whoever reads an answer can move on.
//!
//! hyper reads a connection in a task of its own and hands an answer's parts over one by one: for each of them two tasks take turns, and the
//! reader finds nothing more at hand, although the next part was read from the socket with the last one. So a reader that finds nothing lets
//! the connection take a step at once, in the name of its own task: that is a poll without a wake-up, which a future must bear at any time. What is
//! there is then found without a change of tasks, and leaves in one write.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::TryFutureExt;
use futures_util::future::MapOk;
use http::{Response, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower::Service;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task that others may poll, too.
struct Driver(Mutex<State>);

struct State {
    /// `None` once it is over.
    task: Option<Task>,
    /// Of the task that owns it; wakes that one, whoever has polled last.
    home: Option<Waker>,
}

impl Driver {
    /// Lets it take a step, unless it is taking one.
    fn help(&self) {
        let Ok(mut state) = self.0.try_lock() else { return };
        let State { task: running, home: Some(home) } = &mut *state else { return };
        let Some(task) = running else { return };
        if task.as_mut().poll(&mut Context::from_waker(home)).is_ready() {
            *running = None;
            home.wake_by_ref();
        }
    }
}

thread_local! {
    /// The one that its owner polls now.
    static POLLED: RefCell<Weak<Driver>> = const { RefCell::new(Weak::new()) };
}

/// Owns a [`Driver`].
struct Home(Arc<Driver>);

impl Future for Home {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { task, home } = &mut *state;
        let Some(running) = task else { return Poll::Ready(()) };
        match home {
            Some(home) => home.clone_from(cx.waker()),
            None => *home = Some(cx.waker().clone()),
        }
        POLLED.set(Arc::downgrade(&self.0));
        let polled = running.as_mut().poll(cx);
        POLLED.set(Weak::new());
        if polled.is_ready() {
            *task = None;
        }
        polled
    }
}

/// Runs the connections of a client.
#[derive(Clone, Copy, Debug)]
pub struct Drivers;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Drivers {
    fn execute(&self, task: F) {
        let state = State { task: Some(Box::pin(task)), home: None };
        tokio::spawn(Home(Arc::new(Driver(Mutex::new(state)))));
    }
}

/// Who drives a connection, once that is known.
#[derive(Clone, Default)]
struct Slot(Arc<OnceLock<Weak<Driver>>>);

/// A connector whose connections know who drives them.
#[derive(Clone, Debug)]
pub struct Tracking<C>(pub C);

impl<C, I> Service<Uri> for Tracking<C>
where
    C: Service<Uri, Response = I>,
{
    type Response = Tracked<I>;
    type Error = C::Error;
    type Future = MapOk<C::Future, fn(I) -> Tracked<I>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        self.0.call(to).map_ok((|io| Tracked { io, slot: Slot::default() }) as fn(I) -> Tracked<I>)
    }
}

/// A connection that notes who drives it.
pub struct Tracked<I> {
    io: I,
    slot: Slot,
}

impl<I: Read + Unpin> Read for Tracked<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // Nobody but the connection's task reads it.
        self.slot.0.get_or_init(|| POLLED.with_borrow(Weak::clone));
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: Write + Unpin> Write for Tracked<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<I: Connection> Connection for Tracked<I> {
    fn connected(&self) -> Connected {
        self.io.connected().extra(self.slot.clone())
    }
}

/// The body of an answer, whose reader moves its connection on.
pub struct Driven {
    body: Incoming,
    driver: Option<Arc<Driver>>,
}

impl Driven {
    /// Takes out of the answer who drives its connection. Of HTTP/2 one connection is many readers', and hands over all that it has read.
    pub fn of(response: Response<Incoming>) -> Response<Self> {
        let (mut head, body) = response.into_parts();
        let slot = head.extensions.remove::<Slot>().filter(|_| head.version < Version::HTTP_2);
        let driver = slot.and_then(|slot| slot.0.get().and_then(Weak::upgrade));
        Response::from_parts(head, Self { body, driver })
    }
}

impl Body for Driven {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        match &this.driver {
            Some(driver) if frame.is_pending() => {
                driver.help();
                Pin::new(&mut this.body).poll_frame(cx)
            }
            _ => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts its polls, and ends with the third.
    fn thrice(polls: &Arc<AtomicUsize>) -> (Home, Arc<Driver>) {
        let polls = Arc::clone(polls);
        let task = std::future::poll_fn(move |_| match polls.fetch_add(1, Ordering::Relaxed) {
            2 => Poll::Ready(()),
            0 | 1 => Poll::Pending,
            _ => panic!("polled after its end"),
        });
        let driver = Arc::new(Driver(Mutex::new(State { task: Some(Box::pin(task)), home: None })));
        (Home(Arc::clone(&driver)), driver)
    }

    #[tokio::test]
    async fn a_task_that_ends_in_a_helpers_hands_ends_for_its_owner() {
        let polls = Arc::default();
        let (home, driver) = thrice(&polls);
        driver.help();
        assert_eq!(polls.load(Ordering::Relaxed), 0, "nobody could be woken yet");
        let owner = tokio::spawn(home);
        tokio::task::yield_now().await;
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        driver.help();
        assert!(!owner.is_finished());
        for _ in 0..3 {
            driver.help();
        }
        owner.await.unwrap();
        assert_eq!(polls.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn an_owner_that_is_dropped_gives_its_task_back() {
        let polls = Arc::default();
        let (home, driver) = thrice(&polls);
        let owner = tokio::spawn(home);
        tokio::task::yield_now().await;
        let slot = Arc::downgrade(&driver);
        drop(driver);
        owner.abort();
        assert!(owner.await.unwrap_err().is_cancelled());
        assert!(slot.upgrade().is_none(), "no reader keeps a connection");
        assert_eq!((polls.load(Ordering::Relaxed), Arc::strong_count(&polls)), (1, 1));
    }

    #[test]
    fn one_that_is_taking_a_step_is_left_alone() {
        let polls = Arc::default();
        let (_home, driver) = thrice(&polls);
        let taking = driver.0.lock().unwrap();
        driver.help();
        drop(taking);
        assert_eq!(polls.load(Ordering::Relaxed), 0);
    }
}
