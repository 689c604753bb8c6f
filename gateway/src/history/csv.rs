//! Records as lines of CSV (RFC 4180). Pure.

use jiff::Timestamp;

use super::Record;

/// The first line.
pub const HEADER: &str = "time,request_id,client,project,model,answered_by,tier,method,stream,status,outcome,kind,message,\
gave_up,attempts,waited_ms,first_byte_ms,latency_ms,request_bytes,input_tokens,cached_tokens,output_tokens,thought_tokens,\
attempts_429,attempts_500\r\n";

/// One line, with its end.
///
/// A text that a spreadsheet would compute begins with an apostrophe: what clients and servers say is not a formula.
pub fn line(record: &Record, out: &mut String) {
    let time =
        Timestamp::from_millisecond(record.time).map_or_else(|_| String::new(), |time| format!("{time:.3}"));
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let fields = [
        time,
        record.request_id.clone(),
        text(&record.client),
        text(&record.project),
        text(&record.model),
        text(&record.answered),
        text(&record.tier),
        record.method.clone(),
        record.stream.to_string(),
        number(record.status.map(u64::from)),
        record.outcome.clone(),
        text(&record.kind),
        text(&record.message),
        text(&record.gave_up),
        record.attempts.to_string(),
        record.waited.to_string(),
        number(record.first_byte),
        record.latency.to_string(),
        number(record.request_bytes),
        number(record.input_tokens),
        number(record.cached_tokens),
        number(record.output_tokens),
        number(record.thought_tokens),
        record.rate_limited.to_string(),
        record.internal.to_string(),
    ];
    for (i, of) in fields.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        field(of, out);
    }
    out.push_str("\r\n");
}

fn field(text: &str, out: &mut String) {
    let formula =
        |c: char| matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠');
    let guard = if text.trim_start_matches([' ', '\u{feff}']).starts_with(formula) { "'" } else { "" };
    if guard.is_empty() && !text.contains(['"', ',', '\r', '\n', ' ', '\t', ';', '\0']) {
        out.push_str(text);
        return;
    }
    out.push('"');
    out.push_str(guard);
    for c in text.chars() {
        match c {
            '"' => out.push_str("\"\""),
            // Spreadsheets end a field there.
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::new();
    field(text, &mut out);
    out
}
