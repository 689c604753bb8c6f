//! Errors that are not JSON, or no longer: gRPC's text form, a client's own print of a body, a body that was
//! cut in the middle. Pure, one pass, linear.
//!
//! All of them write `name: value` pairs, with the names in camel or snake case, in quotes or without. So one
//! scanner reads them all: it looks for colons, takes the word before and the value after.

use std::borrow::Cow;

use super::fields::{Fields, Violation};
use super::names;
use super::scalar::Scalar;
use crate::google_rpc::Code;

/// A status is named within so many bytes, or not at all.
const MAX_WORDS: usize = 16 * 1024;

/// Fills in what the fields do not have yet, out of a client's print: words as well as pairs.
pub(super) fn print<'a>(fields: &mut Fields<'a>, text: &'a str, http: u16) {
    scan(fields, text, http);
    words(fields, text.trim(), http);
}

/// Fills in what the fields do not have yet, out of pairs.
pub(super) fn scan<'a>(fields: &mut Fields<'a>, text: &'a str, http: u16) {
    let text = text.trim();
    let folded = std::mem::take(&mut fields.violations);
    head(fields, text, http);
    let mut scan = Scan::default();
    let mut at = 0;
    // `name=value` is how Java and Rust print it; a URL has such pairs, too, and they mean nothing here.
    while let Some(colon) = memchr::memchr3(b':', b'{', b'=', &text.as_bytes()[at..]) {
        let colon = at + colon;
        let name = word_before(text, colon);
        if text.as_bytes()[colon] == b'{' {
            scan.open(fields, name);
            at = colon + 1;
            continue;
        }
        if matches!(name, "message" | "Message" | "desc") && scan.message.is_none() {
            if let Some(message) = sentence_after(text, value_at(text, colon + 1)) {
                // What it says in pairs is read as well: a limit, a model.
                scan.message = Some(message);
                at = colon + 1;
                continue;
            }
        }
        let (value, next) = value_after(text, value_at(text, colon + 1));
        at = next;
        match value {
            // It runs past the end of the string that it was cut in.
            Value::Whole(value) if name.starts_with("quota") && value.contains('\n') => {}
            Value::Whole(value) => {
                scan.pair(fields, name, value, next == text.len());
                // `Error: code: 8`: the value is a name.
                if value.ends_with(':') && !text[..next].ends_with(['"', '\'']) {
                    at = next - 1;
                    continue;
                }
                // Somebody's words in quotes: `upstream said: "429 … [violations { … }]"`. Each kind of quote ends at the next
                // of its kind, so that the time stays linear.
                let quoted = text[..next].ends_with(['"', '\'']) && value.len() > 16 && name != "message";
                if quoted && memchr::memchr2(b'{', b'[', value.as_bytes()).is_some() {
                    at = next - 1 - value.len();
                }
                if name.starts_with("quota") && scan.violation.is_some() {
                    scan.tail = at;
                }
            }
            // Half an id would be a wrong id; half a message still says most of it.
            Value::Cut(value) if name == "message" => scan.message = scan.message.or(Some(value)),
            _ => {}
        }
    }
    scan.finish(fields, text);
    // A cut body has been folded as far as it went, and the scan has now seen the same violations again.
    if fields.violations.len() < folded.len() {
        fields.violations = folded;
    }
}

/// gRPC's `429 Quota exceeded … [violations { … }]`: the leading number is the HTTP status and stands for the
/// code; the message ends where the details begin. Likewise `[429 Too Many Requests] message [{…}]`, and either
/// behind the name of Python's exception: `google.api_core.exceptions.ResourceExhausted: 429 …`.
fn head<'a>(fields: &mut Fields<'a>, text: &'a str, http: u16) {
    let exception = text.split_once(": ").filter(|(name, _)| {
        name.len() < 120 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
    });
    let text = match exception {
        Some((name, rest)) if name.bytes().any(|b| b.is_ascii_alphabetic()) => rest,
        _ => text,
    };
    let body = text.strip_prefix('[').unwrap_or(text);
    let digits = body.len() - body.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number = body[..digits].parse::<u16>().ok().filter(|n| digits == 3 && (400..600).contains(n));
    let bracketed = body.len() < text.len();
    let rest = &body[digits..];
    let closed = rest.strip_prefix(']').filter(|_| bracketed);
    if closed.is_none() && !rest.starts_with([' ', ':']) {
        return;
    }
    let mut message = closed.unwrap_or(rest).trim_start_matches([' ', ':']);
    // A server that answers 500 hands a client's error on, and the number is that one's; a sentence follows it.
    let own = |n: &u16| {
        http < 400 || *n == http || http >= 500 && message.starts_with(|c: char| c.is_ascii_uppercase())
    };
    let Some(number) = number.filter(own) else { return };
    let bracketed = bracketed && closed.is_none();
    if let Some(end) = message.find("] ").filter(|_| bracketed) {
        message = &message[end + 2..];
    }
    // `429 RESOURCE_EXHAUSTED. {'error': …}`: python-genai names the status itself.
    let first = message.split(['.', ' ']).next().unwrap_or_default();
    let named = Code::from_name(first);
    let code = named.or_else(|| Code::from_http(number));
    let end = [" [", " {"].iter().filter_map(|open| message.find(open)).min().unwrap_or(message.len());
    fields.has_error = true;
    fields.code = fields.code.or(Some(number));
    if fields.status.is_none() {
        fields.status = code.map(|code| Cow::Borrowed(code.as_str()));
    }
    if fields.message.is_empty() && named.is_none() {
        fields.message = Cow::Borrowed(message[..end].trim());
    }
}

/// The status that is named somewhere in a print, where nothing has said it.
fn words(fields: &mut Fields<'_>, text: &str, http: u16) {
    if fields.status.is_some() && fields.code.is_some() {
        return;
    }
    let mut named = names::status(super::message::clip(text, MAX_WORDS));
    // A server that names its own status in front of what it was told.
    let is_servers = named.code.is_none() && named.number >= Some(500);
    if let Some(inner) = named.inner.filter(|_| is_servers) {
        (named.number, named.leads) = (Some(inner), true);
        fields.code = fields.code.filter(|code| *code < 500);
    }
    if let Some(code) = named.code.filter(|_| fields.status.is_none()) {
        fields.has_error = true;
        fields.status = Some(Cow::Borrowed(code.as_str()));
    }
    // Under an error's own status another number is prose, unless a name stands beside it.
    let number = named.number.filter(|n| http < 400 || *n == http || http >= 500 || named.code.is_some());
    let agrees = |n: &u16| match fields.code {
        Some(code) => code == *n && named.leads,
        None => true,
    };
    if let Some(number) = number.filter(agrees) {
        fields.has_error = true;
        fields.code = Some(number);
        if named.leads && fields.status.is_none() {
            fields.status = Code::from_http(number).map(|code| Cow::Borrowed(code.as_str()));
        }
    }
}

#[derive(Default)]
struct Scan<'a> {
    /// After `key: "model"`, until the `value: …` that belongs to it.
    key: Option<&'a str>,
    violation: Option<Violation<'a>>,
    /// Where the last of the violation's own members ended.
    tail: usize,
    delay: Delay,
    status: Option<&'a str>,
    /// google.rpc's own number of the status.
    number: Option<Code>,
    message: Option<&'a str>,
}

#[derive(Default)]
struct Delay {
    open: bool,
    seconds: Option<u64>,
    nanos: u64,
}

impl<'a> Scan<'a> {
    /// `name {`: a message of the text form begins. In JSON nothing stands before the brace but a colon.
    fn open(&mut self, fields: &mut Fields<'a>, name: &str) {
        match name {
            "violations" => self.close_violation(fields),
            "retry_delay" | "retryDelay" => self.delay.open = true,
            _ => {}
        }
    }

    fn close_violation(&mut self, fields: &mut Fields<'a>) {
        if let Some(violation) = self.violation.take() {
            fields.violations.push(violation);
        }
    }

    fn pair(&mut self, fields: &mut Fields<'a>, name: &'a str, value: &'a str, is_last: bool) {
        let scalar = || Scalar::Text(Cow::Borrowed(value));
        match name {
            "quotaMetric" | "quota_metric" | "quotaId" | "quota_id" | "quotaValue" | "quota_value" => {
                let repeated = self.violation.as_ref().is_some_and(|v| v.has(name));
                if repeated {
                    self.close_violation(fields);
                }
                self.violation.get_or_insert_default().set(name, scalar());
            }
            "key" => self.key = Some(value),
            "value" => {
                if let Some(key) = self.key.take() {
                    match (&mut self.violation, key) {
                        (Some(v), "model") => v.model = Some(Cow::Borrowed(value)),
                        (None, key) => fields.metadata.set(key, scalar()),
                        _ => {}
                    }
                }
            }
            "model" => match &mut self.violation {
                Some(v) => v.model = Some(Cow::Borrowed(value)),
                None => fields.metadata.set(name, scalar()),
            },
            "quota_limit" | "quota_limit_value" | "quotaResetDelay" | "quota_reset_delay" => {
                fields.metadata.set(name, scalar())
            }
            "retryDelay" | "retry_delay" => {
                fields.retry_info = fields.retry_info.max(crate::google_rpc::parse_duration(value));
            }
            "seconds" if self.delay.open => self.delay.seconds = value.parse().ok(),
            "nanos" if self.delay.open => self.delay.nanos = value.parse().unwrap_or(0),
            "reason" if fields.reason.is_none() && is_constant(value) => {
                fields.has_error = true;
                fields.reason = Some(Cow::Borrowed(value));
            }
            "domain" if fields.domain.is_none() => fields.domain = Some(Cow::Borrowed(value)),
            // `StatusCode.UNAVAILABLE`, as Python has it.
            "status" | "Status" if self.status.is_none() && value.len() > 2 => {
                self.status = value.rsplit('.').next()
            }
            "message" | "Message" | "details" | "Detail" if self.message.is_none() && !value.is_empty() => {
                self.message = Some(value)
            }
            "code" | "status" | "grpc_status" if self.number.is_none() && value.len() < 3 && !is_last => {
                // The first two are what processes end with.
                self.number = value.parse().ok().filter(|n| *n > 2).and_then(Code::from_number);
            }
            "code" if fields.code.is_none() => {
                fields.code = value.parse().ok().filter(|code| (400..600).contains(code));
                fields.has_error |= fields.code.is_some();
            }
            _ => {}
        }
    }

    fn finish(mut self, fields: &mut Fields<'a>, text: &str) {
        if let Some(v) = &mut self.violation {
            // Cut off inside the violation, its value may be what is missing.
            v.not_omitted |= !closes(text.get(self.tail..).unwrap_or_default());
        }
        // Of a quota that its metadata name.
        let of_metadata =
            |v: &Violation<'_>| v.id.is_none() && v.value.is_none() && fields.violations.len() == 0;
        if fields.metadata.quota_limit.is_some() && self.violation.as_ref().is_some_and(of_metadata) {
            fields.metadata.quota_metric = self.violation.take().and_then(|v| v.metric);
        }
        self.close_violation(fields);
        if let Some(seconds) = self.delay.seconds {
            let delay = std::time::Duration::from_secs(seconds)
                .checked_add(std::time::Duration::from_nanos(self.delay.nanos));
            fields.retry_info = fields.retry_info.max(delay);
        }
        let status = self.status.filter(|status| Code::from_name(status).is_some());
        // A number alone may be anything: it is gRPC's beside a message.
        let number = self.number.filter(|_| fields.code.is_none() && self.message.is_some());
        let status = status.or(number.map(Code::as_str));
        if fields.status.is_none() && status.is_some() {
            fields.has_error = true;
            fields.status = status.map(Cow::Borrowed);
        }
        if fields.message.is_empty() {
            fields.message = Cow::Borrowed(self.message.unwrap_or_default());
        }
    }
}

impl Violation<'_> {
    fn has(&self, name: &str) -> bool {
        match name {
            "quotaMetric" | "quota_metric" => self.metric.is_some(),
            "quotaId" | "quota_id" => self.id.is_some(),
            _ => self.value.is_some(),
        }
    }
}

/// Whether more braces close here than open.
fn closes(text: &str) -> bool {
    let mut depth = 0_usize;
    for b in text.bytes() {
        match b {
            b'{' => depth += 1,
            b'}' if depth == 0 => return true,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    false
}

/// `ERROR_REASONS_LOOK_LIKE_THIS`; "reason" also occurs in prose and in the legacy list.
fn is_constant(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// The word that ends just before `at`, without quotes and blanks around it.
fn word_before(text: &str, at: usize) -> &str {
    let before = text[..at].trim_end_matches([' ', ']', '"', '\'', '\\']);
    let len = before.bytes().rev().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    &before[before.len() - len..]
}

/// Where the value behind a colon or an equals sign begins. PHP's prints have an arrow, and its types at times:
/// `["code"]=>\n  int(429)`, `[code] => 429`.
fn value_at(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes.get(at) != Some(&b'>') || bytes.get(at - 1) != Some(&b'=') {
        return at;
    }
    let blanks = |at: usize| bytes[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
    let at = at + 1 + blanks(at + 1);
    let rest = &text[at..];
    let open = |name: &str| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('('));
    if open("int") || open("float") || open("bool") {
        return at + rest.find('(').map_or(0, |n| n + 1);
    }
    let digits =
        rest.strip_prefix("string(").map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    if digits > 0 && rest[7 + digits..].starts_with(") ") { at + 7 + digits + 2 } else { at }
}

/// The message that begins at `at` without a quote: up to the member after it, or to the end.
fn sentence_after(text: &str, at: usize) -> Option<&str> {
    let rest = text[at..].trim_start_matches([' ', '\\']);
    if rest.starts_with(['"', '\'', '{', '[', '`']) {
        return None;
    }
    const NEXT: [&str; 12] = [
        ", status",
        ", Status",
        ", details",
        ", Details",
        ", code",
        " [violations",
        " [links",
        " [reason",
        " [map[",
        // PHP's `print_r`.
        "[status] =>",
        "[details] =>",
        "[code] =>",
    ];
    let end = NEXT.iter().filter_map(|next| memchr::memmem::find(rest.as_bytes(), next.as_bytes())).min();
    let message = rest[..end.unwrap_or(rest.len())].trim_end().trim_end_matches([')', '}', ']']);
    (!message.is_empty()).then_some(message)
}

#[derive(Debug, PartialEq)]
enum Value<'a> {
    Whole(&'a str),
    /// The closing quote is missing.
    Cut(&'a str),
}

/// The value that begins at `at`: what stands in quotes, else up to the next delimiter; and where it ends.
/// An opening brace or bracket is left for the scan.
fn value_after(text: &str, at: usize) -> (Value<'_>, usize) {
    let rest = &text[at..];
    // `\"` where a body stands inside a string.
    let start = at + (rest.len() - rest.trim_start_matches([' ', '\\']).len());
    let bytes = text.as_bytes();
    match bytes.get(start) {
        Some(quote @ (b'"' | b'\'')) => {
            let mut end = start + 1;
            while let Some(hit) = bytes.get(end..).and_then(|tail| memchr::memchr2(*quote, b'\\', tail)) {
                end += hit;
                if bytes[end] == b'\\' && bytes.get(end + 1) != Some(quote) {
                    end = (end + 2).min(text.len());
                    continue;
                }
                // An escaped quote is closed by an escaped one. A bare one ends the string around the text,
                // which was cut inside the value.
                if bytes[end] == *quote && start > at && bytes[start - 1] == b'\\' {
                    return (Value::Cut(&text[start + 1..end]), end);
                }
                // A closing quote, or an escaped one, which closes where the whole text is escaped and
                // otherwise cuts a message short; nothing of interest follows it there.
                return (Value::Whole(&text[start + 1..end]), end + 1);
            }
            (Value::Cut(&text[start + 1..]), text.len())
        }
        Some(b'{' | b'[') | None => (Value::Whole(""), start),
        Some(_) => {
            let len = text[start..]
                .find(|c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']' | ')' | '"' | '\'' | ';'))
                .unwrap_or(text.len() - start);
            (Value::Whole(text[start..start + len].trim_end_matches('.')), start + len)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_panics(
            text in r#"(violations|quota_id|key|value|retry_delay|seconds|[ :{}"'\\\[\]]|42|µ|a){0,60}"#,
            http in 200u16..600,
        ) {
            scan(&mut Fields::default(), &text, http);
        }
    }

    #[test]
    fn pythons_exceptions_say_the_status_after_their_name() {
        for (text, http, status) in [
            ("google.api_core.exceptions.ResourceExhausted: 429 Over the quota.", 429, "RESOURCE_EXHAUSTED"),
            (
                "google.genai.errors.ServerError: 503 UNAVAILABLE. {'error': {'code': 503}}",
                503,
                "UNAVAILABLE",
            ),
            (
                "<_Rendezvous: status = StatusCode.DEADLINE_EXCEEDED details = \"late\">",
                504,
                "DEADLINE_EXCEEDED",
            ),
        ] {
            let mut fields = Fields::default();
            print(&mut fields, text, http);
            assert_eq!(fields.status.as_deref(), Some(status), "{text}");
        }
        let mut fields = Fields::default();
        scan(&mut fields, "upstream error: 503 times a charm", 429);
        assert_eq!((fields.status, fields.code), (None, None), "another number is prose");
    }

    #[test]
    fn a_value_cut_in_the_middle_is_still_a_value() {
        let mut fields = Fields::default();
        scan(&mut fields, r#"{"error": {"code": 429, "message": "over the li"#, 429);
        assert_eq!((fields.code, fields.message.as_ref()), (Some(429), "over the li"));
    }

    fn scanned(text: &str, http: u16) -> Fields<'_> {
        let mut fields = Fields::default();
        print(&mut fields, text, http);
        fields
    }

    /// Metric, id, value and model of each violation, and whether its value may be missing.
    fn violations<'f>(fields: &'f Fields<'_>) -> Vec<(&'f str, &'f str, Option<u64>, &'f str, bool)> {
        fn text<'v>(piece: &'v Option<Cow<'_, str>>) -> &'v str {
            piece.as_deref().unwrap_or("-")
        }
        let each = fields.violations.iter();
        each.map(|v| (text(&v.metric), text(&v.id), v.value, text(&v.model), v.not_omitted)).collect()
    }

    #[test]
    fn grpcs_text_form_is_read_whole() {
        let text = r#"429 Over it. [nanos: 9 violations { quota_metric: "m/requests" quota_id: "A" quota_value: 5
            quota_dimensions { key: "model" value: "gem" } } violations { quota_id: "B" } violations { quota_metric: "m/x" }
            , retry_delay { seconds: 7 }, reason: "FIRST" domain: "d" reason: "SECOND" domain: "e" code: 500 ]"#;
        let fields = scanned(text, 429);
        assert_eq!(
            violations(&fields),
            [
                ("m/requests", "A", Some(5), "gem", true),
                ("-", "B", None, "-", false),
                ("m/x", "-", None, "-", false)
            ]
        );
        assert_eq!(
            fields.retry_info,
            Some(std::time::Duration::from_secs(7)),
            "those nanoseconds were others"
        );
        assert_eq!((fields.reason.as_deref(), fields.domain.as_deref()), (Some("FIRST"), Some("d")));
        assert_eq!((fields.code, fields.message.as_ref(), fields.has_error), (Some(429), "Over it.", true));
        assert_eq!(scanned("wait { seconds: 30 }", 503).retry_info, None, "of what, nobody says");
    }

    #[test]
    fn each_name_begins_a_violation_when_it_comes_again() {
        for (text, count) in [
            (r#"{"quotaMetric":"a/x","quotaId":"A"},{"quotaMetric":"b/y","quotaId":"B"}"#, 2),
            (r#"{"quotaMetric":"a/x"},{"quotaMetric":"b/y"}"#, 2),
            (r#"{"quotaId":"A"},{"quotaId":"B"},{"quotaId":"C"}"#, 3),
            (r#"{"quotaValue":"1"},{"quotaValue":"2"}"#, 2),
            (r#"{"quotaMetric":"a/x","quotaId":"A","quotaValue":"1"}"#, 1),
        ] {
            assert_eq!(violations(&scanned(text, 429)).len(), count, "{text}");
        }
    }

    #[test]
    fn a_violation_that_is_cut_may_lack_its_value() {
        for (tail, may_lack) in [
            (r#""}]},{"retryDelay":"5s""#, false),
            (r#"","quotaV"#, true),
            (r#"","quotaDimensions":{"model":"x"}"#, true),
            (r#"","quotaDimensions":{"model":"x"}}"#, false),
        ] {
            let text = format!(r#"{{"violations":[{{"quotaId":"A{tail}"#);
            assert_eq!(violations(&scanned(&text, 429))[0].4, may_lack, "{tail}");
        }
        for (text, more) in
            [("", false), ("}", true), ("{}", false), ("{}}", true), ("{{}}", false), ("{{}", false)]
        {
            assert_eq!(closes(text), more, "{text}");
        }
    }

    #[test]
    fn what_was_folded_stays_where_the_scan_sees_less() {
        let with = |ids: &[&'static str]| {
            let mut fields = Fields::default();
            for id in ids {
                fields.violations.push(Violation { id: Some(Cow::Borrowed(id)), ..Violation::default() });
            }
            scan(&mut fields, r#"{"quotaId":"C","quotaValue":"1"}"#, 429);
            violations(&fields).iter().map(|v| v.1.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(with(&["A", "B"]), ["A", "B"]);
        assert_eq!(with(&["A"]), ["C"]);
        assert_eq!(with(&[]), ["C"]);
    }

    #[test]
    fn the_number_in_front_is_a_status_only_where_it_looks_like_one() {
        for (text, http, code, message) in [
            ("429: over it", 429, Some(429), "over it"),
            ("[429 Too Many Requests] over it [{\"a\": 1}]", 429, Some(429), "over it"),
            ("429 a] b", 429, Some(429), "a] b"),
            ("404 not here", 200, Some(404), "not here"),
            ("404 not here", 400, None, ""),
            ("123 apples", 200, None, ""),
            ("4290 apples", 200, None, ""),
            ("429apples", 200, None, ""),
        ] {
            let fields = scanned(text, http);
            assert_eq!((fields.code, fields.message.as_ref()), (code, message), "{text} at {http}");
        }
        for (len, code) in [(119, Some(429)), (120, None)] {
            assert_eq!(scanned(&format!("{}: 429 over it", "e".repeat(len)), 200).code, code, "{len}");
        }
    }

    #[test]
    fn the_first_of_each_name_counts_and_only_what_looks_like_it() {
        let fields = scanned(
            r#"status: "fine" code: 7 code: 429 code: 500 message: "one" message: "two" reason: "because" reason: "MINE_1""#,
            503,
        );
        assert_eq!((fields.code, fields.message.as_ref()), (Some(429), "one"));
        assert_eq!(
            (fields.reason.as_deref(), fields.status.as_deref(), fields.has_error),
            (Some("MINE_1"), None, true)
        );
        let fields = scanned(r#"status: "UNAVAILABLE" status: "INTERNAL""#, 503);
        assert_eq!((fields.status.as_deref(), fields.has_error), (Some("UNAVAILABLE"), true));
        assert!(scanned("code: 429", 503).has_error && !scanned("code: 7", 503).has_error);
        assert!(
            ["", "because", "Mine", "MINE-1"].iter().all(|text| !is_constant(text)) && is_constant("MINE_1")
        );
        let fields = scanned(r#""quota_limit": "X", "quota_limit_value": "7", "quotaResetDelay": "5s""#, 429);
        let metadata = &fields.metadata;
        assert_eq!((metadata.quota_limit.as_deref(), metadata.quota_limit_value), (Some("X"), Some(7)));
        assert_eq!(metadata.reset_delay, Some(std::time::Duration::from_secs(5)));
    }

    #[test]
    fn a_value_ends_at_its_quote_and_only_half_a_message_counts() {
        let fields = scanned(r#"message: "a\nb" status: "UNAVAILABLE""#, 503);
        assert_eq!((fields.message.as_ref(), fields.status.as_deref()), (r"a\nb", Some("UNAVAILABLE")));
        assert_eq!(scanned(r#"message: "a\"b""#, 503).message, "a");
        assert_eq!(scanned(r#"{"quotaId":"RequestsPerD"#, 429).message, "");
        let colon = scanned(r#"note: "code:" reason: "MINE_1""#, 429);
        assert_eq!(colon.reason.as_deref(), Some("MINE_1"), "what stands in quotes is no name");
    }

    #[test]
    fn text_slicing_stays_on_char_boundaries() {
        for text in ["µ: \\µ", "\"message\": \"a\\", "message: \"µ\\µ\""] {
            scan(&mut Fields::default(), text, 500);
        }
    }
}
