//! Every rule, with requests that break it and requests that do not.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_gemini::error::find;
use tower_gemini::preflight::{PreflightBody, PreflightRefused, Rule, RuleMode};
use tower_gemini::rate_limit::Texts;
use tower_gemini::respond::RespondLayer;
use tower_gemini::{BoxError, Kind, Rejected, Verdict};

use super::world::{Frames, KEY, URI, builder, outcome, post};

const BASE: &str = "https://generativelanguage.googleapis.com";

fn uri(model: &str) -> String {
    format!("{BASE}/v1beta/models/{model}:generateContent")
}

fn config(config: &Value) -> String {
    json!({"contents": [{"parts": [{"text": "Hello"}]}], "generationConfig": config}).to_string()
}

/// With the rule on as asked; the findings, and whether they refuse.
async fn breaks(uri: &str, body: &str) -> Vec<(Rule, &'static str, bool)> {
    let outcome = outcome(builder(), uri, body).await;
    let refuses = outcome.told.iter().any(|(_, _, refused)| *refused);
    assert_eq!(outcome.refused.is_some(), refuses);
    outcome.told
}

#[tokio::test(start_paused = true)]
async fn parameters_out_of_range_are_refused_and_those_in_it_are_not() {
    use Rule::{CandidateCount, LowTemperature, OutputTokens, Temperature, Thinking, TopK, TopP};
    const BUDGET: &str = "generation_config.thinking_config.thinking_budget";
    const LEVEL: &str = "generation_config.thinking_config.thinking_level";
    let (flash, pro, lite) = ("gemini-9-flash", "gemini-8-pro", "gemini-8-flash-lite");
    for (model, member, bad, good, rule, field) in [
        (
            flash,
            "candidateCount",
            json!([0, 9, -1, 1.5e9, "9"]),
            json!([1, 8, "8", null]),
            CandidateCount,
            "generation_config.candidate_count",
        ),
        (
            flash,
            "temperature",
            json!([-0.1, 2.1, "NaN", "Infinity"]),
            json!([1, 1.0, 2, 2.0, "1.5", null, "warm"]),
            Temperature,
            "generation_config.temperature",
        ),
        (
            flash,
            "temperature",
            json!([0, 0.5, 0.99]),
            json!([1.0]),
            LowTemperature,
            "generation_config.temperature",
        ),
        (pro, "temperature", json!([]), json!([0, 0.5, 1, 2]), LowTemperature, ""),
        (flash, "topP", json!([-0.01, 1.01]), json!([0, 0.95, 1]), TopP, "generation_config.top_p"),
        (flash, "topK", json!([0, -1]), json!([1, 64, 100_000]), TopK, "generation_config.top_k"),
        (pro, "topK", json!([0, 41]), json!([1, 40]), TopK, "generation_config.top_k"),
        (
            flash,
            "maxOutputTokens",
            json!([0, 65_537, -5]),
            json!([1, 65_536, "100"]),
            OutputTokens,
            "generation_config.max_output_tokens",
        ),
        (
            pro,
            "maxOutputTokens",
            json!([0]),
            json!([1, 10_000_000]),
            OutputTokens,
            "generation_config.max_output_tokens",
        ),
        (pro, "thinkingBudget", json!([0, 127, 32_769, -2]), json!([-1, 128, 32_768]), Thinking, BUDGET),
        (lite, "thinkingBudget", json!([1, 511, 24_577]), json!([-1, 0, 512, 24_576]), Thinking, BUDGET),
        (flash, "thinkingBudget", json!([]), json!([0, 1_000_000]), Thinking, ""),
        (
            flash,
            "thinkingLevel",
            json!(["minimal", "HIGHEST"]),
            json!(["low", "HIGH", "", "THINKING_LEVEL_UNSPECIFIED", 3]),
            Thinking,
            LEVEL,
        ),
        (lite, "thinkingLevel", json!(["low"]), json!([null]), Thinking, LEVEL),
    ] {
        let with = |value: &Value| match member {
            "thinkingBudget" | "thinkingLevel" => config(&json!({"thinkingConfig": {member: value}})),
            _ => config(&json!({member: value})),
        };
        for value in bad.as_array().unwrap() {
            let told = breaks(&uri(model), &with(value)).await;
            assert_eq!(told, [(rule, field, rule != LowTemperature)], "{model} {member} {value}");
        }
        for value in good.as_array().unwrap() {
            assert_eq!(breaks(&uri(model), &with(value)).await, [], "{model} {member} {value}");
        }
    }
    let both = config(&json!({"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "low"}}));
    assert_eq!(breaks(&uri(flash), &both).await, [(Thinking, LEVEL, true)]);
    // Several at once are told at once.
    let three = config(&json!({"temperature": 3, "top_p": 2, "top_k": 0}));
    let rules: Vec<_> = breaks(&uri(flash), &three).await.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(rules, [Temperature, TopP, TopK]);
    // Nothing is known of another family, of a tuned model, or of what answers for one that has retired.
    let hot = config(&json!({"temperature": 3, "thinkingConfig": {"thinkingLevel": "low"}}));
    assert_eq!(breaks(&uri("gemma-3-27b-it"), &hot).await, []);
    assert_eq!(breaks(&format!("{BASE}/v1beta/tunedModels/mine:generateContent"), &hot).await, []);
    let told = breaks(&uri("gemini-1-pro"), &hot).await;
    assert_eq!(told.iter().map(|(rule, ..)| *rule).collect::<Vec<_>>(), [Rule::RetiredModel, Temperature]);
}

#[tokio::test(start_paused = true)]
async fn other_surfaces_have_their_parameters_elsewhere() {
    let chat = format!("{BASE}/v1beta/openai/chat/completions");
    let with = |member: &str, value: Value| {
        json!({"model": "gemini-9-flash", "messages": [], member: value}).to_string()
    };
    for (member, bad, good, rule, field) in [
        ("temperature", json!(2.5), json!(1), Rule::Temperature, "temperature"),
        ("top_p", json!(2), json!(1), Rule::TopP, "top_p"),
        ("n", json!(9), json!(8), Rule::CandidateCount, "n"),
        ("max_tokens", json!(0), json!(1), Rule::OutputTokens, "max_tokens"),
        ("max_completion_tokens", json!(65_537), json!(65_536), Rule::OutputTokens, "max_tokens"),
    ] {
        assert_eq!(breaks(&chat, &with(member, bad)).await, [(rule, field, true)]);
        assert_eq!(breaks(&chat, &with(member, good)).await, []);
    }
    let interactions = format!("{BASE}/v1beta/interactions");
    let with = |config: Value| {
        json!({"model": "gemini-9-flash", "input": "Hi", "generation_config": config}).to_string()
    };
    assert_eq!(breaks(&interactions, &with(json!({"thinking_level": "minimal", "top_p": 2}))).await.len(), 2);
    assert_eq!(breaks(&interactions, &with(json!({"thinking_level": "low", "top_p": 1}))).await, []);
    let vertex =
        "https://x/v1/projects/p/locations/l/publishers/google/models/gemini-9-flash:generateContent";
    assert_eq!(breaks(vertex, &config(&json!({"topK": 0}))).await.len(), 1);
    let assist = json!({"model": "gemini-9-flash", "request": {"generationConfig": {"topK": 0}}}).to_string();
    assert_eq!(breaks("https://x/v1internal:generateContent", &assist).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_none_is_told_with_the_nearest_right_one() {
    for (name, near) in [
        ("gemini-9-flahs", Some("gemini-9-flash")),
        ("gemini-9-flsh", Some("gemini-9-flash")),
        ("gemni-8-pro", Some("gemini-8-pro")),
        ("gemini-7-flash", Some("gemini-9-flash")),
        ("gemini-2-something-else-entirely", None),
    ] {
        let outcome = outcome(builder().mode(Rule::UnknownModel, RuleMode::Reject), &uri(name), "{}").await;
        let refused = outcome.refused.unwrap();
        let message = refused.findings()[0].message();
        assert_eq!(
            (refused.findings()[0].rule(), refused.findings()[0].field()),
            (Rule::UnknownModel, "model")
        );
        assert!(message.contains(name), "{message}");
        match near {
            Some(near) => assert!(message.ends_with(&format!("did you mean {near}?")), "{message}"),
            None => assert!(!message.contains("did you mean"), "{message}"),
        }
    }
    // Known ones, their variants, aliases, other families, and what is no name of Google's.
    for name in [
        "gemini-9-flash",
        "gemini-9-flash-001",
        "gemini-8-pro-preview-09-2026",
        "gemini-flash-latest",
        "gemma-3-27b-it",
        "imagen-4",
        "llama",
    ] {
        assert_eq!(breaks(&uri(name), "{}").await, [], "{name}");
    }
    assert_eq!(breaks(&uri("gemini-9-flahs"), "{}").await, [(Rule::UnknownModel, "model", false)]);
    // In the body, where the path has none.
    let chat = json!({"model": "models/gemini-9-flahs"}).to_string();
    assert_eq!(
        breaks(&format!("{BASE}/v1beta/openai/chat/completions"), &chat).await,
        [(Rule::UnknownModel, "model", false)]
    );
    // Reading about a model puts none to work.
    assert_eq!(breaks(&format!("{BASE}/v1beta/files"), "{}").await, []);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_has_retired_is_told_with_its_successor() {
    let outcome =
        outcome(builder().mode(Rule::RetiredModel, RuleMode::Reject), &uri("gemini-1-pro"), "{}").await;
    let refused = outcome.refused.unwrap();
    assert_eq!(
        refused.findings()[0].message(),
        "The model gemini-1-pro has retired on 2020-01-01; use gemini-9-flash."
    );
    assert_eq!(breaks(&uri("gemini-1-flash"), "{}").await, [(Rule::RetiredModel, "model", false)]);
    assert_eq!(breaks(&uri("gemini-9-flash"), "{}").await, []);
}

#[tokio::test(start_paused = true)]
async fn what_v1_has_not_is_told() {
    let at = |version: &str| format!("{BASE}/{version}/models/gemini-9-flash:generateContent");
    for (body, field) in [
        (json!({"cachedContent": "cachedContents/x"}), Some("cached_content")),
        (json!({"service_tier": "flex"}), Some("service_tier")),
        (json!({"generationConfig": {"speechConfig": {}}}), Some("generation_config.speech_config")),
        (json!({"tools": [{"computerUse": {}}]}), Some("tools.computer_use")),
        (json!({"tools": [{"mcpServers": []}]}), Some("tools.mcp_servers")),
        (json!({"tools": [{"googleSearch": {}}], "systemInstruction": {}}), None),
    ] {
        let told: Vec<_> = breaks(&at("v1"), &body.to_string()).await;
        assert_eq!(told, field.map(|field| (Rule::ApiVersion, field, false)).into_iter().collect::<Vec<_>>());
        assert_eq!(breaks(&at("v1beta"), &body.to_string()).await, []);
    }
    let tool = json!({"model": "gemini-9-flash", "tools": [{"type": "mcp_server"}]}).to_string();
    assert_eq!(breaks(&format!("{BASE}/v1/interactions"), &tool).await.len(), 1);
    assert_eq!(
        breaks(&format!("{BASE}/v1/cachedContents"), "{}").await,
        [(Rule::ApiVersion, "cached_contents", false)]
    );
    assert_eq!(breaks(&format!("{BASE}/v1beta/cachedContents"), "{}").await, []);
    // Vertex AI's v1 is another API.
    let vertex =
        "https://x/v1/projects/p/locations/l/publishers/google/models/gemini-9-flash:generateContent";
    assert_eq!(breaks(vertex, &json!({"cachedContent": "c"}).to_string()).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_must_be_over_the_context_is_refused_and_one_that_may_fit_is_not() {
    // 1,000 tokens, of 64 bytes at the most.
    let text = |bytes: usize| json!({"contents": [{"parts": [{"text": "x".repeat(bytes)}]}]}).to_string();
    assert_eq!(breaks(URI, &text(64_000 + 63)).await, []);
    let told = breaks(URI, &text(64_064)).await;
    assert_eq!(told, [(Rule::ContextSize, "contents", true)]);
    // Neither escapes nor media are text.
    let escaped = json!({"contents": [{"parts": [{"text": "\u{1}".repeat(64_000)}]}]}).to_string();
    assert!(escaped.len() > 6 * 64_000);
    assert_eq!(breaks(URI, &escaped).await, []);
    let media = json!({"contents": [{"parts": [{"inlineData": {"data": "A".repeat(100_000)}}]}]}).to_string();
    assert_eq!(breaks(URI, &media).await, []);
    // A model whose context is not known.
    assert_eq!(breaks(&uri("gemini-8-pro"), &text(100_000)).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_body_above_the_inline_limit_is_refused_with_the_files_api_as_the_remedy() {
    let small = || builder().max_inline_bytes(2_000);
    let body = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
    let outcome_of = async |bytes| outcome(small(), URI, &body(bytes)).await;
    assert!(outcome_of(2_000).await.refused.is_none());
    let refused = outcome_of(2_001).await.refused.unwrap();
    assert_eq!(refused.findings()[0].rule(), Rule::InlineSize);
    assert!(refused.findings()[0].message().contains("Files API"));
    assert_eq!(Verdict::from_error(&refused).kind(), Some(Kind::PayloadTooLarge));
    let vertex =
        "https://x/v1/projects/p/locations/l/publishers/google/models/gemini-9-flash:generateContent";
    assert!(outcome(small(), vertex, &body(2_001)).await.refused.is_none(), "it has limits of its own");
}

#[tokio::test(start_paused = true)]
async fn a_key_where_it_leaks_is_told_and_never_printed() {
    for (query, told) in [
        ("?key=K", true),
        ("?alt=sse&key=K", true),
        ("?access_token=t", true),
        ("?key=", false),
        ("?alt=sse", false),
        ("?monkey=1", false),
    ] {
        let expected: &[_] = if told { &[(Rule::KeyInUrl, "key", false)] } else { &[] };
        assert_eq!(breaks(&format!("{URI}{query}"), "{}").await, expected, "{query}");
    }
    let body = json!({"contents": [{"parts": [{"text": format!("my key: {KEY}")}]}]}).to_string();
    assert_eq!(breaks(URI, &body).await, [(Rule::KeyInBody, "contents", false)]);
    let strict = outcome(
        builder().mode(Rule::KeyInBody, RuleMode::Reject).mode(Rule::KeyInUrl, RuleMode::Reject),
        &format!("{URI}?key={KEY}"),
        &body,
    )
    .await;
    let refused = strict.refused.unwrap();
    assert!(!format!("{refused} {refused:?}").contains(KEY));
    let off = builder().mode(Rule::KeyInBody, RuleMode::Off);
    assert_eq!(outcome(off, URI, &body).await.told, []);
}

#[tokio::test(start_paused = true)]
async fn a_rule_can_be_off_told_or_refused() {
    let hot = config(&json!({"temperature": 3, "topP": 2}));
    let modes = |temperature| builder().mode(Rule::Temperature, temperature).mode(Rule::TopP, RuleMode::Off);
    assert_eq!(outcome(modes(RuleMode::Off), URI, &hot).await.told, []);
    let warned = outcome(modes(RuleMode::Warn), URI, &hot).await;
    assert!(warned.refused.is_none());
    assert_eq!(warned.told, [(Rule::Temperature, "generation_config.temperature", false)]);
    assert!(outcome(modes(RuleMode::Reject), URI, &hot).await.refused.is_some());
    let all = builder().mode(Rule::TopP, RuleMode::Off).every_mode(RuleMode::Warn);
    let all = outcome(all, URI, &hot).await;
    assert!(all.refused.is_none() && all.told.len() == 1);
    // A bad day of all rules is told in the order of the rules' kinds: head first.
    let mut names: Vec<_> = Rule::ALL.iter().map(|rule| rule.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Rule::ALL.len());
    let rejects = Rule::ALL.iter().filter(|rule| rule.default_mode() == RuleMode::Reject).count();
    assert_eq!(rejects, 9, "what the server is sure to refuse");
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_more_than_a_hundred_texts_is_refused_and_others_are_counted() {
    let uri = format!("{BASE}/v1beta/models/gemini-embedding-001:batchEmbedContents");
    let body = |texts: usize| {
        let one =
            json!({"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "a [b] {c}"}]}});
        json!({"requests": vec![one; texts], "other": [{"requests": [{}, {}]}]}).to_string()
    };
    let refused = outcome(builder(), &uri, &body(101)).await.refused.expect("one too many");
    let finding = &refused.findings()[0];
    assert_eq!((finding.rule(), finding.field()), (Rule::BatchSize, "requests"));
    assert_eq!(finding.message(), "The batch has 101 texts and at most 100 are taken; split it.");
    assert!(outcome(builder(), &uri, &body(100)).await.refused.is_none());
    // The same members mean nothing elsewhere.
    assert!(outcome(builder(), URI, &body(101)).await.refused.is_none());
    for (pieces, texts) in [(usize::MAX, 0), (usize::MAX, 7), (5, 7), (usize::MAX, 100)] {
        let counted = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&counted);
        let server = tower::service_fn(move |request: Request<PreflightBody<Frames>>| {
            *seen.lock().unwrap() = request.extensions().get::<Texts>().copied();
            std::future::ready(Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())))
        });
        let request = Request::post(&uri).body(Frames::of(&body(texts), pieces)).unwrap();
        builder().build().unwrap().layer(server).oneshot(request).await.unwrap();
        assert_eq!(*counted.lock().unwrap(), Some(Texts(texts as u8)), "{texts} in pieces of {pieces}");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_out_of_range_are_named() {
    use std::time::Duration;
    use tower_gemini::preflight::CountTokens;
    for (builder, field) in [
        (builder().hold_bytes(1_023), "hold_bytes"),
        (builder().hold_bytes(16 * 1024 * 1024 + 1), "hold_bytes"),
        (builder().head_wait(Duration::ZERO), "head_wait"),
        (builder().head_wait(Duration::from_secs(601)), "head_wait"),
        (builder().max_inline_bytes(1_023), "max_inline_bytes"),
        (builder().count_tokens(CountTokens::new().per_minute(0)), "per_minute"),
        (builder().count_tokens(CountTokens::new().timeout(Duration::ZERO)), "timeout"),
        (builder().count_tokens(CountTokens::new().min_bytes(2).max_bytes(1)), "max_bytes"),
    ] {
        assert_eq!(builder.build().unwrap_err().field(), field);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_error_that_was_not_sent_and_googles_own_400_behind_respond() {
    let refused = outcome(builder(), URI, &config(&json!({"temperature": 3}))).await.refused.unwrap();
    assert_eq!(
        refused.to_string(),
        "preflight of gemini-9-flash: not sent: generation_config.temperature: It must be from 0 to 2, and is 3."
    );
    assert!(find::<Rejected>(&refused).is_some_and(|rejected| rejected.until().is_none()));
    assert_eq!(Verdict::from_error(&refused).kind(), Some(Kind::InvalidArgument));

    let client = tower::service_fn(async |_: http::Request<PreflightBody<Full<Bytes>>>| {
        Ok::<_, std::io::Error>(http::Response::new(Full::<Bytes>::default()))
    });
    let gateway = RespondLayer::new().layer(builder().build().unwrap().layer(client));
    let body = config(&json!({"temperature": 3, "topK": 0}));
    let response = gateway.clone().oneshot(post(URI, body)).await.unwrap();
    assert_eq!(response.status(), 400);
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["status"], "INVALID_ARGUMENT");
    assert_eq!(
        body["error"]["message"],
        "generation_config.temperature: It must be from 0 to 2, and is 3. generation_config.top_k: It must be 1 or more, and is 0."
    );
    assert_eq!(
        body["error"]["details"][1],
        json!({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [
            {"field": "generation_config.temperature", "description": "It must be from 0 to 2, and is 3."},
            {"field": "generation_config.top_k", "description": "It must be 1 or more, and is 0."},
        ]})
    );
    let read =
        Verdict::from_parts(http::StatusCode::BAD_REQUEST, &http::HeaderMap::new(), body.to_string().into());
    assert_eq!(read.kind(), Some(Kind::InvalidArgument));
    let big = post(URI, vec![b' '; 101 * 1024 * 1024]);
    assert_eq!(gateway.oneshot(big).await.unwrap().status(), 413);
    assert!(find::<PreflightRefused>(&refused).is_some());
}
