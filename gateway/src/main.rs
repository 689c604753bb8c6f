//! The program: see the library.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tower_gemini_gateway::{FAILED, run, serve};

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let args = std::env::args_os().skip(1);
    let env = |name: &str| std::env::var_os(name);
    let code =
        runtime.block_on(run(args, env, Box::new(io::stdout()), &mut io::stderr(), serve::told_to_stop()));
    // A call that outlived the grace must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ExitCode::from(code)
}
