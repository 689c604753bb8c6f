//! The file of settings: who is believed, what is refused, what a reload changes, and what `--check` prints.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tower_gemini::config::StackConfig;
use tower_gemini::event::Observer;
use tower_gemini_gateway::run;
use tower_gemini_gateway::settings::{Acts, Command, DECLARED, Resumes, Settings, help, parse};
use tower_gemini_gateway::stack::{config, stack};

use crate::world::{GENERATE, HELLO, Written, soon};

struct File {
    dir: tempfile::TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let file = Self { dir: tempfile::tempdir().unwrap() };
        file.write(text);
        file
    }

    fn path(&self) -> String {
        self.dir.path().join("gateway.toml").display().to_string()
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

fn read(text: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Settings, String> {
    let file = File::new(text);
    let config = format!("--config={}", file.path());
    let env: HashMap<_, _> =
        env.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    let args = args.iter().copied().chain([&*config]).map(OsString::from);
    match parse(args, |name| env.get(name).cloned()).map_err(|rule| rule.replace(&file.path(), "f"))? {
        Command::Run(settings, _) => Ok(*settings),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_option_wins_over_its_variable_and_that_over_the_file() {
    let text = "attempts = 2\ndeadline = 10.5\nidle = 7\nfallback = [\"a=b\", \"c=d,e\"]\nlog = \"json\"\n";
    let settings =
        read(text, &["--attempts=4"], &[("GATEWAY_ATTEMPTS", "3"), ("GATEWAY_IDLE", "8")]).unwrap();
    assert_eq!((settings.attempts, settings.idle), (4, Duration::from_secs(8)));
    assert_eq!(settings.deadline, Duration::from_millis(10_500));
    assert_eq!(settings.first_byte(), Duration::from_millis(7_875), "it follows the deadline");
    assert_eq!(settings.fallback.len(), 2);
    assert_eq!(read(text, &[], &[("GATEWAY_ATTEMPTS", "3")]).unwrap().attempts, 3);
    // The file's simulator gives way to a variable's upstream.
    let settings = read("simulate = true", &[], &[("GATEWAY_UPSTREAM", "http://a")]).unwrap();
    assert!(!settings.simulate);
}

#[test]
fn each_bad_line_is_one_sentence_with_file_line_and_rule() {
    for (text, expected) in [
        ("\nattemps = 3", "f:2: there is no setting attemps; attempts is one"),
        ("secret-thing = 3", "f:1: there is no setting secret-thing"),
        ("[listen]\nx = 1", "f:1: listen must be one value"),
        ("attempts = 0", "f:1: attempts must be a whole number from 1 to 100"),
        ("# a\n\nattempts = \"SECRET\"", "f:3: attempts must be"),
        ("attempts = [1, 2]", "f:1: attempts must be one value"),
        ("deadline = nan", "f:1: deadline must be a number of seconds"),
        ("deadline = 1979-05-27", "f:1: deadline must be one value"),
        ("breaker = \"maybe\"", "f:1: breaker must be on, observe or off"),
        ("fallback = [\"a=b\", \"a=c\"]", "f:1: fallback must name a once"),
        ("upstream = \"http://me:SECRET@a\"", "f:1: upstream must have no user or password"),
        ("log = \"json\"\nupstream = \"http://a\"\nsimulate = true", "f:2: upstream and --simulate exclude"),
        ("quota_secret = \"SECRET\"", "f:1: quota_secret must have from 16"),
        ("quota_members = 3", "f:1: quota_members needs --quota-store"),
        ("tls_cert = \"a.pem\"", "f:1: tls_cert needs --tls-key"),
        ("replay_mib = 8", "f:1: replay_mib must leave"),
        ("log = \"json\"\nlog = \"text\"", "f:2: "),
        ("attempts = = 3", "f:1: "),
        ("config = \"other\"", "f:1: there is no setting config"),
    ] {
        let sentence = read(text, &[], &[]).expect_err(text);
        assert!(sentence.starts_with(expected), "{text}\n{sentence}");
        assert!(
            !sentence.contains("SECRET") && !sentence.contains('\n') && !sentence.ends_with('.'),
            "{sentence}"
        );
    }
    // Also where an option wins.
    assert!(read("attempts = 0", &["--attempts=3"], &[]).is_err());
    let missing = parse([OsString::from("--config=/no/such/file")], |_| None).unwrap_err();
    assert!(missing.starts_with("/no/such/file: cannot be read"), "{missing}");
}

/// The library's sections, by its own types: a member that is a setting of the gateway, too, is that one.
#[test]
fn sections_of_the_library_reach_the_layers_and_options_win_over_them() {
    let text = "calls = 9\n[retry]\nattempts = 7\nquick_retries = 1\nbackoff = { cap = \"9s\" }\nbudget = { cap = 77 }\n\
        [deadline]\nwithin = \"50s\"\n[circuit_breaker]\nmin_calls = 33\nopen_time = { first = \"3s\", most = \"9s\" }\n\
        [concurrency]\nobserve_only = true\nfloor = 3.0\n[rate_limit]\nrequests_per_minute = 70\nmargin = 0.2\n\
        [timeout]\nidle = \"off\"\n[fallback]\nchain = { a = [\"b\"] }\n[hedge]\nenabled = true\n[resume]\nmode = \"restart\"\n";
    let settings = read(text, &[], &[]).unwrap();
    assert_eq!((settings.attempts, settings.deadline), (7, Duration::from_secs(50)));
    assert_eq!((settings.governor, settings.idle_mode), (Acts::Observe, Acts::Off));
    assert_eq!((settings.resume_streams, settings.fallback.len()), (Resumes::Restart, 1));
    let nobody: Arc<dyn Observer> = Arc::new(Vec::<Arc<dyn Observer>>::new());
    let (stack, _) = stack(&settings, &nobody, None).unwrap();
    let is = StackConfig::of(&*stack);
    let asked = config(&settings);
    assert_eq!((is.retry.attempts, is.retry.quick_retries), (Some(7), Some(1)));
    assert_eq!(is.retry, asked.retry);
    assert_eq!(is.deadline, asked.deadline);
    assert_eq!(is.circuit_breaker, asked.circuit_breaker);
    assert_eq!(is.circuit_breaker.min_calls, Some(33));
    assert_eq!(is.concurrency, asked.concurrency);
    assert_eq!((is.rate_limit.requests_per_minute, is.rate_limit.margin), (Some(70), Some(0.2)));
    assert_eq!(is.timeout, asked.timeout);
    assert_eq!(is.fallback, asked.fallback);
    assert_eq!(is.hedge.enabled, Some(true));
    let over = read(text, &["--attempts=2"], &[("GATEWAY_DEADLINE", "60")]).unwrap();
    assert_eq!((over.attempts, over.deadline), (2, Duration::from_secs(60)));
    let shown = settings.explained();
    assert!(
        shown.lines().any(|line| line.starts_with("attempts = 7 ") && line.ends_with("gateway.toml:3")),
        "{shown}"
    );
    assert!(shown.contains("[circuit_breaker]\nmin_calls = 33"), "{shown}");
    // What it prints is a file of settings.
    let again = read(&shown, &[], &[]).unwrap();
    assert_eq!(config(&again), asked);
}

/// Each member of each section is known, and what is no value of its kind is refused by its name and line.
#[test]
fn each_member_of_a_section_is_known_and_a_bad_one_is_refused_by_name() {
    let mut refused = 0;
    for (section, members) in StackConfig::members() {
        for member in members {
            let said = read(&format!("# a line\n[{section}]\n{member} = {{ SECRET = 1 }}\n"), &[], &[]);
            let sentence = said.expect_err(member);
            let own = sentence.starts_with(&format!("f:3: {section}.{member} "));
            let not_here = sentence.starts_with(&format!("f:2: {section} is "));
            assert!(own || not_here, "{section}.{member}: {sentence}");
            assert!(!sentence.contains('\n') && !sentence.ends_with('.'), "{sentence}");
            refused += usize::from(own);
        }
    }
    assert!(refused > 80, "{refused}");
    for (text, expected) in [
        ("[retry]\natempts = 3", "f:2: there is no setting retry.atempts; retry.attempts is one"),
        ("[retry]\nattempts = 0", "f:2: retry.attempts must be a whole number from 1 to 100"),
        (
            "attempts = 3\n[retry]\nattempts = 4",
            "f:3: retry.attempts is the same as attempts, which the file says, too",
        ),
        ("[retry]\nmax_server_delay = 15", "f:2: retry.max_server_delay "),
        ("[places]\nmax_keys = 1", "f:1: places is not in the gateway"),
        ("retry = 3", "f:1: retry must be a section, such as [retry]"),
        ("[store]\nurl = \"http://:SECRET@a\"", "f:2: store.url must be redis://"),
    ] {
        let sentence = read(text, &[], &[]).expect_err(text);
        assert!(sentence.starts_with(expected) && !sentence.contains("SECRET"), "{text}\n{sentence}");
    }
}

/// What only a layer refuses has its place as well.
#[tokio::test]
async fn what_a_layer_refuses_is_said_with_file_and_line() {
    let file = File::new("[circuit_breaker]\nmin_calls = 5\nfailure_share = 7.5\n");
    let config = format!("--config={}", file.path());
    let (code, out, err) = shown(&["--check", &config], &[]).await;
    assert_eq!((code, &*out), (2, ""), "{err}");
    let expected = format!("error: {}:3: circuit_breaker.failure_share must be ", file.path());
    assert!(err.starts_with(&expected) && err.lines().count() == 1, "{err}");
}

/// Each setting, in each of the three places that it can be said in.
#[tokio::test]
async fn each_bad_value_is_one_sentence_with_its_place_and_exit_code_2() {
    for declared in DECLARED {
        let bad = if (declared.check)("SECRET-x").is_err() { "SECRET-x" } else { "" };
        let rule = (declared.check)(bad).expect_err(declared.name);
        let file = File::new(&format!("# a line\n{} = \"{bad}\"\n", declared.name));
        let (option, config) =
            (format!("--{}={bad}", declared.option()), format!("--config={}", file.path()));
        let variable = declared.variable();
        let places = [
            (vec![&*option], vec![], format!("--{}", declared.option())),
            (vec![], vec![(&*variable, bad)], variable.clone()),
            (vec![&*config], vec![], format!("{}:2: {}", file.path(), declared.name)),
        ];
        for (args, env, place) in places {
            if bad.is_empty() && !env.is_empty() {
                // A variable without a value is none.
                continue;
            }
            let (code, out, err) = shown(&args, &env).await;
            assert_eq!((code, &*out), (2, ""), "{place}: {err}");
            assert_eq!(err, format!("error: {place} {rule} (--help lists the options)\n"));
            assert!(!err.contains("SECRET-x"), "{err}");
        }
    }
}

/// No setting is without its help, and no default breaks its own rule.
#[test]
fn each_setting_is_declared_whole() {
    let text = help();
    for declared in DECLARED {
        assert!(text.contains(&format!("--{}", declared.option())), "{}", declared.name);
        assert!(!declared.help.trim().is_empty());
        if let Some(default) = declared.default {
            assert_eq!((declared.check)(default), Ok(()), "{}", declared.name);
        }
    }
}

async fn shown(args: &[&str], env: &[(&str, &str)]) -> (u8, String, String) {
    let (out, mut err) = (Written::default(), Vec::new());
    let env: HashMap<_, _> =
        env.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    let args: Vec<_> = args.iter().map(OsString::from).collect();
    let env = |name: &str| env.get(name).cloned();
    let code = soon(run(args, env, Box::new(out.clone()), &mut err, async {})).await;
    (code, out.text(), String::from_utf8(err).unwrap())
}

#[tokio::test]
async fn check_explains_every_setting_and_shows_no_secret() {
    let file = File::new("attempts = 7\nquota_store = \"redis://:SECRET-password@127.0.0.1:1\"\n");
    let config = format!("--config={}", file.path());
    let args = ["--check", &config, "--idle=3"];
    let (code, out, err) = shown(&args, &[("GATEWAY_QUOTA_SECRET", "SECRET-of-16-bytes-or-more")]).await;
    assert_eq!((code, &*err), (0, ""), "{out}");
    for declared in DECLARED {
        let is = |line: &&str| line.trim_start_matches("# ").split(' ').next() == Some(declared.name);
        assert_eq!(out.lines().filter(is).count(), 1, "{}: {out}", declared.name);
    }
    let line = |name: &str| {
        let line = out.lines().find(|line| line.trim_start_matches("# ").starts_with(name)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("attempts"), format!("attempts = 7 # {}:1", file.path()));
    assert_eq!(line("idle"), "idle = 3 # --idle");
    assert_eq!(line("deadline"), "deadline = 120 # default");
    assert_eq!(line("quota_secret"), "# quota_secret = (given, not shown) # GATEWAY_QUOTA_SECRET");
    assert!(!out.contains("SECRET-"), "{out}");
    // What it prints is a file of settings.
    read(&out, &[], &[]).unwrap();
    for args in [&["--check", "--clients=/no/such/file"][..], &["--check", "--attempts=0"]] {
        let (code, out, err) = shown(args, &[]).await;
        assert_eq!((code, &*out, err.lines().count()), (2, "", 1), "{err}");
    }
}

/// The program itself: a reload changes what it may, refuses what is bad, and keeps what was.
#[tokio::test]
async fn sighup_reads_the_file_again_and_refuses_a_bad_one() {
    let file = File::new("requests_per_minute = 1\nquota_wait = 0\n");
    let mut child = Program::new(env!("CARGO_BIN_EXE_tower-gemini-gateway"))
        .args([
            "--listen=127.0.0.1:0",
            "--admin=127.0.0.1:0",
            "--simulate",
            "--log=off",
            "--config",
            &file.path(),
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut line = move || lines.next().unwrap().unwrap();
    let first = line();
    let addr = first.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let client = reqwest::Client::new();
    let status = || async {
        let url = format!("http://{addr}{GENERATE}");
        client.post(url).header("x-goog-api-key", "k").body(HELLO).send().await.unwrap().status()
    };
    let hang_up = || Program::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    assert_eq!(status().await, StatusCode::OK);
    assert_eq!(status().await, StatusCode::TOO_MANY_REQUESTS);
    for (bad, rule) in [
        ("requests_per_minute = 0\nquota_wait = 0\n", "gateway.toml:1: requests_per_minute must be"),
        (
            "requests_per_minute = 9\nquota_wait = 9\n",
            "gateway.toml:2: quota_wait changes with a restart only",
        ),
    ] {
        file.write(bad);
        assert!(hang_up().success());
        let said = line();
        assert!(said.contains("everything stays as it was") && said.contains(rule), "{said}");
        assert_eq!(status().await, StatusCode::TOO_MANY_REQUESTS);
    }
    file.write("requests_per_minute = 100\nquota_wait = 0\nattempts = 2\n");
    assert!(hang_up().success());
    assert_eq!(line(), "gateway: the settings were read");
    // On the connection that was open before, too.
    assert_eq!(status().await, StatusCode::OK);
    child.kill().unwrap();
    child.wait().unwrap();
}
