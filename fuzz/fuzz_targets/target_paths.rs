//! No text panics, whether taken for a path or for the URI of a request; a key keeps the names of its target;
//! and nothing printed holds a query.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_gemini::request::Target;

fn check(target: &Target<'_>) {
    let key = target.key();
    assert_eq!(key.model(), target.model());
    assert_eq!(key.project(), target.project());
    assert_eq!(key.location(), target.location());
    assert_eq!(key, target.key());
    for printed in [target.to_string(), key.to_string()] {
        assert!(!printed.contains(['?', '#', '&', '=', '\n']), "{printed:?}");
    }
    let _ = format!("{target:?}{key:?}");
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    check(&Target::from_path(text));
    if let Ok(request) = http::Request::post(text).body(()) {
        check(&Target::of(&request));
        check(&Target::from_uri(request.uri()));
    }
});
