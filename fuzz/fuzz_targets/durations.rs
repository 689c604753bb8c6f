//! Any text as a duration: no panic, and what was read can be written and read again.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tower_gemini::google_rpc::parse_duration;

fuzz_target!(|text: &str| {
    if let Some(duration) = parse_duration(text) {
        let written = format!("{}.{:09}s", duration.as_secs(), duration.subsec_nanos());
        assert_eq!(parse_duration(&written), Some(duration), "{text:?} was written as {written}");
        let whole = Duration::from_secs(duration.as_secs());
        assert_eq!(parse_duration(&format!("{}s", whole.as_secs())), Some(whole));
        assert_eq!(parse_duration(&whole.as_secs().to_string()), Some(whole), "a bare number means seconds");
    }
    // The first eight bytes as a number: every count of plain seconds survives the round trip.
    if let Some(bytes) = text.as_bytes().first_chunk() {
        let seconds = u64::from_le_bytes(*bytes);
        assert_eq!(parse_duration(&format!("{seconds}s")), Some(Duration::from_secs(seconds)));
    }
});
