//! Which models stand in for which, and which call asks for one of them. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use http::{HeaderValue, Request};

use super::body::RewriteBody;
use super::json;
use crate::error::ConfigError;
use crate::request::{Method, ModelHint, Surface, Target};
use crate::tier::ServiceTier;

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

/// A service tier and those that stand in for it, in order. Invariant: two at least, no two the same, all of them known.
type Ladder = Arc<[ServiceTier]>;

/// All ladders of a layer, no two for the same tier.
#[derive(Clone, Debug, Default)]
pub(super) struct Ladders(Vec<Ladder>);

impl Ladders {
    pub(super) fn new(all: &[Vec<ServiceTier>]) -> Result<Self, ConfigError> {
        let error = |rule| Err(ConfigError::new("tier_ladder", rule));
        for (n, tiers) in all.iter().enumerate() {
            let twice = |(at, tier): (usize, &ServiceTier)| tiers[..at].contains(tier);
            if tiers.len() < 2 {
                return error("must name a tier that stands in");
            }
            if tiers.contains(&ServiceTier::Other) {
                return error("must hold flex, standard and priority alone");
            }
            if tiers.iter().enumerate().any(twice) {
                return error("must not name a tier twice");
            }
            if all[..n].iter().any(|other| other[0] == tiers[0]) {
                return error("must be given once for each tier");
            }
        }
        Ok(Self(all.iter().map(|tiers| tiers[..].into()).collect()))
    }

    /// The tiers that stand in, by the tier that is asked.
    pub(super) fn tiers(&self) -> BTreeMap<ServiceTier, Vec<ServiceTier>> {
        self.0.iter().map(|tiers| (tiers[0], tiers[1..].to_vec())).collect()
    }

    fn of<B>(&self, request: &Request<B>) -> Option<Ladder> {
        if self.0.is_empty() {
            return None;
        }
        let asked = ServiceTier::of(request).unwrap_or_default();
        self.0.iter().find(|tiers| tiers[0] == asked).map(Arc::clone)
    }
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

    /// The models that stand in, by the model that is asked.
    pub(super) fn names(&self) -> BTreeMap<String, Vec<String>> {
        let others = |chain: &Chain| chain.0[1..].iter().map(|model| model.name.to_string()).collect();
        self.0.iter().map(|(model, chain)| (model.to_string(), others(chain))).collect()
    }

    /// Those that take longer inputs, by name.
    pub(super) fn larger(&self) -> Vec<String> {
        let larger = self.0.values().flat_map(|chain| chain.0.iter()).filter(|model| model.larger);
        let names: BTreeSet<&str> = larger.map(|model| &*model.name).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// What there is for this request; `None` where it goes to no model of a chain, and has no ladder.
    #[inline]
    pub(super) fn plan<B: RewriteBody>(&self, ladders: &Ladders, request: &Request<B>) -> Option<Plan> {
        if self.0.is_empty() && ladders.0.is_empty() || request.method() != http::Method::POST {
            return None;
        }
        let target = Target::from_uri(request.uri());
        let place = place(&target)?;
        let ladder = ladders.of(request);
        let (chain, unread) = match place {
            Place::Path => (target.model().and_then(|model| self.0.get(model)).map(Arc::clone), false),
            Place::Body if self.0.is_empty() => (None, false),
            Place::Body => match Target::of(request).model() {
                Some(hinted) => (self.0.get(hinted).map(Arc::clone), false),
                None => match request.body().whole() {
                    Some(bytes) => (self.named_by(&bytes), false),
                    None => (None, true),
                },
            },
        };
        if chain.is_none() && ladder.is_none() && !unread {
            return None;
        }
        let asked = match (&chain, &ladder) {
            (None, Some(_)) => Target::of(request).model().map(Arc::from),
            _ => None,
        };
        Some(Plan { place, unread, chain, ladder, asked })
    }

    /// The chain of the model that a body names.
    pub(super) fn named_by(&self, body: &[u8]) -> Option<Arc<Chain>> {
        self.0.get(&*json::read(body)?.model).map(Arc::clone)
    }
}

/// What may be done for one request: the tiers of its ladder with the model that was asked, and then the other models of its
/// chain in the tier that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) place: Place,
    /// The body names the model and is not at hand yet.
    pub(super) unread: bool,
    pub(super) chain: Option<Arc<Chain>>,
    ladder: Option<Ladder>,
    /// The model that was asked, where there is no chain to name it.
    asked: Option<Arc<str>>,
}

/// One thing that may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The model's place in the chain.
    pub(super) model: usize,
    /// Where it is not the one that was asked for.
    pub(super) tier: Option<ServiceTier>,
}

impl Plan {
    fn tiers(&self) -> usize {
        self.ladder.as_ref().map_or(1, |tiers| tiers.len())
    }

    /// How many steps there are, the request as it came included.
    pub(super) fn len(&self) -> usize {
        self.tiers() - 1 + self.chain.as_ref().map_or(1, |chain| chain.len())
    }

    /// Whether there is nothing but the request as it came.
    pub(super) fn is_over(&self) -> bool {
        self.chain.is_none() && self.ladder.is_none()
    }

    pub(super) fn has_ladder(&self) -> bool {
        self.ladder.is_some()
    }

    pub(super) fn step(&self, at: usize) -> Step {
        match &self.ladder {
            Some(tiers) if at < tiers.len() => Step { model: 0, tier: (at > 0).then(|| tiers[at]) },
            _ => Step { model: at + 1 - self.tiers(), tier: None },
        }
    }

    /// The tier of this step; `None` without a ladder, where it is the one that was asked for whatever it is.
    pub(super) fn tier(&self, step: Step) -> Option<ServiceTier> {
        step.tier.or_else(|| self.ladder.as_ref().map(|tiers| tiers[0]))
    }

    /// The model of this step, where it is known.
    pub(super) fn model(&self, step: Step) -> Option<&Arc<str>> {
        match &self.chain {
            Some(chain) => Some(&chain.model(step.model).name),
            None => self.asked.as_ref(),
        }
    }
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
    fn bad_ladders_name_the_field_and_the_rule() {
        use ServiceTier::{Flex, Other, Priority, Standard};
        for (all, rule) in [
            (&[&[Flex][..]][..], "stands in"),
            (&[&[Flex, Other]], "alone"),
            (&[&[Flex, Standard, Flex]], "twice"),
            (&[&[Flex, Standard], &[Flex, Priority]], "once"),
        ] {
            let all: Vec<Vec<ServiceTier>> = all.iter().map(|tiers| tiers.to_vec()).collect();
            let error = Ladders::new(&all).expect_err(rule);
            assert!(error.field() == "tier_ladder" && error.rule().contains(rule), "{error}");
        }
        assert!(Ladders::new(&[vec![Flex, Standard, Priority], vec![Priority, Standard, Flex]]).is_ok());
    }

    #[test]
    fn the_ladder_comes_first_and_then_the_chain() {
        use ServiceTier::{Flex, Priority, Standard};
        let chains = chains(&[&["a", "b", "c"]], &[]).expect("valid");
        let ladders = Ladders::new(&[vec![Flex, Standard, Priority]]).expect("valid");
        let plan = |path: &str, tier: Option<ServiceTier>| {
            let mut request =
                Request::post(path).body(http_body_util::Full::<bytes::Bytes>::default()).expect("valid");
            request.extensions_mut().extend(
                tier.map(|tier| {
                    let mut extensions = http::Extensions::new();
                    extensions.insert(tier);
                    extensions
                })
                .unwrap_or_default(),
            );
            chains.plan(&ladders, &request)
        };
        let steps = |plan: &Plan| (0..plan.len()).map(|at| plan.step(at)).collect::<Vec<_>>();
        let of = |model, tier| Step { model, tier };
        let both = plan("/v1beta/models/a:generateContent", Some(Flex)).expect("a chain and a ladder");
        let tiers = [of(0, None), of(0, Some(Standard)), of(0, Some(Priority))];
        assert_eq!(steps(&both), [&tiers[..], &[of(1, None), of(2, None)]].concat());
        assert_eq!(both.tier(both.step(4)), Some(Flex));
        let ladder = plan("/v1beta/models/x:generateContent", Some(Flex)).expect("a ladder");
        assert_eq!(
            (steps(&ladder), ladder.model(ladder.step(1)).map(|name| &**name)),
            (tiers.to_vec(), Some("x"))
        );
        let chain = plan("/v1beta/models/a:generateContent", None).expect("a chain");
        assert_eq!(steps(&chain), [of(0, None), of(1, None), of(2, None)]);
        assert!(plan("/v1beta/models/x:generateContent", Some(Priority)).is_none());
        assert!(plan("/v1beta/models/x:embedContent", Some(Flex)).is_none());
    }

    #[test]
    fn only_a_post_is_planned_for() {
        let chains = chains(&[&["a", "b"]], &[]).expect("valid");
        let is_planned = |method: http::Method| {
            let request = Request::builder().method(method).uri("/v1beta/models/a:generateContent");
            chains
                .plan(
                    &Ladders::default(),
                    &request.body(http_body_util::Full::<bytes::Bytes>::default()).expect("valid"),
                )
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
