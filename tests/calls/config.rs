//! Settings as data: what is written is what the stack is set to, and what is not understood is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tower_gemini::Kind;
use tower_gemini::ServiceTier;
use tower_gemini::classify::Peek;
use tower_gemini::config::{
    BackoffConfig, BudgetConfig, CircuitBreakerConfig, ClassifyConfig, ConcurrencyConfig, DeadlineConfig,
    FallbackConfig, HedgeConfig, HumanDuration, LimitsConfig, OpenTimeConfig, OrOff, PerConfig, PresetName,
    PriceConfig, PricesConfig, RateLimitConfig, RetryConfig, ScheduleConfig, SlowCallsConfig, StackConfig,
    TierConfig, TimeoutConfig,
};
use tower_gemini::rate_limit::{AdmissionMode, Unit};
use tower_gemini::retry::Jitter;
use tower_gemini::stack::{GeminiStack, Preset};

const API: &str = include_str!("../api/public-api.txt");

/// What is code, or a part of the program: it has no member.
const CODE: &[&str] = &[
    "build",
    "observer",
    "key_by",
    "classify_with",
    "signals",
    "wall_clock",
    "estimate",
    "store",
    "circuits",
    "rate_limits",
    "last_resort",
    "catalogue",
    "count_tokens",
    "when",
    // Handles of the stack's own layers.
    "concurrency",
];

fn methods(ty: &str) -> BTreeSet<String> {
    let of_self = |line: &str| {
        let (_, call) = line.split_once(&format!("::{ty}::"))?;
        let (name, args) = call.split_once('(')?;
        let is_setter = args.starts_with("self") && line.starts_with("pub ");
        is_setter.then(|| name.split('<').next().unwrap_or(name).to_owned())
    };
    API.lines().filter_map(of_self).collect()
}

/// A builder's method without a member is one that a file cannot set.
#[test]
fn every_setting_of_a_builder_has_a_member() {
    let limits = ["requests_per_minute", "input_tokens_per_minute", "requests_per_day"];
    for (section, types, other_names) in [
        ("deadline", &["timeout::DeadlineLayer"][..], &[][..]),
        ("fallback", &["fallback::ModelFallbackBuilder"], &[]),
        ("retry", &["retry::RetryPolicyBuilder"], &[]),
        ("rate_limit", &["rate_limit::RateLimitBuilder<E>", "rate_limit::Limits"], &["limits"]),
        ("concurrency", &["concurrency::AdaptiveConcurrencyBuilder"], &[]),
        ("circuit_breaker", &["circuit_breaker::CircuitBreakerBuilder"], &[]),
        ("timeout", &["timeout::TimeoutBuilder"], &[]),
        ("classify", &["classify::ClassifyLayer"], &[]),
        ("tier", &["tier::TierLayer"], &[]),
        ("hedge", &["hedge::HedgeBuilder"], &[]),
        ("replay", &["retry::ReplayLayer"], &[]),
        ("preflight", &["preflight::PreflightBuilder"], &[]),
        ("coalesce", &["coalesce::CoalesceBuilder<K, F>"], &[]),
        ("last_good", &["last_good::LastGoodBuilder<F>"], &[]),
        ("places", &["places::PlacesBuilder"], &[]),
        ("store", &["fleet::Fleet"], &[]),
        ("resume", &["resume::ResumeBuilder"], &[]),
    ] {
        let (_, members) = StackConfig::members().find(|(name, _)| *name == section).expect(section);
        for ty in types {
            let methods = methods(ty);
            assert!(!methods.is_empty(), "{ty} is not in the API");
            for method in &methods {
                let name = method.strip_prefix("without_").unwrap_or(method);
                let is_there = members.contains(&name) || CODE.contains(&name) || other_names.contains(&name);
                assert!(is_there, "{ty}::{method} has no member in [{section}]");
            }
        }
    }
    assert!(limits.iter().all(|limit| LimitsConfig::MEMBERS.contains(limit)));
}

fn duration(millis: std::ops::Range<u64>) -> impl Strategy<Value = HumanDuration> {
    millis.prop_map(|millis| Duration::from_millis(millis).into())
}

/// In thousandths: JSON gives back each of these exactly.
fn share(thousandths: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = f64> {
    thousandths.prop_map(|n| f64::from(n) / 1000.0)
}

fn or_off<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = OrOff<T>> {
    prop::option::weighted(0.7, value).prop_map(OrOff::from)
}

/// Draws each member, or leaves it out.
macro_rules! some_of {
    ($ty:ident { $($field:ident: $strategy:expr),+ $(,)? }) => {{
        let none = Just($ty::default()).boxed();
        $(let none = (none, prop::option::of($strategy)).prop_map(|(mut all, value)| { all.$field = value; all }).boxed();)+
        none
    }};
}

fn backoff() -> BoxedStrategy<BackoffConfig> {
    let jitter = prop_oneof![
        Just(Jitter::Full),
        Just(Jitter::Equal),
        Just(Jitter::Decorrelated),
        (share(0..=1000)).prop_map(Jitter::Proportional)
    ];
    some_of!(BackoffConfig { base: duration(1..500), cap: duration(60_000..86_400_000), jitter: jitter })
}

fn schedule() -> BoxedStrategy<ScheduleConfig> {
    some_of!(ScheduleConfig { attempts: 1..=100_u32, base: duration(1..500), cap: duration(60_000..100_000) })
}

fn limits() -> BoxedStrategy<LimitsConfig> {
    some_of!(LimitsConfig {
        requests_per_minute: 1..1_000_000_u64,
        input_tokens_per_minute: 1..1_000_000_u64,
        requests_per_day: 1..1_000_000_u64,
        per: per(),
    })
}

/// Six at the most, no two of one unit and span.
fn per() -> BoxedStrategy<Vec<PerConfig>> {
    let units = vec![Unit::Requests, Unit::InputTokens, Unit::Images, Unit::Texts];
    let one = (1..1_000_000_u64, 100..86_400_000_u64);
    let all = prop::sample::subsequence(units, 0..4).prop_flat_map(move |units| {
        let limits = prop::collection::vec(one.clone(), units.len());
        (Just(units), limits)
    });
    let of = |(unit, (limit, millis))| PerConfig::new(unit, limit, Duration::from_millis(millis));
    all.prop_map(move |(units, limits)| units.into_iter().zip(limits).map(of).collect()).boxed()
}

fn prices() -> BoxedStrategy<PricesConfig> {
    let price = || {
        (share(0..=9_000), share(0..=9_000), share(0..=9_000)).prop_map(|(input, output, cached)| {
            let mut price = PriceConfig::default();
            (price.input, price.output, price.cached) = (Some(input), Some(output), Some(cached));
            price
        })
    };
    let by_model = prop::collection::btree_map("[a-z.0-9-]{1,9}", price(), 1..3);
    let flex = prop::collection::btree_map("[a-z.0-9-]{1,9}", price(), 1..3);
    (by_model, prop::option::of(flex), prop::option::of(0..=1_000_000_u32))
        .prop_map(|(model, flex, output)| {
            let mut prices = PricesConfig::default();
            prices.read_on = Some("2026-11-29".to_owned());
            prices.model = Some(model);
            prices.tier = flex.map(|models| BTreeMap::from([(ServiceTier::Flex, models)]));
            prices.output_tokens = output;
            prices
        })
        .boxed()
}

fn any_config() -> impl Strategy<Value = StackConfig> {
    let deadline = some_of!(DeadlineConfig {
        enabled: any::<bool>(),
        within: duration(1..86_400_000),
        flex: duration(1..86_400_000),
        cap_given: any::<bool>(),
    });
    let retried =
        prop::sample::select(vec![Kind::Overloaded, Kind::Conflict, Kind::RateLimited, Kind::Cancelled]);
    let budget = some_of!(BudgetConfig {
        cap: 1..1_000_000_u32,
        per_success: prop::sample::select(vec![0.5, 3.0, 100.0]),
        least_per_minute: 0..=6_000_u32,
    });
    let retry = some_of!(RetryConfig {
        enabled: any::<bool>(),
        attempts: 1..=100_u32,
        quick_retries: 0..=100_u32,
        backoff: backoff(),
        schedule: prop::collection::btree_map(retried, schedule(), 0..3),
        max_server_delay: duration(0..86_400_000),
        server_delay_jitter: share(0..=1000),
        deadline: or_off(duration(1..86_400_000)),
        maybe_processed_retries: 0..9_u32,
        empty_answers: 0..=2_u32,
        budget: or_off(budget),
        max_body_bytes: 0..1_000_000_usize,
        seed: 0..1_u64 << 60,
    });
    let rate_limit = some_of!(RateLimitConfig {
        enabled: any::<bool>(),
        requests_per_minute: 1..1_000_000_u64,
        input_tokens_per_minute: 1..1_000_000_u64,
        requests_per_day: 1..1_000_000_u64,
        per: per(),
        prices: prices(),
        model_limits: prop::collection::btree_map("[a-z.0-9-]{1,9}", limits(), 0..3),
        margin: share(10..=1000),
        guard: duration(0..60_000),
        mode: prop::sample::select(vec![AdmissionMode::Wait, AdmissionMode::Reject, AdmissionMode::Observe]),
        max_wait: or_off(duration(0..86_400_000)),
        max_queue: 1..=10_000_000_usize,
        interactive_weight: 0..=1_000_u32,
        max_keys: 1..=1_000_000_usize,
        learn: any::<bool>(),
        probe_every: duration(1_000..86_400_000),
        by_tier: any::<bool>(),
        window: duration(100..3_600_000),
    });
    let concurrency = some_of!(ConcurrencyConfig {
        enabled: any::<bool>(),
        decrease: share(100..=900),
        paced_decrease: share(10..=900),
        growth: share(10..=1000),
        increase: share(1..=1000),
        floor: share(1..=1000000),
        pace: duration(1..60_000),
        cut_interval: duration(0..3_600_000),
        lift_after: duration(1_000..86_400_000),
        max_wait: duration(0..86_400_000),
        max_queued: 0..1_000_000_usize,
        max_keys: 1..=1_000_000_usize,
        seed: 0..1_u64 << 60,
    });
    let slow = (duration(1..9_999), share(1..=1000)).prop_map(|(threshold, share)| {
        let mut slow = SlowCallsConfig::default();
        (slow.threshold, slow.share) = (Some(threshold), Some(share));
        slow
    });
    let circuit_breaker = some_of!(CircuitBreakerConfig {
        enabled: any::<bool>(),
        failure_share: share(1..=1000),
        min_calls: 1..1_000_u32,
        window: duration(100..86_400_000),
        consecutive_failures: 1..1_000_u32,
        slow_calls: or_off(slow),
        open_time: some_of!(OpenTimeConfig { first: duration(1..9_000), most: duration(9_000..86_400_000) }),
        open_time_factor: share(1000..=10000),
        max_server_delay: duration(0..86_400_000),
        probes: 1..=8_usize,
        probe_successes: 1..=1_000_u32,
        probe_lease: duration(1..86_400_000),
        ramp: duration(0..3_600_000),
        fail_fast: any::<bool>(),
        observe_only: any::<bool>(),
        max_keys: 1..=1_000_000_usize,
        seed: 0..1_u64 << 60,
    });
    let tier = || prop::sample::select(vec![ServiceTier::Flex, ServiceTier::Priority]);
    let tiers = move || prop::collection::btree_map(tier(), duration(1..86_400_000), 0..3);
    let timeout = some_of!(TimeoutConfig {
        enabled: any::<bool>(),
        first_byte: or_off(duration(1..86_400_000)),
        max_first_byte: duration(1..86_400_000),
        idle: or_off(duration(1..86_400_000)),
        total: or_off(duration(1..86_400_000)),
        tier_first_byte: tiers(),
        tier_total: tiers(),
        server_timeout: any::<bool>(),
    });
    let classify = some_of!(ClassifyConfig {
        enabled: any::<bool>(),
        max_error_bytes: 0..1_000_000_usize,
        read_timeout: duration(0..60_000),
        peek: prop::sample::select(vec![Peek::Off, Peek::FirstEvent, Peek::Output]),
        watch: any::<bool>(),
    });
    let others =
        prop::collection::btree_set("[m-z]{1,5}", 1..4).prop_map(|names| names.into_iter().collect());
    let ladder = Just(BTreeMap::from([(ServiceTier::Flex, vec![ServiceTier::Standard])]));
    let fallback = some_of!(FallbackConfig {
        enabled: any::<bool>(),
        chain: prop::collection::btree_map("[a-l]{1,5}", others, 0..3),
        tier_ladder: ladder,
    });
    let preset = [PresetName::Default, PresetName::Interactive, PresetName::Batch, PresetName::Gateway]
        .map(Some)
        .to_vec();
    let preset = prop::sample::select([preset, vec![None]].concat());
    let hedge = some_of!(HedgeConfig {
        enabled: any::<bool>(),
        budget: share(1..=200),
        samples: 20..=1_000_u32,
        max_body_bytes: 0..1_000_000_usize,
        max_keys: 1..=1_000_000_usize,
    });
    let tier = some_of!(TierConfig { enabled: any::<bool>() });
    let first = (preset, deadline, fallback, retry, rate_limit, hedge, tier);
    (first, concurrency, circuit_breaker, timeout, classify).prop_map(
        |(first, concurrency, breaker, timeout, classify)| {
            let mut all = StackConfig::default();
            (all.preset, all.deadline, all.fallback, all.retry, all.rate_limit, all.hedge, all.tier) = first;
            (all.concurrency, all.circuit_breaker, all.timeout, all.classify) =
                (concurrency, breaker, timeout, classify);
            all
        },
    )
}

/// Each value of `part` stands in `whole`, at the same place. A list is a value.
fn holds(whole: &serde_json::Value, part: &serde_json::Value) -> Result<(), String> {
    match (whole, part) {
        (serde_json::Value::Object(whole), serde_json::Value::Object(part)) => {
            part.iter().try_for_each(|(name, part)| {
                let found = whole.get(name).ok_or_else(|| format!("{name} is missing"))?;
                holds(found, part).map_err(|error| format!("{name}.{error}"))
            })
        }
        _ if whole == part => Ok(()),
        _ => Err(format!(": {part} became {whole}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    // Not every draw is a valid stack: a backoff's base may come above another one's cap, and the rule is told.
    #[test]
    fn what_is_given_is_what_the_stack_is_set_to(config in any_config()) {
        let stack = match GeminiStack::from_config(&config) {
            Ok(stack) => stack,
            Err(error) => {
                prop_assert!(error.section().is_some(), "{error}");
                return Err(TestCaseError::reject("out of range"));
            }
        };
        let all = StackConfig::of(&stack);
        let json = |config: &StackConfig| serde_json::to_value(config).expect("plain data");
        let mut given = json(&config);
        let object = given.as_object_mut().expect("an object");
        object.remove("preset");
        if let Err(difference) = holds(&json(&all), &given) {
            prop_assert!(false, "{difference}");
        }
        let again = StackConfig::of(&GeminiStack::from_config(&all).expect("it was one"));
        prop_assert_eq!(&again, &all, "a whole configuration makes the same stack");

        let text = toml::to_string(&config).expect("plain data");
        prop_assert_eq!(&toml::from_str::<StackConfig>(&text).expect("what was written"), &config);
        let text = serde_json::to_string(&config).expect("plain data");
        prop_assert_eq!(&serde_json::from_str::<StackConfig>(&text).expect("what was written"), &config);
    }

    // By way of variables: the tables as JSON, the rest as text.
    #[test]
    fn variables_say_the_same(config in any_config()) {
        let json = serde_json::to_value(&config).expect("plain data");
        let mut vars = Vec::new();
        let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for (section, value) in json.as_object().expect("an object") {
            match value.as_object() {
                None => vars.push((format!("GEMINI_{}", section.to_uppercase()), text(value))),
                Some(members) => vars.extend(members.iter().map(|(member, value)| {
                    (format!("GEMINI_{}_{}", section.to_uppercase(), member.to_uppercase()), text(value))
                })),
            }
        }
        prop_assert_eq!(StackConfig::from_vars(vars), Ok(config));
    }
}

#[test]
fn nothing_given_is_the_preset() {
    for (name, preset) in [
        (None, Preset::new()),
        (Some(PresetName::Default), Preset::new()),
        (Some(PresetName::Interactive), Preset::interactive()),
        (Some(PresetName::Batch), Preset::batch()),
        (Some(PresetName::Gateway), Preset::gateway()),
    ] {
        let mut config = StackConfig::default();
        config.preset = name;
        let stack = GeminiStack::from_config(&config).expect("a preset");
        let fallback = tower_gemini::fallback::ModelFallbackLayer::default();
        assert_eq!(StackConfig::of(&stack), StackConfig::of(&preset.stack().fallback(fallback)), "{name:?}");
    }
}

#[test]
fn a_whole_configuration_has_every_member() {
    let all = StackConfig::of(&GeminiStack::from_config(&StackConfig::default()).expect("the defaults"));
    let json = serde_json::to_value(&all).expect("plain data");
    let of_none =
        ["seed", "requests_per_minute", "input_tokens_per_minute", "requests_per_day", "header", "prices"];
    // A stack does not have these by itself, or not as settings.
    let by_hand = ["preflight", "replay", "coalesce", "last_good", "places", "store", "resume"];
    for (section, members) in StackConfig::members().filter(|(section, _)| !by_hand.contains(section)) {
        for member in members.iter().filter(|member| !of_none.contains(member)) {
            assert!(json[section].get(member).is_some(), "{section}.{member}");
        }
    }
}

#[test]
fn a_backoff_of_one_member_leaves_the_others_of_each_kind() {
    let config: StackConfig =
        toml::from_str("[retry]\nbackoff.cap = '7s'\nschedule.conflict.attempts = 9").expect("valid");
    let all = config.complete();
    let of = |kind| all.retry.schedule.as_ref().expect("whole")[&kind].clone();
    let secs = |secs| Some(Duration::from_secs(secs).into());
    assert_eq!((of(Kind::Overloaded).base, of(Kind::Overloaded).cap), (secs(2), secs(7)));
    assert_eq!((of(Kind::Unavailable).base, of(Kind::Unavailable).cap), (secs(1), secs(7)));
    assert_eq!((of(Kind::Conflict).attempts, of(Kind::Conflict).cap), (Some(9), secs(7)));
    assert_eq!(of(Kind::Unavailable).attempts, None);
}

#[test]
fn a_longer_deadline_lengthens_that_of_flex() {
    for (text, flex) in
        [("within = '2h'", 7_200), ("within = '1m'", 1_800), ("within = '2h'\nflex = '5m'", 300)]
    {
        let config: StackConfig = toml::from_str(&format!("[deadline]\n{text}")).expect("valid");
        assert_eq!(config.complete().deadline.flex, Some(Duration::from_secs(flex).into()), "{text}");
        let _stack = GeminiStack::from_config(&config).expect("valid");
    }
}

#[test]
fn what_is_not_known_is_refused_by_its_name() {
    for (text, name) in [
        ("retries = 3", "unknown field `retries`"),
        ("[retry]\natempts = 3", "unknown field `atempts`, expected one of `enabled`"),
        ("[retry.backoff]\nmin = '1s'", "unknown field `min`"),
        ("[retry.schedule.overloadd]\nattempts = 1", "overloadd"),
        ("[rate_limit.model_limits.m]\nrpm = 1", "unknown field `rpm`"),
        ("[timeout.tier_total]\nother = '1s'", "other"),
        ("[classify]\npeek = 'all'", "off, first_event, output"),
        ("preset = 'fast'", "default, interactive, batch, gateway"),
        ("[timeout]\nidle = 30", "a duration with a unit, such as \"1m30s\""),
        ("[timeout]\nidle = '30'", "a duration with a unit, such as \"1m30s\""),
        ("[fallback]\nheader = 'a b'", "must be the name of a header"),
        (
            "[rate_limit]\nper = [{ unit = 'calls', limit = 1, span = '1m' }]",
            "requests, input_tokens, images",
        ),
        ("[rate_limit]\nper = [{ unit = 'images', most = 1, span = '1m' }]", "unknown field `most`"),
        ("[rate_limit.prices.model.m]\nthoughts = 1.0", "unknown field `thoughts`"),
        ("[hedge]\nshare = 0.1", "unknown field `share`"),
        ("[preflight.mode]\nno_such_rule = 'warn'", "no_such_rule"),
        ("[places]\nplace = [{ zone = 'eu' }]", "unknown field `zone`"),
        ("[last_good]\nttl = '1h'", "unknown field `ttl`"),
        ("[coalesce]\nmax = 1", "unknown field `max`"),
        ("[resume]\nmode = 'again'", "continue, restart"),
        ("[store]\nhost = 'h'", "unknown field `host`"),
        ("[store]\noutage = 'open'", "strict, share, closed, local"),
    ] {
        let error = toml::from_str::<StackConfig>(text).expect_err(text).to_string();
        assert!(error.contains(name), "{text}: {error}");
    }
}

#[test]
fn what_is_out_of_range_is_told_with_section_and_member() {
    for (text, field) in [
        ("[deadline]\nwithin = '0s'", "deadline.deadline"),
        ("[deadline]\nflex = '25h'", "deadline.flex"),
        ("[fallback.chain]\nm = []", "fallback.chain"),
        ("[retry]\nattempts = 0", "retry.attempts"),
        ("[retry]\nbudget = { cap = 0 }", "retry.budget.cap"),
        ("[retry.schedule.not_found]\nattempts = 2", "retry.schedule"),
        ("[rate_limit]\nmargin = 1.5", "rate_limit.margin"),
        ("[rate_limit.model_limits.m]\nrequests_per_day = 0", "rate_limit.requests_per_day"),
        ("[concurrency]\nfloor = nan", "concurrency.floor"),
        ("[circuit_breaker]\nprobes = 9", "circuit_breaker.probes"),
        ("[circuit_breaker]\nslow_calls = { share = 0.5 }", "circuit_breaker.slow_calls"),
        ("[timeout.tier_first_byte]\nstandard = '1s'", "timeout.tier_first_byte"),
        ("[hedge]\nbudget = 0.5", "hedge.budget"),
        ("[rate_limit]\nper = [{ unit = 'images', limit = 0, span = '1m' }]", "rate_limit.per"),
        ("[rate_limit]\nper = [{ unit = 'money', limit = 9, span = '1m' }]", "rate_limit.prices"),
        ("[rate_limit.prices.model.m]\ninput = 1.0", "rate_limit.prices"),
    ] {
        let config: StackConfig = toml::from_str(text).expect(text);
        let error = GeminiStack::from_config(&config).map(|_| ()).expect_err(text);
        let (section, member) = field.split_once('.').expect("two parts");
        assert_eq!((error.section(), error.field()), (Some(section), member), "{text}");
        assert_eq!(error.to_string(), format!("invalid setting `{field}`: {}", error.rule()));
    }
}

#[test]
fn a_wrong_variable_is_named_and_its_value_is_not_shown() {
    for (name, value, rule) in [
        ("GEMINI_RETRY_ATTEMPTS", "AIzaSecret", "must be a whole number"),
        ("GEMINI_RETRY_ATTEMPTS", "-1", "must be a whole number"),
        ("GEMINI_RATE_LIMIT_LEARN", "AIzaSecret", "must be true or false"),
        ("GEMINI_RATE_LIMIT_MARGIN", "AIzaSecret", "must be a number"),
        ("GEMINI_RATE_LIMIT_MODEL_LIMITS", "m=5", "must be a JSON object"),
        ("GEMINI_TIMEOUT_IDLE", "30", "must be a duration with a unit"),
        ("GEMINI_RETRY_BACKOFF", "{\"min\":\"1s\"}", "unknown field `min`"),
        ("GEMINI_RETRY_BACKOFF", "{} {}", "trailing characters"),
        ("GEMINI_RETRY_ATEMPTS", "3", "is no setting; the section has ENABLED, "),
    ] {
        let error = StackConfig::from_vars([(name, value)]).expect_err(name);
        assert_eq!(error.variable(), name);
        assert!(error.rule().contains(rule), "{name}={value}: {error}");
        assert!(!error.to_string().contains("AIza"), "{error}");
    }
    for (name, value) in [
        ("GEMINI_API_KEY", "AIzaSecret"),
        ("GEMINI_MODEL", "m"),
        ("GEMINI_RETRY_ATTEMPTS", " "),
        ("GEMINI_RETRY_SERVICE_HOST", "10.0.0.1"),
        ("GEMINI_TIMEOUT_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("RETRY_ATTEMPTS", "0"),
    ] {
        assert_eq!(StackConfig::from_vars([(name, value)]), Ok(StackConfig::default()), "{name}");
    }
}

#[test]
fn lists_in_variables_are_separated_by_commas() {
    let config = StackConfig::from_vars([
        ("GEMINI_FALLBACK_LARGER_CONTEXT", "b, c"),
        ("GEMINI_FALLBACK_CHAIN", r#"{"a":["b","c"]}"#),
        ("GEMINI_FALLBACK_HEADER", "x-gemini-model"),
        ("GEMINI_RETRY_BUDGET", "off"),
    ])
    .expect("valid");
    assert_eq!(config.fallback.larger_context, Some(vec!["b".to_owned(), "c".to_owned()]));
    assert_eq!(config.retry.budget, Some(OrOff::Off));
    let all = StackConfig::of(&GeminiStack::from_config(&config).expect("valid"));
    assert_eq!(all.fallback, config.complete().fallback);
    assert_eq!(all.fallback.header.expect("given").0, "x-gemini-model");
}

/// One type whatever is switched off: no layer that is waits, refuses, repeats or keeps a state.
#[tokio::test(start_paused = true)]
async fn what_is_switched_off_does_nothing_and_has_the_same_type() {
    use http_body_util::Full;
    use tower::{Layer, ServiceExt};
    type Body = Full<bytes::Bytes>;
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = calls.clone();
    let client = tower::service_fn(move |_: http::Request<Body>| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::future::ready(Ok::<_, std::io::Error>(
            http::Response::builder().status(503).body(Body::default()).expect("valid"),
        ))
    });
    let off = "[retry]\nenabled = false\n[rate_limit]\nenabled = false\nrequests_per_minute = 1\n[concurrency]\nenabled = false
        [circuit_breaker]\nenabled = false\nmin_calls = 1\n[fallback]\nenabled = false\nchain.m = ['n']
        [deadline]\nenabled = false\n[timeout]\nenabled = false\n[classify]\nenabled = false\n[tier]\nenabled = false";
    let off = GeminiStack::from_config(&toml::from_str(off).expect("valid")).expect("valid");
    // One binding for both: the types are the same.
    let mut stack = GeminiStack::from_config(&StackConfig::default()).expect("valid");
    assert_eq!(StackConfig::of(&stack).retry.enabled, Some(true));
    stack = off;
    let start = tokio::time::Instant::now();
    let service = stack.layer(client);
    for _ in 0..60 {
        let request = http::Request::post("https://h/v1beta/models/m:generateContent")
            .body(Body::default())
            .expect("valid");
        assert_eq!(service.clone().oneshot(request).await.expect("the answer").status(), 503);
    }
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 60, "each is sent once, and to one model");
    assert_eq!(tokio::time::Instant::now(), start, "nobody waits");
    assert!(stack.get_rate_limit().handle().status().is_empty());
    assert!(stack.get_circuit_breaker().handle().keys().is_empty());
    assert!(stack.get_concurrency().handle().all().is_empty());
}

/// What a deadline, a timeout and a classifier that are off do not do: say when, cut, read.
#[tokio::test(start_paused = true)]
async fn what_is_off_leaves_request_and_answer_as_they_are() {
    use http_body_util::Full;
    use tower::{Layer, ServiceExt};
    use tower_gemini::timeout::Deadline;
    type Body = Full<bytes::Bytes>;
    let client = tower::service_fn(async |request: http::Request<Body>| {
        assert!(request.headers().is_empty(), "the server is told nothing");
        assert!(Deadline::of(&request).is_none(), "nobody gave it one");
        tokio::time::sleep(Duration::from_secs(7 * 3600)).await;
        let body = Body::from(r#"{"error":{"code":503,"status":"UNAVAILABLE","message":"m"}}"#);
        Ok::<_, std::io::Error>(http::Response::builder().status(503).body(body).expect("valid"))
    });
    let off =
        ["deadline", "retry", "timeout", "classify", "tier", "concurrency", "circuit_breaker", "rate_limit"]
            .map(|section| format!("[{section}]\nenabled = false\n"));
    let stack = GeminiStack::from_config(&toml::from_str(&off.concat()).expect("valid")).expect("valid");
    let request = http::Request::post("https://h/v1beta/models/m:generateContent").body(Body::default());
    let response = stack.layer(client).oneshot(request.expect("valid")).await.expect("seven hours later");
    assert_eq!(response.status(), 503);
    assert!(response.extensions().get::<tower_gemini::Verdict>().is_none());
}

/// The sections that a program puts in by hand, and that their settings arrive.
#[tokio::test(start_paused = true)]
async fn sections_that_are_put_in_by_hand() {
    use bytes::Bytes;
    use http_body_util::Full;
    use tower::{Layer, ServiceExt};
    use tower_gemini::coalesce::whole_body;

    let config: StackConfig = toml::from_str(
        "[preflight]\nevery_mode = 'warn'\nhold_bytes = 2048\nmode.key_in_url = 'reject'
        [replay]\nmax_bytes = 10
        [resume]\nmode = 'restart'\nmost = 2
        [coalesce]\nenabled = false
        [last_good]\nmax_age = '6h'\nheader = 'x-age'\nstore_bytes = 65536\nstore_entries = 2
        [places]\nresidency = ['eu']\nplace = [{ vertex = 'eu', project = 'p' }, { name = 'own', api_key_env = 'OWN_KEY' }]",
    )
    .expect("valid");
    let text = toml::to_string(&config).expect("plain data");
    assert_eq!(toml::from_str::<StackConfig>(&text).expect("what was written"), config);
    assert_eq!(config.complete().places, config.places, "a preset has none of these");

    let client =
        tower::service_fn(async |_: http::Request<tower_gemini::preflight::PreflightBody<Full<Bytes>>>| {
            Ok::<_, std::io::Error>(http::Response::new(Full::<Bytes>::default()))
        });
    let preflight = config.preflight.to_builder().build().expect("valid").layer(client);
    let leaking = http::Request::post("https://h/v1beta/models/gemini-3.5-flash:generateContent?key=K");
    let refused = preflight.oneshot(leaking.body(Full::from("{}")).expect("valid")).await.expect_err("a key");
    assert!(refused.to_string().contains("key"), "{refused}");

    let key_of = whole_body::<Full<Bytes>> as fn(&http::Request<Full<Bytes>>) -> Option<Bytes>;
    let coalesce = config.coalesce.to_builder::<Bytes, _>(key_of).build().expect("valid");
    assert_eq!(coalesce.in_flight(), 0);
    assert!(config.last_good.to_builder(key_of).expect("room").build().is_ok());
    let _: tower_gemini::retry::ReplayLayer = config.replay.layer();
    assert!(config.resume.to_builder().expect("a mode").build().is_ok());
    let nothing = StackConfig::default();
    assert_eq!(nothing.resume.to_builder().map(drop).expect_err("no mode").field(), "mode");

    let key = |name: &str| (name == "OWN_KEY").then(|| "AIzaSecret".to_owned());
    let places = config.places.builder_with(&key).expect("both have names").build().expect("valid");
    assert!(!format!("{places:?}").contains("AIza"));
    let error = config.places.builder_with(&|_| None).expect_err("no key");
    assert_eq!(error.field(), "api_key_env");
}

#[test]
fn a_stores_password_is_not_shown() {
    let config = StackConfig::from_vars([
        ("GEMINI_STORE_URL", "redis://user:secret@host:7379/1"),
        ("GEMINI_STORE_WEIGHT", "4"),
    ])
    .expect("valid");
    assert!(!format!("{config:?}").contains("secret"), "{config:?}");
    assert!(format!("{config:?}").contains("redis://host:7379/1"), "{config:?}");
}

/// A store that nobody can reach is asked for nothing before the first request; a wrong address is told at once.
#[cfg(feature = "redis")]
#[tokio::test]
async fn a_store_in_the_file_is_the_stacks() {
    let of = |text: &str| GeminiStack::from_config(&toml::from_str::<StackConfig>(text).expect("valid"));
    let health = |text: &str| of(text).expect("an address").get_rate_limit().handle().store();
    let store = health(
        "[store]\nurl = 'redis://127.0.0.1:1'\nnamespace = 'n'\noutage = 'share'\nmembers = 3\n[rate_limit]\nrequests_per_minute = 5",
    );
    assert!(store.expect("it is there").place.contains("127.0.0.1:1"));
    assert!(health("[rate_limit]\nrequests_per_minute = 5").is_none());
    // Limits over spans are shared as well.
    let spans = "[store]\nurl = 'redis://127.0.0.1:1'\n[rate_limit]\nper = [{ unit = 'images', limit = 1, span = '1m' }]";
    assert!(health(spans).is_some());
    let error = of("[store]\nurl = 'http://h'").map(drop).expect_err("no such scheme");
    assert_eq!(error.section(), Some("store"));
}

/// Off in the section `store` and without the feature, the file's store is refused and not passed by.
#[cfg(not(feature = "redis"))]
#[test]
fn a_store_without_the_feature_is_refused() {
    let config: StackConfig = toml::from_str("[store]\nurl = 'redis://127.0.0.1:1'").expect("valid");
    let error = GeminiStack::from_config(&config).map(drop).expect_err("no redis");
    assert_eq!(error.to_string(), "invalid setting `store.url`: needs the feature `redis`");
}
