//! Folds a whole successful body into what it holds. The rules are those of the stream scanner
//! ([`scan::Answer`](crate::scan::Answer)); this is their reader for a body that is there in one piece. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::scalar::{Key, Scalar, ScalarSeed, seed, skip_list, tolerant};
use crate::scan::{Answer, Finish, Member, MessageMember, PartMember, Sort};

/// Folds the members of an answer, at the level of its outermost object.
pub(super) struct AnswerFold<'f, 'de> {
    pub(super) answer: &'f mut Answer,
    pub(super) model_version: &'f mut Option<Cow<'de, str>>,
}

impl<'de> AnswerFold<'_, 'de> {
    pub(super) fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let answer = &mut *self.answer;
        match answer.member(key.as_bytes()) {
            Member::Candidates => map.next_value_seed(Candidates { answer, next: &mut 0 }),
            Member::PromptFeedback => map.next_value_seed(Feedback { answer }),
            Member::Predictions => map.next_value_seed(Predictions { answer }),
            Member::ModelVersion => {
                let version = map.next_value_seed(ScalarSeed)?.text();
                *self.model_version = version.or(self.model_version.take());
                Ok(())
            }
            Member::Response => {
                map.next_value_seed(Wrapped { answer, model_version: &mut *self.model_version })
            }
            Member::VideoResponse => {
                map.next_value_seed(Video { answer, model_version: &mut *self.model_version })
            }
            Member::Refused => {
                let refused = map.next_value_seed(ScalarSeed)?.integer().is_some_and(|n| n > 0);
                answer.prediction(refused, false);
                Ok(())
            }
            Member::RefusedReasons => map.next_value_seed(Reasons { answer }),
            Member::Interaction => map.next_value_seed(Interaction { answer }),
            Member::Output => map.next_value_seed(Output { answer, visible: &mut false, in_content: false }),
            Member::UsageMetadata | Member::Other => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

/// Code Assist's `response`.
struct Wrapped<'f, 'de> {
    answer: &'f mut Answer,
    model_version: &'f mut Option<Cow<'de, str>>,
}
seed!(Wrapped);

impl<'de> Visitor<'de> for Wrapped<'_, 'de> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        skip_list(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { answer, model_version } = self;
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                // Once is enough: a body cannot make the fold descend for ever.
                "response" => drop(map.next_value::<IgnoredAny>()?),
                key => AnswerFold { answer: &mut *answer, model_version: &mut *model_version }
                    .member(key, &mut map)?,
            }
        }
        Ok(())
    }
}

/// An operation's `generateVideoResponse`.
struct Video<'f, 'de> {
    answer: &'f mut Answer,
    model_version: &'f mut Option<Cow<'de, str>>,
}
seed!(Video);

impl<'de> Visitor<'de> for Video<'_, 'de> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        skip_list(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { answer, model_version } = self;
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "response" | "generateVideoResponse" => {
                    map.next_value::<IgnoredAny>()?;
                }
                key => AnswerFold { answer: &mut *answer, model_version: &mut *model_version }
                    .member(key, &mut map)?,
            }
        }
        Ok(())
    }
}

/// `raiMediaFilteredReasons`: each is a refusal.
struct Reasons<'f> {
    answer: &'f mut Answer,
}
seed!(Reasons<'_>);

impl<'de> Visitor<'de> for Reasons<'_> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {
            self.answer.prediction(true, false);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// The `interaction` of an event.
struct Interaction<'f> {
    answer: &'f mut Answer,
}
seed!(Interaction<'_>);

impl<'de> Visitor<'de> for Interaction<'_> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        skip_list(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let answer = self.answer;
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "status" => {
                    let status = map.next_value_seed(ScalarSeed)?.text();
                    answer.status(status.unwrap_or_default().as_bytes());
                }
                "steps" | "outputs" => {
                    map.next_value_seed(Output {
                        answer: &mut *answer,
                        visible: &mut false,
                        in_content: false,
                    })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A step, an output or a delta of an interaction, and each content in one.
struct Output<'f> {
    answer: &'f mut Answer,
    visible: &'f mut bool,
    in_content: bool,
}
seed!(Output<'_>);

impl<'de> Visitor<'de> for Output<'_> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { answer, visible, in_content } = self;
        while seq
            .next_element_seed(Output { answer: &mut *answer, visible: &mut *visible, in_content })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { answer, visible, in_content } = self;
        let (mut sort, mut text) = (Sort::None, false);
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "type" => {
                    let name = map.next_value_seed(ScalarSeed)?.text();
                    sort = Sort::of(name.unwrap_or_default().as_bytes());
                }
                "text" => text |= map.next_value_seed(ScalarSeed)?.text().is_some(),
                "content" if !in_content => {
                    map.next_value_seed(Output {
                        answer: &mut *answer,
                        visible: &mut text,
                        in_content: true,
                    })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if in_content {
            *visible |= sort.shows(text);
        } else {
            answer.output(sort.shows(text));
        }
        Ok(())
    }
}

struct Candidates<'f> {
    answer: &'f mut Answer,
    next: &'f mut usize,
}
seed!(Candidates<'_>);

impl<'de> Visitor<'de> for Candidates<'_> {
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
                "finishReason" | "finish_reason" => {
                    finish = Finish::of(&map.next_value_seed(ScalarSeed)?.text().unwrap_or_default());
                }
                "content" => map.next_value_seed(Content { delivered: &mut delivered, in_parts: false })?,
                "delta" | "message" => map.next_value_seed(Message { delivered: &mut delivered })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        self.answer.candidate(index, finish, delivered);
        Ok(())
    }
}

/// `content`, and each of its parts: is there anything in it for the user?
struct Content<'f> {
    delivered: &'f mut bool,
    in_parts: bool,
}
seed!(Content<'_>);

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
            match PartMember::of(key.as_bytes()) {
                PartMember::Parts if !self.in_parts => {
                    map.next_value_seed(Content { delivered: &mut *self.delivered, in_parts: true })?;
                }
                PartMember::Text => visible |= map.next_value_seed(ScalarSeed)?.text().is_some(),
                PartMember::Thought => {
                    thought = matches!(map.next_value_seed(ScalarSeed)?, Scalar::Bool(true));
                }
                PartMember::Visible => {
                    visible = true;
                    map.next_value::<IgnoredAny>()?;
                }
                PartMember::Parts | PartMember::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        *self.delivered |= visible && !thought;
        Ok(())
    }
}

/// A choice's `delta` or `message`.
struct Message<'f> {
    delivered: &'f mut bool,
}
seed!(Message<'_>);

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        skip_list(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            match MessageMember::of(key.as_bytes()) {
                MessageMember::Text => *self.delivered |= map.next_value_seed(ScalarSeed)?.text().is_some(),
                MessageMember::ToolCalls => {
                    map.next_value_seed(ToolCalls { delivered: &mut *self.delivered })?;
                }
                MessageMember::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct ToolCalls<'f> {
    delivered: &'f mut bool,
}
seed!(ToolCalls<'_>);

impl<'de> Visitor<'de> for ToolCalls<'_> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(ToolCalls { delivered: &mut *self.delivered })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        *self.delivered = true;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

struct Feedback<'f> {
    answer: &'f mut Answer,
}
seed!(Feedback<'_>);

impl<'de> Visitor<'de> for Feedback<'_> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        skip_list(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            let value = map.next_value_seed(ScalarSeed)?;
            if matches!(key.as_ref(), "blockReason" | "blockReasonMessage") {
                self.answer.block(&value.text().unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// Imagen's `predictions`: only a refusal and an image are looked for.
struct Predictions<'f> {
    answer: &'f mut Answer,
}
seed!(Predictions<'_>);

impl<'de> Visitor<'de> for Predictions<'_> {
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
                "bytesBase64Encoded" | "gcsUri" | "image" | "video" | "uri" => {
                    delivered = true;
                    map.next_value::<IgnoredAny>()?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        self.answer.prediction(refused, delivered);
        Ok(())
    }
}
