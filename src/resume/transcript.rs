//! What a stream has said so far, and where its events end. Pure.

use bytes::{Bytes, BytesMut};
use serde_json::Value;

/// A longer event is handed on unseen, and with it all that comes.
const MOST: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Transcript {
    buffer: BytesMut,
    /// Of the buffer, so many bytes were searched for the end of an event: up to the beginning of a line.
    searched: usize,
    text: String,
    max_text: usize,
    /// Only text and thoughts so far, and not too much of it.
    pub(super) is_plain: bool,
    /// There was a finish reason, or the prompt was blocked.
    pub(super) is_finished: bool,
    /// An event was too long to be looked at.
    is_blind: bool,
}

/// What comes of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// To be handed on.
    Event(Bytes),
    /// An event with an error in it: itself, and its `error`, with what is around it.
    Error(Bytes, Bytes),
}

impl Transcript {
    pub(super) fn new(max_text: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            searched: 0,
            text: String::new(),
            max_text,
            is_plain: true,
            is_finished: false,
            is_blind: false,
        }
    }

    /// The texts of all events, thoughts not among them.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Nothing can be said any more of what comes.
    pub(super) const fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// The answer begins anew.
    pub(super) fn restart(&mut self) {
        self.text.clear();
        self.is_plain = true;
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next event that is whole.
    pub(super) fn next(&mut self) -> Option<Piece> {
        if self.is_blind {
            return Some(self.buffer.split().freeze()).filter(|rest| !rest.is_empty()).map(Piece::Event);
        }
        while let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            let line = &self.buffer[self.searched..self.searched + end];
            let is_blank = line.is_empty() || line == b"\r";
            self.searched += end + 1;
            if is_blank {
                let event = self.buffer.split_to(self.searched).freeze();
                self.searched = 0;
                return Some(self.read(event));
            }
        }
        if self.buffer.len() > MOST {
            (self.is_blind, self.is_plain) = (true, false);
            return self.next();
        }
        None
    }

    /// The beginning of an event that never came to its end.
    pub(super) fn rest(&mut self) -> Bytes {
        self.searched = 0;
        self.buffer.split().freeze()
    }

    fn read(&mut self, event: Bytes) -> Piece {
        let mut data = Vec::new();
        for line in event.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(value) = line.strip_prefix(b"data:") {
                data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                data.push(b'\n');
            }
        }
        let Ok(value) = serde_json::from_slice::<Value>(&data) else {
            // A comment, or something that nobody of this crate knows.
            self.is_plain &= data.is_empty();
            return Piece::Event(event);
        };
        if value.get("error").is_some_and(Value::is_object) {
            return Piece::Error(event, data.into());
        }
        self.take(&value);
        Piece::Event(event)
    }

    fn take(&mut self, value: &Value) {
        self.is_finished |= value.pointer("/promptFeedback/blockReason").is_some();
        let candidates = value.get("candidates").and_then(Value::as_array);
        for candidate in candidates.into_iter().flatten() {
            self.is_finished |= candidate.get("finishReason").is_some_and(|reason| !reason.is_null());
            // A second candidate's text would come into the first one's.
            self.is_plain &= candidate.get("index").is_none_or(|index| index.as_u64() == Some(0));
            let parts = candidate.pointer("/content/parts").and_then(Value::as_array);
            for part in parts.into_iter().flatten().filter_map(Value::as_object) {
                let is_thought = part.get("thought") == Some(&Value::Bool(true));
                match part.get("text").and_then(Value::as_str) {
                    Some(_) if is_thought => {}
                    Some(text) if self.text.len() + text.len() <= self.max_text => self.text.push_str(text),
                    Some(_) => self.is_plain = false,
                    // A signature alone says nothing.
                    None => {
                        self.is_plain &= part.keys().all(|key| key == "thoughtSignature" || key == "thought")
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(stream: &[u8], cuts: &[usize]) -> (Transcript, Vec<Piece>) {
        let mut transcript = Transcript::new(1 << 20);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        for cut in cuts.windows(2) {
            transcript.push(&stream[cut[0]..cut[1]]);
            pieces.extend(std::iter::from_fn(|| transcript.next()));
        }
        (transcript, pieces)
    }

    fn event(parts: &str, more: &str) -> String {
        format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{parts}]}}{more}}}]}}\r\n\r\n")
    }

    #[test]
    fn texts_are_put_together_and_thoughts_are_not() {
        let stream = event(r#"{"text":"hm","thought":true}"#, "")
            + &event(r#"{"text":"Once "},{"text":"upon"}"#, "")
            + ": a comment\n\n"
            + &event(r#"{"thoughtSignature":"AA=="}"#, "");
        let (transcript, pieces) = pieces(stream.as_bytes(), &[]);
        assert_eq!(
            (transcript.text(), transcript.is_plain, transcript.is_finished),
            ("Once upon", true, false)
        );
        assert_eq!(pieces.len(), 4);
    }

    #[test]
    fn what_is_more_than_text_is_seen() {
        for parts in [
            r#"{"functionCall":{"name":"f"}}"#,
            r#"{"inlineData":{"data":"AA=="}}"#,
            r#"{"text":"x"},{"executableCode":{}}"#,
        ] {
            assert!(!pieces(event(parts, "").as_bytes(), &[]).0.is_plain, "{parts}");
        }
        assert!(!pieces(event(r#"{"text":"x"}"#, ",\"index\":1").as_bytes(), &[]).0.is_plain);
        assert!(!pieces(b"data: [DONE]\n\n", &[]).0.is_plain);
    }

    #[test]
    fn ends_and_errors_are_seen() {
        let end = event(r#"{"text":"x"}"#, ",\"finishReason\":\"MAX_TOKENS\"");
        assert!(pieces(end.as_bytes(), &[]).0.is_finished);
        let blocked = b"data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n";
        assert!(pieces(blocked, &[]).0.is_finished);
        let error = b"data: {\"error\":{\"code\":503}}\n\n";
        let (_, pieces) = pieces(error, &[]);
        assert_eq!(
            pieces,
            [Piece::Error(Bytes::from_static(error), Bytes::from_static(b"{\"error\":{\"code\":503}}\n"))]
        );
    }

    #[test]
    fn too_much_is_passed_on_unseen() {
        let long = format!("data: {}", "x".repeat(MOST + 1));
        let (transcript, pieces) = pieces(long.as_bytes(), &[]);
        assert!(transcript.is_blind() && !transcript.is_plain);
        assert_eq!(pieces, [Piece::Event(Bytes::from(long))]);
        let mut transcript = Transcript::new(4);
        transcript.push(event(r#"{"text":"12345"}"#, "").as_bytes());
        let _ = transcript.next();
        assert!(!transcript.is_plain && transcript.text().is_empty());
    }

    proptest! {
        // Wherever the frames are cut, the events are the same, and no byte is lost.
        #[test]
        fn cuts_change_nothing(
            texts in proptest::collection::vec("[a-z\\n ]{0,8}", 0..6),
            tail in "[ -~\n]{0,20}",
            cuts in proptest::collection::vec(0..400_usize, 0..20),
        ) {
            let mut stream: Vec<u8> = texts
                .iter()
                .flat_map(|text| event(&serde_json::json!({ "text": text }).to_string(), "").into_bytes())
                .collect();
            stream.extend_from_slice(tail.as_bytes());
            let (mut whole, all) = pieces(&stream, &[]);
            let (mut cut, same) = pieces(&stream, &cuts);
            prop_assert_eq!(&all, &same);
            prop_assert_eq!(whole.text(), cut.text());
            let bytes = |piece: &Piece| match piece { Piece::Event(event) | Piece::Error(event, _) => event.to_vec() };
            let mut back: Vec<u8> = all.iter().flat_map(bytes).collect();
            back.extend_from_slice(&whole.rest());
            prop_assert_eq!(back, stream);
            let _ = cut.rest();
        }

        #[test]
        fn no_bytes_panic(stream in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (mut transcript, _) = pieces(&stream, &[3, 50, 99]);
            let _ = transcript.rest();
        }
    }
}
