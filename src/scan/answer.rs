//! What a successful answer holds, and what is wrong with it: the rules for everyone who reads answers. Pure.
//!
//! The finish reasons are those of the [API reference](https://ai.google.dev/api/generate-content#FinishReason),
//! read 2026-11, and some that are recorded but not listed there (`MODEL_ARMOR`). An unknown one is judged by
//! whether anything was delivered.

use super::token::MAX;
use crate::verdict::Kind;

/// Candidates told apart. The API allows eight.
const MAX_CANDIDATES: usize = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// JSON objects seen: events of a stream, elements of an array, or the one object of a unary answer.
    pub(crate) objects: u32,
    /// An `error` came after something had been delivered.
    pub(crate) error_after_output: bool,
    /// The body has members of no known answer.
    pub(crate) foreign: bool,
    /// Bits of [`Mark`], because an answer is read along with in little room.
    marks: u8,
    /// `promptFeedback` says blocked, or an image was filtered.
    blocked: bool,
    /// The body has members of a `generateContent` answer, or of a chat completion.
    generated: bool,
    /// The body has members of some other known answer (a list, an embedding, a count).
    other_known: bool,
    /// The body has members of an interaction, or of an event of one.
    interaction: bool,
    /// How the interaction ended.
    status: Finish,
    candidates: [Candidate; MAX_CANDIDATES],
}

/// What tells apart what has no finish reason.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Mark {
    /// It has a usage, as a `generateContent` answer has at its end, and a created cache as well.
    Metered = 1,
    /// An `error` has begun, whatever is in it.
    Error = 2,
    /// The text, or an event, is over before its end.
    Cut = 4,
    /// There were blanks before anything else.
    Blanks = 8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Candidate {
    delivered: bool,
    /// Of the last event that had one: an intermediate finish reason is not the end. `None` as long as it was not seen.
    finish: Option<Finish>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Finish {
    #[default]
    None,
    Normal,
    /// As far as the limit on tokens goes. Where nothing was delivered, all of them were thoughts.
    Length,
    Blocked,
    /// The model's own mistake: nothing usable even where there is content.
    Malformed,
    Other,
    /// One that is not known here: what was delivered is whole.
    Unknown,
    /// An interaction that goes on by its token: whole as far as it goes, also where that is no output yet.
    Continues,
    /// An interaction that failed without an error that says why.
    Failed,
}

/// A member of the outermost object, and what to look for in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Member {
    /// `candidates`, and the `choices` of the OpenAI-compatible surface.
    Candidates,
    PromptFeedback,
    UsageMetadata,
    ModelVersion,
    /// Imagen's `predictions`, and the lists of images and videos.
    Predictions,
    /// How many images or videos were refused.
    Refused,
    /// Why they were, as a list.
    RefusedReasons,
    /// Code Assist's envelope: the whole answer once more; a finished operation's.
    Response,
    /// The same inside an operation's, for videos.
    VideoResponse,
    /// The interaction in an event.
    Interaction,
    /// What an event of an interaction is about.
    EventType,
    /// An interaction's steps, outputs or contents, or a piece of one in an event.
    Output,
    Other,
}

/// A member of `content`, or of one of its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PartMember {
    Parts,
    Text,
    Thought,
    /// Something for the user, whatever it holds.
    Visible,
    Other,
}

/// A member of a choice's `delta` or `message`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MessageMember {
    Text,
    /// Something for the user where it is a list with an object in it: calls, and OpenRouter's images.
    List,
    Other,
}

impl MessageMember {
    #[inline]
    pub(crate) fn of(key: &[u8]) -> Self {
        match key {
            b"content" => Self::Text,
            b"tool_calls" | b"images" => Self::List,
            _ => Self::Other,
        }
    }
}

/// What sort of piece of an interaction this is, by its `type`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Sort {
    /// It has none.
    #[default]
    None,
    /// A text, or a step that holds contents: as visible as they are.
    Holder,
    /// A thought, or what the user said.
    Hidden,
    /// A call, an image, whatever is added to them.
    Visible,
}

impl Sort {
    #[inline]
    pub(crate) fn of(name: &[u8]) -> Self {
        match name {
            b"" => Self::None,
            b"text" | b"model_output" => Self::Holder,
            b"user_input" => Self::Hidden,
            b"signature_delta" => Self::Hidden,
            _ if name.starts_with(b"thought") || name.starts_with(b"thinking") => Self::Hidden,
            _ => Self::Visible,
        }
    }

    /// Whether there is something for the user in a piece of this sort; `text` says that it has a text, or a content that
    /// is visible.
    pub(crate) fn shows(self, text: bool) -> bool {
        self == Self::Visible || text && self != Self::Hidden
    }
}

/// Whether an event of this type ends its stream: an interaction's, a message's in Anthropic's form, a response's in OpenAI's.
pub(crate) fn is_end(event: &[u8]) -> bool {
    matches!(
        event,
        b"interaction.complete" | b"interaction.completed" | b"message_stop" | b"response.completed"
    )
}

impl Finish {
    /// The `status` of an [interaction](https://ai.google.dev/gemini-api/docs/interactions), as google-genai 3.6.1 lists
    /// them (read 2026-11). Those that are none mean that it goes on.
    pub(crate) fn of_status(status: &[u8]) -> Self {
        match status {
            b"completed" | b"requires_action" | b"cancelled" | b"idle" => Self::Normal,
            b"requires_continuation" => Self::Continues,
            b"incomplete" | b"budget_exceeded" => Self::Length,
            b"failed" => Self::Failed,
            // Why a message in Anthropic's form has stopped.
            b"end_turn" | b"stop_sequence" | b"tool_use" => Self::Normal,
            b"max_tokens" => Self::Length,
            b"refusal" => Self::Blocked,
            _ => Self::None,
        }
    }

    pub(crate) fn of(reason: &str) -> Self {
        match reason {
            "" | "FINISH_REASON_UNSPECIFIED" => Self::None,
            "STOP" | "stop" | "tool_calls" | "function_call" => Self::Normal,
            // CONTINUATION ends an answer that is to be asked for again where it stopped.
            "MAX_TOKENS" | "CONTINUATION" | "length" => Self::Length,
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MALFORMED_RESPONSE"
            | "MISSING_THOUGHT_SIGNATURE"
            | "NO_IMAGE" => Self::Malformed,
            "RECITATION" | "IMAGE_RECITATION" | "BLOCKLIST" | "SPII" | "LANGUAGE" | "MODEL_ARMOR"
            | "content_filter" => Self::Blocked,
            // The last one is OpenRouter's.
            "OTHER" | "IMAGE_OTHER" | "error" => Self::Other,
            // Of a text that comes in pieces so much is kept, and no reason is as long.
            _ if reason.len() >= MAX => Self::Unknown,
            // SAFETY, IMAGE_SAFETY, PROHIBITED_CONTENT, IMAGE_PROHIBITED_CONTENT and whatever is added to them.
            _ if reason.contains("SAFETY") || reason.contains("PROHIBITED") => Self::Blocked,
            _ => Self::Unknown,
        }
    }
}

impl PartMember {
    #[inline]
    pub(crate) fn of(key: &[u8]) -> Self {
        match key {
            b"parts" => Self::Parts,
            b"text" => Self::Text,
            b"thought" => Self::Thought,
            b"functionCall" | b"inlineData" | b"fileData" | b"executableCode" | b"codeExecutionResult" => {
                Self::Visible
            }
            _ => Self::Other,
        }
    }
}

impl Answer {
    #[inline]
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.marks |= mark as u8;
    }

    #[inline]
    pub(crate) const fn is(&self, mark: Mark) -> bool {
        self.marks & mark as u8 != 0
    }

    /// Notes what sort of body has such a member.
    #[inline]
    pub(crate) fn member(&mut self, key: &[u8]) -> Member {
        let member = match key {
            b"candidates" | b"choices" => Member::Candidates,
            b"promptFeedback" => Member::PromptFeedback,
            b"usageMetadata" => {
                self.mark(Mark::Metered);
                return Member::UsageMetadata;
            }
            b"modelVersion" => return Member::ModelVersion,
            b"response" => return Member::Response,
            b"predictions" | b"generatedImages" | b"videos" | b"generatedSamples" | b"generatedVideos" => {
                self.other_known = true;
                return Member::Predictions;
            }
            b"raiMediaFilteredCount" => {
                self.other_known = true;
                return Member::Refused;
            }
            b"raiMediaFilteredReasons" => {
                self.other_known = true;
                return Member::RefusedReasons;
            }
            b"generateVideoResponse" => {
                self.other_known = true;
                return Member::VideoResponse;
            }
            b"interaction" => {
                self.interaction = true;
                self.other_known = true;
                return Member::Interaction;
            }
            b"steps" | b"outputs" | b"step" | b"delta" => {
                self.interaction = true;
                self.other_known = true;
                return Member::Output;
            }
            // Every interaction says when it was updated, also one that failed and has nothing else to say.
            b"event_type" | b"updated" => {
                self.interaction = true;
                self.other_known = true;
                return if key == b"updated" { Member::Other } else { Member::EventType };
            }
            b"models"
            | b"tunedModels"
            | b"totalTokens"
            | b"embedding"
            | b"embeddings"
            | b"data"
            | b"object"
            | b"name"
            | b"file"
            | b"files"
            | b"id"
            | b"cachedContents"
            | b"operations"
            | b"batches"
            | b"done"
            | b"nextPageToken"
            | b"deployedModelId"
            | b"answer"
            | b"tokensInfo"
            | b"results"
            | b"corpora"
            | b"documents"
            | b"chunks"
            | b"relevantChunks"
            | b"permissions"
            | b"fileSearchStores"
            | b"generatedFiles"
            | b"tuningJobs"
            | b"batchPredictionJobs"
            | b"endpoints"
            | b"publisherModels"
            | b"reasoningEngines"
            | b"ragCorpora"
            | b"ragFiles"
            | b"contexts"
            | b"sessions"
            | b"memories"
            | b"interactions"
            | b"access_token"
            | b"buckets"
            | b"responsesFile"
            | b"paidTier"
            | b"currentTier"
            | b"allowedTiers"
            | b"cloudaicompanionProject" => {
                self.other_known = true;
                return Member::Other;
            }
            _ => {
                self.foreign = true;
                return Member::Other;
            }
        };
        self.generated = true;
        member
    }

    /// A member of an error, which may stand alone.
    pub(crate) fn flat(&mut self, name: &str) {
        self.foreign = true;
        if name == "error" {
            self.mark(Mark::Error);
        }
    }

    /// A `blockReason`, or a `blockReasonMessage`, which may come alone.
    pub(crate) fn block(&mut self, reason: &str) {
        self.blocked |= !matches!(reason, "" | "BLOCK_REASON_UNSPECIFIED" | "BLOCKED_REASON_UNSPECIFIED");
    }

    /// A candidate of one event. Those beyond the eighth are judged together with the last.
    pub(crate) fn candidate(&mut self, index: usize, finish: Finish, delivered: bool) {
        let c = &mut self.candidates[index.min(MAX_CANDIDATES - 1)];
        c.delivered |= delivered;
        if finish != Finish::None || c.finish.is_none() {
            c.finish = Some(finish);
        }
    }

    /// One of the `predictions`: only a refusal and an image are looked for.
    pub(crate) fn prediction(&mut self, refused: bool, delivered: bool) {
        self.candidates[0].delivered |= delivered;
        // Some images may pass while others are filtered; the caller then has what could be made.
        self.blocked = (self.blocked || refused) && !self.candidates[0].delivered;
    }

    /// The `status` of the outermost object, or of the interaction in it. Says something only of an interaction.
    pub(crate) fn status(&mut self, status: &[u8]) {
        let finish = Finish::of_status(status);
        if finish != Finish::None {
            self.status = finish;
        }
    }

    /// The interaction is over, by the name of an event that is complete. Its own status says more.
    pub(crate) fn ended(&mut self) {
        if self.status == Finish::None {
            self.status = Finish::Normal;
        }
    }

    /// A step, an output or a delta of an interaction.
    pub(crate) fn output(&mut self, visible: bool) {
        self.candidates[0].delivered |= visible;
    }

    /// Whether any candidate has delivered something a user would see.
    pub(crate) fn delivered(&self) -> bool {
        self.candidates.iter().any(|c| c.delivered)
    }

    /// Whether the body is of a form in which [`delivered`](Self::delivered) can be told.
    pub(crate) fn is_generated(&self) -> bool {
        self.is_content() || self.interaction
    }

    /// Whether this is a `generateContent` answer, or a chat completion.
    fn is_content(&self) -> bool {
        self.generated || self.is(Mark::Metered) && !self.other_known
    }

    /// Whether the body has a member of any known answer.
    #[inline]
    pub(crate) fn is_known(&self) -> bool {
        self.generated || self.is(Mark::Metered) || self.other_known || self.interaction
    }

    /// Whether it is an interaction that has begun and neither said anything nor ended.
    pub(crate) fn has_only_begun(&self) -> bool {
        self.interaction && !self.generated && self.status == Finish::None && !self.delivered()
    }

    /// Whether it is an interaction that has failed.
    pub(crate) fn is_failed_interaction(&self) -> bool {
        self.interaction && !self.generated && self.status == Finish::Failed
    }

    /// Whether the same request would end the same way: its thoughts have used up its tokens.
    pub(crate) fn is_spent(&self) -> bool {
        let spent = self.interaction && self.status == Finish::Length && !self.delivered();
        spent || self.candidates.iter().any(|c| c.finish == Some(Finish::Length) && !c.delivered)
    }

    /// Whether any part of it ended at a limit of its length, or is to be continued.
    pub(crate) fn is_cut_short(&self) -> bool {
        let short = |finish| matches!(finish, Finish::Length | Finish::Continues);
        short(self.status) || self.candidates.iter().filter_map(|c| c.finish).any(short)
    }

    /// What is wrong with an answer whose JSON ends early.
    pub(crate) fn fault_of_cut(&self) -> Option<Kind> {
        Some(match () {
            () if self.blocked => Kind::ContentBlocked,
            () if self.is_known() => Kind::Truncated,
            // An error of which nothing has come, or not one whole member.
            () if self.is(Mark::Cut) && (self.is(Mark::Error) || !self.foreign) => Kind::Truncated,
            () => Kind::Unknown,
        })
    }

    /// What is wrong with this answer; `None` where nothing is.
    ///
    /// `stream` says that the body is one: there a missing finish reason means that the end is missing.
    pub(crate) fn fault(&self, stream: bool) -> Option<Kind> {
        if self.blocked {
            return Some(Kind::ContentBlocked);
        }
        if self.interaction && !self.generated {
            return match (self.status, self.delivered()) {
                (Finish::Continues, _) => None,
                (Finish::Blocked, _) => Some(Kind::ContentBlocked),
                (Finish::Failed | Finish::None, true) if stream => Some(Kind::Truncated),
                (Finish::Failed, false) => Some(Kind::EmptyResponse),
                // A stream that ends without a word is none; one in the background is answered by its id.
                (_, false) if stream => Some(Kind::EmptyResponse),
                _ => None,
            };
        }
        if !self.is_content() {
            // An empty object is the usual answer to a delete; a stream without any is none.
            let nothing = stream && self.objects == 0;
            return match () {
                () if self.other_known => None,
                () if stream && self.is(Mark::Cut) && !self.foreign => Some(Kind::Truncated),
                () if nothing => Some(Kind::EmptyResponse),
                () => self.foreign.then_some(Kind::Unknown),
            };
        }
        let mut worst = None;
        for c in &self.candidates {
            let Some(finish) = c.finish else { continue };
            let fault = match (finish, c.delivered) {
                (Finish::Blocked, _) => Kind::ContentBlocked,
                (Finish::Malformed, _) => Kind::EmptyResponse,
                (Finish::Other | Finish::Failed, true) => Kind::Truncated,
                (Finish::None, true) if stream => Kind::Truncated,
                (_, false) => Kind::EmptyResponse,
                // One good candidate is what the caller asked for.
                (
                    Finish::Normal | Finish::Length | Finish::Continues | Finish::Unknown | Finish::None,
                    true,
                ) => return None,
            };
            worst = worst.or(Some(fault));
        }
        // The one event that there was has not come whole.
        if stream && self.is(Mark::Cut) && self.candidates.iter().all(|c| c.finish.is_none()) {
            return Some(Kind::Truncated);
        }
        // `candidates: []` and no word about why.
        worst.or_else(|| self.candidates.iter().all(|c| c.finish.is_none()).then_some(Kind::EmptyResponse))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finish_reason_is_of_its_sort() {
        for (finish, reasons) in [
            (Finish::None, &["", "FINISH_REASON_UNSPECIFIED"][..]),
            (Finish::Normal, &["STOP", "stop", "tool_calls", "function_call"]),
            (Finish::Length, &["MAX_TOKENS", "CONTINUATION", "length"]),
            (Finish::Malformed, &["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"]),
            (Finish::Malformed, &["MALFORMED_RESPONSE", "MISSING_THOUGHT_SIGNATURE", "NO_IMAGE"]),
            (Finish::Blocked, &["RECITATION", "IMAGE_RECITATION", "BLOCKLIST", "SPII", "LANGUAGE"]),
            (Finish::Blocked, &["MODEL_ARMOR", "content_filter", "SAFETY", "IMAGE_SAFETY"]),
            (Finish::Blocked, &["PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT"]),
            (Finish::Other, &["OTHER", "IMAGE_OTHER", "error"]),
            (Finish::Unknown, &["ESCALATION", "PUP_LIMITED_DISABLED", "SOMETHING_NEW"]),
            (Finish::Unknown, &["SAFETY_BUT_LONGER_THAN_ANY_REASON_IS"]),
        ] {
            for reason in reasons {
                assert_eq!(Finish::of(reason), finish, "{reason}");
            }
        }
    }

    fn of(keys: &[&str]) -> Answer {
        let mut answer = Answer { objects: 1, ..Answer::default() };
        for key in keys {
            answer.member(key.as_bytes());
        }
        answer
    }

    #[test]
    fn a_body_is_of_the_sort_that_its_members_are_of() {
        for (keys, stream, fault) in [
            (&["candidates"][..], false, Some(Kind::EmptyResponse)),
            (&["choices"], false, Some(Kind::EmptyResponse)),
            (&["promptFeedback"], false, Some(Kind::EmptyResponse)),
            (&["usageMetadata"], false, Some(Kind::EmptyResponse)),
            (&["response"], false, None),
            (&["modelVersion"], false, None),
            (&["predictions"], false, None),
            (&["embedding"], false, None),
            (&["embedding", "new"], false, None),
            (&["new"], false, Some(Kind::Unknown)),
            (&[], false, None),
            (&[], true, None),
        ] {
            assert_eq!(of(keys).fault(stream), fault, "{keys:?}");
        }
        assert_eq!(Answer::default().fault(true), Some(Kind::EmptyResponse), "a stream without an event");
        assert_eq!(Answer::default().fault(false), None);
    }

    #[test]
    fn an_answer_that_breaks_off_is_blocked_or_truncated_or_no_answer() {
        let mut blocked = of(&["candidates"]);
        blocked.block("SAFETY");
        assert_eq!([blocked.fault_of_cut(), blocked.fault(false)], [Some(Kind::ContentBlocked); 2]);
        assert_eq!(of(&["candidates"]).fault_of_cut(), Some(Kind::Truncated));
        assert_eq!(of(&["embedding"]).fault_of_cut(), Some(Kind::Truncated));
        assert_eq!(of(&["new"]).fault_of_cut(), Some(Kind::Unknown));
    }
}
