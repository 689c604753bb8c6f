//! Compares the crate's public API with the snapshot beside this package, and fails where they differ.
//!
//! ```sh
//! cargo run --locked --manifest-path tests/api/Cargo.toml                 # compare, as CI does
//! UPDATE_API=1 cargo run --locked --manifest-path tests/api/Cargo.toml    # accept: rewrite public-api.txt
//! ```
//!
//! The snapshot has one line for each item with all features on, sorted: types, functions, fields, variants and
//! impls, `Send`, `Sync`, `Unpin` and unwind safety among them, since a type that loses one breaks its users. Blanket
//! impls are left out. A change of the API is accepted in the commit that makes it, so that it is seen in review, and
//! a line that goes is a breaking change.
//!
//! **The toolchain.** rustdoc writes JSON only where unstable options are allowed. The stable one allows them if it
//! is told to (`RUSTC_BOOTSTRAP`); this program stands in for rustdoc and tells it alone, so nothing else is built
//! differently, or twice. The form of the JSON changes with the compiler. Where it is not the one that `public-api`
//! reads, this says so: then raise `public-api` and `rustdoc-types` in Cargo.toml to the versions for that form (or
//! use the compiler that CI uses), and look at the snapshot's changes, which may be in how an item is printed.
//!
//! **At a release**, once there is one to compare with, `cargo install cargo-semver-checks --locked` and then
//!
//! ```sh
//! cargo semver-checks check-release --all-features
//! ```
//!
//! compares with the last version on crates.io and names each rule that the version number would break. It belongs
//! before the tag, not in CI, which would fetch the registry for it.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::Deserialize;

/// Set for rustdoc's stand-in, to the rustdoc that it stands in for.
const STAND_IN: &str = "TOWER_GEMINI_API_RUSTDOC";
const UPDATE: &str = "UPDATE_API";

fn main() -> ExitCode {
    let done = match env::var_os(STAND_IN) {
        Some(rustdoc) => stand_in(&rustdoc),
        None => compare(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

/// Runs rustdoc with unstable options allowed.
fn stand_in(rustdoc: &OsString) -> Result<ExitCode, String> {
    let mut command = Command::new(rustdoc);
    command.args(env::args_os().skip(1)).env("RUSTC_BOOTSTRAP", "1").env_remove(STAND_IN);
    let status = command.status().map_err(|error| format!("{} cannot be run: {error}", rustdoc.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compare() -> Result<ExitCode, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.join("../..");
    let items = items(&json(&root)?)?;
    let snapshot = here.join("public-api.txt");
    let name = "tests/api/public-api.txt";
    if env::var_os(UPDATE).is_some_and(|value| value != "0") {
        fs::write(&snapshot, items.join("\n") + "\n").map_err(|error| format!("{name}: {error}"))?;
        println!("{name}: {} items", items.len());
        return Ok(ExitCode::SUCCESS);
    }
    let known = fs::read_to_string(&snapshot).map_err(|error| format!("{name}: {error}"))?;
    let known: BTreeSet<&str> = known.lines().collect();
    let now: BTreeSet<&str> = items.iter().map(String::as_str).collect();
    if known == now {
        println!("the public API is the snapshot's: {} items", now.len());
        return Ok(ExitCode::SUCCESS);
    }
    known.difference(&now).for_each(|gone| println!("-{gone}"));
    now.difference(&known).for_each(|new| println!("+{new}"));
    let manifest = "--manifest-path tests/api/Cargo.toml";
    println!("\nThe public API is not the one in {name}. If that is meant:");
    println!("    {UPDATE}=1 cargo run --locked {manifest}");
    Ok(ExitCode::FAILURE)
}

/// Has rustdoc write its JSON.
fn json(root: &Path) -> Result<PathBuf, String> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let cargo = || {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // The docs' own lints are CI's business in another step.
        cargo.current_dir(root).env_remove("RUSTDOCFLAGS");
        cargo
    };
    let failed = |what: &str| format!("cargo {what} failed, so there is no API to compare");
    let metadata = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output();
    let metadata = metadata.map_err(|error| format!("cargo cannot be run: {error}"))?;
    let metadata: Metadata = serde_json::from_slice(&metadata.stdout).map_err(|_| failed("metadata"))?;

    let rustdoc = env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into());
    let own = env::current_exe().map_err(|error| format!("where this program lies: {error}"))?;
    let mut document = cargo();
    document.args(["rustdoc", "--quiet", "--locked", "--lib", "--all-features"]);
    document.args(["--", "-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"]);
    let status = document.env("RUSTDOC", own).env(STAND_IN, rustdoc).status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(failed("rustdoc"));
    }
    Ok(metadata.target_directory.join("doc/tower_gemini.json"))
}

/// What a user can name, one item a line.
fn items(json: &Path) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Form {
        format_version: u32,
    }
    let text = fs::read_to_string(json).map_err(|error| format!("{}: {error}", json.display()))?;
    let readable = rustdoc_types::FORMAT_VERSION;
    let form = serde_json::from_str(&text).map(|Form { format_version }| format_version);
    if !form.as_ref().is_ok_and(|form| *form == readable) {
        let form = form.map_or_else(|_| "of no known form".into(), |form| format!("of form {form}"));
        return Err(format!(
            "this compiler's rustdoc JSON is {form}, and this program reads form {readable}: \
             tests/api/src/main.rs says what to raise. The API was not compared."
        ));
    }
    let api = public_api::Builder::from_rustdoc_json(json).omit_blanket_impls(true).build();
    let api = api.map_err(|error| format!("rustdoc's JSON cannot be read: {error}"))?;
    // What only the compiler can name is none of a user's business, and comes and goes with compilers.
    let internal = |item: &String| item.contains("core::marker::Freeze") || item.contains("UnsafeUnpin");
    let mut items: Vec<_> = api.items().map(ToString::to_string).filter(|item| !internal(item)).collect();
    items.sort_unstable();
    items.dedup();
    Ok(items)
}
