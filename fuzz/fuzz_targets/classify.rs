//! Any status, headers and body: judging never panics, never grows a list, never prints a key.
//!
//! The first byte chooses the status, the second the headers; the rest is the body.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use tower_gemini::Verdict;

const STATUSES: [u16; 16] = [200, 400, 401, 403, 404, 408, 409, 413, 429, 499, 500, 502, 503, 504, 529, 204];
const HEADERS: [&[(&str, &str)]; 8] = [
    &[],
    &[("retry-after", "7")],
    &[("retry-after", "1.5")],
    &[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")],
    &[("retry-after-ms", "250"), ("retry-after", "9")],
    &[("retry-after", "-1")],
    &[("retry-after", "1e400")],
    &[("content-encoding", "gzip")],
];

fuzz_target!(|data: &[u8]| {
    let [status, set, body @ ..] = data else { return };
    let status =
        StatusCode::from_u16(STATUSES[usize::from(*status) % STATUSES.len()]).expect("a valid status");
    let mut headers = HeaderMap::new();
    for (name, value) in HEADERS[usize::from(*set) % HEADERS.len()] {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    let verdict = Verdict::from_parts(status, &headers, Bytes::copy_from_slice(body));
    assert!(verdict.quota().len() <= 32);
    assert!(!verdict.is_success() || status.is_success());
    let printed = format!("{verdict:?} {} {:?}", verdict.message(), verdict.details());
    assert!(!has_key(&printed), "a key was printed: {printed}");
    let _ = (verdict.kind(), verdict.retryability(), verdict.server_delay().map(|delay| delay.at_least()));
});

/// Whether a whole Google API key stands in the text: `AIza` and 35 more of its alphabet.
fn has_key(text: &str) -> bool {
    text.match_indices("AIza").any(|(at, _)| {
        let tail = &text.as_bytes()[at + 4..];
        tail.iter().take_while(|b| b.is_ascii_alphanumeric() || b"-_".contains(b)).count() >= 35
    })
}
