//! Which models stand in for which, and which call asks for one of them. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderValue, Request};

use super::body::RewriteBody;
use super::json;
use crate::error::ConfigError;
use crate::target::{Method, ModelHint, Surface, Target};

/// The one that is asked for included.
const MAX_MODELS: usize = 16;
/// Far longer than any model's name.
const MAX_NAME: usize = 256;

/// A model of a chain, in every form in which it is needed.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: Arc<str>,
    pub(super) hint: ModelHint,
    pub(super) header: HeaderValue,
    /// It takes longer inputs than those before it.
    pub(super) larger: bool,
}

/// A model and those that stand in for it, in order.
///
/// Invariant: two models at least, no two of one name, and no name that needs an escape in a path, in JSON or in
/// a header.
#[derive(Debug)]
pub(super) struct Chain(Box<[Model]>);

impl Chain {
    fn new(names: &[Arc<str>], larger: &[Box<str>]) -> Result<Self, ConfigError> {
        let error = |rule| Err(ConfigError::new("chain", rule));
        if !(2..=MAX_MODELS).contains(&names.len()) {
            return error("must name 1 to 15 models that stand in for the first");
        }
        for (n, name) in names.iter().enumerate() {
            if !is_plain(name) {
                return error(
                    "must hold names without `models/`: 1 to 256 letters, digits, `-`, `.`, `_` and `@`",
                );
            }
            if names[..n].contains(name) {
                return error("must not name a model twice");
            }
        }
        let model = |name: &Arc<str>| Model {
            name: Arc::clone(name),
            hint: ModelHint::new(Arc::clone(name)),
            header: HeaderValue::from_str(name).expect("it is plain ASCII"),
            larger: larger.iter().any(|larger| **larger == **name),
        };
        Ok(Self(names.iter().map(model).collect()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn model(&self, at: usize) -> &Model {
        &self.0[at]
    }
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".."
}

/// All chains of a layer, by the model that is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Chains(HashMap<Arc<str>, Arc<Chain>>);

impl Chains {
    pub(super) fn new(all: &[Vec<Arc<str>>], larger: &[Box<str>]) -> Result<Self, ConfigError> {
        let mut chains = HashMap::with_capacity(all.len());
        for names in all {
            let chain = Arc::new(Chain::new(names, larger)?);
            if chains.insert(Arc::clone(&names[0]), chain).is_some() {
                return Err(ConfigError::new("chain", "must be given once for each model"));
            }
        }
        let known = |name: &str| all.iter().flatten().any(|model| **model == *name);
        if !larger.iter().all(|name| known(name)) {
            return Err(ConfigError::new("larger_context", "must be a model of a chain"));
        }
        Ok(Self(chains))
    }

    /// What there is for this request; `None` where it goes to no model of a chain.
    #[inline]
    pub(super) fn plan<B: RewriteBody>(&self, request: &Request<B>) -> Option<Plan> {
        if self.0.is_empty() || request.method() != http::Method::POST {
            return None;
        }
        let target = Target::from_uri(request.uri());
        match place(&target)? {
            Place::Path => {
                let chain = Arc::clone(self.0.get(target.model()?)?);
                Some(Plan { place: Place::Path, chain: Some(chain) })
            }
            Place::Body => {
                let chain = match Target::of(request).model() {
                    Some(hinted) => Some(Arc::clone(self.0.get(hinted)?)),
                    None => match request.body().whole() {
                        Some(bytes) => Some(self.named_by(&bytes)?),
                        None => None,
                    },
                };
                Some(Plan { place: Place::Body, chain })
            }
        }
    }

    /// The chain of the model that a body names.
    pub(super) fn named_by(&self, body: &[u8]) -> Option<Arc<Chain>> {
        self.0.get(&*json::read(body)?.model).map(Arc::clone)
    }
}

/// What may be done for one request.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) place: Place,
    /// `None` where the body names the model and is not at hand yet.
    pub(super) chain: Option<Arc<Chain>>,
}

/// Where a request names its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Body,
}

/// Only calls whose answer another model can give as well: not embeddings, whose vectors would not compare, not
/// counts of tokens, and nothing that is enqueued.
fn place(target: &Target<'_>) -> Option<Place> {
    let generates = matches!(target.method(), Method::GenerateContent | Method::StreamGenerateContent);
    match (target.surface(), target.method()) {
        (Surface::GeminiApi | Surface::Vertex, _) if generates => {
            target.publisher().is_none_or(|publisher| publisher == "google").then_some(Place::Path)
        }
        (Surface::CodeAssist, _) if generates => Some(Place::Body),
        (Surface::OpenAi, Method::ChatCompletions) | (Surface::Interactions, Method::InteractionsCreate) => {
            // A chat at an endpoint of one's own is answered by what runs there, whatever the body says.
            target.model().is_none().then_some(Place::Body)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chains(all: &[&[&str]], larger: &[&str]) -> Result<Chains, ConfigError> {
        let all: Vec<Vec<Arc<str>>> =
            all.iter().map(|names| names.iter().map(|name| Arc::from(*name)).collect()).collect();
        let larger: Vec<Box<str>> = larger.iter().map(|name| Box::from(*name)).collect();
        Chains::new(&all, &larger)
    }

    #[test]
    fn bad_chains_name_the_field_and_the_rule() {
        let long = "x".repeat(257);
        let many: Vec<String> = (0..17).map(|n| format!("m{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (all, larger, field, rule) in [
            (&[&["a"][..]][..], &[][..], "chain", "stand in"),
            (&[&many[..]], &[], "chain", "stand in"),
            (&[&["a", ""]], &[], "chain", "names"),
            (&[&["models/a", "b"]], &[], "chain", "names"),
            (&[&["a", "b c"]], &[], "chain", "names"),
            (&[&["a", ".."]], &[], "chain", "names"),
            (&[&["a", "b\""]], &[], "chain", "names"),
            (&[&["a", &long]], &[], "chain", "names"),
            (&[&["a", "b", "b"]], &[], "chain", "twice"),
            (&[&["a", "a"]], &[], "chain", "twice"),
            (&[&["a", "b"], &["a", "c"]], &[], "chain", "once"),
            (&[&["a", "b"]], &["c"], "larger_context", "model of a chain"),
        ] {
            let error = chains(all, larger).expect_err(rule);
            assert_eq!(error.field(), field);
            assert!(error.rule().contains(rule), "{error}");
        }
        assert!(chains(&[&["a", "b"], &["b", "a"]], &["b"]).is_ok());
        assert!(chains(&[&many[..16]], &[]).is_ok());
    }

    #[test]
    fn only_a_post_is_planned_for() {
        let chains = chains(&[&["a", "b"]], &[]).expect("valid");
        let is_planned = |method: http::Method| {
            let request = Request::builder().method(method).uri("/v1beta/models/a:generateContent");
            chains
                .plan(&request.body(http_body_util::Full::<bytes::Bytes>::default()).expect("valid"))
                .is_some()
        };
        assert!(is_planned(http::Method::POST) && !is_planned(http::Method::GET));
    }

    #[test]
    fn calls_that_another_model_can_answer() {
        for (path, expected) in [
            ("/v1beta/models/a:generateContent", Some(Place::Path)),
            ("/v1beta/models/a:streamGenerateContent?alt=sse", Some(Place::Path)),
            ("/v1/projects/p/locations/l/publishers/google/models/a:generateContent", Some(Place::Path)),
            ("/v1beta/openai/chat/completions", Some(Place::Body)),
            ("/v1beta/interactions", Some(Place::Body)),
            ("/v1internal:generateContent", Some(Place::Body)),
            ("/v1internal:countTokens", None),
            ("/v1/projects/p/locations/l/publishers/anthropic/models/a:generateContent", None),
            ("/v1/projects/p/locations/l/endpoints/5/chat/completions", None),
            ("/v1beta/models/a:embedContent", None),
            ("/v1beta/models/a:countTokens", None),
            ("/v1beta/models/a:batchGenerateContent", None),
            ("/v1beta/models/a:predict", None),
            ("/v1beta/openai/embeddings", None),
            ("/v1beta/files", None),
            ("/", None),
        ] {
            assert_eq!(place(&Target::from_path(path)), expected, "{path}");
        }
    }
}
