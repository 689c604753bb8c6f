//! What can be read from an error's message, where nothing else says it. Pure.
//!
//! Messages change without notice, so prose is the last evidence and is read narrowly: by the phrases that are
//! on record, never by loose digits ("exceeds … (5003412)" once was retried as a 5xx, google-gemini/gemini-cli#5807,
//! read 2026-11).

use std::time::Duration;

use memchr::memmem;

use crate::google_rpc::leading_duration;

/// Whether the message holds any of the phrases, letter case aside for the first letter only: phrases are
/// given from their second letter on where they may begin a sentence.
pub(super) fn says(message: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| memmem::find(message.as_bytes(), phrase.as_bytes()).is_some())
}

/// What stands in front of a delay. Those from the sixth on are of Django, of relays and of printed headers.
const DELAYS: [&str; 11] = [
    "etry in ",
    "ry again in ",
    "eset after ",
    "esets in ",
    "etry after ",
    "xpected available in ",
    "lease wait ",
    "ll accounts limited. Wait ",
    "etry-After: ",
    "etry-after: ",
    "etry After: ",
];

/// The delay in "Please retry in 31.5s", "Please try again in 30 seconds", "will reset after 2h52m39s".
pub(super) fn delay(message: &str) -> Option<Duration> {
    // Google writes it last, and a letter in so few bytes is found sooner than a phrase in the whole.
    let tail = &message.as_bytes()[message.len().saturating_sub(60)..];
    let hinted = |at: &usize| {
        *at > 3
            && tail[at - 4..].starts_with(b"retry in ")
            && begins(message, message.len() - tail.len() + at - 4)
    };
    match memchr::memchr_iter(b'y', tail).find(hinted) {
        // ASCII before and after, so this is a boundary.
        Some(at) => duration_at(&message[message.len() - tail.len() + at + 5..]),
        None => DELAYS.iter().find_map(|phrase| {
            let mut found = memmem::find_iter(message.as_bytes(), phrase.as_bytes());
            let at = found.find(|at| begins(message, at.saturating_sub(1)))? + phrase.len();
            // A front end's page has one sentence for every fault.
            duration_at(&message[at..]).filter(|_| !is_page(message))
        }),
    }
}

/// The status of an error in a line of HTTP that a client has printed: `HTTP Request: POST https://… "HTTP/1.1 503 Service
/// Unavailable"`, `(HTTP/1.1 404 Not Found)`.
pub(super) fn http_line(message: &str) -> Option<u16> {
    const LINE: &str = "HTTP/";
    // The bound keeps a hostile message from being read again and again.
    memmem::find_iter(message.as_bytes(), LINE.as_bytes()).take(32).find_map(|at| {
        let rest = &message[at + LINE.len()..];
        let rest = ["1.1 ", "2 ", "1.0 ", "2.0 "].iter().find_map(|version| rest.strip_prefix(version))?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let is_number = digits == 3 && !rest[3..].starts_with(|c: char| c.is_ascii_alphanumeric());
        is_number.then(|| rest[..3].parse().ok())?.filter(|n| (400..600).contains(n))
    })
}

/// Whether a word begins here. `f_with_retry in 2.0 seconds` is what a client does by itself.
fn begins(text: &str, at: usize) -> bool {
    let before = &text.as_bytes()[..at];
    // The `n` of a line feed that has kept its escape belongs to no word.
    let escaped = before.ends_with(b"\\n") || before.ends_with(b"\\t");
    escaped || before.last().is_none_or(|b| !b.is_ascii_alphanumeric() && *b != b'_')
}

/// Whether this is a page of Google's front end, or its sentence: "The server encountered a temporary error and could not
/// complete your request. Please try again in 30 seconds."
pub(super) fn is_page(message: &str) -> bool {
    says(
        message,
        &["<html", "<HTML", "<!DOCTYPE", "<!doctype", "temporary error and could not complete your request"],
    )
}

/// The title of a front end's page, which is its only message. The delay in its prose is the same for every fault.
pub(super) fn title(page: &str) -> Option<&str> {
    const OPEN: &str = "<title>";
    let from = memmem::find(page.as_bytes(), OPEN.as_bytes())? + OPEN.len();
    let len = memmem::find(&page.as_bytes()[from..], b"</title>")?;
    Some(page[from..from + len].trim())
}

fn duration_at(text: &str) -> Option<Duration> {
    let (duration, rest) = leading_duration(text)?;
    let factor = match rest.trim_start() {
        unit if unit.starts_with("minute") => 60,
        unit if unit.starts_with("hour") => 3600,
        unit if unit.starts_with("millisecond") => return duration.checked_div(1000),
        _ => 1,
    };
    duration.checked_mul(factor)
}

/// A quota that the message names.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) metric: Option<&'a str>,
    /// The limit's name in "and limit 'Requests per day per user'".
    pub(super) limit_name: Option<&'a str>,
    pub(super) limit: Option<u64>,
    pub(super) model: Option<&'a str>,
}

/// Every "Quota exceeded for …" of the message, in its three forms, whatever stands in front of it.
pub(super) fn quota_lines(message: &str) -> impl Iterator<Item = Line<'_>> {
    const OPENING: &str = "uota exceeded for ";
    // Google names four at most; the bound keeps a hostile message from being read again and again.
    memmem::find_iter(message.as_bytes(), OPENING.as_bytes()).take(32).filter_map(|at| {
        let rest = clip(&message[at + OPENING.len()..], 1024);
        // Up to the next one. The limit may stand on a line of its own.
        let end = memmem::find(rest.as_bytes(), OPENING.as_bytes()).unwrap_or(rest.len());
        let line = &rest[..end];
        if let Some(fields) = line.strip_prefix("metric: ").or_else(|| line.strip_prefix("metric ")) {
            let metric = name(fields.trim_start_matches(['\'', '"', '`']));
            let (limit, behind) = limit_in(fields).unzip();
            Some(Line { metric, limit, limit_name: behind.and_then(span), model: model_of(fields) })
        } else if let Some(quoted) = line.strip_prefix("quota metric ") {
            // A name with blanks in it has quotes.
            if let Some(metric) = name(quoted).filter(|metric| metric.contains('_')) {
                return Some(Line { metric: Some(metric), limit: limit(quoted), ..Line::default() });
            }
            // A print escapes its quotes, once or more often.
            let mut quoted = quoted.split('\'').skip(1).map(|text| text.trim_end_matches('\\'));
            let metric = quoted.next().filter(|metric| !metric.is_empty())?;
            let limit_name =
                quoted.next().and_then(|between| between.ends_with("and limit ").then(|| quoted.next())?);
            Some(Line { metric: Some(metric), limit_name, ..Line::default() })
        } else {
            // Vertex: `aiplatform.googleapis.com/<metric> with base model: <model>.`
            let line = line.trim_start_matches(['\'', '"', '`', '\\']);
            let Some(metric) = name(line).filter(|metric| metric.contains('/')) else {
                // No name at all: `requests per minute`.
                let len = line.find(|c: char| !c.is_ascii_alphanumeric() && !" -_".contains(c));
                let phrase = clip(&line[..len.unwrap_or(line.len())], 96).trim_end();
                let is_span = says(phrase, &["per ", "per-", "per_", "aily ", "Per"]);
                return is_span.then_some(Line {
                    limit_name: Some(phrase),
                    limit: limit(line),
                    ..Line::default()
                });
            };
            let model = line[metric.len()..].strip_prefix(" with base model: ").and_then(name);
            Some(Line { metric: Some(metric), model, ..Line::default() })
        }
    })
}

/// What there were too many of in a span of time: `too many requests per minute`, `Quota exceeded: requests per day`.
pub(super) fn too_many(message: &str) -> impl Iterator<Item = Line<'_>> {
    const OPENINGS: [&str; 2] = ["oo many ", "uota exceeded: "];
    let found = |opening: &'static str| {
        memmem::find_iter(message.as_bytes(), opening.as_bytes()).take(8).map(move |at| at + opening.len())
    };
    OPENINGS.into_iter().flat_map(found).filter_map(|at| {
        let rest = clip(&message[at..], 96);
        let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && !" -_".contains(c));
        let phrase = rest[..len.unwrap_or(rest.len())].trim_end();
        let (counted, _) = phrase.split_once(" per ")?;
        let is_count = counted.len() < 24 && (counted.ends_with("requests") || counted.ends_with("tokens"));
        is_count.then_some(Line { limit_name: Some(phrase), limit: limit(rest), ..Line::default() })
    })
}

/// The `per day` that stands right behind the number of a limit.
fn span(behind: &str) -> Option<&str> {
    let text = behind.trim_start_matches([',', ' ', '(', '\'', '"', '\\']);
    let len = text.find(|c: char| !c.is_ascii_alphabetic() && c != ' ').unwrap_or(text.len());
    text.starts_with("per ").then_some(&text[..len])
}

/// The name at the beginning of `text`.
fn name(text: &str) -> Option<&str> {
    let len = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"-._@/".contains(b)).count();
    let name = text[..len].trim_end_matches(['.', '-', '/']);
    (!name.is_empty()).then_some(name)
}

/// The `model: …` behind a quota.
fn model_of(fields: &str) -> Option<&str> {
    after_word(fields, "model")
        .find_map(|rest| name(rest.strip_prefix(':')?.trim_start_matches([' ', '\'', '"'])))
}

/// The `limit: 12` of a quota, in any punctuation.
fn limit(fields: &str) -> Option<u64> {
    limit_in(fields).map(|(limit, _)| limit)
}

/// The same, and what stands behind its number.
fn limit_in(fields: &str) -> Option<(u64, &str)> {
    after_word(fields, "limit").find_map(|rest| {
        let value = rest.trim_start_matches([' ', ':', '=', '\'', '"', '\\']);
        let value = value.strip_prefix("of ").or_else(|| value.strip_prefix("is ")).unwrap_or(value);
        let digits = value.bytes().take_while(u8::is_ascii_digit).count();
        let number = value[..digits].parse().ok()?;
        // A fraction, or a span of time, is no limit.
        let after = &value.as_bytes()[digits..];
        let whole = match after {
            [b'.', b'0'..=b'9', ..] => false,
            [b, ..] => !b.is_ascii_alphanumeric() && *b != b'_',
            [] => true,
        };
        (whole && rest.len() > value.len()).then_some((number, &value[digits..]))
    })
}

/// What follows each occurrence of a word.
fn after_word<'t>(text: &'t str, word: &'static str) -> impl Iterator<Item = &'t str> {
    memmem::find_iter(text.as_bytes(), word.as_bytes())
        .filter(|at| begins(text, *at))
        .map(|at| &text[at + word.len()..])
}

/// Whether a message about a quota says that its limit is zero: `limit: 0` in any punctuation.
pub(super) fn says_zero(message: &str) -> bool {
    says(message, &["uota", "imit exceeded", "RESOURCE_EXHAUSTED"]) && limit_is_zero(message)
}

fn limit_is_zero(message: &str) -> bool {
    // Those that name another limit are passed over.
    let mut rest = message;
    while let Some(at) = memmem::find(rest.as_bytes(), b"imit") {
        let from = at.saturating_sub(1);
        let here = clip(&rest[boundary(rest, from)..], 32);
        if limit(&here.replacen("Limit", "limit", 1)) == Some(0) {
            return true;
        }
        rest = &rest[at + 4..];
    }
    false
}

fn boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

/// The text's beginning, of at most so many bytes.
pub(super) fn clip(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The model that a message names: `models/x is not found`, `Publisher Model …/models/x`, `for model x`.
pub(super) fn model(message: &str) -> Option<&str> {
    let after = |phrase: &str| {
        let at = memmem::find(message.as_bytes(), phrase.as_bytes())?;
        let rest = &message[at + phrase.len()..];
        let len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"-._@".contains(b)).count();
        let name = rest[..len].trim_end_matches(['.', '-']);
        (!name.is_empty()).then_some(name)
    };
    after("models/").or_else(|| after("for model "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_in_prose() {
        for (message, millis) in [
            ("Please retry in 31.58s.", Some(31_580)),
            ("Please retry in 856.559ms.", Some(856)),
            ("Please try again in 30 seconds.", Some(30_000)),
            ("Try again in 2 minutes", Some(120_000)),
            ("Your quota will reset after 2h52m39s.", Some(10_359_000)),
            ("Please try again in 5 milliseconds.", Some(5)),
            ("Try again in 3 hours", Some(10_800_000)),
            ("Busy; retry in 7s", Some(7_000)),
            ("retry in 7s", Some(7_000)),
            ("Please try again later.", None),
            ("retry in a moment", None),
            ("Individual quota reached. Resets in 2h18m58s.", Some(8_338_000)),
            ("f_with_retry in 2.0 seconds as it raised X", None),
            (
                "f_with_retry in 2.0 seconds as it raised X 429. Please retry in 9s. [violations { quota_metric: \"somewhat long\" }]",
                Some(9_000),
            ),
            (r"over\nretry in 2.0s", Some(2_000)),
        ] {
            let got = delay(message).map(|d| d.as_millis());
            assert_eq!(got, millis, "{message}");
        }
        let twice = format!("Please retry in 1s. {} Please retry in 9s.", "Prose. ".repeat(12));
        assert_eq!(delay(&twice).map(|d| d.as_secs()), Some(9), "Google writes it last");
    }

    #[test]
    fn a_clipped_text_ends_at_a_letter() {
        assert_eq!([0, 1, 2, 3, 4, 9].map(|max| clip("µµ", max)), ["", "", "µ", "µ", "µµ", "µµ"]);
    }

    #[test]
    fn three_forms_of_a_quota_line() {
        let text = "over\n* Quota exceeded for metric: svc/reqs, limit: 0, model: gem-9\n* Quota exceeded for metric: svc/tok, limit: 12";
        let lines: Vec<_> = quota_lines(text).collect();
        assert_eq!(
            lines,
            [
                Line { metric: Some("svc/reqs"), limit: Some(0), model: Some("gem-9"), limit_name: None },
                Line { metric: Some("svc/tok"), limit: Some(12), ..Line::default() },
            ]
        );
        let vertex = "Quota exceeded for ai.example/reqs_per_minute with base model: gem-pro. Ask for more.";
        assert_eq!(
            quota_lines(vertex).next(),
            Some(Line {
                metric: Some("ai.example/reqs_per_minute"),
                model: Some("gem-pro"),
                ..Line::default()
            })
        );
        let assist = "Quota exceeded for quota metric 'Gem Requests' and limit 'Gem Requests per day per user' of service";
        assert_eq!(
            quota_lines(assist).next().map(|l| (l.metric, l.limit_name)),
            Some((Some("Gem Requests"), Some("Gem Requests per day per user")))
        );
    }
}
