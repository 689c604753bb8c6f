//! No document, example or default names a model that retires.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::{Path, PathBuf};

use tower_gemini::catalogue::Catalogue;

/// Where such names belong: the catalogue itself, the limits that Google published for them, names in unit tests, and the
/// simulator's list, which also serves those who have not moved.
const EXEMPT: [&str; 4] = ["src/catalogue", "src/rate_limit", "src/keyed.rs", "src/sim/builder.rs"];

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|ext| ext == "rs" || ext == "md") {
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
    let mut all = vec![root.join("README.md")];
    for dir in ["src", "examples"] {
        files(&root.join(dir), &mut all);
    }
    assert!(all.len() > 100, "{}", all.len());
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

#[test]
fn a_name_is_whole_or_another_one() {
    assert!(names("`gemini-2.5-flash`", "gemini-2.5-flash") && names("gemini-2.5-flash", "gemini-2.5-flash"));
    assert!(!names("gemini-2.5-flash-lite", "gemini-2.5-flash"));
}
