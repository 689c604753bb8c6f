//! Reads along with a request's JSON while it passes, cut anywhere, and remembers the parameters in it. Pure.
//!
//! What is followed must be JSON; what is passed over is searched for its end only. Nothing is kept but the values of a few
//! known members, up to 64 bytes each, so that the state is a few hundred bytes whatever the body's length.

use super::facts::{Facts, Field, Flag};
use super::keys::KeyFinder;
use super::value::Value;
use crate::scan::{find2, find3};

/// Containers inside each other that are followed: Code Assist's envelope, the request, `contents`, a content, `parts`, a part.
const MAX_DEPTH: usize = 8;

/// What a value is for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Slot {
    #[default]
    Skip,
    /// The request: the outermost object, or Code Assist's `request`.
    Top,
    /// `generationConfig`.
    Config,
    Thinking,
    /// A list of tools, and a tool in it.
    Tools,
    /// `requests` of a `:batchEmbedContents`: they are counted.
    Batch,
    /// `contents`, `systemInstruction`, and what stands in a list of them.
    Content,
    /// `parts`, and a part.
    Parts,
    /// A text of a part: its bytes are counted.
    Text,
    /// A number or a word to be kept.
    Field(Field),
    /// Something that is there at all, unless it is `null`, `false` or an empty text.
    Flag(Flag),
    /// A tool's `type`, as Interactions write it.
    ToolType,
    /// Whether a part is a thought.
    Thought,
}

impl Slot {
    const fn is_followed(self, list: bool) -> bool {
        match self {
            Self::Top | Self::Config | Self::Thinking => !list,
            Self::Batch => list,
            Self::Tools | Self::Content | Self::Parts => true,
            _ => false,
        }
    }

    const fn is_read(self) -> bool {
        matches!(self, Self::Field(_) | Self::Flag(_) | Self::ToolType | Self::Thought)
    }
}

/// What a member of an object is for.
fn member(of: Slot, key: &[u8]) -> Slot {
    match of {
        Slot::Top => match key {
            b"generationConfig" | b"generation_config" => Slot::Config,
            b"contents" | b"systemInstruction" | b"system_instruction" => Slot::Content,
            b"tools" => Slot::Tools,
            b"requests" => Slot::Batch,
            b"model" => Slot::Field(Field::Model),
            b"cachedContent" | b"cached_content" => Slot::Flag(Flag::CachedContent),
            b"serviceTier" | b"service_tier" => Slot::Flag(Flag::ServiceTier),
            b"request" => Slot::Top,
            // The OpenAI-compatible surface has its parameters here.
            b"temperature" => Slot::Field(Field::OpenTemperature),
            b"top_p" => Slot::Field(Field::OpenTopP),
            b"n" => Slot::Field(Field::OpenCandidates),
            b"max_tokens" | b"max_completion_tokens" => Slot::Field(Field::OpenOutput),
            _ => Slot::Skip,
        },
        Slot::Config => match key {
            b"candidateCount" | b"candidate_count" => Slot::Field(Field::Candidates),
            b"temperature" => Slot::Field(Field::Temperature),
            b"topP" | b"top_p" => Slot::Field(Field::TopP),
            b"topK" | b"top_k" => Slot::Field(Field::TopK),
            b"maxOutputTokens" | b"max_output_tokens" => Slot::Field(Field::Output),
            b"thinkingConfig" | b"thinking_config" => Slot::Thinking,
            // Interactions have it here.
            b"thinking_level" => Slot::Field(Field::Level),
            b"speechConfig" | b"speech_config" => Slot::Flag(Flag::SpeechConfig),
            _ => Slot::Skip,
        },
        Slot::Thinking => match key {
            b"thinkingBudget" | b"thinking_budget" => Slot::Field(Field::Budget),
            b"thinkingLevel" | b"thinking_level" => Slot::Field(Field::Level),
            _ => Slot::Skip,
        },
        Slot::Tools => match key {
            b"computerUse" | b"computer_use" => Slot::Flag(Flag::ComputerUse),
            b"mcpServers" | b"mcp_servers" => Slot::Flag(Flag::McpServers),
            b"type" => Slot::ToolType,
            _ => Slot::Skip,
        },
        Slot::Content if key == b"parts" => Slot::Parts,
        Slot::Parts => match key {
            b"text" => Slot::Text,
            b"thought" => Slot::Thought,
            _ => Slot::Skip,
        },
        _ => Slot::Skip,
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum At {
    /// Nothing but blanks so far.
    #[default]
    Start,
    Value,
    /// After `[`.
    FirstElement,
    /// After `{`.
    FirstKey,
    /// After `,` in an object.
    NextKey,
    Key,
    Colon,
    /// After a value.
    Comma,
    /// A string that is read.
    Read,
    /// A number, `true`, `false` or `null`.
    Literal,
    /// A string that is passed over, and one whose bytes are counted.
    String,
    Text,
    Container,
    /// The text is complete. What follows is not looked at.
    Done,
    /// Not JSON.
    Bad,
}

/// A part of a content, as far as it was read.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Bytes of its text as they are written, and how many of them its escapes add at the most.
    text: u64,
    escapes: u64,
    /// Thoughts that are sent back may not be counted.
    thought: bool,
}

/// Reads a request. See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    at: At,
    slot: Slot,
    depth: u8,
    stack: [Slot; MAX_DEPTH],
    /// A bit for each place on the stack.
    lists: u16,
    /// In a string that is passed over: the last byte was a backslash.
    escaped: bool,
    /// In a container that is passed over: how deep, of what kind, and whether in a string.
    nested: u32,
    square: bool,
    quoted: bool,
    value: Value,
    part: Part,
    facts: Facts,
    keys: Option<KeyFinder>,
}

impl Scan {
    /// `keys` says whether keys are looked for as well.
    pub(super) fn new(keys: bool) -> Self {
        Self { keys: keys.then(KeyFinder::default), ..Self::default() }
    }

    /// What was found so far.
    pub(super) const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Reads the next bytes of the body, cut anywhere.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.facts.bytes += bytes.len() as u64;
        if let Some(keys) = &mut self.keys {
            keys.feed(bytes);
            self.facts.key = keys.found();
        }
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.at {
                At::Done | At::Bad => return,
                At::String | At::Text => {
                    let (from, end) = (at, self.pass_string(&bytes[at..]));
                    at += end.unwrap_or(bytes.len() - at);
                    if self.at == At::Text {
                        // The closing quote is none of the text's.
                        self.part.text += (at - from) as u64 - u64::from(end.is_some());
                    }
                    if end.is_some() {
                        self.after_value();
                    }
                }
                At::Container => match self.pass_container(&bytes[at..]) {
                    Some(n) => {
                        at += n;
                        self.after_value();
                    }
                    None => return,
                },
                At::Key => {
                    let (n, ended) = self.value.string(&bytes[at..]);
                    at += n;
                    if ended {
                        self.slot = match self.value.text() {
                            Some(key) => member(self.top(), key),
                            None => Slot::Skip,
                        };
                        self.at = At::Colon;
                    }
                }
                At::Read => {
                    let (n, ended) = self.value.string(&bytes[at..]);
                    at += n;
                    if ended {
                        self.take(true);
                        self.after_value();
                    }
                }
                At::Literal => {
                    let (n, ended) = self.value.literal(&bytes[at..]);
                    at += n;
                    if ended {
                        self.take(false);
                        self.after_value();
                    }
                }
                _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => at += 1,
                At::Start => {
                    // One object, or there is nothing to be found.
                    (self.slot, self.at) = (Slot::Top, if byte == b'{' { At::Value } else { At::Bad });
                }
                At::FirstElement if byte == b']' => {
                    at += 1;
                    self.close();
                }
                At::Value | At::FirstElement => at += usize::from(self.begin_value(byte)),
                At::FirstKey | At::NextKey => match byte {
                    b'"' => {
                        at += 1;
                        self.value.clear();
                        self.at = At::Key;
                    }
                    b'}' if self.at == At::FirstKey => {
                        at += 1;
                        self.close();
                    }
                    _ => self.at = At::Bad,
                },
                At::Colon => {
                    at += 1;
                    self.at = if byte == b':' { At::Value } else { At::Bad };
                }
                At::Comma => {
                    at += 1;
                    match (byte, self.in_list()) {
                        (b',', true) => (self.slot, self.at) = (self.top(), At::Value),
                        (b',', false) => self.at = At::NextKey,
                        (b']', true) | (b'}', false) => self.close(),
                        _ => self.at = At::Bad,
                    }
                }
            }
        }
    }

    /// What the object or list under way is.
    fn top(&self) -> Slot {
        self.depth.checked_sub(1).map_or(Slot::Skip, |top| self.stack[usize::from(top)])
    }

    fn in_list(&self) -> bool {
        self.depth > 0 && self.lists & (1 << (self.depth - 1)) != 0
    }

    /// Whether the byte has been used.
    fn begin_value(&mut self, byte: u8) -> bool {
        match byte {
            b'"' if self.slot.is_read() => {
                self.value.clear();
                self.at = At::Read;
            }
            b'"' => self.at = if self.slot == Slot::Text { At::Text } else { At::String },
            b'{' | b'[' => {
                let list = byte == b'[';
                // A repeated member: the last one counts.
                match self.slot {
                    Slot::Flag(flag) => self.facts.set_flag(flag, true),
                    Slot::Field(field) => self.facts.set(field, None, false),
                    Slot::Config => self.facts.clear_config(),
                    Slot::Thinking => self.facts.clear_thinking(),
                    Slot::Parts => self.part = Part::default(),
                    Slot::Batch if self.top() == Slot::Batch => {
                        self.facts.texts = self.facts.texts.saturating_add(1)
                    }
                    Slot::Batch => self.facts.texts = 0,
                    _ => {}
                }
                if self.slot.is_followed(list) && usize::from(self.depth) < MAX_DEPTH {
                    self.stack[usize::from(self.depth)] = self.slot;
                    self.lists = self.lists & !(1 << self.depth) | u16::from(list) << self.depth;
                    self.depth += 1;
                    self.at = if list { At::FirstElement } else { At::FirstKey };
                } else {
                    (self.at, self.nested, self.square, self.quoted) = (At::Container, 1, list, false);
                }
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.value.clear();
                self.at = At::Literal;
                return false;
            }
            _ => {
                self.at = At::Bad;
                return false;
            }
        }
        true
    }

    /// A value that was read is complete.
    fn take(&mut self, quoted: bool) {
        let text = self.value.text();
        match self.slot {
            Slot::Field(field) => self.facts.set(field, text, quoted),
            Slot::Flag(flag) => {
                let nothing = matches!(text, Some(b"" | b"null" | b"false"));
                self.facts.set_flag(flag, !nothing);
            }
            Slot::ToolType => match text {
                Some(b"computer_use") => self.facts.set_flag(Flag::ComputerUse, true),
                Some(b"mcp_server") => self.facts.set_flag(Flag::McpServers, true),
                _ => {}
            },
            Slot::Thought => self.part.thought = text == Some(b"true"),
            _ => {}
        }
    }

    fn after_value(&mut self) {
        self.at = if self.depth == 0 { At::Done } else { At::Comma };
    }

    /// A container that was followed is over.
    fn close(&mut self) {
        if self.top() == Slot::Parts && !self.in_list() && !self.part.thought {
            self.facts.text_bytes += self.part.text.saturating_sub(self.part.escapes);
        }
        self.depth -= 1;
        self.after_value();
    }

    /// To the end of a string that is passed over: how many bytes that is, if it is here. Escapes of a text are taken off
    /// its count.
    fn pass_string(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        if std::mem::take(&mut self.escaped) {
            self.escape(bytes[0]);
            at = 1;
        }
        loop {
            let n = find2(b'"', b'\\', bytes.get(at..)?)?;
            if bytes[at + n] == b'"' {
                return Some(at + n + 1);
            }
            at += n + 1;
            let Some(&byte) = bytes.get(at) else {
                self.escaped = true;
                return None;
            };
            self.escape(byte);
            at += 1;
        }
    }

    /// An escape stands for one byte at the least, and is two long, or six.
    fn escape(&mut self, byte: u8) {
        if self.at == At::Text {
            self.part.escapes += if byte == b'u' { 5 } else { 1 };
        }
    }

    /// To the end of a container that is passed over.
    fn pass_container(&mut self, bytes: &[u8]) -> Option<usize> {
        let (open, close) = if self.square { (b'[', b']') } else { (b'{', b'}') };
        let mut at = 0;
        loop {
            if self.quoted {
                at += self.pass_string(bytes.get(at..).filter(|rest| !rest.is_empty())?)?;
                self.quoted = false;
            }
            at += find3(b'"', open, close, &bytes[at..])? + 1;
            match bytes[at - 1] {
                b'"' => self.quoted = true,
                byte if byte == open => self.nested = self.nested.saturating_add(1),
                _ => {
                    self.nested -= 1;
                    if self.nested == 0 {
                        return Some(at);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    fn read(body: &[u8], cuts: &[usize]) -> Facts {
        let (mut scan, mut from) = (Scan::new(true), 0);
        for cut in cuts.iter().copied().chain([body.len()]) {
            scan.feed(&body[from..cut]);
            from = cut;
        }
        *scan.facts()
    }

    #[test]
    fn members_are_read_where_they_belong_and_nowhere_else() {
        let body = json!({
            "contents": [
                {"role": "user", "parts": [{"text": "a\n\u{1}é"}, {"inlineData": {"data": "AAAA"}}, {"text": "bc"}]},
                {"role": "model", "parts": [{"text": "thinking", "thought": true}, {"functionCall": {"args": {
                    "text": "no", "generationConfig": {"topK": 9}}}}]},
            ],
            "systemInstruction": {"parts": [{"text": "def"}]},
            "tools": [{"functionDeclarations": [{"type": "computer_use"}], "computer_use": {}}],
            "generation_config": {
                "temperature": "0.5", "topP": 1, "top_k": 4e1, "candidateCount": null, "maxOutputTokens": 7,
                "thinkingConfig": {"thinkingBudget": -1, "thinkingLevel": "HIGH"},
                "responseSchema": {"temperature": 9, "properties": {"topP": {"type": "number"}}},
            },
            "model": "models/m",
            "temperature": 3,
            "cachedContent": "",
            "serviceTier": "flex",
        });
        let facts = read(body.to_string().as_bytes(), &[]);
        assert_eq!((facts.temperature, facts.top_p, facts.top_k), (Some(0.5), Some(1.0), Some(40.0)));
        assert_eq!((facts.candidates, facts.output, facts.budget), (None, Some(7.0), Some(-1.0)));
        assert_eq!(facts.level.as_ref().map(|level| level.as_str().to_owned()).as_deref(), Some("HIGH"));
        assert_eq!(facts.model.as_ref().map(|model| model.as_str().to_owned()).as_deref(), Some("models/m"));
        assert_eq!(facts.open_temperature, Some(3.0));
        let flags: Vec<_> = Flag::ALL.into_iter().filter(|flag| facts.has(*flag)).collect();
        assert_eq!(flags, [Flag::ServiceTier, Flag::ComputerUse]);
        // `a`, the line feed, at least one of the six bytes of `\u0001`, the two of `é`; `bc`; `def`.
        assert_eq!(facts.text_bytes, 5 + 2 + 3);
        let assist = json!({"model": "m", "request": {"generationConfig": {"topK": 9}}}).to_string();
        assert_eq!(read(assist.as_bytes(), &[]).top_k, Some(9.0));
    }

    #[test]
    fn the_last_of_a_repeated_member_counts() {
        let body = br#"{"generationConfig":{"topK":1,"thinkingConfig":{"thinkingBudget":1}},"generation_config":{"topP":1,"topP":0}}"#;
        let facts = read(body, &[]);
        assert_eq!((facts.top_k, facts.budget, facts.top_p), (None, None, Some(0.0)));
    }

    #[test]
    fn what_is_no_json_ends_the_search() {
        for body in [
            "",
            "[]",
            "null",
            "x",
            "{\"a\" 1}",
            "{,",
            "{\"generationConfig\":[{\"topK\":1}]}",
            "\u{1f}\u{8b}",
        ] {
            let facts = read(body.as_bytes(), &[]);
            let mut nothing = Facts::default();
            nothing.bytes = body.len() as u64;
            assert_eq!(facts, nothing, "{body}");
        }
        let broken = read(br#"{"generationConfig":{"topK":1,"topP":2} "temperature":3}"#, &[]);
        assert_eq!((broken.top_k, broken.open_temperature), (Some(1.0), None));
        let deep = [b'['; 100_000];
        assert_eq!(read(&[&b"{\"contents\":"[..], &deep].concat(), &[]).text_bytes, 0);
    }

    /// Any JSON, three deep, with the names that are looked for among its members.
    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (-3.0..70_000.0f64).prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            "\\PC{0,12}".prop_map(Json::from),
            "[\\\\\"\n{}\\[\\]]{0,6}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::btree_map(
                    "(text|parts|topK|temperature|model|[a-z\"\\\\]{1,3})",
                    inner,
                    0..4
                )
                .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_config() -> impl Strategy<Value = Json> {
        let name = "(temperature|topP|top_p|topK|candidateCount|candidate_count|maxOutputTokens|thinkingConfig|stopSequences|[a-z]{1,4})";
        let thinking = prop::collection::btree_map(
            "(thinkingBudget|thinkingLevel|includeThoughts|[a-z]{1,3})",
            any_json(),
            0..4,
        )
        .prop_map(|map| Json::Object(map.into_iter().collect()));
        let number = (-3.0..70_000.0f64).prop_map(|n| Json::from(n.to_string()));
        prop::collection::btree_map(name, prop_oneof![any_json(), thinking, number], 0..8)
            .prop_map(|map| Json::Object(map.into_iter().collect()))
    }

    fn number(value: Option<&Json>) -> Option<f64> {
        match value? {
            Json::Number(number) => number.as_f64(),
            Json::String(text) if text.len() <= 64 => text.parse().ok(),
            _ => None,
        }
    }

    /// Of two spellings the one that is written last counts; the map is sorted.
    fn either<'a>(of: &'a Json, camel: &str, snake: &str) -> Option<&'a Json> {
        of.get(snake).or_else(|| of.get(camel))
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(config in any_config(), contents in any_json(), pretty in any::<bool>()) {
            let body = json!({"contents": contents, "generationConfig": config});
            let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) };
            let facts = read(text.expect("JSON").as_bytes(), &[]);
            prop_assert_eq!(facts.temperature, number(config.get("temperature")));
            prop_assert_eq!(facts.top_p, number(either(&config, "topP", "top_p")));
            prop_assert_eq!(facts.top_k, number(config.get("topK")));
            prop_assert_eq!(facts.candidates, number(either(&config, "candidateCount", "candidate_count")));
            prop_assert_eq!(facts.output, number(config.get("maxOutputTokens")));
            let thinking = config.get("thinkingConfig").filter(|value| value.is_object());
            prop_assert_eq!(facts.budget, number(thinking.and_then(|value| value.get("thinkingBudget"))));
        }

        #[test]
        fn where_it_is_cut_does_not_matter(
            config in any_config(),
            contents in any_json(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            broken in any::<prop::sample::Index>(),
            breaks in any::<bool>(),
        ) {
            let parts = json!({"parts": [{"text": contents.to_string()}, contents.clone()]});
            let body = json!({"contents": [parts, contents], "generationConfig": config, "tools": [{"type": "mcp_server"}]});
            let mut body = body.to_string().into_bytes();
            if breaks {
                body.truncate(broken.index(body.len()));
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.sort_unstable();
            let whole = read(&body, &[]);
            prop_assert_eq!(read(&body, &cuts), whole);
            let every: Vec<_> = (0..body.len()).collect();
            prop_assert_eq!(read(&body, &every), whole);
        }

        #[test]
        fn the_text_is_at_least_what_is_counted(texts in prop::collection::vec("\\PC{0,20}|[\\\\\"\n\u{1}\u{10000}]{0,6}", 0..5)) {
            let parts: Vec<_> = texts.iter().map(|text| json!({"text": text})).collect();
            let length: usize = texts.iter().map(String::len).sum();
            // As serde_json writes it, and with an escape for each character.
            let plain = json!({"contents": {"parts": parts}}).to_string();
            let units = |text: &String| text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            let escaped: Vec<_> = texts.iter().map(|text| format!("{{\"text\":\"{}\"}}", units(text))).collect();
            let escaped = format!("{{\"contents\":{{\"parts\":[{}]}}}}", escaped.join(","));
            for body in [plain, escaped] {
                prop_assert!(read(body.as_bytes(), &[]).text_bytes <= length as u64);
            }
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..80), text in "[{}\\[\\]\",:a0\\\\u ]{0,60}") {
            for body in [&body[..], text.as_bytes(), &[b"{\"contents\":", text.as_bytes()].concat()] {
                let every: Vec<_> = (0..body.len()).collect();
                prop_assert_eq!(read(body, &every), read(body, &[]));
            }
        }
    }
}
