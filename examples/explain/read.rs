//! A response out of what people have at hand: `curl -i` output, a body, a line of JSON.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

/// A response to be explained.
#[derive(Debug)]
pub(crate) struct Pasted {
    pub(crate) status: StatusCode,
    /// The status was not in the input.
    pub(crate) assumed: bool,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Reads the output of `curl -i`, or a body alone.
///
/// curl prints every head it sees (of proxies, of `100 Continue`, of redirects): the last one counts.
pub(crate) fn response(input: &[u8], status: Option<u16>) -> Pasted {
    let mut rest = input;
    let mut head = None;
    while let Some((status, headers, after)) = one_head(rest) {
        head = Some((status, headers));
        rest = after;
    }
    let (found, headers) = head.map_or((None, HeaderMap::new()), |(status, headers)| (Some(status), headers));
    let given = status.and_then(|code| StatusCode::from_u16(code).ok());
    Pasted {
        // An error says its own code in its body; 200 makes the judgement look for it there.
        status: given.or(found).unwrap_or(StatusCode::OK),
        assumed: given.or(found).is_none(),
        headers,
        body: Bytes::copy_from_slice(rest),
    }
}

fn one_head(text: &[u8]) -> Option<(StatusCode, HeaderMap, &[u8])> {
    let mut rest = text.starts_with(b"HTTP/").then_some(text)?;
    let mut line = || {
        let end = rest.iter().position(|b| *b == b'\n')?;
        let (line, after) = rest.split_at(end);
        rest = &after[1..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    };
    let status = line()?.split(|b| *b == b' ').nth(1)?;
    let status = StatusCode::from_bytes(status).ok()?;
    let mut headers = HeaderMap::new();
    while let Some(line) = line().filter(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        add(&mut headers, &line[..colon], line[colon + 1..].trim_ascii());
    }
    Some((status, headers, rest))
}

fn add(headers: &mut HeaderMap, name: &[u8], value: &[u8]) {
    // What is no header is not needed for the judgement either.
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        headers.append(name, value);
    }
}

/// Reads one line of `--jsonl`: its id, and the response.
pub(crate) fn json(line: &[u8]) -> Result<(Value, Pasted), String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(mut entry) = value else {
        return Err("not a JSON object".into());
    };
    let id = entry.remove("id").unwrap_or(Value::Null);
    let status = match entry.get("status") {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        None => return Err(format!("no `status` in the entry with the id {id}")),
        Some(_) => None,
    };
    let status = status.and_then(|n| u16::try_from(n).ok()).and_then(|n| StatusCode::from_u16(n).ok());
    let Some(status) = status else {
        return Err(format!("`status` is no HTTP status in the entry with the id {id}"));
    };
    let mut headers = HeaderMap::new();
    if let Some(Value::Object(map)) = entry.get("headers") {
        for (name, value) in map {
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in values {
                match value {
                    Value::String(text) => add(&mut headers, name.as_bytes(), text.as_bytes()),
                    other => add(&mut headers, name.as_bytes(), other.to_string().as_bytes()),
                }
            }
        }
    }
    if let Some(Value::String(content_type)) = entry.get("content_type") {
        headers.remove(http::header::CONTENT_TYPE);
        add(&mut headers, b"content-type", content_type.as_bytes());
    }
    let body = match entry.remove("body") {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::String(text)) => text.into(),
        // A body that was parsed before it was stored.
        Some(other) => other.to_string().into(),
    };
    Ok((id, Pasted { status, assumed: false, headers, body }))
}
