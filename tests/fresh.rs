//! What a stranger does first: a package of the README's lines, and a client that does not fit under the stack.
//!
//! The package is made in `target`, beside the crate's own artefacts and with its lock file, so that it needs no network and what is
//! built is used again.
#![cfg(all(feature = "reqwest", feature = "sim"))]
#![allow(clippy::unwrap_used)] // Clippy excuses test functions by itself, but not their helpers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tower_gemini::sim::{Fault, Rule, Simulator};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The README's block that begins with `fence` and has `line` in it.
fn block(fence: &str, line: &str) -> String {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let blocks = readme.split("```").skip(1).step_by(2);
    let mut found = blocks.filter_map(|block| block.strip_prefix(fence)).filter(|block| block.contains(line));
    let block = found.next().unwrap_or_else(|| panic!("the README has no {fence} with {line:?}"));
    block.trim_start_matches(",no_run").trim_start().to_owned()
}

/// The latest version of the lock file, which has two of some.
fn latest(name: &str) -> String {
    let lock = std::fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).unwrap();
    let of_it = format!("name = \"{name}\"\nversion = \"");
    let versions = lock.split("[[package]]\n").filter_map(|one| one.strip_prefix(&of_it)?.split('"').next());
    let numbers =
        |version: &&str| version.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    format!(
        "version = \"={}\"",
        versions.max_by_key(numbers).unwrap_or_else(|| panic!("{name} is not locked"))
    )
}

/// `cargo add NAME --features A,B`, as a line of a manifest. Versions are the lock file's.
fn dependency(line: &str) -> String {
    let mut words = line.strip_prefix("cargo add ").unwrap_or_else(|| panic!("{line:?}")).split_whitespace();
    let name = words.next().unwrap();
    let features = match (words.next(), words.next()) {
        (Some("--features"), Some(features)) => features.split(',').collect::<Vec<_>>(),
        (None, None) => Vec::new(),
        other => panic!("an option that this test does not know: {other:?}"),
    };
    let from = match name {
        "tower-gemini" => format!("path = {ROOT:?}"),
        _ => latest(name),
    };
    format!("{name} = {{ {from}, features = {features:?} }}\n")
}

/// A package of its own workspace, under the directory that cargo gives to tests.
struct Package {
    at: PathBuf,
}

impl Package {
    fn new(name: &str, dependencies: &str, sources: &[(&str, &str)]) -> Self {
        let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&at);
        std::fs::create_dir_all(at.join("src/bin")).unwrap();
        let mut manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
             [profile.dev]\ndebug = \"line-tables-only\"\n[dependencies]\n"
        );
        manifest += dependencies;
        std::fs::write(at.join("Cargo.toml"), manifest).unwrap();
        std::fs::copy(Path::new(ROOT).join("Cargo.lock"), at.join("Cargo.lock")).unwrap();
        for (file, source) in sources {
            std::fs::write(at.join("src").join(file), source).unwrap();
        }
        Self { at }
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO"));
        // Not the flags of this run: those of coverage, say, would build all of it again.
        command.args(args).arg("--offline").current_dir(&self.at).env_remove("CARGO_ENCODED_RUSTFLAGS");
        // The crate's own: what has the same features is not built again.
        command.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap());
        command.env("CARGO_TERM_COLOR", "never");
        command
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_of_the_readmes_lines_compiles_and_asks_the_simulator() {
    let lines = block("sh\n", "cargo add tower-gemini");
    let dependencies = lines.lines().map(dependency).collect::<String>();
    let source = block("rust", "async fn main");
    let package = Package::new("readme", &dependencies, &[("main.rs", &source)]);
    let built = package.cargo(&["build", "--quiet"]).output().unwrap();
    assert!(built.status.success(), "{}", text(&built));

    let sim = Simulator::builder()
        .head_latency(std::time::Duration::from_millis(1))
        .answer("Rayleigh scattering")
        .valid_key("a key for tests")
        .rule(Rule::new(Fault::internal()).on_call(1))
        .build()
        .unwrap();
    let server = sim.serve().await.unwrap();
    let mut run = package.cargo(&["run", "--quiet"]);
    run.env("GEMINI_API_KEY", "a key for tests")
        .env("GEMINI_HOST", server.base_url())
        .env("NO_PROXY", "127.0.0.1");
    let ran = tokio::task::spawn_blocking(move || run.output().unwrap()).await.unwrap();
    assert!(ran.status.success(), "{}", text(&ran));
    assert!(text(&ran).contains("Rayleigh scattering"), "{}", text(&ran));
    assert_eq!(sim.call_count(), 2, "the first was a 500");
}

/// What all clients below are made of. `tower` itself is not used, whose features would be others than the first package's.
const PRELUDE: &str = "#![allow(unused)]
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower_gemini::stack::{self, GeminiStack};
use std::marker::PhantomData;
use std::task::{Context, Poll};
/// Takes bodies B, answers with bodies R or fails with E.
struct Client<B, E = std::io::Error, R = Full<Bytes>>(PhantomData<fn(B) -> (E, R)>);
impl<B, E, R> Client<B, E, R> {
    fn new() -> Self { Self(PhantomData) }
}
impl<B, E, R> Clone for Client<B, E, R> {
    fn clone(&self) -> Self { Self::new() }
}
impl<B, E, R> tower_service::Service<Request<B>> for Client<B, E, R> {
    type Response = Response<R>;
    type Error = E;
    type Future = std::future::Pending<Result<Response<R>, E>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> { Poll::Pending }
    fn call(&mut self, _: Request<B>) -> Self::Future { std::future::pending() }
}
/// Takes any body whatever.
#[derive(Clone)]
struct Any;
impl<B: http_body::Body> tower_service::Service<Request<B>> for Any {
    type Response = Response<Full<Bytes>>;
    type Error = std::io::Error;
    type Future = std::future::Pending<Result<Self::Response, std::io::Error>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> { Poll::Pending }
    fn call(&mut self, _: Request<B>) -> Self::Future { std::future::pending() }
}
type Streamed = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;
#[derive(Debug)]
struct Plain;
";

const NOT_CLONE: &str = "is not `Clone`, so a request cannot be sent a second time";
const NO_ERROR: &str = "the client's error type `Plain` is not `Into<BoxError>`";
const NO_BYTES: &str = "is not an `http_body::Body<Data = bytes::Bytes>`";
const NO_CLIENT: &str = "is not a `tower::Service<http::Request<";

/// Name, what `main` does, and what stands within the compiler's first five lines.
const CASES: [(&str, &str, &str); 10] = [
    ("body", "GeminiStack::new().service(Client::<Streamed>::new());", NOT_CLONE),
    ("body_checked", "stack::check(&Client::<Streamed>::new());", NOT_CLONE),
    ("body_of_any", "stack::check::<_, Streamed>(&Any);", NOT_CLONE),
    (
        "body_of_a_text",
        "GeminiStack::new().service(Client::<String>::new());",
        "the request body `String` is not `Clone + From<Bytes>`",
    ),
    ("error", "GeminiStack::new().service(Client::<Full<Bytes>, Plain>::new());", NO_ERROR),
    ("error_checked", "stack::check(&Client::<Full<Bytes>, Plain>::new());", NO_ERROR),
    (
        "answer",
        "GeminiStack::new().service(Client::<Full<Bytes>, std::io::Error, Full<&'static [u8]>>::new());",
        NO_BYTES,
    ),
    ("answer_checked", "stack::check(&Client::<Full<Bytes>, std::io::Error, Vec<u8>>::new());", NO_BYTES),
    ("no_client", "GeminiStack::new().service(reqwest::Client::new());", NO_CLIENT),
    ("no_client_checked", "stack::check(&reqwest::Client::new());", NO_CLIENT),
];

#[test]
fn the_commonest_compile_errors_name_their_cause_in_the_first_five_lines() {
    let lines = block("sh\n", "cargo add tower-gemini");
    let mut dependencies = lines.lines().map(dependency).collect::<String>();
    for more in ["bytes", "http", "http-body", "http-body-util", "tower-service"] {
        writeln!(dependencies, "{more} = {{ {} }}", latest(more)).unwrap();
    }
    let fits = "stack::check::<_, Full<Bytes>>(&Any); let _ = GeminiStack::new().service(Client::<Full<Bytes>>::new());";
    let good = format!("{PRELUDE}fn main() {{ {fits} }}");
    let programs = CASES
        .map(|(name, lines, _)| (format!("bin/{name}.rs"), format!("{PRELUDE}fn main() {{\n{lines}\n}}\n")));
    let mut sources: Vec<(&str, &str)> = programs.iter().map(|(name, text)| (&**name, &**text)).collect();
    sources.push(("main.rs", &good));
    let package = Package::new("misfits", &dependencies, &sources);

    // `check` would build the dependencies once more.
    let built = package.cargo(&["build", "--quiet", "--bin", "misfits"]).output().unwrap();
    assert!(built.status.success(), "what fits does not compile: {}", text(&built));
    for (name, _, said) in CASES {
        let built = package.cargo(&["build", "--quiet", "--bin", name]).output().unwrap();
        let printed = text(&built);
        assert!(!built.status.success(), "{name} compiles");
        let begin = printed.lines().take(5).collect::<Vec<_>>().join("\n");
        assert!(begin.contains(said), "{name} does not say {said:?} in its first five lines:\n{printed}");
    }
}
