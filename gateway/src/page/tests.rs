use http_body_util::BodyExt;

use super::*;
use crate::history::{Settings, Sink};

fn call(n: i64, kind: Option<&str>) -> Arc<Record> {
    Arc::new(Record {
        id: n,
        time: Timestamp::now().as_millisecond(),
        request_id: format!("r-{n}"),
        client: Some("</script><img src=x onerror=alert(1)>".to_owned()),
        project: None,
        model: Some("=cmd|' /C calc'!A0".to_owned()),
        answered: None,
        tier: None,
        method: "generateContent".to_owned(),
        stream: false,
        status: Some(503),
        outcome: if kind.is_some() { "failed" } else { "complete" }.to_owned(),
        kind: kind.map(str::to_owned),
        message: Some("\u{2028}\n\ndata: no event\0\"'<b>".to_owned()),
        gave_up: None,
        attempts: 1,
        waited: 0,
        first_byte: Some(3),
        latency: 7,
        request_bytes: None,
        input_tokens: None,
        cached_tokens: None,
        output_tokens: None,
        thought_tokens: None,
        rate_limited: 0,
        internal: 0,
        steps: json!([]),
    })
}

fn page(history: Option<History>) -> (Page, Arc<Live>) {
    let live = Arc::new(Live::default());
    (Page::new(Arc::clone(&live), history, || json!({ "in_flight": 0 })), live)
}

async fn get(page: &Page, path: &str, headers: &[(&str, &str)]) -> (StatusCode, http::HeaderMap, String) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, body) = page.respond(&request.body(()).unwrap()).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_page_is_one_file_that_runs_nothing_but_its_own_script() {
    let (page, _) = page(None);
    let (status, headers, html) = get(&page, "/page", &[]).await;
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::OK, &HeaderValue::from_static("text/html; charset=utf-8"))
    );
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    for never in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        " src=",
        "@import",
        "url(",
        " style=",
    ] {
        assert!(!html.contains(never), "{never}");
    }
    let outside: Vec<_> = html
        .replace("startsWith(\"https://\")", "")
        .match_indices("://")
        .map(|(at, _)| &html[at - 5..(at + 20).min(html.len())])
        .collect();
    assert_eq!(outside, [" http://www.w3.org/2000/s".replace(' ', "\"")], "only the name space of SVG");
    assert_eq!((html.matches("<script>").count(), html.matches("<style>").count()), (1, 1));
    for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
}

#[tokio::test]
async fn odd_requests_get_one_sentence_that_repeats_nothing() {
    let (page, _) = page(None);
    let long = format!("/page/calls?client={}", "x".repeat(5000));
    for (path, status) in [
        ("/page/calls?over=year", StatusCode::BAD_REQUEST),
        ("/page/calls?over=%3Cscript%3E", StatusCode::BAD_REQUEST),
        ("/page/calls?shown=", StatusCode::BAD_REQUEST),
        ("/page/calls?before=1e9", StatusCode::BAD_REQUEST),
        ("/page/calls?before=99999999999999999999", StatusCode::BAD_REQUEST),
        ("/page/summary?%3Cscript%3E=1", StatusCode::BAD_REQUEST),
        ("/page/calls.csv?x", StatusCode::BAD_REQUEST),
        (&long, StatusCode::BAD_REQUEST),
        ("/page/", StatusCode::NOT_FOUND),
        ("/page/%2e%2e/status", StatusCode::NOT_FOUND),
        ("/page/calls.csv/..;", StatusCode::NOT_FOUND),
        ("/page/%3Cscript%3E", StatusCode::NOT_FOUND),
    ] {
        let (got, headers, text) = get(&page, path, &[]).await;
        assert_eq!(
            (got, headers["content-type"].to_str().unwrap()),
            (status, "text/plain; charset=utf-8"),
            "{path}"
        );
        assert!(
            text.lines().count() == 1 && text.ends_with(".\n") && !text.contains("script>"),
            "{path}: {text}"
        );
    }
    // Odd and permitted: a name that nobody has.
    for path in
        ["/page/calls?client=%00%ff&model=%E2%80%A8'--&kind=%22&over=week&shown=all", "/page/calls?client=&&"]
    {
        assert_eq!(get(&page, path, &[]).await.2, "[]", "{path}");
    }
    let post = Request::post("/page/summary").body(()).unwrap();
    assert_eq!(page.respond(&post).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    for site in ["cross-site", "same-site"] {
        for path in ["/page/calls", "/page/calls.csv", "/page/events", "/page/now"] {
            let (status, ..) =
                get(&page, path, &[("sec-fetch-site", site), ("sec-fetch-mode", "navigate")]).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{site} {path}");
        }
        let link = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate")];
        assert_eq!(get(&page, "/page", &link).await.0, StatusCode::OK, "a link to the page may be followed");
    }
    assert_eq!(get(&page, "/page/calls", &[("sec-fetch-site", "same-origin")]).await.0, StatusCode::OK);
    assert!(!Page::owns("/pages") && !Page::owns("/pag") && Page::owns("/page/x"));
}

#[tokio::test]
async fn without_a_history_it_shows_what_is_in_memory() {
    let (page, live) = page(None);
    live.record(&call(0, Some("overloaded")));
    live.record(&call(0, None));
    for _ in 0..150 {
        live.record(&call(0, Some("internal")));
    }
    assert_eq!(get(&page, "/page/summary", &[]).await.2, "null");
    let calls: Value = serde_json::from_str(&get(&page, "/page/calls", &[]).await.2).unwrap();
    assert_eq!((calls.as_array().unwrap().len(), &calls[0]["id"]), (100, &json!(151)));
    assert!(calls[0]["remedy"].as_str().unwrap().starts_with("Retry"));
    assert!(calls[0]["docs"].as_str().unwrap().starts_with("https://ai.google.dev/"));
    let (_, headers, csv) = get(&page, "/page/calls.csv?kind=internal", &[]).await;
    assert_eq!(headers["content-disposition"], "attachment; filename=\"calls.csv\"");
    assert!(csv.starts_with("time,request_id,") && csv.contains(",\"'=cmd|' /C calc'!A0\","), "{csv}");
    assert_eq!(get(&page, "/page/calls?kind=overloaded", &[]).await.2, "[]", "the oldest has gone");
}

#[tokio::test]
async fn odd_texts_stay_inside_their_json() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(&Settings::new(dir.path().join("calls.db"))).unwrap();
    let (page, live) = page(Some(history.clone()));
    let odd = call(1, Some("overloaded"));
    history.record(&odd);
    live.record(&odd);
    assert!(history.flushed(Duration::from_secs(5)).await);
    for path in ["/page/calls", "/page/summary", "/page/now"] {
        let (_, headers, text) = get(&page, path, &[]).await;
        assert_eq!(
            (&headers["content-type"], &headers["x-content-type-options"]),
            (&HeaderValue::from_static("application/json"), &HeaderValue::from_static("nosniff"))
        );
        assert!(!text.contains('\n') && !text.contains('\0'), "{path}");
        serde_json::from_str::<Value>(&text).unwrap();
    }
    let asked = "/page/calls?client=%3C%2Fscript%3E%3Cimg+src%3Dx+onerror%3Dalert%281%29%3E";
    let calls: Value = serde_json::from_str(&get(&page, asked, &[]).await.2).unwrap();
    assert_eq!(calls[0]["message"], odd.message.as_deref().unwrap());
}

#[tokio::test]
async fn csv_brings_every_row_once_and_breaks_off_where_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(&Settings::new(dir.path().join("calls.db"))).unwrap();
    let (page, _) = page(Some(history.clone()));
    for n in 0..8500 {
        history.record(&call(n, Some("overloaded")));
    }
    assert!(history.flushed(Duration::from_secs(5)).await);
    let (_, _, csv) = get(&page, "/page/calls.csv", &[]).await;
    let ids: Vec<&str> = csv
        .split("\r\n")
        .filter_map(|line| line.split(',').nth(1))
        .filter(|id| id.starts_with("r-"))
        .collect();
    let expected: Vec<String> = (0..8500).rev().map(|n| format!("r-{n}")).collect();
    assert_eq!(ids, expected);
    // Between two pieces somebody takes the table away.
    let request = Request::get("/page/calls.csv").body(()).unwrap();
    let mut body = page.respond(&request).await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    rusqlite::Connection::open(dir.path().join("calls.db"))
        .unwrap()
        .execute_batch("DROP TABLE calls")
        .unwrap();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        rest.push(frame.is_err());
    }
    assert_eq!(rest.last(), Some(&true), "a part does not look like all");
    assert_eq!(get(&page, "/page/calls", &[]).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn events_come_each_second_until_the_page_is_closed() {
    let (page, live) = page(None);
    live.record(&call(0, Some("overloaded")));
    let open = || {
        let request = Request::get("/page/events").body(()).unwrap();
        page.respond(&request)
    };
    let mut body = open().await.into_body();
    let mut next = async || {
        let frame = body.frame().await?.unwrap().into_data().unwrap();
        let text = String::from_utf8(frame.to_vec()).unwrap();
        assert!(text.ends_with("\n\n") && text.matches('\n').count() == 2, "{text}");
        Some(serde_json::from_str::<Value>(text.strip_prefix("data: ").unwrap()).unwrap())
    };
    let began = tokio::time::Instant::now();
    let gone = || tokio::time::Instant::now().saturating_duration_since(began);
    assert_eq!(next().await.unwrap()["live"]["last"], 1);
    assert_eq!(gone(), Duration::ZERO);
    live.record(&call(0, Some("overloaded")));
    assert_eq!(next().await.unwrap()["live"]["last"], 2);
    assert_eq!(gone(), TICK);
    // A reader that was away gets the newest event, not each of those it missed.
    tokio::time::sleep(TICK * 20 + TICK / 2).await;
    assert_eq!(
        next().await.unwrap()["live"]["failed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .sum::<u64>(),
        2
    );
    assert!(gone() < TICK * 22);
    let mut others = Vec::new();
    for _ in 0..READERS - 1 {
        others.push(open().await);
    }
    assert!(others.iter().all(|answer| answer.status() == StatusCode::OK));
    let many = open().await;
    assert_eq!(
        (many.status(), &many.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from_static("5"))
    );
    drop(others);
    assert_eq!(open().await.status(), StatusCode::OK);
    page.close();
    assert!(next().await.is_none());
    let mut later = open().await.into_body();
    assert!(later.frame().await.unwrap().is_ok() && later.frame().await.is_none());
}
