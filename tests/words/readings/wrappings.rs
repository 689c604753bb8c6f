//! What clients and relays do to a body before it arrives.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One way of wrapping a text: the body it becomes, under a response with this status. `None` where it cannot be done to
/// this text.
pub(crate) type Wrap = fn(&str, u16) -> Option<String>;

pub(crate) const WRAPS: &[(&str, Wrap)] = &[
    ("message", |text, code| Some(json!({ "error": { "message": text, "code": code } }).to_string())),
    ("message of js-genai", |text, code| {
        Some(json!({ "error": { "message": text, "code": code, "status": "Too Many Requests" } }).to_string())
    }),
    ("code first", |text, code| {
        Some(format!("{{\"error\": {{\"code\": {code}, \"message\": {}}}}}", Value::from(text)))
    }),
    ("a list", |text, code| Some(json!([{ "error": { "code": code, "message": text } }]).to_string())),
    ("error", |text, _| Some(json!({ "error": text }).to_string())),
    ("detail", |text, _| Some(json!({ "detail": text }).to_string())),
    ("raw", |text, code| {
        let metadata = json!({ "raw": text, "provider_name": "Google AI Studio" });
        Some(
            json!({ "error": { "message": "Provider returned error", "code": code, "metadata": metadata } })
                .to_string(),
        )
    }),
    ("responseBody", |text, code| {
        Some(json!({ "error": { "message": "failed", "lastError": { "statusCode": code, "responseBody": text } } }).to_string())
    }),
    ("no name at all", |text, _| {
        Some(json!({ "ok": false, "what": { "why": [1, { "so": text }] } }).to_string())
    }),
    ("an object in an object", |text, _| {
        let inner: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
        Some(json!({ "success": false, "upstream": inner }).to_string())
    }),
    ("errors", |text, _| Some(json!({ "errors": [{ "message": text }] }).to_string())),
    ("a string", |text, _| Some(Value::from(text).to_string())),
    ("got status", |text, code| Some(format!("got status: {code} Whatever It Was. {text}"))),
    ("a log line", |text, _| Some(format!("2026-11-29T10:00:00Z ERROR upstream: ApiError: {text}"))),
    ("LiteLLM", |text, _| {
        Some(format!(
            "litellm.APIError: geminiException - {text}. Received Model Group=g\nAvailable Model Group Fallbacks=None"
        ))
    }),
    ("escapes without quotes", |text, _| {
        let quoted = Value::from(text).to_string();
        Some(format!("upstream said: {}", &quoted[1..quoted.len() - 1]))
    }),
    ("bytes", |text, _| text.is_ascii().then(|| format!("VertexAIException - b{}", repr(text)))),
    ("a message in Python's print", |text, _| {
        Some(format!("X. {{'message': {}, 'status': 'Too Many Requests'}}", repr(text)))
    }),
    ("Python's print", |text, code| {
        let value: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
        Some(format!("Error code: {code} - {}", python(&value)))
    }),
    ("Python's print of a list", |text, _| {
        let value: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
        Some(format!("[{}]", python(&value)))
    }),
    ("Node's print", |text, _| {
        let value: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
        Some(format!("ApiError: {}", node(&value, 0)))
    }),
    ("Ruby's print", |text, _| {
        let value: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
        Some(format!("#<ClientError: {}>", ruby(&value)))
    }),
    ("Dart's print", |text, _| bare(text, ": ").map(|text| format!("ServerException: {text}"))),
    ("Java's print", |text, _| bare(text, "=").map(|text| format!("java.lang.RuntimeException: {text}"))),
    ("raw line feeds", |text, code| {
        let quoted = Value::from(text).to_string().replace("\\n", "\n");
        // Where a backslash stood in front, it was no line feed.
        (!text.contains('\\')).then(|| format!("{{\"error\":{{\"code\":{code},\"message\":{quoted}}}}}"))
    }),
    ("Spring's print", |text, code| {
        let is_json = serde_json::from_str::<Value>(text).is_ok_and(|value: Value| value.is_object());
        is_json.then(|| format!("{code} Whatever It Was: \"{}\"", text.replace('\n', "<EOL>")))
    }),
    ("an event", |text, _| {
        let value: Value =
            serde_json::from_str(text).ok().filter(|value: &Value| value.get("error").is_some())?;
        Some(format!("data: {value}\n\n"))
    }),
];

/// A string as Python prints it.
fn repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => repr(text),
        Value::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let member = |(name, value): (&String, &Value)| format!("{}: {}", repr(name), python(value));
            format!("{{{}}}", map.iter().map(member).collect::<Vec<_>>().join(", "))
        }
    }
}

fn node(value: &Value, depth: usize) -> String {
    match value {
        Value::String(text) => repr(text).replace(". ", ". ' +\n  '"),
        Value::Array(items) => {
            format!("[\n{}\n]", items.iter().map(|v| node(v, depth + 1)).collect::<Vec<_>>().join(",\n  "))
        }
        Value::Object(map) => {
            let mut out = String::from("{");
            for (name, value) in map {
                let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                let name = if plain { name.clone() } else { repr(name) };
                write!(out, "\n{}{name}: {},", "  ".repeat(depth + 1), node(value, depth + 1)).unwrap();
            }
            out.trim_end_matches(',').to_owned() + "\n}"
        }
        other => other.to_string(),
    }
}

fn ruby(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Array(items) => format!("[{}]", items.iter().map(ruby).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let member =
                |(name, value): (&String, &Value)| format!("{}=>{}", Value::from(name.as_str()), ruby(value));
            format!("{{{}}}", map.iter().map(member).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Without quotes, as Dart and Java print a map. Not for texts whose punctuation is the map's own: nobody can read that.
fn bare(text: &str, separator: &str) -> Option<String> {
    fn print(value: &Value, separator: &str, name: &str) -> Option<String> {
        Some(match value {
            Value::String(text) => {
                let prose = matches!(name, "message" | "description");
                let marks: &[char] = if prose {
                    &['{', '}', '\\']
                } else {
                    &['{', '}', '[', ']', '(', ')', ',', ';', '\n', '\\']
                };
                let odd = text.is_empty() || text.trim() != text || text.contains(marks);
                let ends = [", status", ", details", ", code", ", errors", ", type"]
                    .iter()
                    .any(|end| text.contains(end));
                if odd || ends || text.starts_with(['"', '\'', '`', '<', '[', '-']) || text.contains("=\"") {
                    return None;
                }
                // A word in front of a bracket would be a type.
                let word =
                    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"_.".contains(b)).count();
                if text.as_bytes().get(word) == Some(&b'(') {
                    return None;
                }
                text.clone()
            }
            Value::Array(items) => {
                let items: Option<Vec<_>> = items.iter().map(|item| print(item, separator, "")).collect();
                format!("[{}]", items?.join(", "))
            }
            Value::Object(map) => {
                let member = |(name, value): (&String, &Value)| {
                    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_@".contains(&b));
                    Some(format!("{name}{separator}{}", print(value, separator, name).filter(|_| plain)?))
                };
                let members: Option<Vec<_>> = map.iter().map(member).collect();
                format!("{{{}}}", members?.join(", "))
            }
            other => other.to_string(),
        })
    }
    let value: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
    print(&value, separator, "")
}
