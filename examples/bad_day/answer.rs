//! An answer as it comes in: whole, or as server-sent events.

use std::borrow::Cow;
use std::io::{self, Write};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tower_gemini::Verdict;

#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Of a stream, what has not made a whole line yet.
    rest: Vec<u8>,
    /// Whether any text came, and whether it ended with a line's end.
    last: Option<char>,
    /// The numbers of the prompt's and of the answer's tokens, as last heard.
    prompt_tokens: Option<u64>,
    answer_tokens: Option<u64>,
    finish: Option<String>,
    /// The event that says that the stream failed.
    failed: Option<Bytes>,
}

impl Answer {
    /// A whole answer. What is no JSON is left to the verdict.
    pub(crate) fn whole(&mut self, body: &[u8], out: &mut dyn Write) -> io::Result<()> {
        match serde_json::from_slice(body) {
            Ok(value) => self.take(&value, out),
            Err(_) => Ok(()),
        }
    }

    /// Some more bytes of a stream.
    pub(crate) fn stream(&mut self, data: &[u8], out: &mut dyn Write) -> io::Result<()> {
        self.rest.extend_from_slice(data);
        while let Some(end) = memchr::memchr(b'\n', &self.rest) {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.line(&line, out)?;
        }
        out.flush()
    }

    /// The last line may have no end.
    pub(crate) fn end_of_stream(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let line = std::mem::take(&mut self.rest);
        self.line(&line, out)
    }

    /// Gemini's events are one line each.
    fn line(&mut self, line: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(()) };
        let Ok(value) = serde_json::from_slice::<Value>(data) else { return Ok(()) };
        if value.get("error").is_some() || value.pointer("/promptFeedback/blockReason").is_some() {
            self.failed = Some(Bytes::copy_from_slice(data.trim_ascii()));
        }
        self.take(&value, out)
    }

    fn take(&mut self, value: &Value, out: &mut dyn Write) -> io::Result<()> {
        let parts = value.pointer("/candidates/0/content/parts").and_then(Value::as_array);
        for part in parts.into_iter().flatten() {
            let is_thought = part.get("thought").and_then(Value::as_bool).unwrap_or(false);
            if let Some(text) = part.get("text").and_then(Value::as_str).filter(|_| !is_thought) {
                out.write_all(clean(text).as_bytes())?;
                self.last = text.chars().last().or(self.last);
            }
        }
        let usage = |name: &str| value.get("usageMetadata").and_then(|usage| usage.get(name)?.as_u64());
        self.prompt_tokens = usage("promptTokenCount").or(self.prompt_tokens);
        self.answer_tokens = usage("candidatesTokenCount").or(self.answer_tokens);
        if let Some(finish) = value.pointer("/candidates/0/finishReason").and_then(Value::as_str) {
            self.finish = Some(clean(finish).into_owned());
        }
        Ok(())
    }

    /// What the event means that ended the stream, if there was one.
    pub(crate) fn error(&self, headers: &HeaderMap) -> Option<Verdict> {
        let event = self.failed.clone()?;
        Some(Verdict::from_parts(StatusCode::OK, headers, event))
    }

    pub(crate) fn has_text(&self) -> bool {
        self.last.is_some()
    }

    pub(crate) fn ends_mid_line(&self) -> bool {
        self.last.is_some_and(|last| last != '\n')
    }

    /// Tokens, and how it ended unless it simply ended.
    pub(crate) fn numbers(&self) -> String {
        let number = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let (prompt, answer) = (number(self.prompt_tokens), number(self.answer_tokens));
        let finish = match self.finish.as_deref() {
            None | Some("STOP") => String::new(),
            Some(finish) => format!(", ended by {finish}"),
        };
        format!("{prompt} tokens in, {answer} out{finish}")
    }
}

/// Without control characters, by which an endpoint could move the terminal's cursor or worse.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(bad) { Cow::Owned(text.replace(bad, "")) } else { Cow::Borrowed(text) }
}
