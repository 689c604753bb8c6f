//! From facts to findings. Pure, but for the day on which a model retires, which is handed in.

use std::time::SystemTime;

use super::facts::{Facts, Flag};
use super::nearest::nearest;
use super::rule::{Finding, Modes, Rule};
use crate::catalogue::{Catalogue, Model, Parameters, Range};
use crate::request::{Method, Surface, Target};

/// More bytes of text than one token can be. The longest token of Gemma's published vocabularies, of 256,000 and 262,144
/// entries, whose tokenizer python-genai uses for Gemini, has 48 bytes (read 2026-11); a third is put on top.
pub(super) const BYTES_PER_TOKEN: u64 = 64;

/// The most texts of one `:batchEmbedContents`
/// ([embeddings](https://ai.google.dev/gemini-api/docs/embeddings), read 2026-11).
const MOST_TEXTS: u32 = 100;

/// What of a request is looked at, beside its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) surface: Surface,
    pub(super) method: Method,
    /// As the path, or the caller's hint, names it.
    pub(super) model: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    /// The body's length, as far as it is known beforehand.
    pub(super) length: Option<u64>,
}

impl<'a> Asked<'a> {
    pub(super) fn of<B>(target: &'a Target<'_>, request: &'a http::Request<B>, length: Option<u64>) -> Self {
        let (path, query) = (request.uri().path(), request.uri().query());
        Self {
            surface: target.surface(),
            method: target.method(),
            model: target.model(),
            path,
            query,
            length,
        }
    }
}

/// What the rules are, and what they are held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Law<'a> {
    pub(super) modes: &'a Modes,
    pub(super) catalogue: &'a Catalogue,
    pub(super) max_inline_bytes: u64,
}

impl Law<'_> {
    /// What the head of a request breaks.
    pub(super) fn head(&self, asked: &Asked<'_>, now: impl Fn() -> SystemTime, out: &mut Vec<Finding>) {
        if asked.surface == Surface::Unknown {
            return;
        }
        if self.modes.is_on(Rule::KeyInUrl) && asked.query.is_some_and(has_key) {
            out.push(Finding::new(
                Rule::KeyInUrl,
                "key",
                "The key stands in the URL, which is logged on the way; send it in the header x-goog-api-key.",
            ));
        }
        if let Some(length) = asked.length {
            self.length(asked.surface, length, out);
        }
        if self.modes.is_on(Rule::ApiVersion) && asked.method == Method::CachedContents && is_v1(asked) {
            out.push(version("cached_contents", "Context caching"));
        }
        if let Some(model) = asked.model {
            self.model(asked, model, now, out);
        }
    }

    /// What the body of a request breaks, as far as it was read. The model that it names counts where the path names none.
    pub(super) fn body(
        &self,
        asked: &Asked<'_>,
        facts: &Facts,
        now: impl Fn() -> SystemTime,
        out: &mut Vec<Finding>,
    ) {
        let named = facts.model.as_ref().map(|name| name.as_str()).filter(|_| asked.model.is_none());
        if let Some(model) = named {
            self.model(asked, model, &now, out);
        }
        let name = asked.model.or(named);
        let model = name.and_then(|name| self.known(name));
        if self.modes.is_on(Rule::KeyInBody) && facts.key {
            let message = "A key stands in the body, which models, logs and caches may repeat; take it out.";
            out.push(Finding::new(Rule::KeyInBody, "contents", message));
        }
        let batch = asked.method == Method::BatchEmbedContents && facts.texts > MOST_TEXTS;
        if batch && self.modes.is_on(Rule::BatchSize) {
            let texts = facts.texts;
            let message =
                format!("The batch has {texts} texts and at most {MOST_TEXTS} are taken; split it.");
            out.push(Finding::new(Rule::BatchSize, "requests", message));
        }
        if self.modes.is_on(Rule::ApiVersion) && is_v1(asked) {
            let features = Flag::ALL.into_iter().filter(|flag| facts.has(*flag));
            out.extend(features.map(|flag| {
                let (field, what) = match flag {
                    Flag::CachedContent => ("cached_content", "Context caching"),
                    Flag::ServiceTier => ("service_tier", "The service tier"),
                    Flag::SpeechConfig => ("generation_config.speech_config", "Audio output"),
                    Flag::ComputerUse => ("tools.computer_use", "The computer use tool"),
                    Flag::McpServers => ("tools.mcp_servers", "The MCP servers tool"),
                };
                version(field, what)
            }));
        }
        // The ranges are those of Gemini's models; nothing is known of others.
        if name.is_some_and(|name| bare(name).starts_with("gemini-")) {
            // What answers for a model that has retired is another one.
            let own = model.filter(|model| model.retires().is_none() || !model.is_retired(now()));
            self.parameters(asked, facts, own, out);
        }
        if let Some(most) = model.and_then(Model::input_tokens) {
            let least = facts.text_bytes / BYTES_PER_TOKEN;
            self.context(asked, least, most, false, out);
        }
    }

    /// What a count of the prompt's tokens breaks.
    pub(super) fn counted(
        &self,
        asked: &Asked<'_>,
        model: Option<&str>,
        tokens: u64,
        out: &mut Vec<Finding>,
    ) {
        if let Some(most) = model.and_then(|name| self.known(name)).and_then(Model::input_tokens) {
            self.context(asked, tokens, most, true, out);
        }
    }

    /// What the length of a body breaks.
    pub(super) fn length(&self, surface: Surface, length: u64, out: &mut Vec<Finding>) {
        // Vertex AI has other limits, for each model.
        let inline = matches!(surface, Surface::GeminiApi | Surface::Interactions | Surface::OpenAi);
        if inline && self.modes.is_on(Rule::InlineSize) && length > self.max_inline_bytes {
            let most = self.max_inline_bytes;
            out.push(Finding::new(
                Rule::InlineSize,
                "contents",
                format!(
                    "The request has {length} bytes and at most {most} are taken inline; upload its media by the Files API."
                ),
            ));
        }
    }

    /// The model of this name; a tuned one, or an endpoint, is none of the catalogue's.
    fn known(&self, name: &str) -> Option<&Model> {
        let name = bare(name);
        if name.contains('/') { None } else { self.catalogue.model(name) }
    }

    fn context(&self, asked: &Asked<'_>, tokens: u64, most: u64, counted: bool, out: &mut Vec<Finding>) {
        // An embedding cuts its text silently.
        let generates = matches!(asked.method, Method::GenerateContent | Method::StreamGenerateContent);
        if generates && self.modes.is_on(Rule::ContextSize) && tokens > most {
            let least = if counted { "" } else { "at least " };
            let message =
                format!("The prompt has {least}{tokens} tokens and the model takes {most}; shorten it.");
            out.push(Finding::new(Rule::ContextSize, "contents", message));
        }
    }

    fn model(&self, asked: &Asked<'_>, name: &str, now: impl Fn() -> SystemTime, out: &mut Vec<Finding>) {
        let works = asked.method.is_generation()
            || asked.method.is_embedding()
            || matches!(asked.method, Method::CountTokens | Method::BatchGenerateContent);
        if !works {
            return;
        }
        if let Some(model) = self.known(name) {
            let day = model.retires().filter(|_| self.modes.is_on(Rule::RetiredModel));
            if let Some(day) = day.filter(|_| model.is_retired(now())) {
                let name = model.name();
                let message = match model.successor() {
                    Some(next) => format!("The model {name} has retired on {day}; use {next}."),
                    None => format!("The model {name} has retired on {day}; use another one."),
                };
                out.push(Finding::new(Rule::RetiredModel, "model", message));
            }
            return;
        }
        let name = bare(name);
        // A tuned model, an endpoint, a model of one's own.
        if !self.modes.is_on(Rule::UnknownModel) || name.contains('/') || name.is_empty() {
            return;
        }
        let names = || self.catalogue.models().map(Model::name);
        let variant = |known: &str| name.strip_prefix(known).is_some_and(|rest| rest.starts_with(['-', '@']));
        if name.ends_with("-latest") || names().any(variant) {
            return;
        }
        let lasting = self.catalogue.models().filter(|model| model.retires().is_none()).map(Model::name);
        let near = nearest(name, lasting);
        let read = self.catalogue.read_on();
        match near {
            Some((near, distance)) if name.starts_with("gemini-") || distance <= 2 => {
                let message =
                    format!("There is no model {name} in the catalogue of {read}; did you mean {near}?");
                out.push(Finding::new(Rule::UnknownModel, "model", message));
            }
            None if name.starts_with("gemini-") => {
                let message = format!("There is no model {name} in the catalogue of {read}.");
                out.push(Finding::new(Rule::UnknownModel, "model", message));
            }
            _ => {}
        }
    }

    fn parameters(&self, asked: &Asked<'_>, facts: &Facts, model: Option<&Model>, out: &mut Vec<Finding>) {
        let known: &Parameters = model.map_or(self.catalogue.parameters(), Model::parameters);
        let open = asked.surface == Surface::OpenAi;
        let pick = |own: Option<f64>, openai: Option<f64>| if open { openai } else { own };
        let candidates = pick(facts.candidates, facts.open_candidates);
        let temperature = pick(facts.temperature, facts.open_temperature);
        let top_p = pick(facts.top_p, facts.open_top_p);
        let output = pick(facts.output, facts.open_output);
        let name = |own: &'static str, openai: &'static str| if open { openai } else { own };

        let field = name("generation_config.candidate_count", "n");
        self.range(Rule::CandidateCount, field, candidates, known.candidate_count(), out);
        let field = name("generation_config.temperature", "temperature");
        let before = out.len();
        self.range(Rule::Temperature, field, temperature, known.temperature(), out);
        let low = temperature.zip(known.advised_temperature()).filter(|(given, advised)| given < advised);
        let is_first = self.modes.is_on(Rule::LowTemperature) && out.len() == before;
        if let Some((given, advised)) = low.filter(|_| is_first) {
            let message = format!(
                "{given} is below the {advised:?} that this model is meant for: answers may loop or get worse."
            );
            out.push(Finding::new(Rule::LowTemperature, field, message));
        }
        self.range(Rule::TopP, name("generation_config.top_p", "top_p"), top_p, known.top_p(), out);
        self.range(Rule::TopK, "generation_config.top_k", facts.top_k.filter(|_| !open), known.top_k(), out);
        if let Some(output) = output.filter(|_| self.modes.is_on(Rule::OutputTokens)) {
            let most = model.and_then(Model::output_tokens);
            let field = name("generation_config.max_output_tokens", "max_tokens");
            // `NaN` is below nothing, and no number of tokens.
            let fits = output >= 1.0 && most.is_none_or(|most| output <= most as f64);
            if !fits {
                let message = match most {
                    Some(most) => format!("It must be from 1 to {most} for this model, and is {output}."),
                    None => format!("It must be 1 or more, and is {output}."),
                };
                out.push(Finding::new(Rule::OutputTokens, field, message));
            }
        }
        if self.modes.is_on(Rule::Thinking) && !open {
            out.extend(thinking(facts, known));
        }
    }

    fn range(
        &self,
        rule: Rule,
        field: &'static str,
        given: Option<f64>,
        range: Option<Range>,
        out: &mut Vec<Finding>,
    ) {
        if let (Some(given), Some(range), true) = (given, range, self.modes.is_on(rule)) {
            if !range.contains(given) {
                let (from, to) = (range.from(), range.to());
                let message = if to.is_finite() {
                    format!("It must be from {from} to {to}, and is {given}.")
                } else {
                    format!("It must be {from} or more, and is {given}.")
                };
                out.push(Finding::new(rule, field, message));
            }
        }
    }
}

/// What is wrong with the settings for thinking.
fn thinking(facts: &Facts, known: &Parameters) -> Option<Finding> {
    const BUDGET: &str = "generation_config.thinking_config.thinking_budget";
    const LEVEL: &str = "generation_config.thinking_config.thinking_level";
    let level = facts.level.as_ref().map(|level| level.as_str());
    let nothing = |level: &str| level.is_empty() || level.eq_ignore_ascii_case("thinking_level_unspecified");
    let level = level.filter(|level| !nothing(level));
    if facts.budget.is_some() && level.is_some() {
        let message = "A budget and a level for thinking exclude each other; leave the budget out for models of Gemini 3.";
        return Some(Finding::new(Rule::Thinking, LEVEL, message));
    }
    if let (Some(given), Some(budget)) = (facts.budget, known.thinking_budget()) {
        if !budget.contains(given) {
            let (from, to) = (budget.range().from(), budget.range().to());
            let off = if budget.can_be_off() && from > 0.0 { ", 0 for none" } else { "" };
            let dynamic = if budget.can_be_dynamic() { ", -1 for dynamic" } else { "" };
            let message = format!("It must be from {from} to {to}{off}{dynamic}, and is {given}.");
            return Some(Finding::new(Rule::Thinking, BUDGET, message));
        }
    }
    let (level, levels) = (level?, known.thinking_levels()?);
    if levels.iter().any(|known| known.eq_ignore_ascii_case(level)) {
        return None;
    }
    let message = match levels {
        [] => "This model has no levels of thinking; use thinking_budget.".to_owned(),
        levels => format!("It must be one of {}.", levels.join(", ")),
    };
    Some(Finding::new(Rule::Thinking, LEVEL, message))
}

/// A name without what may stand before it.
fn bare(name: &str) -> &str {
    const PREFIXES: [&str; 4] = ["publishers/google/models/", "models/google/", "models/", "google/"];
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

fn version(field: &'static str, what: &str) -> Finding {
    Finding::new(Rule::ApiVersion, field, format!("{what} is not in v1; use v1beta."))
}

/// Whether the request goes to `v1` of the Gemini API, which has less than `v1beta`
/// ([API versions](https://ai.google.dev/gemini-api/docs/api-versions), read 2026-11).
fn is_v1(asked: &Asked<'_>) -> bool {
    if !matches!(asked.surface, Surface::GeminiApi | Surface::Interactions) {
        return false;
    }
    let resource = |segment: &str| {
        let name = segment.split(':').next().unwrap_or_default();
        matches!(name, "models" | "tunedModels" | "interactions" | "cachedContents")
    };
    let mut last = "";
    for segment in asked.path.split('/') {
        if resource(segment) && last.starts_with('v') {
            return last == "v1";
        }
        last = segment;
    }
    false
}

/// Whether a query holds a key.
fn has_key(query: &str) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        !value.is_empty() && matches!(name, "key" | "$key" | "%24key" | "access_token")
    })
}
