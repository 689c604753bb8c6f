//! One line of JSON, member by member. Pure.

use serde::Serialize;

/// An object that is being written.
pub(super) struct Line(Vec<u8>);

impl Line {
    /// An object that begins with the time.
    pub(super) fn begin(time: &str, event: &str) -> Self {
        let mut line = Self(Vec::with_capacity(512));
        line.0.extend_from_slice(b"{");
        line.member("time", time);
        line.member("event", event);
        line
    }

    pub(super) fn member<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        // Names are plain words of this crate's: there is nothing to escape.
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        serde_json::to_writer(&mut self.0, value).expect("numbers, truths and texts have a form in JSON");
    }

    /// A member that is left out where there is nothing to say.
    pub(super) fn maybe<T: Serialize>(&mut self, name: &'static str, value: Option<T>) {
        if let Some(value) = value {
            self.member(name, &value);
        }
    }

    /// The object, with the end of its line.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"}\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_the_text_it_is_one_line_and_one_object(text in ".*", number: u64, real: f64) {
            let mut line = Line::begin("t", "e");
            line.member("text", &text);
            line.maybe("number", Some(number));
            line.maybe("real", Some(real));
            line.maybe("absent", None::<bool>);
            let line = String::from_utf8(line.end()).expect("JSON is UTF-8");
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            let value: serde_json::Value = serde_json::from_str(&line).expect("an object");
            prop_assert_eq!(value["text"].as_str(), Some(text.as_str()));
            prop_assert_eq!(value["number"].as_u64(), Some(number));
            prop_assert!(value.get("absent").is_none());
        }
    }
}
