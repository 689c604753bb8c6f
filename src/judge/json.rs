//! One pass over the JSON of an error: which members are looked at, and how tolerantly. [`details`](super::details) has what is
//! in the lists of an error, [`deep`](super::deep) what stands in members without a name of ours. Pure.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::deep::Deep;
use super::details::{DetailFold, LegacyFold};
use super::fields::{Fields, Print, Read};
use super::message;
use super::nest::Context;
use super::scalar::{Key, ScalarSeed, seed, tolerant};
use super::sentence;
use crate::google_rpc::Code;

impl<'a> Fields<'a> {
    /// Folds one JSON text. What was read of one that is not whole stays.
    pub(super) fn fold(&mut self, json: &'a str, context: &Context) -> Read {
        let mut de = serde_json::Deserializer::from_str(json);
        let read = match (Envelope { fields: self, context, level: 0 }).deserialize(&mut de) {
            Ok(()) => Read::Whole,
            Err(error) if error.is_eof() => Read::Cut,
            Err(_) => Read::Broken,
        };
        self.conclude(context);
        read
    }

    /// Once all is read: members come in any order, and the message outranks what stands in for it.
    pub(super) fn settle(&mut self, context: &Context) {
        self.take_stray();
        if self.status.is_none() {
            // Portkey writes it there.
            self.status = self.sort.take_if(|sort| Code::from_name(sort).is_some());
        }
        if self.message.is_empty() {
            let spare = || self.localized.take().or(self.spare.take());
            self.message = self.legacy.take().or_else(spare).unwrap_or_default();
        }
        if self.message.starts_with('<') {
            match &self.message {
                Cow::Borrowed(page) => self.message = Cow::Borrowed(message::title(page).unwrap_or(page)),
                Cow::Owned(page) => {
                    if let Some(title) = message::title(page).map(str::to_owned) {
                        self.message = Cow::Owned(title);
                    }
                }
            }
        }
        self.believe_prints(context);
    }

    /// Settles the outermost body, of which nothing more is to be read.
    pub(super) fn conclude(&mut self, context: &Context) {
        self.settle(context);
        // Under a success it takes a quota's name or one of Google's sentences to make an error of what names none.
        if context.http < 400 {
            let names_none = self.code.is_none() && self.status.is_none() && self.code_name.is_none();
            if self.violations.len() > 0 && names_none {
                // Nothing else violates quotas.
                self.has_error = true;
                self.status = Some(Cow::Borrowed(Code::ResourceExhausted.as_str()));
            }
            self.has_error |= sentence::is_known(&self.message);
        }
    }

    /// The number of the answer that a server has had itself, where nothing else is named and it says more than the status.
    pub(super) fn take_inner_code(&mut self, code: Option<u16>, context: &Context) {
        let is_other = code.is_some_and(|code| (400..600).contains(&code) && code != context.http);
        if is_other && self.code.is_none() && self.status.is_none() && self.code_name.is_none() {
            self.code = code;
        }
    }

    /// Takes what stands beside an `error` that names nothing: `{"error": "…", "code": "QUOTA_EXCEEDED"}`.
    fn take_beside(&mut self, bare: &mut Self, context: &Context) {
        if self.code.is_none() && self.code_name.is_none() {
            self.code = bare.code.filter(|_| !(400..500).contains(&context.http));
            self.code_name = bare.code_name.take();
            self.status = bare.status.take_if(|status| Code::from_name(status).is_some());
        }
    }

    /// Takes from a client's print in the message, or in a member without a name of ours, what the members themselves do
    /// not say.
    fn believe_prints(&mut self, context: &Context) {
        let complete = self.violations.len() > 0 && self.retry_info.is_some();
        if self.unwrapped || self.reason.is_some() || complete {
            return;
        }
        let canonical = self.status.as_deref().and_then(Code::from_name);
        let number = self.code.unwrap_or(context.http);
        let weak = match canonical {
            None | Some(Code::Unknown) => true,
            // What a server says of itself that hands another one's error on.
            Some(Code::Internal | Code::Unavailable | Code::DeadlineExceeded) => number >= 500,
            Some(_) => false,
        };
        let marked = memchr::memchr2(b'{', b'[', self.message.as_bytes()).is_some();
        let readable = !self.message.is_empty() && (weak || marked) && context.spend(self.message.len());
        let own = readable.then(|| {
            let plain = self.escaped.then(|| super::literal::unescape(&self.message));
            Print::read(plain.as_deref().unwrap_or(&self.message))
        });
        let (own, other) = (own.flatten(), self.print.take());
        // What says which quota it is says more than what says that there is one.
        let says_more = |other: &Print| {
            self.message.is_empty()
                || own.as_ref().is_none_or(|own| !own.fields.has_details() && other.fields.has_details())
        };
        let (print, is_other) = match (other.filter(|other| says_more(other)), own) {
            (Some(other), _) => (*other, true),
            (None, Some(own)) => (own, false),
            (None, None) => return,
        };
        // A number without a name beside it may be anything where the answer has one of its own.
        let named = print.fields.status.is_some() || print.is_sentence || !(400..500).contains(&number);
        let mut fields = print.fields;
        let (code, mut status) = (fields.code.take(), fields.status.take());
        // What came of the fault, and not the fault.
        if canonical.is_some() && status.as_deref() == Some(Code::Cancelled.as_str()) {
            status = None;
        }
        if weak && named && (code.is_some() || status.is_some()) {
            self.has_error = true;
            (self.code, self.status, self.code_name) = (code, status, None);
        }
        let longer = fields.message.len() > self.message.len() || print.is_sentence;
        let says_more = longer && !sentence::is_known(&self.message) || fields.has_details();
        if is_other && (self.message.is_empty() || weak && named && says_more) {
            (self.message, self.escaped) = (fields.message, false);
            self.has_error |= print.is_sentence;
        }
        if self.violations.len() == 0 {
            self.violations = fields.violations;
        }
        self.retry_info = self.retry_info.or(fields.retry_info);
        self.reason = fields.reason;
        self.domain = self.domain.take().or(fields.domain);
        if self.metadata.is_empty() {
            self.metadata = fields.metadata;
        }
    }
}

/// The outermost value: an object, or a list of objects.
pub(super) struct Envelope<'f, 'c, 'de> {
    pub(super) fields: &'f mut Fields<'de>,
    pub(super) context: &'c Context,
    /// How many strings have been opened around it.
    pub(super) level: u8,
}
seed!(@ Envelope<'_, '_, 'de>);

impl<'de> Visitor<'de> for Envelope<'_, '_, 'de> {
    type Value = ();
    tolerant!(visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64));

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if !self.context.open(self.fields, text, self.level) {
            self.context.note(self.fields, text);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { fields, context, level } = self;
        while seq.next_element_seed(Envelope { fields: &mut *fields, context, level })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { fields, context, level } = self;
        // Made when it is needed, which it is not for the usual envelope.
        let (mut bare, mut flat): (Option<Box<Fields<'de>>>, _) = (None, false);
        let (mut inner_code, mut is_interaction, mut is_detail) = (None, false, false);
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "error" => {
                    map.next_value_seed(ErrorFold { fields: &mut *fields, context, level })?;
                }
                "code" => {
                    let bare = bare.get_or_insert_default();
                    let value = map.next_value_seed(ScalarSeed)?;
                    let code = value.integer().and_then(|n| u16::try_from(n).ok());
                    flat |= code.is_some_and(|code| code >= 400);
                    if !bare.unwrapped {
                        bare.code = code.or(bare.code);
                        bare.code_name = value.text().filter(|_| code.is_none()).or(bare.code_name.take());
                    }
                }
                "status" => {
                    let bare = bare.get_or_insert_default();
                    let value = map.next_value_seed(ScalarSeed)?;
                    if !bare.unwrapped {
                        bare.set_status(value);
                    }
                }
                // gRPC's own, in what its clients print.
                "grpc_status" => {
                    let number = map.next_value_seed(ScalarSeed)?.integer();
                    let code = number.and_then(|n| u16::try_from(n).ok()).and_then(Code::from_number);
                    fields.status = fields.status.take().or(code.map(|code| Cow::Borrowed(code.as_str())));
                }
                "message" | "details" | "errors" => {
                    let bare = bare.get_or_insert_default();
                    ErrorFold { fields: bare, context, level }.member(&key, &mut map)?;
                }
                // A list of details alone, as a client prints it behind the message.
                "@type" => {
                    let name = map.next_value_seed(ScalarSeed)?.text();
                    is_detail = name.is_some_and(|name| name.contains("google.rpc."));
                }
                key @ ("reason" | "domain" | "metadata") if is_detail => {
                    DetailFold { fields: &mut *fields, context, level, nested: true }
                        .member(key, &mut map)?;
                }
                name if is_inner_code(name) => {
                    let value = map.next_value_seed(ScalarSeed)?;
                    let code = value.integer().and_then(|n| u16::try_from(n).ok());
                    inner_code = code.or(inner_code);
                    fields.sort = fields.sort.take().or(value.text().filter(|_| code.is_none()));
                }
                key => {
                    is_interaction |= key == "updated";
                    Deep { fields: &mut *fields, context, level, depth: 0 }.member(key, &mut map)?;
                }
            }
        }
        let Some(mut bare) = bare.map(|bare| *bare) else {
            fields.take_inner_code(inner_code, context);
            return Ok(());
        };
        // A failed interaction says in a list why it did, as google-genai 3.6.1 has it (read 2026-11).
        flat |= is_interaction && bare.status.as_deref() == Some("failed") && bare.take_listed();
        // A trimmed envelope: `{"code": 429, "message": …}`. A numeric code is what tells it from an answer
        // that happens to have a `status`, or a text with an error in it.
        if !fields.has_error && (flat || bare.is_flat_error()) {
            let outer = std::mem::replace(fields, Fields { has_error: true, ..bare });
            fields.merge_details(outer);
        } else if fields.has_error && !fields.unwrapped {
            // Spring's `{"status": 500, "error": "Internal Server Error", "message": "… 429 …"}`.
            if bare.unwrapped {
                fields.take_over(bare);
            } else if fields.code.is_none() && fields.status.is_none() {
                fields.take_inner_code(inner_code, context);
                fields.take_beside(&mut bare, context);
                context.note(fields, &bare.message);
                fields.print = fields.print.take().or(bare.print);
                fields.merge_details(Fields { print: None, ..bare });
            }
        } else if !fields.has_error {
            // Without a code it is still what there is.
            fields.spare = Some(bare.message).filter(|text| !text.is_empty()).or(fields.spare.take());
            fields.print = fields.print.take().or(bare.print);
        }
        fields.take_inner_code(inner_code, context);
        Ok(())
    }
}

/// The number of the answer that a server has had itself, or its name, by the names of the AI SDK, NestJS, n8n and relays.
fn is_inner_code(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "statusCode",
        "status_code",
        "httpCode",
        "http_code",
        "httpStatus",
        "http_status",
        "errorCode",
        "error_code",
        "errorType",
        "error_type",
        "upstreamStatus",
        "upstream_status",
        "responseStatus",
        "response_status",
    ];
    name.len() > 7 && NAMES.contains(&name)
}

/// The value of `error`.
pub(super) struct ErrorFold<'f, 'c, 'de> {
    pub(super) fields: &'f mut Fields<'de>,
    pub(super) context: &'c Context,
    pub(super) level: u8,
}
seed!(@ ErrorFold<'_, '_, 'de>);

impl<'de> Visitor<'de> for ErrorFold<'_, '_, 'de> {
    type Value = ();
    tolerant!(visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64));

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        // `{"error": "…"}`: another service's form, or Google's body as a string.
        if !self.context.open(self.fields, text, self.level) && !text.is_empty() && !self.fields.unwrapped {
            self.fields.has_error = true;
            self.fields.message = Cow::Owned(text.to_owned());
            // `{"error": "rate_limit_exceeded"}`, or the phrase of a status.
            let is_name = text.len() < 40
                && text.split(' ').all(|word| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
                && (!text.contains(' ') || text.split(' ').all(|word| word.starts_with(char::is_uppercase)));
            if is_name && self.fields.sort.is_none() {
                self.fields.sort = Some(Cow::Owned(text.to_owned()));
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { fields, context, level } = self;
        while seq.next_element_seed(ErrorFold { fields: &mut *fields, context, level })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            self.fields.has_error = true;
            self.member(&key, &mut map)?;
        }
        Ok(())
    }
}

impl<'de> ErrorFold<'_, '_, 'de> {
    /// Reads the value of an `error` that lies deeper, and takes it over if it is one.
    pub(super) fn inside<A: MapAccess<'de>>(
        fields: &mut Fields<'de>,
        context: &Context,
        level: u8,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let mut inner = Fields::default();
        map.next_value_seed(ErrorFold { fields: &mut inner, context, level })?;
        if inner.has_error {
            inner.settle(context);
            fields.take_over(inner);
        }
        Ok(())
    }

    pub(super) fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let (context, level) = (self.context, self.level);
        let fields = &mut *self.fields;
        match key {
            _ if fields.unwrapped => drop(map.next_value::<IgnoredAny>()?),
            "code" => {
                let value = map.next_value_seed(ScalarSeed)?;
                match value.integer() {
                    Some(n) => fields.code = u16::try_from(n).ok().or(fields.code),
                    None => fields.code_name = value.text(),
                }
            }
            "status" => {
                let value = map.next_value_seed(ScalarSeed)?;
                fields.set_status(value);
            }
            "message" => {
                // Raw, because almost every message of a 429 has escapes, and the rules read it as well with
                // them: nothing is copied until somebody asks for the message.
                let raw: &'de RawValue = map.next_value()?;
                let Some(text) = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
                    // A body that is not even a string.
                    let mut de = serde_json::Deserializer::from_str(raw.get());
                    let _ = Deep { fields, context, level, depth: 0 }.deserialize(&mut de);
                    return Ok(());
                };
                // A body has a brace, and almost no message of Google's own.
                let opened = memchr::memchr(b'{', text.as_bytes()).is_some()
                    && serde_json::from_str::<String>(raw.get())
                        .is_ok_and(|plain| context.open(fields, &plain, level));
                if !opened && fields.message.is_empty() {
                    // Some relays escape quotes as `\u0027` or slashes as `\/`, and then no phrase would match.
                    let (mut escaped, mut hidden) = (false, false);
                    for at in memchr::memchr_iter(b'\\', text.as_bytes()) {
                        escaped = true;
                        hidden |= matches!(text.as_bytes().get(at + 1), Some(b'u' | b'/'));
                    }
                    match hidden.then(|| serde_json::from_str(raw.get())) {
                        Some(Ok(plain)) => fields.message = Cow::Owned(plain),
                        _ => {
                            fields.escaped = escaped;
                            fields.message = Cow::Borrowed(text);
                        }
                    }
                }
            }
            name if is_inner_code(name) => {
                let value = map.next_value_seed(ScalarSeed)?;
                let code = value.integer().and_then(|n| u16::try_from(n).ok());
                fields.take_inner_code(code, context);
                fields.sort = fields.sort.take().or(value.text().filter(|_| code.is_none()));
            }
            "type" => {
                let sort = map.next_value_seed(ScalarSeed)?.text();
                fields.sort = fields.sort.take().or(sort);
            }
            "details" => map.next_value_seed(DetailFold { fields, context, level, nested: false })?,
            "errors" => map.next_value_seed(LegacyFold { fields, context, level })?,
            key => Deep { fields, context, level, depth: 0 }.member(key, map)?,
        }
        Ok(())
    }
}
