//! What a request asks for, read from real-looking paths of every surface, from arbitrary text, and from parts.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::collections::HashSet;

use proptest::prelude::*;
use tower_gemini::request::{KeyLabel, Method, ModelHint, Surface, Target, TargetKey};

/// A target in one line: what it prints, then the publisher and the stream, which it does not print.
fn line(target: &Target<'_>) -> String {
    let publisher = target.publisher().map(|p| format!(" by {p}")).unwrap_or_default();
    let streaming = if target.is_streaming() { " streaming" } else { "" };
    format!("{target}{publisher}{streaming}")
}

/// `METHOD path`, or a path alone for a reader that does not know the method.
fn check(table: &[(&str, &str)]) {
    for (request, expected) in table {
        let found = match request.split_once(' ') {
            Some((method, uri)) => {
                let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
                line(&Target::of(&request))
            }
            None => line(&Target::from_path(request)),
        };
        assert_eq!(found, *expected, "{request}");
    }
}

#[test]
#[rustfmt::skip]
fn the_gemini_api() {
    check(&[
        ("POST https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /v1/models/gemini-2.5-flash:generateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /v1alpha/models/gemini-2.5-flash:generateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /v1beta3/models/text-bison-001:generateText", "gemini_api other text-bison-001"),
        ("POST /v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", "gemini_api streamGenerateContent gemini-2.5-pro streaming"),
        ("POST /v1beta/models/gemini-2.5-pro:streamGenerateContent", "gemini_api streamGenerateContent gemini-2.5-pro streaming"),
        ("POST /v1beta/models/gemini-2.5-pro:generateContent?key=k&alt=sse", "gemini_api generateContent gemini-2.5-pro streaming"),
        ("POST /v1beta/models/gemini-2.5-pro:generateContent?alt=json&xalt=sse", "gemini_api generateContent gemini-2.5-pro"),
        ("POST /v1beta/models/gemini-2.5-flash:countTokens", "gemini_api countTokens gemini-2.5-flash"),
        ("POST /v1beta/models/gemini-embedding-001:embedContent", "gemini_api embedContent gemini-embedding-001"),
        ("POST /v1beta/models/gemini-embedding-001:batchEmbedContents", "gemini_api batchEmbedContents gemini-embedding-001"),
        ("POST /v1beta/models/gemini-embedding-001:asyncBatchEmbedContent", "gemini_api asyncBatchEmbedContent gemini-embedding-001"),
        ("POST /v1beta/models/gemini-2.5-flash:batchGenerateContent", "gemini_api batchGenerateContent gemini-2.5-flash"),
        ("POST /v1beta/models/aqa:generateAnswer", "gemini_api generateAnswer aqa"),
        ("POST /v1beta/models/imagen-4.0-generate-001:predict", "gemini_api predict imagen-4.0-generate-001"),
        ("POST /v1beta/models/veo-3.0-generate-001:predictLongRunning", "gemini_api predictLongRunning veo-3.0-generate-001"),
        ("GET /v1beta/models/veo-3.0-generate-001/operations/abc123", "gemini_api operations veo-3.0-generate-001"),
        ("GET /v1beta/models", "gemini_api models.list"),
        ("GET /v1beta/models?pageSize=50", "gemini_api models.list"),
        ("GET /v1beta/models/gemini-2.5-flash", "gemini_api models.get gemini-2.5-flash"),
        ("DELETE /v1beta/models/gemini-2.5-flash", "gemini_api other gemini-2.5-flash"),
        ("POST /v1beta/tunedModels/my-tune-abc:generateContent", "gemini_api generateContent tunedModels/my-tune-abc"),
        ("POST /v1beta/models/tunedModels/my-tune-abc:generateContent", "gemini_api generateContent tunedModels/my-tune-abc"),
        ("GET /v1beta/tunedModels", "gemini_api tunedModels"),
        ("POST /v1beta/tunedModels?tunedModelId=x", "gemini_api tunedModels"),
        ("PATCH /v1beta/tunedModels/my-tune-abc", "gemini_api tunedModels tunedModels/my-tune-abc"),
        ("POST /v1beta/tunedModels/my-tune-abc:transferOwnership", "gemini_api tunedModels tunedModels/my-tune-abc"),
        ("GET /v1beta/tunedModels/my-tune-abc/permissions", "gemini_api tunedModels tunedModels/my-tune-abc"),
        ("POST /v1beta/dynamic/d1:generateContent", "gemini_api generateContent dynamic/d1"),
        ("POST /upload/v1beta/files", "gemini_api files.upload"),
        ("PUT /upload/v1beta/files?upload_id=AbC&upload_protocol=resumable", "gemini_api files.upload"),
        ("POST /resumable/upload/v1beta/files", "gemini_api files.upload"),
        ("POST /v1beta/files", "gemini_api files.upload"),
        ("POST /v1beta/files:register", "gemini_api other"),
        ("GET /v1beta/files?pageSize=10", "gemini_api files.list"),
        ("GET /v1beta/files/abc-123", "gemini_api files.get"),
        ("DELETE /v1beta/files/abc-123", "gemini_api files.delete"),
        ("PATCH /v1beta/files/abc-123", "gemini_api other"),
        ("GET /v1beta/files/abc-123:download?alt=media", "gemini_api files.download"),
        ("GET /download/v1beta/files/abc-123:download?alt=media", "gemini_api files.download"),
        ("GET /download/v1beta/files/abc-123", "gemini_api files.download"),
        ("POST /v1beta/cachedContents", "gemini_api cachedContents"),
        ("PATCH /v1beta/cachedContents/c1?updateMask=ttl", "gemini_api cachedContents"),
        ("GET /v1beta/batches/b1", "gemini_api batches"),
        ("POST /v1beta/batches/b1:cancel", "gemini_api batches"),
        ("GET /v1beta/operations/o1", "gemini_api operations"),
        ("POST /v1beta/corpora/c/documents/d:query", "gemini_api other"),
        ("POST /upload/v1beta/fileSearchStores/s:uploadToFileSearchStore", "gemini_api other"),
        ("POST /v1alpha/auth_tokens", "gemini_api other"),
        ("POST /v1beta/models/gemini-2.5-flash:generatecontent", "gemini_api other gemini-2.5-flash"),
        ("POST /v1beta/models/gemini-2.5-flash:", "gemini_api other gemini-2.5-flash"),
        ("POST /v1beta/models/:generateContent", "gemini_api generateContent"),
        ("POST /v1beta/models/gemini-2.5-flash:generateContent/more", "gemini_api other gemini-2.5-flash"),
        ("POST /v1beta/models:generateContent/x", "gemini_api other"),
    ]);
}

#[test]
#[rustfmt::skip]
fn vertex() {
    check(&[
        ("POST https://us-central1-aiplatform.googleapis.com/v1/projects/my-proj/locations/us-central1/publishers/google/models/gemini-2.5-pro:generateContent", "vertex generateContent gemini-2.5-pro in my-proj/us-central1 by google"),
        ("POST https://aiplatform.googleapis.com/v1beta1/projects/my-proj/locations/global/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse", "vertex streamGenerateContent gemini-2.5-pro in my-proj/global by google streaming"),
        ("POST /v1/projects/example.com:my-proj/locations/global/publishers/google/models/gemini-2.5-pro:countTokens", "vertex countTokens gemini-2.5-pro in example.com:my-proj/global by google"),
        ("POST /v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-sonnet-4@20250514:streamRawPredict", "vertex streamRawPredict claude-sonnet-4@20250514 in p/us-east5 by anthropic streaming"),
        ("POST /v1/projects/p/locations/us-east5/publishers/mistralai/models/mistral-small-2503:rawPredict", "vertex rawPredict mistral-small-2503 in p/us-east5 by mistralai"),
        ("POST /v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict", "vertex predict text-embedding-005 in p/l by google"),
        ("POST /v1/projects/p/locations/l/publishers/google/models/veo-3.0-generate-001:predictLongRunning", "vertex predictLongRunning veo-3.0-generate-001 in p/l by google"),
        ("POST /v1/projects/p/locations/l/publishers/google/models/veo-3.0-generate-001:fetchPredictOperation", "vertex operations veo-3.0-generate-001 in p/l by google"),
        ("GET /v1/projects/p/locations/l/publishers/google/models/veo-3.0-generate-001/operations/7", "vertex operations veo-3.0-generate-001 in p/l by google"),
        ("POST /v1/publishers/google/models/gemini-2.5-flash:generateContent?key=k", "vertex generateContent gemini-2.5-flash by google"),
        ("GET /v1beta1/publishers/google/models", "vertex models.list by google"),
        ("GET /v1/publishers/google/models/gemini-2.5-flash", "vertex models.get gemini-2.5-flash by google"),
        ("POST /v1/projects/p/locations/us-central1/endpoints/1234567890:generateContent", "vertex generateContent endpoints/1234567890 in p/us-central1"),
        ("POST /v1/projects/p/locations/l/endpoints/1234567890:streamGenerateContent", "vertex streamGenerateContent endpoints/1234567890 in p/l streaming"),
        ("GET /v1/projects/p/locations/l/endpoints/1234567890/operations/7", "vertex operations endpoints/1234567890 in p/l"),
        ("GET /v1/projects/p/locations/l/endpoints", "vertex other in p/l"),
        ("GET /v1/projects/p/locations/l/models", "vertex models.list in p/l"),
        ("GET /v1/projects/p/locations/l/models/77", "vertex models.get 77 in p/l"),
        ("POST /v1/projects/p/locations/l/cachedContents", "vertex cachedContents in p/l"),
        ("POST /v1/projects/p/locations/l/batchPredictionJobs", "vertex batches in p/l"),
        ("POST /v1/projects/p/locations/l/tuningJobs", "vertex tunedModels in p/l"),
        ("GET /v1/projects/p/locations/l/operations/7", "vertex operations in p/l"),
        ("POST /v1/projects/p/locations/l/reasoningEngines/7:query", "vertex other in p/l"),
        ("POST /v1/projects/p/locations/global:retrieveContexts", "vertex other in p/global"),
        ("POST /v1/projects/p/serviceAccounts/x", "unknown other"),
    ]);
}

#[test]
#[rustfmt::skip]
fn openai_interactions_and_code_assist() {
    check(&[
        ("POST https://generativelanguage.googleapis.com/v1beta/openai/chat/completions", "openai chat.completions"),
        ("POST /v1beta/openai//chat/completions/", "openai chat.completions"),
        ("POST /v1beta/openai/embeddings", "openai embeddings"),
        ("GET /v1beta/openai/models", "openai models.list"),
        ("GET /v1beta/openai/models/gemini-2.5-flash", "openai models.get gemini-2.5-flash"),
        ("GET /v1beta/openai/models/models%2Fgemini-2.5-flash", "openai models.get gemini-2.5-flash"),
        ("GET /v1beta/openai/files/file-1/content", "openai files.download"),
        ("GET /v1beta/openai/batches/b1", "openai batches"),
        ("POST /v1beta/openai/images/generations", "openai other"),
        ("POST /v1beta/openai", "openai other"),
        ("POST /v1/projects/p/locations/us-central1/endpoints/openapi/chat/completions", "openai chat.completions in p/us-central1"),
        ("POST /v1beta1/projects/p/locations/global/endpoints/openapi/chat/completions", "openai chat.completions in p/global"),
        ("POST /v1/projects/p/locations/l/endpoints/987/chat/completions", "openai chat.completions endpoints/987 in p/l"),
        ("POST /v1beta/interactions", "interactions interactions.create"),
        ("POST /v1/interactions", "interactions interactions.create"),
        ("GET /v1beta/interactions", "interactions other"),
        ("GET /v1beta/interactions/v1_abc", "interactions interactions.get"),
        ("GET /v1beta/interactions/v1_abc?stream=true&last_event_id=7", "interactions interactions.get streaming"),
        ("POST /v1beta/interactions?stream=true", "interactions interactions.create"),
        ("POST /v1beta/interactions/v1_abc/cancel", "interactions interactions.cancel"),
        ("POST /v1beta1/interactions/v1_abc:cancel", "interactions interactions.cancel"),
        ("GET /v1beta1/interactions/v1_abc:stream", "interactions interactions.get streaming"),
        ("DELETE /v1beta/interactions/v1_abc", "interactions interactions.delete"),
        ("PATCH /v1beta/interactions/v1_abc", "interactions other"),
        ("POST /v1beta1/projects/p/locations/global/interactions", "interactions interactions.create in p/global"),
        ("POST https://cloudcode-pa.googleapis.com/v1internal:generateContent", "code_assist generateContent"),
        ("POST /v1internal:streamGenerateContent?alt=sse", "code_assist streamGenerateContent streaming"),
        ("POST /v1internal:countTokens", "code_assist countTokens"),
        ("POST /v1internal:loadCodeAssist", "code_assist other"),
        ("GET /v1internal/operations/o1", "code_assist operations"),
        ("POST /v1internal:generateContent/more", "code_assist other"),
        ("POST /v1beta/openai/chat/other", "openai other"),
        ("POST /v1beta/openai/chat/completions/more", "openai other"),
        ("POST /v1beta/openai/models", "openai other"),
        ("DELETE /v1beta/openai/files", "openai other"),
        ("GET /v1beta/openai/files/file-1/other", "openai other"),
        ("GET /v1/projects/p/locations/l/endpoints/987/other", "vertex other endpoints/987 in p/l"),
    ]);
}

#[test]
#[rustfmt::skip]
fn gateways_encodings_and_oddities() {
    check(&[
        ("POST /gemini/v1beta/models/gemini-2.5-flash:generateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /v1/account/gw/google-ai-studio/v1beta/models/gemini-2.5-flash:generateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /v1/account/gw/google-vertex-ai/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent", "vertex generateContent gemini-2.5-pro in p/l by google"),
        ("POST /v1/projects/inside/v1beta/models/gemini-2.5-flash:generateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /gemini/upload/v1beta/files", "gemini_api files.upload"),
        ("GET /gemini/download/v1beta/files/abc", "gemini_api files.download"),
        ("POST /v1beta/models%2Fgemini-2.5-flash:generateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /v1beta/models%2fgemini-2.5-flash%3AgenerateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /v1beta/models/models%2Fgemini-2.5-flash:generateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /v1beta/tunedModels%2Fmy-tune%3AgenerateContent", "gemini_api generateContent tunedModels/my-tune"),
        ("POST /v1beta/%6Dodels/gemini%2D2.5-flash:generateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST //v1beta//models//gemini-2.5-flash:generateContent//", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /./v1beta/./models/gemini-2.5-flash:generateContent/.", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /v1beta/../v1beta/models/gemini-2.5-flash:generateContent", "gemini_api generateContent gemini-2.5-flash"),
        ("POST /v1beta//tunedModels//my-tune:generateContent", "gemini_api generateContent tunedModels/my-tune"),
        ("POST /v1beta/models/gemini%3Fkey=SECRET:generateContent", "gemini_api generateContent"),
        ("POST /v1beta/models/gemini&key=SECRET:generateContent", "gemini_api generateContent"),
        ("POST /v1beta/models/a%0Ab:generateContent", "gemini_api generateContent"),
        ("POST /v1beta/models/a%FF%zz%:generateContent", "gemini_api generateContent a\u{fffd}%zz%"),
        ("/v1beta/models/gemini-2.5-flash:generateContent?key=SECRET#frag", "gemini_api generateContent gemini-2.5-flash"),
        ("/v1beta/models/gemini-2.5-flash:generateContent?alt=sse#frag", "gemini_api generateContent gemini-2.5-flash streaming"),
        ("https://user:SECRET@host/v1beta/interactions", "interactions interactions.create"),
        ("POST /v1beta/models/a%20b:generateContent", "gemini_api generateContent"),
        ("POST /v1beta/models/a%00b:generateContent", "gemini_api generateContent"),
        ("POST /v1/projects/p/locations/a%20b/publishers/google/models/m:generateContent", "vertex generateContent m in p/- by google"),
        ("GET /v1beta/dynamic", "gemini_api other"),
        ("POST /v1beta/openai:chat", "unknown other"),
        ("POST /v1/projects:search", "unknown other"),
        ("/v1beta/files/abc", "gemini_api files.get"),
        ("/v1beta/files", "gemini_api files.list"),
        ("models/gemini-2.5-flash:generateContent", "unknown other"),
        ("GET /", "unknown other"),
        ("OPTIONS *", "unknown other"),
        ("CONNECT generativelanguage.googleapis.com:443", "unknown other"),
        ("", "unknown other"),
        ("/v1beta", "unknown other"),
        ("/v/models/x:generateContent", "unknown other"),
        ("/v1gamma/models/x:generateContent", "unknown other"),
        ("/v1internal", "unknown other"),
        ("GET /ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", "unknown other"),
        ("POST /google.ai.generativelanguage.v1beta.GenerativeService/GenerateContent", "unknown other"),
    ]);
}

#[test]
fn a_hint_wins_over_the_path_and_is_read_like_one() {
    let model = |uri: &str, hint: &str| {
        let mut request = http::Request::post(uri).body(()).unwrap();
        request.extensions_mut().insert(ModelHint::new(hint));
        Target::of(&request).model().map(str::to_owned)
    };
    let chat = "/v1beta/openai/chat/completions";
    let path = "/v1beta/models/gemini-2.5-flash:generateContent";
    assert_eq!(model(path, "gemini-2.5-pro").as_deref(), Some("gemini-2.5-pro"));
    for hint in [
        "gemini-2.5-pro",
        "models/gemini-2.5-pro",
        "google/gemini-2.5-pro",
        "publishers/google/models/gemini-2.5-pro",
        "projects/p/locations/l/publishers/google/models/gemini-2.5-pro",
    ] {
        assert_eq!(model(chat, hint).as_deref(), Some("gemini-2.5-pro"), "{hint}");
    }
    assert_eq!(model(chat, "tunedModels/x").as_deref(), Some("tunedModels/x"));
    assert_eq!(model(path, " \n").as_deref(), Some("gemini-2.5-flash"), "what is no name is passed over");
    assert_eq!(model(chat, "").as_deref(), None);
}

#[test]
fn keys_differ_by_surface_model_place_and_label_and_by_nothing_else() {
    let key = |uri: &str, label: Option<&str>| {
        let mut request = http::Request::post(uri).body(()).unwrap();
        if let Some(label) = label {
            request.extensions_mut().insert(KeyLabel::new(label));
        }
        Target::of(&request).key()
    };
    let one = key("/v1beta/models/gemini-2.5-flash:generateContent", None);
    for same in [
        "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse&key=SECRET",
        "https://gateway.example/gemini/v1beta/models%2Fgemini-2.5-flash:countTokens",
    ] {
        assert_eq!(one, key(same, None), "{same}");
    }
    let far = "vertex-model-with-a-name-that-is-a-good-deal-longer-than-most";
    let all = [
        one,
        key("/v1beta/models/gemini-2.5-flash:generateContent", Some("team-a")),
        key("/v1beta/models/gemini-2.5-flash:generateContent", Some("team-b")),
        key("/v1beta/models/gemini-2.5-pro:generateContent", None),
        key("/v1/publishers/google/models/gemini-2.5-flash:generateContent", None),
        key("/v1/projects/p/locations/a/publishers/google/models/gemini-2.5-flash:generateContent", None),
        key("/v1/projects/p/locations/b/publishers/google/models/gemini-2.5-flash:generateContent", None),
        key("/v1/projects/q/locations/b/publishers/google/models/gemini-2.5-flash:generateContent", None),
        key(&format!("/v1/publishers/google/models/{far}:generateContent"), None),
        key(&format!("/v1/publishers/google/models/{far}-2:generateContent"), None),
        key("/nothing/known", None),
    ];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    assert_eq!(all[6].to_string(), "vertex gemini-2.5-flash in p/b");
    assert_eq!((all[6].project(), all[6].location()), (Some("p"), Some("b")));
    assert_eq!(all[1].to_string(), "gemini_api gemini-2.5-flash (team-a)");
    assert_eq!(all[8].model(), Some(far));
}

#[test]
fn a_label_that_is_a_key_is_not_printed() {
    for secret in ["AIzaSyA-0123456789", "AQ.Ab8RN6", "ya29.a0Af"] {
        let mut request = http::Request::post("/v1beta/interactions").body(()).unwrap();
        request.extensions_mut().insert(KeyLabel::new(secret));
        let target = Target::of(&request);
        let key = target.key();
        let printed = format!("{target}{target:?}{key}{key:?}");
        assert!(!printed.contains(secret), "{printed}");
        assert!(printed.contains("redacted"), "{printed}");
    }
}

#[test]
fn a_plain_path_is_borrowed_not_copied() {
    for path in [
        "/v1beta/models/gemini-2.5-flash:generateContent",
        "/v1beta/tunedModels/my-tune:generateContent",
        "/v1beta/models/tunedModels/my-tune:generateContent",
        "/v1/projects/p/locations/l/endpoints/123:generateContent",
        "/v1/projects/p/locations/l/publishers/google/models/m:generateContent",
    ] {
        let target = Target::from_path(path);
        let model = target.model().unwrap();
        assert!(path.as_bytes().as_ptr_range().contains(&model.as_ptr()), "{path}");
    }
}

#[test]
fn what_a_method_is_by_class() {
    use Method::*;
    let generation = [GenerateContent, StreamGenerateContent, Predict, ChatCompletions, InteractionsCreate];
    assert!(generation.iter().all(|m| m.is_generation() && !m.is_embedding() && !m.is_batch()));
    for (method, streaming, embedding, batch) in [
        (StreamGenerateContent, true, false, false),
        (GenerateContent, false, false, false),
        (EmbedContent, false, true, false),
        (BatchEmbedContents, false, true, false),
        (AsyncBatchEmbedContent, false, true, true),
        (BatchGenerateContent, false, false, true),
        (Embeddings, false, true, false),
        (CountTokens, false, false, false),
        (Batches, false, false, true),
    ] {
        let found = (method.is_streaming(), method.is_embedding(), method.is_batch());
        assert_eq!(found, (streaming, embedding, batch), "{method}");
    }
    assert!(!CountTokens.is_generation() && !BatchGenerateContent.is_generation());
}

/// Text that comes near a path more often than chance would have it.
fn near_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "//",
        "%2F",
        "%3A",
        ":",
        "?",
        "#",
        "&",
        "=",
        "%",
        "%4",
        ".",
        "..",
        "v1",
        "v1beta",
        "v1internal",
        "models",
        "tunedModels",
        "projects",
        "locations",
        "publishers",
        "endpoints",
        "openapi",
        "openai",
        "interactions",
        "files",
        "upload",
        "chat",
        "completions",
        "operations",
        "google",
        "gemini-2.5-flash",
        "generateContent",
        "stream",
        "cancel",
        "alt=sse",
        "\u{e9}",
        "%FF",
        "\n",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn id() -> impl Strategy<Value = String> {
    // `models/models` would be read as the collection said twice.
    "[a-z][a-z0-9.@_-]{0,70}".prop_filter("a collection", |id| id != "models")
}

fn print_all(target: &Target<'_>) -> String {
    let key = target.key();
    assert_eq!(key.model(), target.model());
    assert_eq!(key.project(), target.project());
    assert_eq!(key.location(), target.location());
    format!("{target} {target:?} {key} {key:?}")
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        print_all(&Target::from_path(&text));
    }

    #[test]
    fn nothing_near_a_path_panics_and_no_name_breaks_a_line(text in near_path()) {
        let target = Target::from_path(&text);
        print_all(&target);
        prop_assert!(!target.to_string().contains(['\n', '?', '#', '&', '=']));
        if let Ok(uri) = text.parse::<http::Uri>() {
            print_all(&Target::from_uri(&uri));
        }
    }

    /// Where there is no escape nothing is decoded: a way of its own, which reads the same.
    #[test]
    fn an_escape_that_says_the_same_changes_nothing(text in near_path()) {
        let text = text.replace(['%', '?', '#'], "");
        let (plain, escaped) = (format!("/a/{text}"), format!("/%61/{text}"));
        prop_assert_eq!(print_all(&Target::from_path(&plain)), print_all(&Target::from_path(&escaped)));
    }

    #[test]
    fn a_name_is_judged_by_its_characters(model in "[a-z\u{80}\u{a0}-\u{ff}\u{2028}\u{4e00}=& \t]{1,12}") {
        let is_alien = |c: char| c.is_control() || c.is_whitespace() || "?#&=".contains(c);
        let path = format!("/v1beta/models/{model}:generateContent");
        let wanted = (!model.contains(is_alien)).then_some(&*model);
        let target = Target::from_path(&path);
        prop_assert_eq!(target.model(), wanted);
    }

    #[test]
    fn vertex_parts_come_back(
        project in id(), location in id(), publisher in id(), model in id(), stream in any::<bool>(),
        encoded in any::<bool>(), prefix in "(/[a-u][a-z]{0,8}){0,3}",
    ) {
        let verb = if stream { "streamGenerateContent" } else { "generateContent" };
        let mut path = format!("/projects/{project}/locations/{location}/publishers/{publisher}/models/{model}:{verb}");
        if encoded {
            path = format!("/{}", path[1..].replace('/', "%2F").replace(':', "%3A").replace('-', "%2d"));
        }
        let uri: http::Uri = format!("https://aiplatform.googleapis.com{prefix}/v1{path}").parse().unwrap();
        let target = Target::from_uri(&uri);
        prop_assert_eq!(target.surface(), Surface::Vertex);
        prop_assert_eq!(target.method().as_str(), verb);
        prop_assert_eq!(target.is_streaming(), stream);
        prop_assert_eq!(target.project(), Some(&*project));
        prop_assert_eq!(target.location(), Some(&*location));
        prop_assert_eq!(target.publisher(), Some(&*publisher));
        prop_assert_eq!(target.model(), Some(&*model));
        print_all(&target);
    }

    #[test]
    fn gemini_parts_come_back(
        version in "v1(beta|alpha)?[0-9]?", tuned in any::<bool>(), model in id(), verb in "[a-zA-Z]{1,20}",
    ) {
        let (collection, expected) =
            if tuned { ("tunedModels", format!("tunedModels/{model}")) } else { ("models", model.clone()) };
        let path = format!("/{version}/{collection}/{model}:{verb}");
        let target = Target::from_path(&path);
        prop_assert_eq!(target.surface(), Surface::GeminiApi);
        prop_assert_eq!(target.model(), Some(&*expected));
    }

    #[test]
    fn no_secret_comes_through(secret in "S3CRET[A-Za-z0-9_-]{8,40}", path in near_path(), label in "[a-z]{1,8}") {
        let path = path.replace(['?', '#', '\n'], "");
        let uri = format!("https://user:{secret}@host/{path}?alt=sse&key={secret}&access_token={secret}");
        prop_assert!(!print_all(&Target::from_path(&uri)).contains(&secret));
        let request = http::Request::post(&uri)
            .header("x-goog-api-key", &secret)
            .header("authorization", format!("Bearer {secret}"))
            .extension(KeyLabel::new(label.clone()))
            .body(());
        if let Ok(request) = request {
            let printed = print_all(&Target::of(&request));
            prop_assert!(!printed.contains(&secret), "{}", printed);
            prop_assert!(printed.contains(&label));
        }
    }
}

#[test]
fn a_key_can_be_widened() {
    let mut request =
        http::Request::post("/v1/projects/p/locations/l/publishers/google/models/m:generateContent")
            .body(())
            .unwrap();
    request.extensions_mut().insert(KeyLabel::new("a"));
    let key = Target::of(&request).key();
    let wide = key.clone().without_model().without_place().without_label();
    assert_ne!(key, wide);
    assert_eq!((wide.model(), wide.project(), wide.location(), wide.label()), (None, None, None, None));
    assert_eq!(wide.surface(), key.surface());
    assert_ne!(TargetKey::named("a"), TargetKey::named("b"));
}
