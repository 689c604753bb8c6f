//! The file of settings: who is believed, what is refused, what a reload changes, and what `--check` prints.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Command as Program, Stdio};
use std::time::Duration;

use http::StatusCode;
use tower_gemini_gateway::run;
use tower_gemini_gateway::settings::{Command, DECLARED, Settings, help, parse};

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
