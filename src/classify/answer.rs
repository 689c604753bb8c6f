//! What a successful body holds: whether there is an answer in it, and how it ends. Pure.
//!
//! The finish reasons are those of the [API reference](https://ai.google.dev/api/generate-content#FinishReason),
//! read 2026-11, and some that are recorded but not listed there (`MODEL_ARMOR`). An unknown one is judged by
//! whether anything was delivered.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::scalar::{Key, Scalar, ScalarSeed, seed, skip_list, tolerant};
use crate::verdict::Kind;

/// Candidates told apart. The API allows eight.
const MAX_CANDIDATES: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Answer<'a> {
    /// JSON objects seen: events of a stream, elements of an array, or the one object of a unary answer.
    pub(super) objects: usize,
    /// An `error` came after something had been delivered.
    pub(super) error_after_output: bool,
    pub(super) model_version: Option<Cow<'a, str>>,
    /// `promptFeedback` says blocked, or an image was filtered.
    blocked: bool,
    /// The body has members of a `generateContent` answer.
    generated: bool,
    /// The body has members of some other known answer (a list, an embedding, a count, an OpenAI completion).
    other_known: bool,
    /// The body has members of none.
    pub(super) foreign: bool,
    candidates: [Candidate; MAX_CANDIDATES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Candidate {
    seen: bool,
    delivered: bool,
    /// Of the last event that had one: an intermediate finish reason is not the end.
    finish: Finish,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Finish {
    #[default]
    None,
    Normal,
    Blocked,
    /// The model's own mistake: nothing usable even where there is content.
    Malformed,
    Other,
}

impl Finish {
    fn of(reason: &str) -> Self {
        match reason {
            "" | "FINISH_REASON_UNSPECIFIED" => Self::None,
            "STOP" | "MAX_TOKENS" => Self::Normal,
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MALFORMED_RESPONSE"
            | "MISSING_THOUGHT_SIGNATURE"
            | "NO_IMAGE" => Self::Malformed,
            "RECITATION" | "IMAGE_RECITATION" | "BLOCKLIST" | "SPII" | "LANGUAGE" | "MODEL_ARMOR"
            | "content_filter" => Self::Blocked,
            // SAFETY, IMAGE_SAFETY, PROHIBITED_CONTENT, IMAGE_PROHIBITED_CONTENT and whatever is added to them.
            _ if reason.contains("SAFETY") || reason.contains("PROHIBITED") => Self::Blocked,
            _ => Self::Other,
        }
    }
}

impl Answer<'_> {
    /// Whether any candidate has delivered something a user would see.
    pub(super) fn delivered(&self) -> bool {
        self.candidates.iter().any(|c| c.delivered)
    }

    /// What is wrong with an answer whose JSON ends early.
    pub(super) fn fault_of_cut(&self) -> Option<Kind> {
        Some(match () {
            () if self.blocked => Kind::ContentBlocked,
            () if self.generated || self.other_known => Kind::Truncated,
            () => Kind::Unknown,
        })
    }

    /// What is wrong with this answer; `None` where nothing is.
    ///
    /// `stream` says that the body is one: there a missing finish reason means that the end is missing.
    pub(super) fn fault(&self, stream: bool) -> Option<Kind> {
        if self.blocked {
            return Some(Kind::ContentBlocked);
        }
        if !self.generated {
            // An empty object is the usual answer to a delete; a stream without any is none.
            let nothing = stream && self.objects == 0;
            return match () {
                () if self.other_known => None,
                () if nothing => Some(Kind::EmptyResponse),
                () => self.foreign.then_some(Kind::Unknown),
            };
        }
        let mut worst = None;
        for c in self.candidates.iter().filter(|c| c.seen) {
            let fault = match (c.finish, c.delivered) {
                (Finish::Blocked, _) => Kind::ContentBlocked,
                (Finish::Malformed, _) => Kind::EmptyResponse,
                (Finish::Other, true) => Kind::Truncated,
                (Finish::None, true) if stream => Kind::Truncated,
                (_, false) => Kind::EmptyResponse,
                // One good candidate is what the caller asked for.
                (Finish::Normal | Finish::None, true) => return None,
            };
            worst = worst.or(Some(fault));
        }
        // `candidates: []` and no word about why.
        worst.or_else(|| self.candidates.iter().all(|c| !c.seen).then_some(Kind::EmptyResponse))
    }
}

/// Folds the members of an answer, at the level of its outermost object.
pub(super) struct AnswerFold<'f, 'de>(pub(super) &'f mut Answer<'de>);

impl<'de> AnswerFold<'_, 'de> {
    pub(super) fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let answer = &mut *self.0;
        match key {
            "candidates" => {
                answer.generated = true;
                map.next_value_seed(Candidates { answer, next: &mut 0 })?;
            }
            "promptFeedback" => {
                answer.generated = true;
                map.next_value_seed(Feedback { answer })?;
            }
            "usageMetadata" => {
                answer.generated = true;
                map.next_value::<IgnoredAny>()?;
            }
            "modelVersion" => {
                let version = map.next_value_seed(ScalarSeed)?.text();
                answer.model_version = version.or(answer.model_version.take());
            }
            "predictions" | "generatedImages" => {
                answer.other_known = true;
                map.next_value_seed(Predictions { answer })?;
            }
            "choices" => {
                answer.other_known = true;
                map.next_value_seed(Predictions { answer })?;
            }
            "models" | "tunedModels" | "totalTokens" | "embedding" | "embeddings" | "data" | "object"
            | "name" | "file" | "files" | "id" | "outputs" | "steps" | "cachedContents" | "operations"
            | "batches" | "event_type" | "done" | "nextPageToken" | "deployedModelId" => {
                answer.other_known = true;
                map.next_value::<IgnoredAny>()?;
            }
            _ => {
                answer.foreign = true;
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Candidates<'f, 'de> {
    answer: &'f mut Answer<'de>,
    next: &'f mut usize,
}
seed!(Candidates);

impl<'de> Visitor<'de> for Candidates<'_, 'de> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq
            .next_element_seed(Candidates { answer: &mut *self.answer, next: &mut *self.next })?
            .is_some()
        {
            *self.next += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut index, mut finish, mut delivered) = (*self.next, Finish::None, false);
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "index" => {
                    let n = map.next_value_seed(ScalarSeed)?.integer();
                    index = n.and_then(|n| usize::try_from(n).ok()).unwrap_or(index);
                }
                "finishReason" => {
                    finish = Finish::of(&map.next_value_seed(ScalarSeed)?.text().unwrap_or_default());
                }
                "content" => map.next_value_seed(Content { delivered: &mut delivered, in_parts: false })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        // Candidates beyond the eighth are judged together with the last.
        let c = &mut self.answer.candidates[index.min(MAX_CANDIDATES - 1)];
        c.seen = true;
        c.delivered |= delivered;
        if finish != Finish::None {
            c.finish = finish;
        }
        Ok(())
    }
}

/// `content`, and each of its parts: is there anything in it for the user?
struct Content<'f> {
    delivered: &'f mut bool,
    in_parts: bool,
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        de.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq
            .next_element_seed(Content { delivered: &mut *self.delivered, in_parts: self.in_parts })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut thought, mut visible) = (false, false);
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "parts" if !self.in_parts => {
                    map.next_value_seed(Content { delivered: &mut *self.delivered, in_parts: true })?;
                }
                "text" => visible |= map.next_value_seed(ScalarSeed)?.text().is_some(),
                "thought" => thought = matches!(map.next_value_seed(ScalarSeed)?, Scalar::Bool(true)),
                "functionCall" | "inlineData" | "fileData" | "executableCode" | "codeExecutionResult" => {
                    visible = true;
                    map.next_value::<IgnoredAny>()?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        *self.delivered |= visible && !thought;
        Ok(())
    }
}

struct Feedback<'f, 'de> {
    answer: &'f mut Answer<'de>,
}
seed!(Feedback);

impl<'de> Visitor<'de> for Feedback<'_, 'de> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        skip_list(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            let value = map.next_value_seed(ScalarSeed)?;
            if matches!(key.as_ref(), "blockReason" | "blockReasonMessage") {
                self.answer.blocked |=
                    value.text().is_some_and(|reason| reason != "BLOCK_REASON_UNSPECIFIED");
            }
        }
        Ok(())
    }
}

/// Imagen's `predictions` and the OpenAI-compatible `choices`: only a refusal is looked for.
struct Predictions<'f, 'de> {
    answer: &'f mut Answer<'de>,
}
seed!(Predictions);

impl<'de> Visitor<'de> for Predictions<'_, 'de> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Predictions { answer: &mut *self.answer })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut refused, mut delivered) = (false, false);
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "raiFilteredReason" => refused |= map.next_value_seed(ScalarSeed)?.text().is_some(),
                "finish_reason" => {
                    let reason = map.next_value_seed(ScalarSeed)?.text().unwrap_or_default();
                    refused |= Finish::of(&reason) == Finish::Blocked;
                }
                "bytesBase64Encoded" | "gcsUri" => {
                    delivered = true;
                    map.next_value::<IgnoredAny>()?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let answer = self.answer;
        answer.candidates[0].delivered |= delivered;
        // Some images may pass while others are filtered; the caller then has what could be made.
        answer.blocked = (answer.blocked || refused) && !answer.candidates[0].delivered;
        Ok(())
    }
}
