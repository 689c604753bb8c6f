//! The header that tells the server how long this attempt may take.

use http::Request;
use http::header::{Entry, HeaderName, HeaderValue};

use super::plan::Plan;
use crate::request::{Target, may_stream};

static X_SERVER_TIMEOUT: HeaderName = HeaderName::from_static("x-server-timeout");

/// Sets it, unless the caller did.
pub(super) fn tell_server<B>(request: &mut Request<B>, plan: &Plan) {
    let streaming = may_stream(request) && Target::of(request).is_streaming();
    let Some(seconds) = plan.server_timeout(streaming) else { return };
    // A map that is full goes without.
    if let Ok(Entry::Vacant(place)) = request.headers_mut().try_entry(&X_SERVER_TIMEOUT) {
        let _ = place.try_insert(value(seconds));
    }
}

/// The numbers up to 999, three digits each, so that a header of the usual sizes allocates nothing.
const DIGITS: &str = {
    const BYTES: [u8; 3000] = {
        let mut bytes = [0; 3000];
        let mut n = 0;
        while n < 1000 {
            bytes[3 * n] = b'0' + (n / 100) as u8;
            bytes[3 * n + 1] = b'0' + (n / 10 % 10) as u8;
            bytes[3 * n + 2] = b'0' + (n % 10) as u8;
            n += 1;
        }
        bytes
    };
    match std::str::from_utf8(&BYTES) {
        Ok(digits) => digits,
        Err(_) => unreachable!(),
    }
};

fn value(seconds: u64) -> HeaderValue {
    match usize::try_from(seconds) {
        Ok(n @ 100..=999) => HeaderValue::from_static(&DIGITS[3 * n..][..3]),
        Ok(n @ 10..=99) => HeaderValue::from_static(&DIGITS[3 * n + 1..][..2]),
        _ => HeaderValue::from(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeout::config::Settings;
    use std::time::Duration;

    #[test]
    fn a_request_that_only_looks_like_a_stream_is_told_by_when_its_head_must_come() {
        let told = |uri: &str| {
            let mut request = Request::post(uri).body(()).unwrap();
            let settings = Settings { first_byte: Some(Duration::from_secs(30)), ..Settings::default() };
            tell_server(&mut request, &Plan::new(&settings, crate::time::now(), None, 0));
            request.headers().get(&X_SERVER_TIMEOUT).map(|seconds| seconds.to_str().unwrap().to_owned())
        };
        assert_eq!(told("/v1beta/models/m:generateContent?note=stream").as_deref(), Some("30"));
        assert_eq!(told("/v1beta/models/m:generateContent").as_deref(), Some("30"));
        assert_eq!(told("/v1beta/models/m:streamGenerateContent?alt=sse"), None, "it may go on for long");
    }

    #[test]
    fn whole_seconds_from_ten_on_are_printed_as_they_are() {
        for seconds in (10..1200).chain([86_400, u64::MAX]) {
            assert_eq!(value(seconds).to_str().unwrap(), seconds.to_string());
        }
    }
}
