//! Bodies as Ruby, Elixir and PHP print them, and one whose inner quotes have lost their escapes.

use super::kinds::{body, check, text};

const WHOLE: &str = "quota_exhausted RESOURCE_EXHAUSTED never 7s@info + requests/day 5 #XPerDay ~m/requests";

/// The same body in each language.
const PRINTS: [&str; 8] = [
    // Ruby's, with strings and with symbols for names.
    r#"{"error"=>{"code"=>429, "message"=>"Over it.", "status"=>"RESOURCE_EXHAUSTED", "details"=>[{"violations"=>[{"quotaMetric"=>"m/requests", "quotaId"=>"XPerDay", "quotaValue"=>"5"}]}, {"retryDelay"=>"7s"}]}}"#,
    r#"{:error=>{:code=>429, :message=>"Over it.", :status=>"RESOURCE_EXHAUSTED", :details=>[{:violations=>[{:quotaMetric=>"m/requests", :quotaId=>"XPerDay", :quotaValue=>"5"}]}, {:retryDelay=>"7s"}]}}"#,
    // Elixir's.
    r#"%{"error" => %{"code" => 429, "message" => "Over it.", "status" => "RESOURCE_EXHAUSTED", "details" => [%{"violations" => [%{"quotaMetric" => "m/requests", "quotaId" => "XPerDay", "quotaValue" => "5"}]}, %{"retryDelay" => "7s"}]}}"#,
    r#"{:error, %Req.Response{status: 429, headers: %{"content-type" => ["application/json"]}, body: %{"error" => %{"code" => 429, "message" => "Over it.", "status" => "RESOURCE_EXHAUSTED", "details" => [%{"violations" => [%{"quotaMetric" => "m/requests", "quotaId" => "XPerDay", "quotaValue" => "5"}]}, %{"retryDelay" => "7s"}]}}}}"#,
    // PHP's short arrays, `var_export`, `print_r` and `var_dump`.
    r#"['error' => ['code' => 429, 'message' => 'Over it.', 'status' => 'RESOURCE_EXHAUSTED', 'details' => [['violations' => [['quotaMetric' => 'm/requests', 'quotaId' => 'XPerDay', 'quotaValue' => '5']]], ['retryDelay' => '7s']]]]"#,
    "array (\n  'error' => \n  array (\n    'code' => 429,\n    'message' => 'Over it.',\n    'status' => 'RESOURCE_EXHAUSTED',\n    'details' => \n    array (\n      0 => \n      array (\n        'violations' => \n        array (\n          0 => \n          array (\n            'quotaMetric' => 'm/requests',\n            'quotaId' => 'XPerDay',\n            'quotaValue' => '5',\n          ),\n        ),\n      ),\n      1 => \n      array (\n        'retryDelay' => '7s',\n      ),\n    ),\n  ),\n)",
    "Array\n(\n    [error] => Array\n        (\n            [code] => 429\n            [message] => Over it.\n            [status] => RESOURCE_EXHAUSTED\n            [details] => Array\n                (\n                    [0] => Array\n                        (\n                            [violations] => Array\n                                (\n                                    [0] => Array\n                                        (\n                                            [quotaMetric] => m/requests\n                                            [quotaId] => XPerDay\n                                            [quotaValue] => 5\n                                        )\n                                )\n                        )\n                    [1] => Array\n                        (\n                            [retryDelay] => 7s\n                        )\n                )\n        )\n)\n",
    "array(1) {\n  [\"error\"]=>\n  array(4) {\n    [\"code\"]=>\n    int(429)\n    [\"message\"]=>\n    string(8) \"Over it.\"\n    [\"status\"]=>\n    string(18) \"RESOURCE_EXHAUSTED\"\n    [\"details\"]=>\n    array(2) {\n      [0]=>\n      array(1) {\n        [\"violations\"]=>\n        array(1) {\n          [0]=>\n          array(3) {\n            [\"quotaMetric\"]=>\n            string(10) \"m/requests\"\n            [\"quotaId\"]=>\n            string(7) \"XPerDay\"\n            [\"quotaValue\"]=>\n            string(1) \"5\"\n          }\n        }\n      }\n      [1]=>\n      array(1) {\n        [\"retryDelay\"]=>\n        string(2) \"7s\"\n      }\n    }\n  }\n}\n",
];

#[test]
fn a_body_is_read_in_each_languages_print() {
    for print in PRINTS {
        // Under a success, what begins as JSON does is read as an answer.
        let status = if print.starts_with("{\"") { 500 } else { 200 };
        check(&[
            (status, text(print), WHOLE),
            (429, text(print), WHOLE),
            (200, text(&format!("Gemini failed: {print}")), WHOLE),
            (500, body("error", print), WHOLE),
        ]);
    }
    check(&[
        (
            400,
            text(
                r#"{"error"=>{"code"=>400, "message"=>"API key not valid.", "status"=>"INVALID_ARGUMENT"}}"#,
            ),
            "api_key_invalid never",
        ),
        (
            500,
            text("{:code=>503, :message=>\"The model is overloaded.\", :status=>\"UNAVAILABLE\"}"),
            "overloaded again",
        ),
        (
            500,
            text(
                "Array ( [error] => Array ( [code] => 404 [message] => models/x is not found [status] => NOT_FOUND ) )",
            ),
            "not_found never",
        ),
        // Arrows in a sentence, and arrays without an error.
        (500, text("a => b, code => c"), "internal again"),
        (500, text("['name' => 'x', 'count' => 429]"), "internal again"),
    ]);
}

#[test]
fn a_block_is_read_in_rubys_print() {
    let block = r#"{"promptFeedback"=>{"blockReason"=>"SAFETY", "safetyRatings"=>[{"category"=>"X", "probability"=>"HIGH"}]}}"#;
    check(&[
        (500, text(block), "content_blocked never"),
        (500, text(&block.replace("SAFETY", "PROHIBITED_CONTENT")), "content_blocked never"),
        (500, text(r#"{"promptFeedback"=>{"safetyRatings"=>[]}}"#), "internal again"),
    ]);
}

#[test]
fn an_inner_body_without_its_escapes_is_found() {
    let inner = r#"{\n  "error": {\n    "code": 429,\n    "message": "Over it.",\n    "status": "RESOURCE_EXHAUSTED",\n    "details": [\n      {\n        "violations": [\n          {\n            "quotaMetric": "m/requests",\n            "quotaId": "XPerDay",\n            "quotaValue": "5"\n          }\n        ]\n      },\n      {\n        "retryDelay": "7s"\n      }\n    ]\n  }\n}\n"#;
    let outer = format!(r#"{{"error":{{"message":"{inner}","code":429,"status":"Too Many Requests"}}}}"#);
    check(&[
        (200, text(&format!("got status: 429 Too Many Requests. {outer}")), WHOLE),
        (429, text(&outer), WHOLE),
        (200, text(&format!("got status: 429. {}", outer.replace("\\n", "\n"))), WHOLE),
        (400, text(r#"{"error":{"message":"an "inner" quote","code":400}}"#), "invalid_argument never"),
    ]);
}
