//! Answers under a 200: every reader says the same of them, whole or in frames.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::Verdict;
use tower_gemini::classify::{ClassifyLayer, Peek};
use tower_gemini::verdict::{Kind, Outcome, Usage};

use crate::line::judge;

/// What a watched layer says of a body, with and without a look at its beginning, and what is read whole.
async fn said(body: &str, stream: bool) -> [Option<Kind>; 3] {
    let whole = judge(200, &[], body.to_owned()).kind();
    let mut all = [whole; 3];
    for (said, peek) in all[1..].iter_mut().zip([Peek::Off, Peek::FirstEvent]) {
        *said = ending(&watched(body, stream, peek).await);
    }
    all
}

fn ending(verdict: &Verdict) -> Option<Kind> {
    match verdict.outcome() {
        Some(Outcome::Failed(kind)) => Some(kind),
        Some(_) => None,
        None => verdict.kind(),
    }
}

async fn watched(body: &str, stream: bool, peek: Peek) -> Verdict {
    let body = Bytes::from(body.to_owned());
    let kind = if stream { "text/event-stream" } else { "application/json" };
    let client = service_fn(move |_: Request<()>| {
        let response = Response::builder().status(StatusCode::OK).header("content-type", kind);
        let response = response.body(Full::new(body.clone())).unwrap();
        async move { Ok::<_, BoxError>(response) }
    });
    let service = ServiceBuilder::new().layer(ClassifyLayer::new().watch().peek(peek)).service(client);
    let response = service.oneshot(Request::new(())).await.unwrap();
    let verdict = Verdict::of(&response);
    response.into_body().collect().await.unwrap();
    verdict
}

fn events(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["event_type"].as_str().unwrap_or("x")))
        .collect()
}

#[track_caller]
fn same(said: [Option<Kind>; 3], expected: Option<Kind>, body: &str) {
    assert_eq!(said, [expected; 3], "{body}");
}

#[tokio::test]
async fn what_is_no_answer_of_geminis_is_unknown_to_every_reader() {
    let long_page = format!("<html>{}</html>", "x".repeat(20_000));
    for body in [
        "<html>x</html>",
        "<!DOCTYPE html><title>Sign in</title>",
        &long_page,
        "pong",
        "[1, 2]",
        r#"{"status":"ok"}"#,
    ] {
        same(said(body, false).await, Some(Kind::Unknown), body);
    }
    let page = "<html>Sign in</html>";
    same(said(page, true).await, Some(Kind::Unknown), page);
    assert_eq!(
        watched(page, true, Peek::FirstEvent).await.kind(),
        Some(Kind::Unknown),
        "known with the head"
    );
    // A file that was asked for.
    same(said(&"line\n".repeat(4000), false).await, None, "a download");
    same(said("{}", false).await, None, "the answer to a delete");
}

#[tokio::test]
async fn videos_and_images_refused_by_filters_are_blocked_where_nothing_was_made() {
    let blocked = Some(Kind::ContentBlocked);
    let refused = json!({ "raiMediaFilteredCount": 1, "raiMediaFilteredReasons": ["x"] });
    for (body, expected) in [
        (json!({ "done": true, "response": refused }), blocked),
        (json!({ "done": true, "response": { "raiMediaFilteredReasons": ["x", "y"] } }), blocked),
        (
            json!({ "name": "operations/1", "done": true, "response": { "@type": "t", "generateVideoResponse": refused } }),
            blocked,
        ),
        (
            json!({ "done": true, "response": { "raiMediaFilteredCount": 0, "videos": [{ "gcsUri": "gs://x" }] } }),
            None,
        ),
        (
            json!({ "done": true, "response": { "raiMediaFilteredCount": 1, "videos": [{ "bytesBase64Encoded": "AA==" }] } }),
            None,
        ),
        (
            json!({ "done": true, "response": { "generateVideoResponse": { "generatedSamples": [{ "video": { "uri": "x" } }], "raiMediaFilteredCount": 1 } } }),
            None,
        ),
        (json!({ "predictions": [{ "raiFilteredReason": "x" }, { "raiFilteredReason": "y" }] }), blocked),
        (json!({ "generatedImages": [{ "raiFilteredReason": "x" }] }), blocked),
        (
            json!({ "generatedImages": [{ "raiFilteredReason": "x" }, { "image": { "imageBytes": "AA==" } }] }),
            None,
        ),
        (json!({ "done": false, "name": "operations/1" }), None),
    ] {
        let body = body.to_string();
        same(said(&body, false).await, expected, &body);
    }
}

#[tokio::test]
async fn an_unknown_finish_reason_with_output_is_complete() {
    let answer = |reason: &str, text: &str| {
        json!({ "candidates": [{ "content": { "parts": [{ "text": text }] }, "finishReason": reason }] })
            .to_string()
    };
    for reason in
        ["ESCALATION", "PUP_LIMITED_DISABLED", "CHANGED_ITS_MIND", "CONTINUATION", "STOP", "MAX_TOKENS"]
    {
        for stream in [false, true] {
            let framed = |text: &str| match stream {
                true => format!("data: {}\n\n", answer(reason, text)),
                false => answer(reason, text),
            };
            same(said(&framed("Half a story"), stream).await, None, reason);
            same(said(&framed(""), stream).await, Some(Kind::EmptyResponse), reason);
            let known = matches!(reason, "CONTINUATION" | "STOP" | "MAX_TOKENS");
            for peek in [Peek::Off, Peek::FirstEvent] {
                let verdict = watched(&framed("Half a story"), stream, peek).await;
                assert_eq!(verdict.unknown_finish_reason(), (!known).then_some(reason));
            }
        }
    }
    same(said(&answer("OTHER", "Half"), false).await, Some(Kind::Truncated), "OTHER is known");
    let long = "REASON_THAT_IS_LONGER_THAN_ANY_OTHER_REASON";
    let verdict = watched(&answer(long, "Half"), false, Peek::Off).await;
    assert_eq!(verdict.unknown_finish_reason(), Some(&long[..32]));
}

/// The events of one interaction, as google-genai 3.6.1 reads them.
fn interaction(deltas: &[Value], last: Value) -> String {
    let mut all = vec![
        json!({ "event_type": "interaction.created", "interaction": { "id": "i1", "status": "in_progress" } }),
    ];
    for delta in deltas {
        all.push(json!({ "event_type": "step.delta", "index": 0, "delta": delta }));
    }
    if !last.is_null() {
        all.push(json!({ "event_type": "interaction.completed", "interaction": last }));
    }
    events(&all)
}

#[tokio::test]
async fn an_interactions_deltas_are_output_and_its_status_is_its_end() {
    let text = json!({ "type": "text", "text": "Part 1" });
    let thought = json!({ "type": "thought_summary", "content": { "type": "text", "text": "hm" } });
    let call = json!({ "type": "arguments_delta", "arguments": "{}" });
    let image = json!({ "type": "image", "data": "AA==" });
    let done = |status: &str| json!({ "id": "i1", "status": status, "usage": { "total_output_tokens": 20, "total_tokens": 30 } });
    let (empty, cut) = (Some(Kind::EmptyResponse), Some(Kind::Truncated));
    for (deltas, last, expected) in [
        (vec![text.clone()], done("completed"), None),
        (vec![call], done("requires_action"), None),
        (vec![image], done("completed"), None),
        (vec![text.clone()], done("requires_continuation"), None),
        (vec![text.clone()], done("incomplete"), None),
        (vec![thought.clone(), text.clone()], done("completed"), None),
        (vec![text.clone()], done("failed"), cut),
        (vec![text.clone()], Value::Null, cut),
        (vec![thought.clone()], Value::Null, empty),
        (vec![thought.clone()], done("completed"), empty),
        // It goes on by its token, and nothing is lost.
        (vec![thought.clone()], done("requires_continuation"), None),
        (vec![thought.clone()], done("incomplete"), empty),
        (vec![json!({ "type": "text", "text": "" })], done("completed"), empty),
    ] {
        let body = interaction(&deltas, last);
        same(said(&body, true).await, expected, &body);
    }
    let verdict = watched(&interaction(&[text], done("completed")), true, Peek::FirstEvent).await;
    let usage =
        verdict.usage().map(|Usage { output_tokens, total_tokens, .. }| (output_tokens, total_tokens));
    assert_eq!(usage, Some((20, 30)));
}

#[tokio::test]
async fn an_interactions_errors_are_found_before_and_after_output() {
    let error = |error: Value| json!({ "event_type": "error", "error": error });
    let delta = json!({ "event_type": "step.delta", "index": 0, "delta": { "type": "text", "text": "x" } });
    let coded = json!({ "code": "too_many_requests", "message": "Slow down." });
    let wrapped =
        json!(r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#);
    for (value, kind) in [
        (coded.clone(), Kind::RateLimited),
        (wrapped, Kind::Overloaded),
        (json!("503 UNAVAILABLE. The model is overloaded."), Kind::Overloaded),
        (json!("gone"), Kind::Unknown),
    ] {
        let first = events(&[error(value.clone())]);
        same(said(&first, true).await, Some(kind), &first);
        let late = events(&[delta.clone(), error(value)]);
        same(said(&late, true).await, Some(kind), &late);
        assert!(judge(200, &[], late.clone()).after_output(), "{late}");
    }
}

#[tokio::test]
async fn a_failed_interactions_errors_say_why_it_failed() {
    let of = |errors: Value, steps: Value| {
        json!({ "id": "i1", "object": "interaction", "status": "failed", "errors": errors, "steps": steps })
            .to_string()
    };
    let coded = |code: &str, message: &str| json!([{ "code": code, "message": message }]);
    let thought = json!([{ "type": "thought" }]);
    for (errors, kind) in [
        (coded("internal", "Something went wrong."), Kind::Internal),
        (coded("https://ai.google.dev/errors/resource_exhausted", "Slow down."), Kind::RateLimited),
        (coded("", "503 UNAVAILABLE. The model is overloaded."), Kind::Overloaded),
        (coded("invalid_request", "API key not valid. Please pass a valid API key."), Kind::ApiKeyInvalid),
        (json!([{ "code": "permission_denied" }, { "code": "internal" }]), Kind::PermissionDenied),
        (coded("something_new", "gone"), Kind::Unknown),
        // A list without an error in it says nothing.
        (json!([]), Kind::EmptyResponse),
        (json!([{}]), Kind::EmptyResponse),
        (json!([{ "url": 1 }]), Kind::EmptyResponse),
        (Value::Null, Kind::EmptyResponse),
    ] {
        let body = of(errors, thought.clone());
        same(said(&body, false).await, Some(kind), &body);
    }
    let errors = coded("internal", "Something went wrong.");
    assert_eq!(judge(200, &[], of(errors.clone(), thought)).message(), "Something went wrong.");
    let output = json!([{ "type": "model_output", "content": [{ "type": "text", "text": "Hi" }] }]);
    let half = of(errors.clone(), output);
    same(said(&half, false).await, Some(Kind::Internal), &half);
    assert!(judge(200, &[], half).after_output());
    // Faults that are on record of an interaction that has not failed, and what is no interaction.
    for status in ["completed", "in_progress", "requires_action"] {
        let body = json!({ "id": "i1", "status": status, "steps": [], "errors": errors }).to_string();
        same(said(&body, false).await, None, &body);
    }
    let batch = json!({ "id": "b1", "object": "batch", "status": "failed", "errors": errors }).to_string();
    same(said(&batch, false).await, None, &batch);
}

#[tokio::test]
async fn an_interaction_in_one_piece_is_read() {
    let of = |status: &str, steps: Value| {
        json!({ "id": "i1", "object": "interaction", "status": status, "steps": steps, "usage": { "total_input_tokens": 3 } }).to_string()
    };
    let output = json!([{ "type": "thought" }, { "type": "model_output", "content": [{ "type": "text", "text": "Hi" }] }]);
    for (body, expected) in [
        (of("completed", output.clone()), None),
        (of("requires_continuation", output), None),
        (of("in_progress", json!([])), None),
        (of("queued", Value::Null), None),
        (of("failed", json!([{ "type": "thought" }])), Some(Kind::EmptyResponse)),
        (
            json!({ "id": "i1", "status": "completed", "outputs": [{ "type": "text", "text": "Hi" }] })
                .to_string(),
            None,
        ),
    ] {
        same(said(&body, false).await, expected, &body);
    }
}

#[tokio::test]
async fn good_answers_of_other_methods_are_good() {
    for body in [
        // A cache has a usage, and no candidates.
        json!({ "name": "cachedContents/c1", "model": "models/m", "usageMetadata": { "totalTokenCount": 2162 } }),
        json!({ "usageMetadata": { "totalTokenCount": 9 }, "displayName": "", "name": "cachedContents/c2" }),
        json!({ "cachedContents": [{ "name": "cachedContents/c1" }] }),
        json!({ "file": { "name": "files/f1", "state": "PROCESSING" } }),
        json!({ "name": "batches/b1", "metadata": { "state": "BATCH_STATE_PENDING" } }),
        json!({ "totalTokens": 31, "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": 31 }] }),
        json!({ "tokensInfo": [{ "tokenIds": ["1"], "role": "user" }] }),
        json!({ "models": [{ "name": "models/m" }] }),
        json!({ "embeddings": [{ "values": [0.1] }] }),
        json!({ "predictions": [{ "embeddings": { "values": [0.1] } }] }),
        json!({ "fileSearchStores": [{ "name": "fileSearchStores/s1" }] }),
        json!({ "answer": { "content": { "parts": [{ "text": "x" }] } }, "answerableProbability": 0.9 }),
        json!({ "access_token": "x", "expires_in": 3599, "token_type": "Bearer" }),
    ] {
        let body = body.to_string();
        same(said(&body, false).await, None, &body);
    }
    let usage = json!({ "usageMetadata": { "totalTokenCount": 9 }, "modelVersion": "m" }).to_string();
    same(said(&usage, false).await, Some(Kind::EmptyResponse), &usage);
}

#[tokio::test]
async fn what_is_over_before_it_has_begun_is_cut_or_empty() {
    let (empty, cut) = (Some(Kind::EmptyResponse), Some(Kind::Truncated));
    for (body, stream, expected) in [
        (r#"{"error":"#, false, cut),
        (r#"{"error": {"#, false, cut),
        (r#"{"error":{"code":4"#, false, cut),
        (r#"{"candidates":["#, false, cut),
        ("{", false, cut),
        ("[", false, cut),
        ("[]", false, empty),
        (" [ ]\n", false, empty),
        ("\n\n   \n", false, empty),
        ("\n\n   \n", true, empty),
        ("data: {\"candidates\":[{\"content\"\n\n", true, cut),
        ("data: {\"candidates\":[{\"content\":\n\ndata: not json\n\n", true, cut),
        ("data: {\"erro\n\n", true, cut),
        ("data: [DONE]\n\n", true, empty),
        // An indented object behind one field, as Google's Go client takes it.
        (
            "data:{\n  \"candidates\": [\n    {\n      \"content\": {\"parts\": [{\"text\": \"a\"}]},\n      \"finishReason\": \"STOP\"\n    }\n  ]\n}\n\n",
            true,
            None,
        ),
        (
            "data:{\n  \"candidates\": [\n    {\n      \"content\": {\"parts\": [{\"text\": \"a\"}]}\n\n",
            true,
            cut,
        ),
        ("data: not json\n\n", true, empty),
        ("data: {\"candidates\":[{}]}\n\ndata: [DONE]\n\n", true, empty),
        // What has no members of ours, and is broken and not cut.
        (r#"{"new": 1, "#, false, Some(Kind::Unknown)),
        (r#"{"error" x"#, false, Some(Kind::Unknown)),
        (r#"{"error":{"code":429,"message":"Over the li"#, false, Some(Kind::RateLimited)),
    ] {
        same(said(body, stream).await, expected, body);
    }
}

#[tokio::test]
async fn a_relays_answer_in_another_form_ends_as_that_form_does() {
    let (empty, cut) = (Some(Kind::EmptyResponse), Some(Kind::Truncated));
    let typed = |events: &[Value]| -> String {
        events
            .iter()
            .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("x")))
            .collect()
    };
    // Anthropic's.
    let start = json!({ "type": "message_start", "message": { "id": "m", "role": "assistant", "content": [], "stop_reason": null } });
    let text =
        json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "Hi" } });
    let thought = json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "thinking_delta", "thinking": "hm" } });
    let because = |reason: &str| json!({ "type": "message_delta", "delta": { "stop_reason": reason }, "usage": { "output_tokens": 3 } });
    let stop = json!({ "type": "message_stop" });
    // OpenAI's responses.
    let created = json!({ "type": "response.created", "response": { "id": "r", "status": "in_progress", "output": [] } });
    let delta = json!({ "type": "response.output_text.delta", "delta": "Hi" });
    let completed = json!({ "type": "response.completed", "response": { "id": "r", "status": "completed" } });
    for (events, expected) in [
        (vec![start.clone(), text.clone(), because("end_turn"), stop.clone()], None),
        (vec![start.clone(), text.clone(), because("max_tokens"), stop.clone()], None),
        (vec![start.clone(), text.clone(), stop.clone()], None),
        (vec![start.clone(), text.clone()], cut),
        (vec![start.clone(), thought, because("end_turn"), stop.clone()], empty),
        (vec![start.clone(), because("refusal"), stop.clone()], Some(Kind::ContentBlocked)),
        (vec![created.clone(), delta.clone(), completed.clone()], None),
        (vec![created.clone(), delta], cut),
        (vec![created, json!({ "type": "response.output_text.delta", "delta": "" }), completed], empty),
    ] {
        let body = typed(&events);
        same(said(&body, true).await, expected, &body);
    }
}
