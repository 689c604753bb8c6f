//! Any text as an error's message, as a member of no name, as a text, and as the reason of a close: judging it never panics,
//! never grows a list, never prints a key, and takes no longer than its length allows.
//!
//! The first byte chooses the status, the second how the text is put into the body; the rest is the text.
#![no_main]

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;
use tower_gemini::{Kind, Verdict, classify};

const STATUSES: [u16; 8] = [400, 403, 429, 500, 502, 503, 200, 418];

fuzz_target!(|data: &[u8]| {
    let [status, how, text @ ..] = data else { return };
    let status = StatusCode::from_u16(STATUSES[usize::from(*status) % STATUSES.len()]).expect("a status");
    let text = String::from_utf8_lossy(text);
    let quoted = serde_json::to_string(&text).expect("a text");
    let body = match how % 8 {
        0 => text.to_string(),
        1 => format!("{{\"error\":{{\"code\":500,\"message\":{quoted}}}}}"),
        2 => format!("{{\"error\":{quoted}}}"),
        3 => format!("{{\"detail\":{quoted}}}"),
        4 => format!("{{\"error\":{{\"message\":\"x\",\"metadata\":{{\"raw\":{quoted}}}}}}}"),
        5 => format!("ApiError: {text}"),
        6 => format!("{{\"error\":{{\"message\":\"x\",\"details\":[{quoted}]}}}}"),
        _ => quoted[1..quoted.len() - 1].to_owned(),
    };
    let (length, body) = (body.len(), Bytes::from(body));
    // A microsecond for each byte is a hundred times what it takes.
    let most = Duration::from_micros(length as u64) + Duration::from_millis(200);
    let (mut verdict, mut took) = timed(status, &body);
    // A busy machine may have stopped it in its midst: what is slow is slow three times.
    for _ in 0..2 {
        if took >= most {
            let (again, least) = timed(status, &body);
            (verdict, took) = (again, took.min(least));
        }
    }
    assert!(took < most, "{length} bytes took {took:?}");
    assert!(verdict.quota().len() <= 32);
    assert!(!verdict.is_success() || status.is_success());
    let closed = classify::close(1008, &text);
    let believed = verdict.believed();
    assert!(believed.kind() != Some(Kind::RateLimited) || !believed.is_doubtful_zero());
    for verdict in [believed, closed] {
        let printed = format!("{verdict:?} {} {:?}", verdict.message(), verdict.details());
        assert!(!has_key(&printed), "a key was printed: {printed}");
    }
});

fn timed(status: StatusCode, body: &Bytes) -> (Verdict, Duration) {
    let (body, begin) = (body.clone(), Instant::now());
    let verdict = Verdict::from_parts(status, &HeaderMap::new(), body);
    (verdict, begin.elapsed())
}

/// Whether a whole Google API key stands in the text: `AIza` and 35 more of its alphabet.
fn has_key(text: &str) -> bool {
    text.match_indices("AIza").any(|(at, _)| {
        let tail = &text.as_bytes()[at + 4..];
        tail.iter().take_while(|b| b.is_ascii_alphanumeric() || b"-_".contains(b)).count() >= 35
    })
}
