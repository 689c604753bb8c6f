//! What stands in a request's body. Pure.

/// The longest name of a model that is kept.
const MAX_NAME: usize = 64;

/// A member whose value is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field {
    Candidates,
    Temperature,
    TopP,
    TopK,
    Output,
    Budget,
    Level,
    Model,
    /// Those of the OpenAI-compatible surface, at the top of the body.
    OpenCandidates,
    OpenTemperature,
    OpenTopP,
    OpenOutput,
}

/// A feature that a body asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Flag {
    CachedContent,
    ServiceTier,
    SpeechConfig,
    ComputerUse,
    McpServers,
}

impl Flag {
    pub(super) const ALL: [Self; 5] =
        [Self::CachedContent, Self::ServiceTier, Self::SpeechConfig, Self::ComputerUse, Self::McpServers];
}

/// A short text, kept in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    bytes: [u8; MAX_NAME],
    len: u8,
}

impl Name {
    fn new(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok()?;
        let mut name = Self { bytes: [0; MAX_NAME], len: u8::try_from(bytes.len()).ok()? };
        name.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(name)
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// The facts. Numbers that are none, or too long to be kept, are absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) candidates: Option<f64>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<f64>,
    pub(super) output: Option<f64>,
    pub(super) budget: Option<f64>,
    pub(super) level: Option<Name>,
    pub(super) model: Option<Name>,
    pub(super) open_candidates: Option<f64>,
    pub(super) open_temperature: Option<f64>,
    pub(super) open_top_p: Option<f64>,
    pub(super) open_output: Option<f64>,
    flags: u8,
    /// The body's own length so far.
    pub(super) bytes: u64,
    /// Bytes of text in the prompt, at the least: an escape of six bytes may stand for one.
    pub(super) text_bytes: u64,
    /// The requests of a batch.
    pub(super) texts: u32,
    /// A key stands in it.
    pub(super) key: bool,
}

impl Facts {
    pub(super) fn set(&mut self, field: Field, text: Option<&[u8]>, quoted: bool) {
        let number = || parse(text?);
        match field {
            Field::Candidates => self.candidates = number(),
            Field::Temperature => self.temperature = number(),
            Field::TopP => self.top_p = number(),
            Field::TopK => self.top_k = number(),
            Field::Output => self.output = number(),
            Field::Budget => self.budget = number(),
            Field::OpenCandidates => self.open_candidates = number(),
            Field::OpenTemperature => self.open_temperature = number(),
            Field::OpenTopP => self.open_top_p = number(),
            Field::OpenOutput => self.open_output = number(),
            Field::Level => self.level = text.filter(|_| quoted).and_then(Name::new),
            Field::Model => self.model = text.filter(|_| quoted).and_then(Name::new),
        }
    }

    pub(super) const fn set_flag(&mut self, flag: Flag, set: bool) {
        let bit = 1 << flag as u8;
        self.flags = self.flags & !bit | if set { bit } else { 0 };
    }

    pub(super) const fn has(&self, flag: Flag) -> bool {
        self.flags & 1 << flag as u8 != 0
    }

    pub(super) const fn clear_config(&mut self) {
        self.candidates = None;
        self.temperature = None;
        self.top_p = None;
        self.top_k = None;
        self.output = None;
        self.set_flag(Flag::SpeechConfig, false);
        self.clear_thinking();
    }

    pub(super) const fn clear_thinking(&mut self) {
        self.budget = None;
        self.level = None;
    }
}

/// A number as protobuf's JSON takes it: bare, or as a text. `null` is none.
fn parse(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
