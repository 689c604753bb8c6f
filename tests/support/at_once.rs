//! Tests in real time that mostly wait, run at once.
//!
//! The test harness runs as many tests at a time as there are cores. For tests that use one core in twenty that is minutes of waiting, so
//! the first of them that runs starts all, and each reports its own end.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// A test's name and its body.
pub type Test = (&'static str, fn());

static RUNNING: Mutex<Option<HashMap<&'static str, JoinHandle<()>>>> = Mutex::new(None);

/// Waits for the test of this name, and starts all if none runs yet. Where the harness is told which tests to run or how, only this
/// one is run: the others may not be wanted.
///
/// # Panics
///
/// Panics with the test's message if it has panicked. The line at which it did is in the output of the test that started all, or in its own
/// if it is run by its name.
pub fn run(all: &[Test], name: &'static str) {
    let shown = ["--nocapture", "--no-capture", "--show-output", "--quiet", "-q"];
    if std::env::args().skip(1).any(|arg| !shown.contains(&&*arg)) {
        let (_, body) = all.iter().find(|(other, _)| *other == name).expect("it is listed");
        return body();
    }
    let start = |(name, body): &Test| {
        let thread = Builder::new().name((*name).to_owned()).spawn(*body).expect("a thread");
        (*name, thread)
    };
    let running = {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.get_or_insert_with(|| all.iter().map(start).collect()).remove(name)
    };
    if let Err(panic) = running.expect("each is waited for once").join() {
        panic!("{}", message(&*panic));
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

/// Makes a test in `tests` of each of these `async fn`s, which are in scope where this stands, on a runtime of two workers.
macro_rules! at_once {
    ($($name:ident),+ $(,)?) => {
        mod tests {
            const ALL: &[$crate::at_once::Test] = &[$((stringify!($name), || {
                let mut runtime = ::tokio::runtime::Builder::new_multi_thread();
                let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
                runtime.block_on(super::$name());
            })),+];
            $(
                #[test]
                fn $name() {
                    $crate::at_once::run(ALL, stringify!($name));
                }
            )+
        }
    };
}
