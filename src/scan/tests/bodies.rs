//! Bodies of every form, generated with traps in them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// Strings with everything in them that could be taken for something else.
pub(super) fn text() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "",
        "plain words",
        "\"",
        "\\",
        "\\\"",
        "\n",
        "\r\n\r\n",
        "data: {",
        "{\"error\":",
        "}]}",
        "\u{1F600}",
        "ü",
        "\u{7f}",
        "\u{2028}",
        "\"finishReason\": \"SAFETY\"",
        "[DONE]",
        "\t",
        "\u{1}",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ]);
    vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

pub(super) fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((name(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Names that mean something elsewhere, and some that never do.
fn name() -> impl Strategy<Value = String> {
    select(vec![
        "text",
        "error",
        "candidates",
        "usageMetadata",
        "promptTokenCount",
        "finishReason",
        "blockReason",
        "x",
        "",
        "promptTokensDetails",
        "a name of more than thirty-two bytes, which is none",
        "\"",
        "ü",
    ])
    .prop_map(str::to_owned)
}

fn tokens() -> impl Strategy<Value = Value> {
    prop_oneof![(0..100_000_u64).prop_map(Value::from), (0..100_000_u64).prop_map(|n| n.to_string().into())]
}

/// An object of some of these members, in any order.
fn object(members: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Object> {
    let member = |(name, value): (&'static str, BoxedStrategy<Value>)| {
        proptest::option::weighted(0.7, value.prop_map(move |value| (name.to_owned(), value)))
    };
    let members: Vec<_> = members.into_iter().map(member).collect();
    (members, proptest::option::weighted(0.2, ("[a-z]{3}", junk())))
        .prop_map(|(members, extra)| members.into_iter().flatten().chain(extra).collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(|members| {
            Object(members.into_iter().map(|(name, value)| (name, value.to_string())).collect())
        })
        .boxed()
}

/// Members with their JSON, since `serde_json`'s own map sorts them.
#[derive(Clone, Debug)]
pub(super) struct Object(Vec<(String, String)>);

impl Object {
    pub(super) fn value(&self) -> Value {
        serde_json::from_str(&self.json(" ")).unwrap()
    }

    /// Whether it has a member that an error's envelope may have.
    pub(super) fn is_envelope(&self) -> bool {
        let names = ["error", "code", "message", "status", "details"];
        self.0.iter().any(|(name, _)| names.contains(&name.as_str()))
    }

    pub(super) fn json(&self, blank: &str) -> String {
        let member =
            |(name, value): &(String, String)| format!("{}:{blank}{value}", Value::from(name.as_str()));
        format!(
            "{{{blank}{}{blank}}}",
            self.0.iter().map(member).collect::<Vec<_>>().join(&format!(",{blank}"))
        )
    }
}

fn as_value(object: BoxedStrategy<Object>) -> BoxedStrategy<Value> {
    object.prop_map(|object| object.value()).boxed()
}

fn any_of(values: Vec<Value>) -> BoxedStrategy<Value> {
    select(values).boxed()
}

fn answer() -> BoxedStrategy<Object> {
    let text = || text().prop_map(Value::from).boxed();
    let part = || {
        as_value(object(vec![
            ("text", text()),
            ("thought", any_of(vec![json!(true), json!(false), json!(null), json!("true")])),
        ]))
    };
    let other = any_of(vec![
        json!({"functionCall": {"name": "f", "args": {"text": "x", "error": {"code": 1}}}}),
        json!({"inlineData": {"mimeType": "image/png", "data": "aGVsbG8="}}),
        json!({"thoughtSignature": "c2lnbmVk"}),
        json!("no part"),
    ]);
    let parts = vec(prop_oneof![4 => part(), 1 => other], 0..3).prop_map(Value::from).boxed();
    let content = as_value(object(vec![("parts", parts), ("role", any_of(vec![json!("model")]))]));
    let reasons = [
        "STOP",
        "MAX_TOKENS",
        "SAFETY",
        "OTHER",
        "",
        "MALFORMED_FUNCTION_CALL",
        "FINISH_REASON_UNSPECIFIED",
        "A_REASON_TO_COME",
        "IMAGE_PROHIBITED_CONTENT",
    ];
    let finish = prop_oneof![
        3 => Just(json!("STOP")),
        2 => select(reasons.to_vec()).prop_map(Value::from),
        1 => junk(),
    ];
    let candidate = as_value(object(vec![
        ("content", prop_oneof![9 => content, 1 => junk()].boxed()),
        ("finishReason", finish.boxed()),
        ("index", any_of(vec![json!(0), json!(1), json!(9), json!(-1), json!(1e3), json!("2")])),
        ("safetyRatings", junk().boxed()),
    ]));
    let details = any_of(vec![json!([{"modality": "TEXT", "tokenCount": 9}])]);
    let usage = as_value(object(vec![
        ("promptTokenCount", tokens().boxed()),
        ("toolUsePromptTokenCount", tokens().boxed()),
        ("cachedContentTokenCount", tokens().boxed()),
        ("candidatesTokenCount", tokens().boxed()),
        ("thoughtsTokenCount", tokens().boxed()),
        ("totalTokenCount", tokens().boxed()),
        ("promptTokensDetails", details),
    ]));
    let feedback = any_of(vec![
        json!({}),
        json!({"safetyRatings": [{"blockReason": "x"}]}),
        json!({"blockReason": "SAFETY"}),
        json!({"blockReason": "BLOCK_REASON_UNSPECIFIED"}),
        json!({"blockReasonMessage": "Not this."}),
    ]);
    let candidates = vec(candidate, 0..4).prop_map(Value::from).boxed();
    let mut members = vec![
        ("candidates", candidates),
        ("usageMetadata", prop_oneof![9 => usage, 1 => junk()].boxed()),
        ("modelVersion", any_of(vec![json!("gemini-9-flash")])),
    ];
    let plain = object(members.clone());
    members.push(("promptFeedback", feedback));
    prop_oneof![9 => plain, 1 => object(members)].boxed()
}

pub(super) fn event() -> BoxedStrategy<Object> {
    let completion = object(vec![
        ("id", any_of(vec![json!("c1")])),
        (
            "choices",
            any_of(vec![
                json!([]),
                json!([{"delta": {"content": "x"}, "finish_reason": null}]),
                json!([{"finish_reason": "content_filter"}]),
                json!([{"index": 1, "delta": {"role": "assistant", "content": ""}, "finish_reason": "length"}]),
                json!([{"delta": {"content": null, "tool_calls": [{"index": 0, "function": {"name": "f"}}]},
                    "finish_reason": "tool_calls"}]),
                json!([{"message": {"tool_calls": null, "content": "x"}, "finish_reason": "stop"}]),
                json!([{"delta": [{"content": "x"}]}, {"message": {"tool_calls": [[], [[{}]]]}}, {"delta": "x"}]),
                json!([{"delta": {"tool_calls": []}}]),
            ]),
        ),
        (
            "usage",
            any_of(vec![
                json!(null),
                json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 1}}),
            ]),
        ),
    ]);
    let interaction = object(vec![
        ("event_type", any_of(vec![json!("interaction.complete")])),
        (
            "interaction",
            any_of(vec![
                json!({"id": "v1", "status": "completed", "usage": {"total_input_tokens": 7,
            "total_tool_use_tokens": 2, "total_cached_tokens": 1, "total_output_tokens": 5, "total_thought_tokens": 4,
            "total_tokens": 18}}),
                json!({"usage": {"totalInputTokens": 8, "totalToolUseTokens": 3,
            "totalCachedTokens": 2, "totalOutputTokens": 6, "totalThoughtTokens": 5, "totalTokens": 22}}),
            ]),
        ),
        ("status", any_of(vec![json!("completed")])),
    ]);
    let assist = answer().prop_map(|answer| {
        Object(vec![("response".into(), answer.json("")), ("traceId".into(), "\"t\"".into())])
    });
    let imagen = object(vec![(
        "predictions",
        any_of(vec![
            json!([{"raiFilteredReason": "no"}]),
            json!([]),
            json!([{"bytesBase64Encoded": "aGVsbG8="}, {"raiFilteredReason": "no"}]),
            json!([[{"gcsUri": "gs://x"}]]),
        ]),
    )]);
    let errors = vec![
        json!({"code": 503, "message": "The model is overloaded.\nPlease \"retry\".", "status": "UNAVAILABLE"}),
        json!({"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "7s",
            "@type": "type.googleapis.com/google.rpc.RetryInfo"}]}),
        json!({"code": 500, "status": "INTERNAL", "message": "\u{1F600}", "details": []}),
        json!({"code": "server_error", "message": "x"}),
        json!({}),
        json!(null),
        json!("down"),
        json!([]),
        json!(""),
        json!([{"code": 400, "status": "INVALID_ARGUMENT"}]),
        json!(true),
        json!(503),
    ];
    let error = object(vec![
        ("error", any_of(errors)),
        ("usageMetadata", any_of(vec![json!({"totalTokenCount": 3})])),
        ("status", any_of(vec![json!("failed")])),
    ]);
    let flat = object(vec![
        ("code", any_of(vec![json!(503), json!(200), json!("429"), json!("not_found"), json!(1e9)])),
        ("message", text().prop_map(Value::from).boxed()),
        ("status", any_of(vec![json!("UNAVAILABLE"), json!(7)])),
        ("details", junk().boxed()),
    ]);
    let other = object(vec![("x", junk().boxed()), ("error_description", junk().boxed())]);
    prop_oneof![8 => answer(), 2 => completion, 1 => interaction, 2 => assist, 1 => imagen, 2 => error, 1 => flat, 1 => other]
        .boxed()
}

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) body: String,
    /// The same in a form that the classifier's own reader of whole bodies knows.
    pub(super) plain: String,
    pub(super) events: Vec<Object>,
}

/// The forms of a stream.
pub(super) fn case() -> impl Strategy<Value = Case> {
    let blank = select(vec!["", " ", "\n  ", "\r\n\t"]);
    let sse = (vec(event(), 0..6), select(vec!["\n", "\r\n", "\r"]), vec(0..8_u8, 6), any::<[bool; 3]>())
        .prop_map(|(events, end, styles, [done, space, tail])| {
            let (mut body, mut plain) = (String::from("data:"), String::from("data:"));
            body += end;
            plain += "\n";
            let n = events.len();
            for (i, (event, style)) in events.iter().zip(&styles).enumerate() {
                if tail && i + 1 == n {
                    body += &event.json("\n ");
                    plain += &event.json("\n ");
                    return Case { body, plain, events };
                }
                match style {
                    0 => body += &format!(": a comment{end}"),
                    1 => body += &format!("event: message{end}id: 7{end}"),
                    2 => body += &format!("data{end}dat: x{end}"),
                    _ => {}
                }
                let field = if space { "data: " } else { "data:" };
                // Data over several lines.
                let over = if *style == 3 { format!("{end}{field}") } else { String::new() };
                body += &format!("{field}{}{end}{end}", event.json(&over));
                plain += &format!("data: {}\n\n", event.json(" "));
            }
            if done {
                body += &format!("data: [DONE]{end}{end}");
                plain += "data: [DONE]\n\n";
            }
            Case { body, plain, events }
        });
    let same = |body: String, events| Case { plain: body.clone(), body, events };
    let array = (vec(event(), 0..5), blank.clone()).prop_map(move |(events, blank)| {
        let items: Vec<_> = events.iter().map(|event| event.json(blank)).collect();
        same(format!("[{}\n]\n", items.join(&format!("{blank},\r\n"))), events)
    });
    let one = (event(), blank)
        .prop_map(move |(event, blank)| same(format!("{blank}{}", event.json(blank)), vec![event]));
    prop_oneof![3 => sse, 2 => array, 2 => one]
}
