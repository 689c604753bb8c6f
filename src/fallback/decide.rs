//! Would another model help? Pure.

use crate::error::Rejected;
use crate::event::GaveUp;
use crate::verdict::{Alternative, Kind, Verdict};

/// Which other models would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Help {
    /// The failure is the answer.
    None,
    /// The next one.
    Any,
    /// The next one that takes longer inputs.
    Larger,
}

/// Whether another service tier of the same model would help: where this one has no capacity. Not where a quota is spent,
/// which the tiers share.
pub(super) fn tier_helps(verdict: &Verdict, rejected: Option<&Rejected>, gave_up: Option<GaveUp>) -> bool {
    if verdict.after_output() || matches!(gave_up, Some(GaveUp::MaybeProcessed | GaveUp::AfterOutput)) {
        return false;
    }
    let kind = rejected.map_or(verdict.kind(), Rejected::kind);
    match kind {
        Some(Kind::Overloaded | Kind::Unavailable) => true,
        // The server's own word, as below.
        Some(Kind::DeadlineExceeded) => rejected.is_none() && verdict.alternative() == Alternative::Model,
        // A shortage that is told as a limit names no quota.
        Some(Kind::RateLimited) => rejected.is_none() && verdict.quota().is_empty(),
        _ => false,
    }
}

/// Reads it off what a call ended with. `gave_up` is the retry layer's word, where there is one inside.
pub(super) fn help(verdict: &Verdict, rejected: Option<&Rejected>, gave_up: Option<GaveUp>) -> Help {
    if verdict.after_output() || matches!(gave_up, Some(GaveUp::MaybeProcessed | GaveUp::AfterOutput)) {
        return Help::None;
    }
    if let Some(rejected) = rejected {
        // A layer of this process knows whether it speaks of one model; one that says no kind does not.
        return match rejected.kind() {
            Some(Kind::RateLimited | Kind::QuotaExhausted | Kind::Overloaded | Kind::Unavailable) => {
                Help::Any
            }
            _ => Help::None,
        };
    }
    match verdict.alternative() {
        Alternative::Model => Help::Any,
        Alternative::LargerContext => Help::Larger,
        Alternative::None | Alternative::Project => Help::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    fn verdict(status: u16, body: &'static str) -> Verdict {
        let status = StatusCode::from_u16(status).expect("a status");
        Verdict::from_parts(status, &HeaderMap::new(), Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn each_verdict_says_whether_another_model_helps() {
        for (status, body, expected) in [
            (503, "", Help::Any),
            (500, "", Help::Any),
            (504, "", Help::Any),
            (429, "", Help::Any),
            (429, r#"{"error":{"message":"You exceeded your monthly spending cap."}}"#, Help::None),
            (400, "", Help::None),
            (
                400,
                r#"{"error":{"message":"The input token count (9) exceeds the maximum number of tokens allowed (8)."}}"#,
                Help::Larger,
            ),
            (401, "", Help::None),
            (403, "", Help::None),
            (404, "", Help::None),
            (404, r#"{"error":{"status":"NOT_FOUND","message":"models/gemini-0 is not found"}}"#, Help::Any),
        ] {
            assert_eq!(help(&verdict(status, body), None, None), expected, "{status} {body}");
        }
    }

    #[test]
    fn another_tier_helps_where_capacity_is_short() {
        const QUOTA: &str = r#"{"error":{"status":"RESOURCE_EXHAUSTED","message":"x","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel","quotaValue":"5"}]}]}}"#;
        for (status, body, helps) in [
            (503, "", true),
            (504, "", true),
            (429, "", true),
            (429, QUOTA, false),
            (429, r#"{"error":{"message":"You exceeded your monthly spending cap."}}"#, false),
            (500, "", false),
            (400, "", false),
            (404, r#"{"error":{"status":"NOT_FOUND","message":"models/gemini-0 is not found"}}"#, false),
        ] {
            assert_eq!(tier_helps(&verdict(status, body), None, None), helps, "{status} {body}");
        }
        assert!(!tier_helps(&verdict(503, ""), None, Some(GaveUp::MaybeProcessed)));
        for (kind, helps) in
            [(Kind::Unavailable, true), (Kind::RateLimited, false), (Kind::QuotaExhausted, false)]
        {
            let rejected = Rejected::new("open").with_kind(kind);
            assert_eq!(tier_helps(&Verdict::from_error(&rejected), Some(&rejected), None), helps, "{kind}");
        }
    }

    #[test]
    fn nothing_is_repeated_that_was_delivered_or_that_may_be_paid_twice() {
        let verdict = verdict(504, "");
        for why in [GaveUp::MaybeProcessed, GaveUp::AfterOutput] {
            assert_eq!(help(&verdict, None, Some(why)), Help::None);
        }
        for why in
            [GaveUp::Attempts, GaveUp::Deadline, GaveUp::ServerDelay, GaveUp::Budget, GaveUp::NotRetryable]
        {
            assert_eq!(help(&verdict, None, Some(why)), Help::Any);
        }
    }

    #[test]
    fn a_rejection_counts_by_its_kind() {
        let of = |rejected: Rejected| help(&Verdict::from_error(&rejected), Some(&rejected), None);
        assert_eq!(of(Rejected::new("maintenance")), Help::None);
        assert_eq!(of(Rejected::new("maintenance").with_kind(Kind::PermissionDenied)), Help::None);
        for kind in [Kind::RateLimited, Kind::QuotaExhausted, Kind::Overloaded, Kind::Unavailable] {
            assert_eq!(of(Rejected::new("open").with_kind(kind)), Help::Any);
        }
    }
}
