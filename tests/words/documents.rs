//! The map is true: what ARCHITECTURE.md names is there, and every room of the source is on it.
#![allow(clippy::unwrap_used)] // Clippy excuses test functions by itself, but not their helpers.

use std::collections::BTreeSet;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// The words between backticks, outside of blocks, that are paths.
fn paths(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let words = prose.split('`').skip(1).step_by(2).flat_map(|code| code.split_whitespace());
    let is_path =
        |word: &&str| word.ends_with(".rs") || word.starts_with("src/") || word.starts_with("tests/");
    words.filter(is_path).map(str::to_owned).collect()
}

#[test]
fn every_path_that_the_architecture_and_the_guide_for_contributors_name_exists() {
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/fleet.md"] {
        let text = read(document);
        let named = paths(&text);
        assert!(!named.is_empty(), "{document}");
        for path in named {
            // A file is named from the root or from the source; by its name alone, it is in the room that is spoken of.
            let root = Path::new(ROOT);
            let exists = root.join(&path).exists() || root.join("src").join(&path).exists();
            let is_pattern = path.contains(['<', '{', '*']);
            assert!(exists || is_pattern || !path.contains('/'), "{document}: {path}");
        }
    }
}

#[test]
fn every_room_is_on_the_map_and_the_map_has_no_other() {
    let text = read("ARCHITECTURE.md");
    let map = text.split("```text\nsrc/\n").nth(1).unwrap().split("```").next().unwrap();
    let mut named = BTreeSet::new();
    for line in map.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        for word in line.split_whitespace() {
            let room = word.trim_end_matches(',').trim_end_matches('/').trim_end_matches(".rs");
            if word.trim_end_matches(',').ends_with('/') || word.ends_with(".rs") {
                named.insert(room.to_owned());
            }
        }
    }
    let there: BTreeSet<String> = std::fs::read_dir(Path::new(ROOT).join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().trim_end_matches(".rs").to_owned())
        .filter(|name| !name.ends_with("_tests"))
        .collect();
    let missing: Vec<_> = there.difference(&named).collect();
    assert!(missing.is_empty(), "not on the map: {missing:?}");
    for room in named.difference(&there) {
        assert!(map.contains(&format!("{room}/")), "not in src/: {room}");
    }
}

#[test]
fn four_questions_of_a_stranger_have_a_row_each() {
    let text = read("ARCHITECTURE.md");
    let table = text.split("## Where it is").nth(1).unwrap().split("\n## ").next().unwrap();
    for question in [
        "where a spent day is recognised",
        "where a permit is given back when a body is dropped",
        "where to add a kind",
        "what state clones share",
    ] {
        let row = table.lines().find(|line| line.contains(question)).unwrap_or_else(|| panic!("{question}"));
        assert!(row.contains("`src/"), "a row names a file: {row}");
    }
}
