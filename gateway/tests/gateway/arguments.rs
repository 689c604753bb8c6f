//! The command line and the environment.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use crate::world::{Written, soon};
use tower_gemini_gateway::run;
use tower_gemini_gateway::settings::{Chain, Command, Settings, Whither, help, parse};
use tower_gemini_gateway::upstream::choose;

fn parsed(args: &[&str], env: &[(&str, &str)]) -> Result<Command, String> {
    let env: HashMap<_, _> =
        env.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    parse(args.iter().map(OsString::from), |name| env.get(name).cloned())
}

fn settings(args: &[&str], env: &[(&str, &str)]) -> Settings {
    match parsed(args, env).unwrap() {
        Command::Run(settings, _) => *settings,
        other => panic!("{other:?}"),
    }
}

fn upstream(settings: &Settings) -> String {
    match &settings.whither() {
        Whither::To(base) => base.to_string(),
        Whither::Simulator => "simulator".to_owned(),
    }
}

#[test]
fn without_options_it_asks_google_and_limits_nothing() {
    let settings = settings(&[], &[]);
    assert_eq!(settings.listen, "127.0.0.1:8080");
    assert_eq!(upstream(&settings), "https://generativelanguage.googleapis.com");
    let limits = [settings.requests_per_minute, settings.tokens_per_minute, settings.requests_per_day];
    assert_eq!(limits, [None; 3]);
    assert_eq!((settings.attempts, settings.deadline), (5, Duration::from_secs(120)));
    assert!(settings.fallback.is_empty());
}

#[test]
fn each_option_is_a_variable_too_and_wins_over_it() {
    let env = [
        ("GATEWAY_LISTEN", "0.0.0.0:1"),
        ("GATEWAY_UPSTREAM", "http://a"),
        ("GATEWAY_REQUESTS_PER_MINUTE", "1"),
        ("GATEWAY_TOKENS_PER_MINUTE", "2"),
        ("GATEWAY_REQUESTS_PER_DAY", "3"),
        ("GATEWAY_ATTEMPTS", "4"),
        ("GATEWAY_DEADLINE", "5"),
        ("GATEWAY_BREAKER_OPEN", "0.6"),
        ("GATEWAY_FALLBACK", "a=b,c; d=e"),
        ("GATEWAY_LOG", "json"),
        // What orchestrators say of a service named gateway.
        ("GATEWAY_PORT", "tcp://10.0.0.1:8080"),
        ("GATEWAY_SERVICE_HOST", "10.0.0.1"),
    ];
    let told = |settings: &Settings| {
        let quotas = [settings.requests_per_minute, settings.tokens_per_minute, settings.requests_per_day];
        let times = [settings.deadline, settings.breaker_open];
        (
            settings.listen.clone(),
            upstream(settings),
            quotas,
            settings.attempts,
            times,
            format!("{:?}", settings.log),
        )
    };
    let all = settings(&[], &env);
    let times = [Duration::from_secs(5), Duration::from_millis(600)];
    let wanted = (
        "0.0.0.0:1".to_owned(),
        "http://a".to_owned(),
        [Some(1), Some(2), Some(3)],
        4,
        times,
        "Json".to_owned(),
    );
    assert_eq!(told(&all), wanted);
    let chain = |model: &str, then: &[&str]| Chain {
        model: model.to_owned(),
        then: then.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert_eq!(all.fallback, [chain("a", &["b", "c"]), chain("d", &["e"])]);
    let args = [
        "--listen=[::1]:2",
        "--upstream",
        "https://b:8443/x/",
        "--requests-per-minute=11",
        "--tokens-per-minute=12",
        "--requests-per-day=13",
        "--attempts=14",
        "--deadline=15",
        "--breaker-open=16",
        "--fallback=x=y",
        "--fallback",
        "models/z=models/y",
        "--log=text",
    ];
    let all = settings(&args, &env);
    let times = [Duration::from_secs(15), Duration::from_secs(16)];
    let quotas = [Some(11), Some(12), Some(13)];
    let wanted = ("[::1]:2".to_owned(), "https://b:8443/x".to_owned(), quotas, 14, times, "Text".to_owned());
    assert_eq!(told(&all), wanted);
    assert_eq!(all.fallback, [chain("x", &["y"]), chain("z", &["y"])]);
    assert_eq!(upstream(&settings(&["--simulate"], &env)), "simulator");
    assert_eq!(upstream(&settings(&[], &[("GATEWAY_SIMULATE", "1")])), "simulator");
    assert_eq!(upstream(&settings(&["--upstream=http://c"], &[("GATEWAY_SIMULATE", "true")])), "http://c");
}

#[test]
fn what_is_wrong_is_one_sentence_that_names_the_option() {
    for (args, named) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["-x"], "-x"),
        (&["word"], "word"),
        (&["--listen"], "--listen"),
        (&["--listen", "8080"], "--listen"),
        (&["--listen", "localhost:99999"], "--listen"),
        (&["--upstream", "--simulate"], "--upstream"),
        (&["--upstream", "generativelanguage.googleapis.com"], "--upstream"),
        (&["--upstream", "ftp://a"], "--upstream"),
        (&["--resume-streams", "yes"], "--resume-streams"),
        (&["--openai-errors", "other"], "--openai-errors"),
        (&["--empty-answers", "3"], "--empty-answers"),
        (&["--upstream", "http://"], "--upstream"),
        (&["--upstream", "http://a:99999"], "--upstream"),
        (&["--upstream", "http://a?key=SECRET"], "--upstream"),
        (&["--upstream", "http://me:SECRET@a"], "--upstream"),
        (&["--upstream", "http://a b"], "--upstream"),
        (&["--upstream", "http://a", "--simulate"], "--simulate"),
        (&["--requests-per-minute", "0"], "--requests-per-minute"),
        (&["--requests-per-minute", "-1"], "--requests-per-minute"),
        (&["--tokens-per-minute", "1e6"], "--tokens-per-minute"),
        (&["--requests-per-day", "99999999999999999999"], "--requests-per-day"),
        (&["--attempts", "0"], "--attempts"),
        (&["--attempts", "101"], "--attempts"),
        (&["--deadline", "NaN"], "--deadline"),
        (&["--deadline", "-1"], "--deadline"),
        (&["--deadline", "1e300"], "--deadline"),
        (&["--breaker-open", "0"], "--breaker-open"),
        (&["--fallback", "a"], "--fallback"),
        (&["--fallback", "a=,b"], "--fallback"),
        (&["--fallback", "a=../b"], "--fallback"),
        (&["--fallback", "a=b,a"], "--fallback"),
        (&["--fallback", "a=b", "--fallback", "a=c"], "--fallback"),
        (&["--log", "xml"], "--log"),
        (&["--simulate=maybe"], "--simulate"),
    ] {
        let sentence = parsed(args, &[]).unwrap_err();
        assert!(sentence.contains(named), "{args:?}: {sentence}");
        assert!(
            !sentence.contains("SECRET") && !sentence.contains('\n') && !sentence.ends_with('.'),
            "{sentence}"
        );
    }
    let sentence = parsed(&[], &[("GATEWAY_ATTEMPTS", "many")]).unwrap_err();
    assert!(sentence.starts_with("GATEWAY_ATTEMPTS "), "{sentence}");
    assert!(parsed(&["--help"], &[]).is_ok_and(|command| matches!(command, Command::Help(_))));
    assert!(help().lines().all(|line| line.chars().count() <= 80));
}

/// Google permits 100 streams on a connection.
#[test]
fn a_connection_is_filled_before_the_next_one_and_never_beyond_what_google_permits() {
    let mut lanes = [0_usize; 16];
    for _ in 0..16 * 90 {
        lanes[choose(lanes.iter().copied())] += 1;
        assert!(
            lanes.is_sorted_by(|a, b| a >= b) && lanes.iter().filter(|n| !matches!(n, 0 | 90)).count() <= 1
        );
    }
    assert_eq!(lanes, [90; 16]);
    lanes[7] = 89;
    assert_eq!(choose(lanes.iter().copied()), 7);
    lanes = [120; 16];
    lanes[3] = 110;
    assert_eq!(choose(lanes.iter().copied()), 3, "the least full");
}

async fn shown(args: &[&str]) -> (u8, String, String) {
    let (out, mut err) = (Written::default(), Vec::new());
    let args: Vec<_> = args.iter().map(OsString::from).collect();
    let code = soon(run(args, |_| None, Box::new(out.clone()), &mut err, async {})).await;
    (code, out.text(), String::from_utf8(err).unwrap())
}

#[tokio::test]
async fn wrong_usage_and_a_port_in_use_are_exit_code_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|addr| (addr.to_string(), taken)).unwrap();
    for args in
        [&["--nothing"][..], &["--simulate", "--listen", &taken.0], &["--listen", "no.such.host.invalid:1"]]
    {
        let (code, out, err) = shown(args).await;
        assert_eq!((code, &*out, err.lines().count()), (2, "", 1), "{err}");
        assert!(err.starts_with("error: "), "{err}");
    }
    let (code, out, err) = shown(&["--help"]).await;
    assert_eq!((code, &*out, &*err), (0, &*help(), ""));
    let (code, out, err) = shown(&["--simulate", "--listen=127.0.0.1:0", "--admin=off"]).await;
    assert_eq!((code, &*out), (0, ""));
    assert!(err.starts_with("gateway: http://127.0.0.1:") && err.lines().count() == 1, "{err}");
}
