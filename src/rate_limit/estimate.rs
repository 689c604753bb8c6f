//! How many input tokens a request will cost: a guess, a count, and what answers teach about both.

use http::Request;
use http_body::Body;

use crate::call_options::RequestClass;
use crate::request::quota_key::Pool;
use crate::request::{Method, Target};
use crate::tier::ServiceTier;

/// Bytes of a request's body that make one token, before answers have taught better. Google counts about four
/// characters to a token ([tokens](https://ai.google.dev/gemini-api/docs/tokens), read 2026-11).
const BYTES_PER_TOKEN: u64 = 4;

/// How many input tokens a request has: an extension that the **caller** puts into the request, for instance the
/// answer of `countTokens`.
///
/// It is charged as it is. A request with more tokens than the limit per minute is refused at once.
///
/// ```
/// use tower_gemini::rate_limit::InputTokens;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(InputTokens(1_234));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InputTokens(pub u64);

/// How many texts a request embeds: an extension that the **caller** puts into the request, or the
/// [preflight](crate::preflight), which reads a `:batchEmbedContents`. 255 stands for more, too. Counted by a limit of [texts](super::Unit::Texts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Texts(pub u8);

/// How many images a request makes: an extension that the **caller** puts into the request. Counted by a limit of
/// [images](super::Unit::Images).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Images(pub u8);

/// Counts the input tokens of a request before it is sent.
///
/// Implement it if you have a tokenizer, or pass a closure: it is asked once per attempt, in `call`, so it should be
/// quick. Whatever it says is corrected by what this key's answers have shown so far, so one that is always 30 % off
/// is right after its first answers. A request that is larger than the limit per minute is refused; before the first
/// answer, only if it is so by more than a half.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower_gemini::rate_limit::{Limits, RateLimitLayer};
///
/// # fn main() -> Result<(), tower_gemini::ConfigError> {
/// let layer = RateLimitLayer::builder()
///     .limits(Limits::new().input_tokens_per_minute(250_000))
///     .estimate(|request: &Request<Full<Bytes>>| {
///         request.extensions().get::<String>().map(|prompt| prompt.split_whitespace().count() as u64)
///     })
///     .build()?;
/// # let _ = layer; Ok(()) }
/// ```
pub trait Estimate<B> {
    /// The tokens of this request; `None` falls back to its size.
    fn input_tokens(&self, request: &Request<B>) -> Option<u64>;

    /// The texts of a request that embeds several (`:batchEmbedContents`, `embeddings`); `None`, which is the default, where nobody
    /// can tell. Asked only where a limit of [texts](super::Unit::Texts) is set.
    fn texts(&self, request: &Request<B>) -> Option<u8> {
        let _ = request;
        None
    }
}

impl<B, F: Fn(&Request<B>) -> Option<u64>> Estimate<B> for F {
    fn input_tokens(&self, request: &Request<B>) -> Option<u64> {
        self(request)
    }
}

/// Guesses by the body's size alone, at four bytes a token to begin with. The default; costs nothing.
///
/// A guess cannot tell text from an image, so a body that looks larger than the limit per minute is not refused: it
/// is charged the whole limit and waits for an empty window. If the server then refuses it although it was alone,
/// requests of exactly its size are refused from then on. [`ByContent`] knows better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BySize;

impl<B> Estimate<B> for BySize {
    #[inline]
    fn input_tokens(&self, _: &Request<B>) -> Option<u64> {
        None
    }
}

/// What an image or another inline medium costs, as a floor: one tile of an image
/// ([tokens](https://ai.google.dev/gemini-api/docs/tokens), read 2026-11).
const MEDIUM_TOKENS: u64 = 258;

/// Reads a body that is in memory, and counts text apart from inline media: four bytes of text to a token, 258
/// tokens for each `data` member.
///
/// For bodies that can be cloned and are ready at once (`Full<Bytes>`); of others the size is taken. Costs one pass
/// over the body at memory speed and no allocation. Where texts are limited, it counts those of an embedding, too, with one
/// more pass and a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByContent;

impl<B> Estimate<B> for ByContent
where
    B: Body + Clone,
{
    fn input_tokens(&self, request: &Request<B>) -> Option<u64> {
        let mut tokens = 0;
        chunks(request.body(), |chunk| tokens += tokens_of(chunk))?;
        Some(tokens)
    }

    fn texts(&self, request: &Request<B>) -> Option<u8> {
        let mut whole = Vec::new();
        chunks(request.body(), |chunk| whole.extend_from_slice(chunk))?;
        let listed: Listed = serde_json::from_slice(&whole).ok()?;
        let count = match (listed.requests, listed.input) {
            (Some(list), _) | (None, Some(Input::Many(list))) => list.len(),
            (None, Some(Input::Text(_) | Input::Tokens(_))) => 1,
            (None, None) => return None,
        };
        Some(u8::try_from(count).unwrap_or(u8::MAX))
    }
}

/// What is counted in a body that embeds texts.
#[derive(serde::Deserialize)]
struct Listed {
    requests: Option<Vec<serde::de::IgnoredAny>>,
    input: Option<Input>,
}

/// The input of the OpenAI-compatible surface.
#[derive(serde::Deserialize)]
#[serde(untagged)]
#[allow(dead_code, reason = "they are told apart by what they hold")]
enum Input {
    Text(String),
    Tokens(Vec<u64>),
    Many(Vec<serde::de::IgnoredAny>),
}

/// The bytes of a body that is there as a whole; `None` for another.
fn chunks<B: Body + Clone>(body: &B, mut each: impl FnMut(&[u8])) -> Option<()> {
    use bytes::Buf;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    let mut body = pin!(body.clone());
    let mut cx = Context::from_waker(Waker::noop());
    while !body.is_end_stream() {
        let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) else { return None };
        let Ok(mut data) = frame.into_data() else { continue };
        while data.has_remaining() {
            let chunk = data.chunk();
            each(chunk);
            let length = chunk.len();
            data.advance(length);
        }
    }
    Some(())
}

/// The tokens of one piece of a request.
fn tokens_of(json: &[u8]) -> u64 {
    let (mut media, mut media_bytes) = (0, 0);
    let mut rest = json;
    // `"data"` is what holds base64 in `inlineData`, in both spellings; in prose it would stand escaped.
    while let Some(at) = memchr::memmem::find(rest, b"\"data\"") {
        rest = &rest[at + 6..];
        let value = rest.trim_ascii_start();
        let Some(value) = value.strip_prefix(b":").map(<[u8]>::trim_ascii_start) else { continue };
        let Some(value) = value.strip_prefix(b"\"") else { continue };
        let length = memchr::memchr(b'"', value).unwrap_or(value.len());
        media += 1;
        media_bytes += length;
        rest = &value[length..];
    }
    ((json.len() - media_bytes) as u64).div_ceil(BYTES_PER_TOKEN) + media * MEDIUM_TOKENS
}

/// How far an estimate is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// By size.
    Guess,
    /// By the caller's tokenizer: corrected by experience.
    Estimate,
    /// By the caller's word: taken as it is.
    Exact,
}

/// What a request will cost, before experience corrects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) tokens: u32,
    pub(super) trust: Trust,
    pub(super) units: Units,
}

impl Cost {
    /// The same of a request of this class.
    pub(super) const fn of_class(mut self, class: RequestClass) -> Self {
        if matches!(class, RequestClass::Batch) {
            self.units.tier |= Units::BATCH;
        }
        self
    }

    pub(super) const fn is_batch(&self) -> bool {
        self.units.tier & Units::BATCH != 0
    }
}

/// What a request will be counted for beside tokens. Worked out only where a limit counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Units {
    pub(super) texts: u8,
    pub(super) images: u8,
    /// The tier, whether the counts may be too high, and whether it is a batch request: in one byte, so that a place in the queue
    /// stays small.
    pub(super) tier: u8,
}

/// The most texts of one `:batchEmbedContents`.
const MOST_TEXTS: u64 = 100;
/// The shortest that one of them can be: `{"model":"m","content":{"parts":[{"text":""}]}},`, of which the model may be left out.
const LEAST_BYTES: u64 = 36;
/// The most images of one `:predict`.
const MOST_IMAGES: u8 = 4;

impl Units {
    const GUESS: u8 = 1 << 7;
    const BATCH: u8 = 1 << 6;
    const TIERS: [ServiceTier; 4] =
        [ServiceTier::Standard, ServiceTier::Flex, ServiceTier::Priority, ServiceTier::Other];

    pub(super) fn new(texts: u8, images: u8, tier: ServiceTier, is_guess: bool) -> Self {
        let tier = Self::TIERS.iter().position(|other| *other == tier).unwrap_or(0) as u8;
        Self { texts, images, tier: if is_guess { tier | Self::GUESS } else { tier } }
    }

    pub(super) fn tier(&self) -> ServiceTier {
        Self::TIERS[usize::from(self.tier & 3)]
    }

    /// Whether the counts may be too high.
    pub(super) const fn is_guess(&self) -> bool {
        self.tier & Self::GUESS != 0
    }

    #[cold]
    pub(super) fn of<B: Body>(request: &Request<B>, estimate: &impl Estimate<B>) -> Self {
        let target = Target::of(request);
        let (method, mut is_guess) = (target.method(), false);
        let told = request.extensions().get::<Texts>().map(|texts| texts.0);
        let texts = match method {
            _ if Pool::of(method) != Pool::Embed => told.unwrap_or(0),
            Method::BatchEmbedContents | Method::Embeddings => {
                told.or_else(|| estimate.texts(request)).unwrap_or_else(|| {
                    is_guess = true;
                    let size = request.body().size_hint();
                    let most = size.upper().unwrap_or(u64::MAX) / LEAST_BYTES;
                    if method == Method::Embeddings {
                        MOST_TEXTS as u8
                    } else {
                        most.clamp(1, MOST_TEXTS) as u8
                    }
                })
            }
            _ => told.unwrap_or(1),
        };
        let images = match request.extensions().get::<Images>() {
            Some(images) => images.0,
            None if method == Method::Predict => {
                is_guess = true;
                MOST_IMAGES
            }
            None => u8::from(target.model().is_some_and(|model| model.contains("image"))),
        };
        Self::new(texts, images, ServiceTier::of(request).unwrap_or_default(), is_guess)
    }

    pub(super) const fn embeds(&self) -> bool {
        self.texts > 0
    }
}

impl Cost {
    /// A request that uses no input tokens.
    pub(super) const FREE: Self = Self::exact(0);

    pub(super) const fn exact(tokens: u32) -> Self {
        let units = Units { texts: 0, images: 0, tier: 0 };
        Self { tokens, trust: Trust::Exact, units }
    }

    pub(super) const fn is_exact(&self) -> bool {
        matches!(self.trust, Trust::Exact)
    }

    #[inline]
    pub(super) fn of<B: Body>(
        request: &Request<B>,
        stated: Option<&InputTokens>,
        estimate: &impl Estimate<B>,
    ) -> Self {
        let (tokens, trust) = match stated {
            Some(tokens) => (tokens.0, Trust::Exact),
            None => match estimate.input_tokens(request) {
                Some(tokens) => (tokens, Trust::Estimate),
                None => {
                    let size = request.body().size_hint();
                    (size.upper().unwrap_or(size.lower()).div_ceil(BYTES_PER_TOKEN), Trust::Guess)
                }
            },
        };
        Self { tokens: u32::try_from(tokens).unwrap_or(u32::MAX), trust, ..Self::FREE }
    }

    #[inline]
    pub(super) fn corrected(self, ratio: &Ratio) -> u32 {
        match self.trust {
            Trust::Exact => self.tokens,
            Trust::Estimate | Trust::Guess => ratio.apply(self.tokens),
        }
    }
}

/// How an answer's count relates to the estimate, learnt per key: a mean and a mean deviation, like TCP's round-trip
/// time (RFC 6298). The next estimate is multiplied by the mean and one deviation, which is a high quantile: too much
/// is given back at the end of the call, too little is a 429.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    mean: f32,
    deviation: f32,
    factor: f32,
    learnt: u32,
}

impl Default for Ratio {
    fn default() -> Self {
        Self { mean: 1.0, deviation: 0.0, factor: 1.0, learnt: 0 }
    }
}

impl Ratio {
    const WEIGHT: f32 = 1.0 / 8.0;

    #[inline]
    pub(super) fn apply(&self, tokens: u32) -> u32 {
        if self.factor == 1.0 {
            return tokens;
        }
        // `as` saturates, and the factor is never NaN. Tokens above 2²⁴ lose some digits, which no estimate has.
        (tokens as f32 * self.factor).ceil() as u32
    }

    #[inline]
    pub(super) fn learn(&mut self, estimated: u32, used: u64) {
        if estimated == 0 || used == 0 {
            return;
        }
        let seen = (used as f32 / estimated as f32).clamp(0.0001, 100.0);
        if self.learnt == 0 {
            self.mean = seen;
        }
        let error = seen - self.mean;
        self.mean += error * Self::WEIGHT;
        self.deviation += (error.abs() - self.deviation) * Self::WEIGHT;
        self.factor = self.mean + self.deviation;
        self.learnt = self.learnt.saturating_add(1);
    }

    /// What so many tokens may be in truth, part of which are estimates. No answer yet, and they may be anything.
    pub(super) fn at_most(&self, tokens: u64) -> u64 {
        match self.learnt {
            0 => u64::MAX,
            _ => (tokens as f64 * f64::from(self.factor.max(1.0))) as u64,
        }
    }

    /// What an estimate means at the least: what answers have shown in the mean, and without any answer two thirds.
    pub(super) fn at_least(&self, tokens: u32) -> u64 {
        let share = if self.learnt == 0 { 2.0 / 3.0 } else { self.mean };
        (f64::from(tokens) * f64::from(share)) as u64
    }

    /// Tokens of the answers per token of the estimates, deviation included.
    pub(super) const fn factor(&self) -> f32 {
        self.factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;
    use proptest::prelude::*;

    fn request(body: &str) -> Request<Full<Bytes>> {
        Request::new(Full::from(body.to_owned()))
    }

    #[test]
    fn content_is_counted_apart_from_media() {
        let image = "A".repeat(1_000_000);
        let body = format!(
            r#"{{"contents":[{{"parts":[{{"text":"What is this?"}},{{"inlineData":{{"mimeType":"image/png","data": "{image}"}}}}]}}]}}"#
        );
        let tokens = ByContent.input_tokens(&request(&body)).expect("the body is in memory");
        assert!((258..330).contains(&tokens), "{tokens}");
        assert_eq!(BySize.input_tokens(&request(&body)), None);
        let text = format!(r#"{{"text":"{}"}}"#, "word ".repeat(1000));
        assert!((1250..1260).contains(&ByContent.input_tokens(&request(&text)).expect("in memory")));
        assert_eq!(ByContent.input_tokens(&request(r#"{"data"#)), Some(2));
        assert_eq!(ByContent.input_tokens(&request(r#"{"data":"#)), Some(2));
        assert_eq!(ByContent.input_tokens(&request(r#""data":""#)), Some(2 + 258));
    }

    #[test]
    fn units_are_counted_where_somebody_can_tell() {
        let units = |path: &str, body: &str, by_content: bool| {
            let mut request = request(body);
            *request.uri_mut() = path.parse().expect("a valid path");
            let units =
                if by_content { Units::of(&request, &ByContent) } else { Units::of(&request, &BySize) };
            (units.texts, units.images, units.is_guess())
        };
        let batch = "/v1beta/models/gemini-embedding-001:batchEmbedContents";
        let one = r#"{"content":{"parts":[{"text":""}]}}"#;
        let three = format!(r#"{{"requests":[{one},{one},{one}]}}"#);
        assert_eq!(units(batch, &three, true), (3, 0, false));
        assert_eq!(units(batch, &three, false), (3, 0, true), "no more than its size can hold");
        assert_eq!(units(batch, &"x".repeat(10_000), true), (100, 0, true));
        let open = "/v1beta/openai/embeddings";
        for (input, texts) in [(r#""a""#, 1), (r#"["a","b"]"#, 2), ("[1,2,3]", 1), ("[[1],[2],[3]]", 3)] {
            assert_eq!(units(open, &format!(r#"{{"input":{input}}}"#), true), (texts, 0, false), "{input}");
        }
        assert_eq!(units(open, "{}", false), (100, 0, true));
        assert_eq!(units("/v1beta/models/gemini-embedding-001:embedContent", one, false), (1, 0, false));
        assert_eq!(units("/v1beta/models/gemini-9-flash:generateContent", one, false), (0, 0, false));
        assert_eq!(units("/v1beta/models/gemini-9-flash-image:generateContent", one, false), (0, 1, false));
        assert_eq!(units("/v1beta/models/imagen-9:predict", one, false), (0, 4, true));
        let mut said = request(one);
        *said.uri_mut() = batch.parse().expect("a valid path");
        said.extensions_mut().insert(Texts(7));
        said.extensions_mut().insert(Images(2));
        said.extensions_mut().insert(ServiceTier::Flex);
        assert_eq!(Units::of(&said, &BySize), Units::new(7, 2, ServiceTier::Flex, false));
        let tiers = [ServiceTier::Standard, ServiceTier::Flex, ServiceTier::Priority, ServiceTier::Other];
        for tier in tiers {
            let units = Units::new(1, 2, tier, true);
            assert_eq!((units.tier(), units.is_guess(), size_of::<Cost>()), (tier, true, 8));
        }
    }

    #[test]
    fn the_callers_word_is_taken_as_it_is() {
        let mut ratio = Ratio::default();
        (0..20).for_each(|_| ratio.learn(100, 200));
        let mut said = request("0123456789abcdef");
        let guessed = Cost { tokens: 4, trust: Trust::Guess, ..Cost::FREE };
        assert_eq!(Cost::of(&said, said.extensions().get(), &BySize), guessed);
        assert_eq!(Cost::of(&said, said.extensions().get(), &BySize).corrected(&ratio), 8);
        said.extensions_mut().insert(InputTokens(77));
        assert_eq!(Cost::of(&said, said.extensions().get(), &BySize).corrected(&ratio), 77);
        said.extensions_mut().insert(InputTokens(u64::MAX));
        assert_eq!(Cost::of(&said, said.extensions().get(), &BySize).tokens, u32::MAX);
    }

    #[test]
    fn a_closure_is_an_estimate() {
        let count =
            |request: &Request<Full<Bytes>>| request.uri().path().len().checked_sub(2).map(|n| n as u64);
        let cost = |tokens, trust| Cost { tokens, trust, ..Cost::FREE };
        assert_eq!(Cost::of(&request("0123"), None, &count), cost(1, Trust::Guess));
        let long = Request::builder().uri("/12345").body(Full::default()).expect("a valid request");
        assert_eq!(Cost::of(&long, None, &count), cost(4, Trust::Estimate));
    }

    #[test]
    fn a_surprise_is_charged_with_its_deviation() {
        let mut ratio = Ratio::default();
        ratio.learn(100, 100);
        ratio.learn(100, 200);
        // An eighth of the surprise in the mean, and an eighth in the deviation.
        assert_eq!((ratio.factor(), ratio.apply(1000)), (1.25, 1250));
        assert_eq!((ratio.at_most(1000), ratio.at_least(1000)), (1250, 1125));
    }

    #[test]
    fn nothing_is_learnt_of_nothing() {
        let mut ratio = Ratio::default();
        ratio.learn(0, 100);
        ratio.learn(100, 0);
        assert_eq!((ratio.factor(), ratio.learnt), (1.0, 0));
    }

    #[test]
    fn before_an_answer_tokens_may_be_anything_and_an_estimate_is_two_thirds() {
        let mut ratio = Ratio::default();
        assert_eq!((ratio.at_most(5), ratio.at_least(300)), (u64::MAX, 200));
        ratio.learn(100, 50);
        assert_eq!((ratio.at_most(100), ratio.at_least(100)), (100, 50), "some of them may be counted ones");
    }

    #[test]
    fn a_steady_bias_is_right_after_one_answer() {
        for (estimated, used) in [(100, 130), (130, 100)] {
            let mut ratio = Ratio::default();
            ratio.learn(estimated, used);
            assert!((i64::from(ratio.apply(estimated)) - used as i64).abs() <= 1);
        }
    }

    proptest! {
        #[test]
        fn noise_is_covered_by_the_deviation(noise in proptest::collection::vec(0.7..1.3_f64, 50..100)) {
            let mut ratio = Ratio::default();
            for n in noise {
                ratio.learn(10_000, (10_000.0 * n) as u64);
            }
            prop_assert!((0.85..1.6).contains(&ratio.factor()), "{}", ratio.factor());
        }

        #[test]
        fn nothing_makes_the_factor_absurd(samples in proptest::collection::vec((any::<u32>(), any::<u64>()), 0..50), tokens in any::<u32>()) {
            let mut ratio = Ratio::default();
            for (estimated, used) in samples {
                ratio.learn(estimated, used);
            }
            prop_assert!(ratio.factor() > 0.0 && ratio.factor() <= 300.0);
            let _ = ratio.apply(tokens);
        }

        #[test]
        fn any_bytes_can_be_counted(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = tokens_of(&bytes);
        }
    }
}
