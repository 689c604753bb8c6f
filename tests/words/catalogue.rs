//! No document, example or default names a model that retires.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::{Path, PathBuf};

use tower_gemini::catalogue::Catalogue;

/// What is read, files and folders.
const OURS: [&str; 11] = [
    "README.md",
    "ARCHITECTURE.md",
    "BENCHMARKS.md",
    "CONTRIBUTING.md",
    "docs",
    "src",
    "examples",
    "benches",
    "fuzz/fuzz_targets",
    "gateway",
    "tests",
];

/// Where such names belong: the catalogue itself and what tests it, recorded bodies with what was read from them, and paths
/// that are read and never asked.
const EXEMPT: [&str; 7] = [
    "src/catalogue/",
    "tests/words/catalogue.rs",
    "tests/fixtures/",
    "tests/words/readings/",
    "tests/layers/request.rs",
    "tests/layers/tiers.rs",
    "tests/words/verdicts.rs",
];

const EXTENSIONS: [&str; 7] = ["rs", "md", "json", "toml", "py", "mjs", "html"];

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == "target") {
            continue;
        }
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|ext| EXTENSIONS.iter().any(|one| ext == *one)) {
            out.push(path);
        }
    }
}

/// Whether the name stands there by itself, and not as the beginning of another one.
fn names(text: &str, model: &str) -> bool {
    text.match_indices(model).any(|(at, _)| {
        let after = text[at + model.len()..].chars().next();
        after.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '-')
    })
}

#[test]
fn nothing_of_ours_names_a_model_that_retires() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for path in OURS.map(|name| root.join(name)) {
        if path.is_dir() { files(&path, &mut all) } else { all.push(path) }
    }
    assert!(all.len() > 300, "{}", all.len());
    let mut found = Vec::new();
    for path in all {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if EXEMPT.iter().any(|exempt| name.starts_with(exempt)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let retiring = Catalogue::builtin().models().filter(|model| model.retires().is_some());
        found.extend(retiring.filter(|m| names(&text, m.name())).map(|m| format!("{name}: {}", m.name())));
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The simulator's own models, as it lists them.
#[cfg(feature = "sim")]
#[tokio::test(start_paused = true)]
async fn the_simulator_knows_no_model_that_retires() {
    use http_body_util::{BodyExt, Full};
    use tower::ServiceExt;
    let request = http::Request::get("/v1beta/models").body(Full::<bytes::Bytes>::default()).unwrap();
    let response = tower_gemini::sim::Simulator::new().oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let models = list["models"].as_array().unwrap();
    assert!(models.len() > 5);
    for model in models {
        let known = Catalogue::builtin().model(model["name"].as_str().unwrap());
        assert!(known.is_some_and(|known| known.retires().is_none()), "{model}");
    }
}

/// So do the limits that this crate knows by itself.
#[test]
fn no_published_limit_is_that_of_a_model_that_retires() {
    use tower_gemini::rate_limit::{Limits, Tier};
    for model in Catalogue::builtin().models().filter(|model| model.retires().is_some()) {
        for tier in [Tier::Free, Tier::Tier1] {
            assert_eq!(Limits::published(tier, model.name()), None, "{}", model.name());
        }
    }
}

#[test]
fn a_name_is_whole_or_another_one() {
    assert!(names("`gemini-2.5-flash`", "gemini-2.5-flash") && names("gemini-2.5-flash", "gemini-2.5-flash"));
    assert!(!names("gemini-2.5-flash-lite", "gemini-2.5-flash"));
}
