//! What has been found: the meaning of the members on the paths that are followed. Pure.

use super::answer::{Answer, Finish, Member, MessageMember, PartMember, Sort, is_end};
use super::capture::{Capture, MAX_KEPT};
use super::field::Slot;
use super::token::MAX;
use crate::tier::ServiceTier;
use crate::verdict::Usage;

#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) answer: Answer,
    pub(super) capture: Capture,
    /// Outermost objects that are complete.
    pub(super) complete: u32,
    /// A text is complete, whatever it is.
    pub(super) said: bool,
    /// JSON turned out to be none, or broke off.
    pub(super) broken: bool,
    usage: Usage,
    /// The usage being read, which counts once it is complete.
    usage_now: Usage,
    /// The candidate being read, and the number it has without an `index`.
    index: u8,
    next: u8,
    finish: Finish,
    delivered: bool,
    /// `content`, or a choice's message.
    content: Part,
    part: Part,
    /// Of the usage and the prediction that are being read.
    flags: Flags,
    /// The tier that served, by the last usage that names one.
    tier: Option<ServiceTier>,
    /// The model whose answer this should be, as its [hash](name_hash); 0 where nobody wants to know which it is.
    expected: u16,
    notes: Option<Box<Notes>>,
}

/// Truths, a bit for each, because an answer is read along with in little room.
#[derive(Clone, Copy, Debug, Default)]
struct Flags(u8);

impl Flags {
    /// There is a usage; the one that is being read has a count in it.
    const USAGE: u8 = 1;
    const USAGE_NOW: u8 = 2;
    /// The prediction that is being read is a refusal; it holds a medium.
    const REFUSED: u8 = 4;
    const MADE: u8 = 8;
    /// The event that is being read says that the interaction is over.
    const ENDS: u8 = 16;

    #[inline]
    fn set(&mut self, flags: u8, to: bool) {
        self.0 = if to { self.0 | flags } else { self.0 & !flags };
    }

    #[inline]
    const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// What there almost never is: behind one thin pointer.
#[derive(Debug, Default)]
struct Notes {
    /// A finish reason that is not known here.
    finish: Name,
    /// The model that answered, where it is not the one that was expected.
    model: Name,
    /// The beginning of a body that has no member of a known answer, up to a byte more than is kept.
    foreign: Vec<u8>,
}

/// A short text with zeros behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Name([u8; MAX]);

impl Name {
    /// One of more bytes is cut.
    fn new(text: &[u8]) -> Self {
        let (mut kept, len) = ([0; MAX], text.len().min(MAX));
        kept[..len].copy_from_slice(&text[..len]);
        Self(kept)
    }

    fn get(&self) -> Option<&str> {
        let len = self.0.iter().position(|b| *b == 0).unwrap_or(MAX);
        // A letter that was cut in the middle is left out.
        let text = match std::str::from_utf8(&self.0[..len]) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&self.0[..error.valid_up_to()]).ok()?,
        };
        (!text.is_empty()).then_some(text)
    }
}

/// Tells names apart; never 0. Two that share a number (one pair in 32,768) are taken for one.
pub(crate) fn name_hash(name: &[u8]) -> u16 {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = name.iter().fold(0x811c_9dc5, mix);
    (hash >> 16) as u16 | 1
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    visible: bool,
    thought: bool,
    sort: Sort,
}

impl Found {
    /// Asks for the model, if it is another one than this.
    pub(super) fn expect(&mut self, model: u16) {
        self.expected = model;
    }

    /// The model that says it has answered, if that is not the one that was expected and its name is shorter than 32 bytes.
    pub(super) fn model_version(&self) -> Option<&str> {
        self.notes.as_ref()?.model.get()
    }

    /// Keeps a body of JSON as long as it has no member of a known answer: a server's own error may stand anywhere in it.
    /// `opened` stands before its first bytes.
    #[inline]
    pub(super) fn keep_foreign(&mut self, opened: &[u8], bytes: &[u8]) {
        if !self.answer.is_known() {
            let kept = &mut self.notes.get_or_insert_default().foreign;
            if kept.is_empty() {
                kept.extend_from_slice(opened);
            }
            kept.extend_from_slice(&bytes[..bytes.len().min(MAX_KEPT + 1 - kept.len())]);
        }
    }

    /// The body, where it is of no known answer.
    pub(super) fn foreign(&self) -> Option<&[u8]> {
        let body = &self.notes.as_ref()?.foreign;
        let is_whole =
            !self.answer.is_known() && self.answer.objects > 0 && (1..=MAX_KEPT).contains(&body.len());
        is_whole.then_some(body)
    }

    /// Whether the body is a list with nothing in it.
    pub(super) fn is_empty_list(&self) -> bool {
        let body = self.notes.iter().flat_map(|notes| &notes.foreign);
        body.filter(|byte| !byte.is_ascii_whitespace()).eq(b"[]")
    }

    pub(super) fn tier(&self) -> Option<ServiceTier> {
        self.tier
    }

    /// The first word stands.
    #[cold]
    fn keep_model(&mut self, name: &[u8]) {
        let expected = std::mem::take(&mut self.expected);
        // One that was cut tells nothing.
        if name_hash(name) != expected && name.len() < MAX {
            self.notes.get_or_insert_default().model = Name::new(name);
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.flags.has(Flags::USAGE).then_some(self.usage)
    }

    /// A finish reason that is not known here. One of more than 32 bytes is cut.
    pub(super) fn unknown_finish(&self) -> Option<&str> {
        self.notes.as_ref()?.finish.get()
    }

    /// What the value of this member is for.
    #[inline]
    pub(super) fn member(&mut self, object: Slot, key: &[u8]) -> Slot {
        match object {
            Slot::Envelope => self.envelope(key),
            // A relay's answer holds its provider's error at times.
            Slot::Wrapped | Slot::Holder if key == b"error" => self.inner_error(),
            // lobehub's has the whole answer, in which the prompt is blocked.
            Slot::Holder if key == b"context" => Slot::Holder,
            Slot::Holder if key == b"promptFeedback" => Slot::Feedback,
            Slot::Wrapped if key == b"response" => Slot::Skip,
            Slot::Wrapped => self.answered(key),
            Slot::Candidates => match key {
                b"content" => Slot::Content,
                b"finishReason" | b"finish_reason" => Slot::FinishReason,
                b"index" => Slot::Index,
                b"delta" | b"message" => Slot::Message,
                b"error" => self.inner_error(),
                _ => Slot::Skip,
            },
            Slot::Content | Slot::Part => match PartMember::of(key) {
                PartMember::Parts if object == Slot::Content => Slot::Part,
                PartMember::Text => Slot::Text,
                PartMember::Thought => Slot::Thought,
                PartMember::Visible => {
                    self.part_of(object).visible = true;
                    Slot::Skip
                }
                PartMember::Parts | PartMember::Other => Slot::Skip,
            },
            Slot::Message => match MessageMember::of(key) {
                MessageMember::Text => Slot::Text,
                MessageMember::List => Slot::ToolCalls,
                MessageMember::Other => Slot::Skip,
            },
            Slot::Feedback if matches!(key, b"blockReason" | b"blockReasonMessage") => Slot::BlockReason,
            Slot::VideoResponse => match key {
                b"generateVideoResponse" | b"response" => Slot::Skip,
                _ => self.answered(key),
            },
            Slot::Output | Slot::OutputContent => match key {
                b"type" => Slot::Sort,
                b"text" => Slot::Text,
                b"content" if object == Slot::Output => Slot::OutputContent,
                b"stop_reason" => Slot::InteractionStatus,
                _ => Slot::Skip,
            },
            Slot::Predictions => match key {
                b"raiFilteredReason" => Slot::Refusal,
                b"bytesBase64Encoded" | b"gcsUri" | b"image" | b"video" | b"uri" => {
                    self.flags.set(Flags::MADE, true);
                    Slot::Skip
                }
                _ => Slot::Skip,
            },
            Slot::Usage => Slot::of_usage(key),
            Slot::Metadata if key == b"total_usage" => Slot::Usage,
            Slot::UsageDetails if key == b"cached_tokens" => Slot::Cached,
            Slot::Interaction => match key {
                b"usage" => Slot::Usage,
                b"status" => Slot::InteractionStatus,
                b"steps" | b"outputs" => Slot::Output,
                _ => Slot::Skip,
            },
            _ => Slot::Skip,
        }
    }

    /// An error that does not stand in the outermost object is kept as if it did.
    #[cold]
    fn inner_error(&mut self) -> Slot {
        self.capture.begin("error");
        Slot::Error
    }

    fn envelope(&mut self, key: &[u8]) -> Slot {
        let (slot, name) = match key {
            b"error" => (Slot::Error, "error"),
            b"code" => (Slot::Code, "code"),
            b"message" => (Slot::Flat, "message"),
            b"status" => (Slot::Status, "status"),
            b"details" => (Slot::Flat, "details"),
            b"errors" => (Slot::Flat, "errors"),
            b"data" | b"result" | b"body" => {
                self.answer.member(key);
                return Slot::Holder;
            }
            _ => return self.answered(key),
        };
        self.answer.flat(name);
        self.capture.begin(name);
        slot
    }

    fn answered(&mut self, key: &[u8]) -> Slot {
        match self.answer.member(key) {
            Member::Candidates => {
                self.next = 0;
                Slot::Candidates
            }
            Member::PromptFeedback => Slot::Feedback,
            Member::UsageMetadata => Slot::Usage,
            Member::Predictions => Slot::Predictions,
            Member::Refused => Slot::Refused,
            Member::RefusedReasons => Slot::Reasons,
            Member::Response => Slot::Wrapped,
            Member::VideoResponse => Slot::VideoResponse,
            Member::Interaction => Slot::Interaction,
            Member::Output => Slot::Output,
            Member::EventType => Slot::EventType,
            Member::Other if key == b"usage" => Slot::Usage,
            Member::Other if key == b"metadata" => Slot::Metadata,
            Member::Other if key == b"type" => Slot::EventType,
            Member::ModelVersion if self.expected != 0 => Slot::ModelVersion,
            Member::ModelVersion | Member::Other => Slot::Skip,
        }
    }

    fn part_of(&mut self, object: Slot) -> &mut Part {
        if matches!(object, Slot::Part | Slot::OutputContent) { &mut self.part } else { &mut self.content }
    }

    /// An object begins.
    pub(super) fn open(&mut self, object: Slot) {
        match object {
            Slot::Envelope => {
                self.answer.objects = self.answer.objects.saturating_add(1);
                self.flags.set(Flags::ENDS, false);
            }
            Slot::Candidates => {
                (self.index, self.finish, self.delivered) = (self.next, Finish::None, false);
            }
            Slot::Content | Slot::Part | Slot::Message | Slot::Output | Slot::OutputContent => {
                *self.part_of(object) = Part::default();
            }
            Slot::ToolCalls => self.content.visible = true,
            Slot::Predictions => self.flags.set(Flags::REFUSED | Flags::MADE, false),
            Slot::Usage => {
                self.usage_now = Usage::default();
                self.flags.set(Flags::USAGE_NOW, false);
            }
            _ => {}
        }
    }

    /// An object is complete.
    pub(super) fn close(&mut self, object: Slot) {
        match object {
            Slot::Envelope => {
                if self.flags.has(Flags::ENDS) {
                    self.answer.ended();
                }
                if self.answer.is_failed_interaction() {
                    self.capture.failed_interaction();
                }
                if self.capture.close() {
                    self.answer.error_after_output |= self.answer.delivered();
                }
                self.complete = self.complete.saturating_add(1);
            }
            Slot::Candidates => self.answer.candidate(self.index.into(), self.finish, self.delivered),
            Slot::Content | Slot::Part | Slot::Message => {
                let part = *self.part_of(object);
                self.delivered |= part.visible && !part.thought;
            }
            Slot::OutputContent => self.content.visible |= self.part.sort.shows(self.part.visible),
            Slot::Output => self.answer.output(self.content.sort.shows(self.content.visible)),
            Slot::Predictions => {
                self.answer.prediction(self.flags.has(Flags::REFUSED), self.flags.has(Flags::MADE));
            }
            // Vertex sends some without a single count, which say nothing.
            Slot::Usage if self.flags.has(Flags::USAGE_NOW) => {
                self.usage = self.usage_now;
                self.flags.set(Flags::USAGE, true);
            }
            _ => {}
        }
    }

    /// An element of a list is over.
    pub(super) fn element(&mut self, list: Slot) {
        match list {
            Slot::Candidates => self.next = self.next.saturating_add(1),
            Slot::Reasons => self.answer.prediction(true, false),
            _ => {}
        }
    }

    /// A string that is not empty.
    pub(super) fn text(&mut self, object: Slot, slot: Slot) {
        match slot {
            Slot::Text => self.part_of(object).visible = true,
            // An OpenAI response's, which is the text itself.
            Slot::Output => self.answer.output(true),
            Slot::Refusal => self.flags.set(Flags::REFUSED, true),
            _ => {}
        }
    }

    /// A scalar that is read: the content of a string, or a literal as it stands.
    pub(super) fn scalar(&mut self, object: Slot, slot: Slot, text: &[u8], quoted: bool) {
        let number = || integer(text);
        // Only strings are reasons.
        let reason = if quoted { text } else { b"" };
        let count = match slot {
            Slot::Input => &mut self.usage_now.input_tokens,
            Slot::ToolInput => &mut self.usage_now.input_tokens,
            Slot::Cached => &mut self.usage_now.cached_tokens,
            Slot::OutputTokens => &mut self.usage_now.output_tokens,
            Slot::Thoughts => &mut self.usage_now.thought_tokens,
            Slot::Total => &mut self.usage_now.total_tokens,
            Slot::Index => {
                // Above the eighth all are one.
                self.index = number().map_or(self.index, |n| n.min(255) as u8);
                return;
            }
            // The usual one.
            Slot::FinishReason if reason == b"STOP" => {
                self.finish = Finish::Normal;
                return;
            }
            Slot::FinishReason => {
                // No reason that is known here has any other letters.
                self.finish = std::str::from_utf8(reason).map_or(Finish::Unknown, Finish::of);
                if self.finish == Finish::Unknown {
                    let reason = String::from_utf8_lossy(reason);
                    self.notes.get_or_insert_default().finish = Name::new(reason.as_bytes());
                }
                return;
            }
            Slot::ServedTier => {
                let named = std::str::from_utf8(reason).ok().and_then(ServiceTier::from_name);
                self.tier = named.or(self.tier);
                return;
            }
            Slot::ModelVersion => return self.keep_model(reason),
            Slot::Refused => return self.answer.prediction(number().is_some_and(|n| n > 0), false),
            Slot::Sort => return self.part_of(object).sort = Sort::of(reason),
            Slot::EventType => {
                return self.flags.set(Flags::ENDS, is_end(reason) || self.flags.has(Flags::ENDS));
            }
            Slot::InteractionStatus => return self.answer.status(reason),
            Slot::Status => {
                // Relays write the number here.
                if !quoted && number().is_some_and(|status| (400..600).contains(&status)) {
                    self.capture.flat_error();
                }
                return self.answer.status(reason);
            }
            Slot::BlockReason => return self.answer.block(&String::from_utf8_lossy(reason)),
            Slot::Thought => return self.part_of(object).thought = !quoted && text == b"true",
            Slot::Code => {
                if number().is_some_and(|code| (400..=u64::from(u16::MAX)).contains(&code)) {
                    self.capture.flat_error();
                }
                return;
            }
            _ => return,
        };
        if let Some(n) = number() {
            // Tokens of the prompt and of the results of tools are one sum.
            let before = if matches!(slot, Slot::Input | Slot::ToolInput) { *count } else { 0 };
            *count = before.saturating_add(n);
            self.flags.set(Flags::USAGE_NOW, true);
        }
    }

    /// A value that is kept as text is over.
    pub(super) fn kept(&mut self, slot: Slot) {
        if slot != Slot::Error {
            self.capture.end_flat();
        } else if self.capture.end_error() {
            self.answer.error_after_output |= self.answer.delivered();
        }
    }

    /// The value under way breaks off, or is no JSON.
    pub(super) fn abandon(&mut self, in_error: bool) {
        self.broken = true;
        if self.capture.abandon(in_error) {
            self.answer.error_after_output |= self.answer.delivered();
        }
    }
}

/// As `u64`'s own parser has it, blanks around it aside.
#[inline]
fn integer(text: &[u8]) -> Option<u64> {
    // Nineteen digits are no overflow.
    if !(1..=19).contains(&text.len()) {
        return integer_in_full(text);
    }
    let mut n = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return integer_in_full(text);
        }
        n = n * 10 + u64::from(digit);
    }
    Some(n)
}

#[cold]
fn integer_in_full(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    let digits = digits.strip_prefix(b"+").unwrap_or(digits);
    let first = digits.first().map(|_| 0_u64);
    digits.iter().try_fold(first?, |n, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_count_is_read_as_the_standard_library_reads_it(text in " {0,2}[+-]?[0-9]{0,21}[a.]? {0,2}") {
            prop_assert_eq!(integer(text.as_bytes()), text.trim().parse().ok());
        }
    }
}
