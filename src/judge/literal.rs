//! Objects and lists as other languages print them, rewritten as JSON. Pure, one pass, linear.
//!
//! Python writes `{'error': {'code': 429, 'ok': None}}`, JavaScript `{ error: { code: 429 } }`, Dart and Java leave the
//! quotes out (`{error: {code: 429}}`, `{error={code=429}}`), Ruby and Elixir write `=>` and names with a colon in front, PHP
//! writes objects in square brackets, and a body that was decoded once too often
//! has raw line feeds in its strings. All of that becomes JSON, so that one fold reads it as it reads Google's own.

use std::fmt::Write as _;

use super::message;

/// Containers inside each other that are followed. Google's own are seven deep.
const MAX_DEPTH: u8 = 64;
/// How far behind a quote is looked for what shows that the string is over.
const LOOK_AHEAD: usize = 48;

/// What stands at the beginning of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Literal {
        json: String,
        /// Of the text, in bytes.
        len: usize,
        /// It is complete. Else `json` ends where it broke off.
        whole: bool,
    },
    /// A backslash stands where a name, a value or a blank belongs: the text has one more layer of escapes.
    Layered,
    /// Something else, up to here at the least.
    Nothing(usize),
}

/// Reads the object or list at the beginning of `text`.
pub(super) fn read(text: &str) -> Found {
    let mut reader = Reader { text, at: 0, out: String::new(), named: false };
    let end = reader.value("", 0);
    match end {
        Err(Stop::Layered) => Found::Layered,
        Err(Stop::Bad | Stop::Cut) if !reader.named => Found::Nothing(reader.at),
        _ => Found::Literal { len: reader.at, whole: end.is_ok(), json: reader.out },
    }
}

/// Where the next object, or list of objects, begins.
pub(super) fn candidate(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        at += memchr::memchr2(b'{', b'[', bytes.get(at..)?)?;
        if bytes[at] == b'{' {
            return Some(at);
        }
        let next = bytes[at + 1..].iter().take(LOOK_AHEAD).find(|b| !b.is_ascii_whitespace());
        if matches!(next, Some(b'{' | b'\\')) || is_map(&text[at..]) {
            return Some(at);
        }
        at += 1;
    }
}

/// Whether the bracket here opens an object of PHP's: `['error' => [`, `[0 => [`.
fn is_map(text: &str) -> bool {
    let inside = text[1..].trim_start_matches([' ', '\n', '\r', '\t']);
    let bytes = message::clip(inside, 72).as_bytes();
    let name = match bytes.first() {
        Some(mark @ (b'\'' | b'"')) => bytes[1..].iter().position(|b| b == mark).map(|n| n + 2),
        Some(b'0'..=b'9') => Some(bytes.iter().take_while(|b| b.is_ascii_digit()).count()),
        _ => None,
    };
    let rest = name.map(|len| bytes[len..].trim_ascii_start());
    rest.is_some_and(|rest| rest.starts_with(b"=>"))
}

/// Takes one layer of escapes off.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let (decoded, len) = escape(&rest[at..]);
        match decoded {
            Some(c) => out.push(c),
            None => out.push_str(&rest[at..at + len]),
        }
        rest = &rest[at + len..];
    }
    out.push_str(rest);
    out
}

/// The escape at the beginning of `text`, and its length; `None` for what is none.
fn escape(text: &str) -> (Option<char>, usize) {
    let unit = |at: usize, digits: usize| {
        let hex = text.get(at..at + digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        hex.and_then(|hex| u32::from_str_radix(hex, 16).ok())
    };
    let c = match text.as_bytes().get(1) {
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(c @ (b'"' | b'\'' | b'\\' | b'/' | b'`' | b'$')) => char::from(*c),
        Some(b'x') => return unit(2, 2).and_then(char::from_u32).map_or((None, 1), |c| (Some(c), 4)),
        Some(b'u') => {
            let Some(high) = unit(2, 4) else { return (None, 1) };
            if let Some(c) = char::from_u32(high) {
                return (Some(c), 6);
            }
            let low = text.get(6..8).filter(|u| *u == "\\u").and_then(|_| unit(8, 4));
            let pair = low.and_then(|low| {
                let low = low.checked_sub(0xdc00).filter(|n| *n < 0x400)?;
                char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + low)
            });
            return pair.filter(|_| high < 0xdc00).map_or((Some('\u{fffd}'), 6), |c| (Some(c), 12));
        }
        _ => return (None, 1),
    };
    (Some(c), 2)
}

enum Stop {
    /// The text is over too early.
    Cut,
    Bad,
    Layered,
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    out: String,
    /// A name and what separates it from its value have been read.
    named: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over blanks. Spring writes line feeds as `<EOL>`.
    fn blanks(&mut self) -> Result<u8, Stop> {
        loop {
            match self.peek() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(b'<') if self.text[self.at..].starts_with("<EOL>") => self.at += 5,
                Some(b'\\') => {
                    return Err(match escape(&self.text[self.at..]) {
                        (Some(_), _) => Stop::Layered,
                        (None, _) if self.at + 1 == self.text.len() => Stop::Cut,
                        (None, _) => Stop::Bad,
                    });
                }
                Some(byte) => return Ok(byte),
                None => return Err(Stop::Cut),
            }
        }
    }

    fn value(&mut self, name: &str, depth: u8) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Bad);
        }
        match self.blanks()? {
            b'{' => self.object(b'}', depth),
            // Elixir's maps, and its structs: `%Req.Response{status: 429}`.
            b'%' => {
                let after = self.text[self.at + 1..].bytes();
                let len = after.take_while(|b| b.is_ascii_alphanumeric() || b"._".contains(b)).count();
                if self.text.as_bytes().get(self.at + 1 + len) != Some(&b'{') {
                    return self.bare(name, depth);
                }
                self.at += 1 + len;
                self.object(b'}', depth)
            }
            b'[' if is_map(&self.text[self.at..]) => self.object(b']', depth),
            b'[' => self.list(depth),
            quote @ (b'"' | b'\'' | b'`') => self.string(quote).map(drop),
            // Python's bytes and raw strings.
            b'b' | b'u' | b'r' | b'B'
                if matches!(self.text.as_bytes().get(self.at + 1), Some(b'"' | b'\'')) =>
            {
                self.at += 1;
                let quote = self.text.as_bytes()[self.at];
                self.string(quote).map(drop)
            }
            _ => self.bare(name, depth),
        }
    }

    fn object(&mut self, close: u8, depth: u8) -> Result<(), Stop> {
        self.at += 1;
        self.out.push('{');
        let mut first = true;
        loop {
            let byte = self.blanks()?;
            if byte == close {
                break;
            }
            if byte == b',' || byte == b';' {
                self.at += 1;
                continue;
            }
            // Taken back where what follows is no name: what was read until here stays JSON that is cut.
            let begin = self.out.len();
            if !first {
                self.out.push(',');
            }
            // Ruby's symbols: `:error=>`.
            let symbol = byte == b':';
            self.at += usize::from(symbol);
            let name = match self.peek() {
                Some(mark @ (b'"' | b'\'')) => self.string(mark),
                _ => self.bare_name(),
            };
            let separated = name.and_then(|name| {
                self.separator()?;
                Ok(name)
            });
            let name = match separated {
                Ok(name) => name,
                Err(stop) => {
                    self.out.truncate(begin);
                    return Err(stop);
                }
            };
            self.out.push(':');
            (self.named, first) = (true, false);
            let name = self.out[name].trim_matches('"').to_ascii_lowercase();
            self.value(&name, depth + 1)?;
        }
        self.at += 1;
        self.out.push('}');
        Ok(())
    }

    /// A colon, `=` or `=>`.
    fn separator(&mut self) -> Result<(), Stop> {
        match self.blanks()? {
            b':' => self.at += 1,
            b'=' => self.at += 1 + usize::from(self.text.as_bytes().get(self.at + 1) == Some(&b'>')),
            _ => return Err(Stop::Bad),
        }
        Ok(())
    }

    fn bare_name(&mut self) -> Result<std::ops::Range<usize>, Stop> {
        let bytes = &self.text.as_bytes()[self.at..];
        let is_name = |b: &&u8| b.is_ascii_alphanumeric() || b"_@$-./".contains(b);
        let len = bytes.iter().take_while(is_name).count();
        if len == 0 || len > 64 {
            return Err(Stop::Bad);
        }
        let name = &self.text[self.at..self.at + len];
        let begin = self.out.len();
        quote(&mut self.out, name);
        self.at += len;
        Ok(begin..self.out.len())
    }

    fn list(&mut self, depth: u8) -> Result<(), Stop> {
        self.at += 1;
        self.out.push('[');
        let mut first = true;
        loop {
            match self.blanks()? {
                b']' => break,
                b',' => self.at += 1,
                _ => {
                    if !std::mem::take(&mut first) {
                        self.out.push(',');
                    }
                    self.value("", depth + 1)?;
                }
            }
        }
        self.at += 1;
        self.out.push(']');
        Ok(())
    }

    /// A string, and where it stands in what has been written.
    fn string(&mut self, mark: u8) -> Result<std::ops::Range<usize>, Stop> {
        let begin = self.out.len();
        self.out.push('"');
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let special = |b: u8| b == mark || b == b'\\' || b == b'"' || b < 0x20;
            let Some(n) = rest.bytes().position(special) else {
                self.out.push_str(rest);
                self.at = self.text.len();
                return Err(Stop::Cut);
            };
            self.out.push_str(&rest[..n]);
            self.at += n;
            let byte = rest.as_bytes()[n];
            if byte == mark {
                match self.after_quote(mark) {
                    After::End => break,
                    After::More(at) => self.at = at,
                    After::Content => {
                        push(&mut self.out, char::from(mark));
                        self.at += 1;
                    }
                }
            } else if byte == b'\\' {
                let (decoded, len) = escape(&rest[n..]);
                if rest.len() == n + 1 {
                    self.at += 1;
                    return Err(Stop::Cut);
                }
                push(&mut self.out, decoded.unwrap_or('\\'));
                self.at += len;
            } else {
                push(&mut self.out, char::from(byte));
                self.at += 1;
            }
        }
        self.at += 1;
        self.out.push('"');
        Ok(begin..self.out.len())
    }

    /// Whether the quote here ends its string: a comma, a colon or a bracket follows, or nothing. A print that escapes
    /// no quotes has others inside.
    fn after_quote(&self, mark: u8) -> After {
        let bytes = self.text.as_bytes();
        let rest = &bytes[self.at + 1..];
        let blank = rest.iter().take(LOOK_AHEAD).take_while(|b| b.is_ascii_whitespace()).count();
        match rest.get(blank) {
            None | Some(b',' | b':' | b'}' | b']' | b')' | b'=' | b';' | b'\\') => After::End,
            Some(b'<') if rest[blank..].starts_with(b"<EOL>") => After::End,
            // Node breaks long strings: 'one ' +\n 'two'.
            Some(b'+') => {
                let more = &rest[blank + 1..];
                let blanks = more.iter().take(LOOK_AHEAD).take_while(|b| b.is_ascii_whitespace()).count();
                if more.get(blanks) == Some(&mark) {
                    After::More(self.at + 1 + blank + 1 + blanks + 1)
                } else {
                    After::Content
                }
            }
            Some(_) => After::Content,
        }
    }

    /// A value without quotes: a number, a constant, a text, or `Name(member: value)`.
    fn bare(&mut self, name: &str, depth: u8) -> Result<(), Stop> {
        let rest = &self.text[self.at..];
        let word = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"_.".contains(b)).count();
        if word > 0 && rest.as_bytes().get(word) == Some(&b'(') {
            self.at += word;
            return self.object(b')', depth);
        }
        let len = if is_prose(name) { prose(rest) } else { plain(rest) };
        let (text, cut) = (rest[..len].trim(), len == rest.len());
        if text.is_empty() {
            return Err(if cut { Stop::Cut } else { Stop::Bad });
        }
        self.at += len;
        match text {
            "True" | "true" => self.out.push_str("true"),
            "False" | "false" => self.out.push_str("false"),
            "None" | "null" | "nil" | "undefined" | "NaN" => self.out.push_str("null"),
            // Half a number is another number.
            _ if !cut && serde_json::from_str::<serde_json::Number>(text).is_ok() => self.out.push_str(text),
            _ if cut => {
                self.out.push('"');
                text.chars().for_each(|c| push(&mut self.out, c));
                return Err(Stop::Cut);
            }
            _ => quote(&mut self.out, text),
        }
        Ok(())
    }
}

enum After {
    End,
    More(usize),
    Content,
}

/// Members whose value is prose, with commas and colons in it.
fn is_prose(name: &str) -> bool {
    matches!(name, "message" | "description" | "detail" | "msg" | "errormessage")
}

/// Up to the next delimiter.
fn plain(text: &str) -> usize {
    text.bytes().position(|b| matches!(b, b',' | b'}' | b']' | b')' | b'\n' | b';')).unwrap_or(text.len())
}

/// Up to a brace that closes, or to a comma and a member that stands beside a message.
fn prose(text: &str) -> usize {
    const NEXT: [&str; 9] =
        ["status", "details", "code", "errors", "type", "param", "url", "locale", "statusCode"];
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(hit) = bytes.get(at..).and_then(|rest| memchr::memchr2(b',', b'}', rest)) {
        at += hit;
        if bytes[at] == b'}' {
            return at;
        }
        let next = text[at + 1..].trim_start_matches(' ');
        let is_member = |name: &str| {
            next.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with([':', '=']))
        };
        if bytes[at] == b',' && NEXT.iter().any(|name| is_member(name)) {
            return at;
        }
        at += 1;
    }
    text.len()
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    text.chars().for_each(|c| push(out, c));
    out.push('"');
}

fn push(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if c < ' ' => {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn literal(text: &str) -> Value {
        match read(text) {
            Found::Literal { json, whole: true, .. } => {
                serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"))
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn each_language_prints_the_same_object() {
        let expected = json!({ "error": { "code": 429, "message": "It's over, try \"later\"", "details": [{ "ok": null }] } });
        for text in [
            r#"{"error": {"code": 429, "message": "It's over, try \"later\"", "details": [{"ok": null}]}} and more"#,
            r#"{'error': {'code': 429, 'message': 'It\'s over, try "later"', 'details': [{'ok': None}]}}"#,
            r#"{ error: { code: 429, message: `It's over, try "later"`, details: [ { ok: undefined }, ] } }"#,
            r#"{"error"=>{"code"=>429, "message"=>"It's over, try \"later\"", "details"=>[{"ok"=>nil}]}}"#,
            r#"{"error" => %{"code" => 429, "message" => "It's over, try \"later\"", "details" => [%{"ok" => nil}]}}"#,
            r#"{error={code=429, message=It's over, try "later", details=[{ok=null}]}}"#,
            r#"{error: {code: 429, message: It's over, try "later", details: [{ok: null}]}}"#,
            "{<EOL>  \"error\": {<EOL>\"code\": 429, \"message\": \"It's over, try \\\"later\\\"\", \"details\": [{\"ok\": null}]}}",
            "{error: Error(code: 429, message: 'It\\'s over, ' +\n  'try \"later\"', details: [{ok: null}])}",
        ] {
            assert_eq!(literal(text), expected, "{text}");
        }
    }

    #[test]
    fn strings_keep_what_they_say() {
        assert_eq!(literal("{\"a\": \"x\ny\tz\"}"), json!({ "a": "x\ny\tz" }));
        assert_eq!(
            literal(r#"{'a': 'µ\xb5\u00b5\ud83d\ude00\ud83d!\q'}"#),
            json!({ "a": "µµµ😀\u{fffd}!\\q" })
        );
        assert_eq!(
            literal("{'a': 'it's', \"b\": \"say \"x\" now\"}"),
            json!({ "a": "it's", "b": "say \"x\" now" })
        );
        assert_eq!(
            literal("{'a': b'raw', 'b': [Object], 'c': -1.5e3}"),
            json!({ "a": "raw", "b": ["Object"], "c": -1500.0 })
        );
    }

    #[test]
    fn what_is_no_literal_is_passed_over() {
        for text in ["{", "{}", "{project}/{region}", "{ 1, 2 }", "{\\d+}", "[{"] {
            assert!(
                matches!(read(text), Found::Nothing(n) if n > 0)
                    || matches!(read(text), Found::Literal { whole: true, .. }),
                "{text}"
            );
        }
        assert_eq!(read(r#"{\"a\": 1}"#), Found::Layered);
        assert_eq!(read(r#"{\n "a": 1}"#), Found::Layered);
        let cut = read(r#"{'a': {'b': 'half of"#);
        assert_eq!(cut, Found::Literal { json: r#"{"a":{"b":"half of"#.into(), len: 20, whole: false });
        let number = read("{'a': {'b': 42");
        assert_eq!(
            number,
            Found::Literal { json: r#"{"a":{"b":"42"#.into(), len: 14, whole: false },
            "no number"
        );
        assert!(matches!(read(&"{\"a\":".repeat(100)), Found::Literal { whole: false, .. }));
        assert_eq!(candidate("a [x] [ {", 0), Some(6));
        assert_eq!(candidate("a [x] ]", 0), None);
    }

    #[test]
    fn one_layer_of_escapes_comes_off_at_a_time() {
        assert_eq!(unescape(r#"{\n \"a\": \"x\\ny\\\"\"}"#), "{\n \"a\": \"x\\ny\\\"\"}");
        assert_eq!(unescape(r"\ud83d\ude00 \q \"), "😀 \\q \\");
    }

    proptest! {
        #[test]
        fn json_is_read_as_json(value in ".{0,20}", number in any::<i32>()) {
            let body = json!({ "a": value, "b": [number, { "c": null }], "µ": true });
            for text in [body.to_string(), serde_json::to_string_pretty(&body).expect("json")] {
                prop_assert_eq!(literal(&text), body.clone());
                let quoted = serde_json::to_string(&text).expect("json");
                prop_assert_eq!(unescape(&quoted[1..quoted.len() - 1]), text, "without the quotes around it");
            }
        }

        #[test]
        fn any_text_ends(text in r#"[{}\[\]"'`\\:=,<>(); nubt0-9aµ]{0,80}"#) {
            let mut at = 0;
            while let Some(start) = candidate(&text, at) {
                at = start + match read(&text[start..]) {
                    Found::Literal { json, len, whole } => {
                        prop_assert!(!whole || serde_json::from_str::<Value>(&json).is_ok(), "{}", json);
                        len.max(1)
                    }
                    Found::Nothing(len) => len.max(1),
                    Found::Layered => {
                        prop_assert!(unescape(&text[start..]).len() < text.len());
                        1
                    }
                };
                while !text.is_char_boundary(at) { at += 1; }
            }
        }
    }
}
