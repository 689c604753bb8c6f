//! Reads what an outcome means: status, headers and body, or an error's chain, to a [`Verdict`]. Pure, and below the
//! layers: [`classify`](crate::classify) calls it, and so do `explain` and the simulator's tests.
//!
//! The way of a body: [`response`] finds out which form it has; [`usual`] reads Google's own envelope at once, [`json`]
//! any other JSON (with [`deep`] and [`details`]), [`text`] what is no JSON; [`nest`] and [`literal`] read bodies inside strings, [`names`] statuses in
//! prints, [`message`], [`sentence`] and [`labels`] what an error's message says in words, [`reason`] the names that errors go by. All of them fill in [`fields`]. [`rules`] and [`quota`]
//! make the verdict of the fields. What a 2xx holds is [`scan`](crate::scan)'s to find out; [`transport`] judges errors, [`mod@close`] WebSocket closes.

pub(crate) mod close;
mod deep;
mod details;
mod fields;
#[cfg(feature = "gzip")]
pub(crate) mod gunzip;
mod json;
mod labels;
mod literal;
mod message;
mod names;
mod nest;
mod quota;
mod reason;
pub(crate) mod response;
mod rules;
mod scalar;
mod sentence;
mod text;
mod transport;
mod usual;

use std::error::Error;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use self::response::judge as classify_response;
use self::transport::judge_error as classify_error;
use crate::error::{Rejected, find};
use crate::verdict::{Signal, Signals, Verdict};

impl Verdict {
    /// Judges a whole response: status, headers and body.
    ///
    /// Pure: no clock is read but for an HTTP date in `Retry-After`, nothing is kept but `body`. Never
    /// panics, whatever the bytes. Bodies of 4xx and 5xx are read as errors whatever their content type
    /// says; bodies of 2xx are read as answers, in which an error, a block or an empty answer may hide.
    #[must_use]
    pub fn from_parts(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Self {
        classify_response(status, headers, body)
    }

    /// What is known of this response: the verdict that the classifier left in its extensions, else what
    /// its status and headers say.
    #[must_use]
    pub fn of<R: crate::AnyResponse>(response: &R) -> Self {
        match response.extensions().get::<Self>() {
            Some(verdict) => verdict.clone(),
            None if response.status().as_u16() < 400 => Self::default(),
            None => classify_response(response.status(), response.headers(), Bytes::new()),
        }
    }

    /// Judges a failure without a response, by walking along `source()`.
    ///
    /// Tells "not sent" (refused connections, unresolvable names, [`Rejected`]) from "maybe
    /// sent" (resets, broken pipes, timeouts). Errors of hyper and hyper-util are known with the feature
    /// `hyper` (on by default), reqwest's with `reqwest` and `reqwest-012`, tower-http's timeouts with `tower-http-06` and
    /// `tower-http-07`; `io::Error` and the timeouts of this crate, tower and tokio always. Anything unknown is a
    /// transport failure that may have been sent.
    #[must_use]
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        classify_error(error)
    }
}

impl Signals {
    pub(crate) fn of_error(self, error: &(dyn Error + 'static)) -> Signal {
        match find::<Rejected>(error) {
            Some(_) => Signal::Neutral,
            None => self.of_verdict(&Verdict::from_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BoxError;
    use crate::verdict::{Inner, Kind};

    #[test]
    fn what_was_answered_decides_beyond_the_kind() {
        let judge = |status, body: &'static str| {
            let status = StatusCode::from_u16(status).unwrap();
            Verdict::from_parts(status, &HeaderMap::new(), Bytes::from_static(body.as_bytes())).signal()
        };
        assert_eq!(judge(429, r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}"#), Signal::Soft);
        let named = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[
            {"@type":"type.googleapis.com/google.rpc.QuotaFailure",
             "violations":[{"quotaMetric":"m/requests","quotaId":"RequestsPerMinute","quotaValue":"5"}]}]}}"#;
        assert_eq!(judge(429, named), Signal::Neutral);
        assert_eq!(judge(503, "<html>busy</html>"), Signal::Failure);
        assert_eq!(judge(418, ""), Signal::Neutral);
        let server = Inner { http: Some(StatusCode::BAD_GATEWAY), ..Inner::new(Kind::Unknown) };
        assert_eq!(Verdict::new(server).signal(), Signal::Failure);
    }

    #[test]
    fn an_error_is_read_along_its_sources() {
        let signals = Signals::default();
        let io = |kind: std::io::ErrorKind| signals.of_error(&std::io::Error::from(kind));
        assert_eq!(io(std::io::ErrorKind::ConnectionRefused), Signal::Failure);
        assert_eq!(io(std::io::ErrorKind::ConnectionReset), Signal::Failure);
        assert_eq!(io(std::io::ErrorKind::TimedOut), Signal::Timeout);
        let turned_away: BoxError = Box::new(std::io::Error::other(Rejected::new("closed")));
        assert_eq!(signals.of_error(turned_away.as_ref()), Signal::Neutral);
        let all = Signals::by(|_| Signal::Failure);
        assert_eq!(all.of_error(turned_away.as_ref()), Signal::Neutral, "whatever the caller's table says");
        let own = Verdict::new(Inner { by_caller: true, ..Inner::new(Kind::DeadlineExceeded) });
        assert_eq!((own.signal(), all.of_verdict(&own)), (Signal::Neutral, Signal::Neutral));
    }
}
