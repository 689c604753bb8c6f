//! The command line, good and bad.

use std::ffi::OsString;

use super::KEY;
use super::bad_day::args::{Command, parse};

fn parsed(line: &str, key: Option<&str>) -> Result<Command, String> {
    parse(line.split_whitespace().map(OsString::from), key.map(OsString::from))
}

#[test]
fn good_arguments_are_understood() {
    assert!(matches!(parsed("", None), Ok(Command::Simulate)));
    assert!(matches!(parsed("", Some(" \n")), Ok(Command::Simulate)), "a blank key is none");
    assert!(matches!(parsed("--simulate", Some(KEY)), Ok(Command::Simulate)));
    assert!(matches!(parsed("--deadline 5 -h", None), Ok(Command::Help)));
    for (line, key, model, prompt, deadline, attempts, stream) in [
        ("", Some(KEY), "gemini-3.5-flash-lite", "Say hello in one short sentence.", 120.0, 5, false),
        ("why is it so", Some(KEY), "gemini-3.5-flash-lite", "why is it so", 120.0, 5, false),
        ("--base-url http://h --prompt=--x --model models/m-1", None, "m-1", "--x", 120.0, 5, false),
        ("--deadline 0.5 --attempts=1 --stream a", Some(KEY), "gemini-3.5-flash-lite", "a", 0.5, 1, true),
        ("--model tunedModels/x -- --y", Some(KEY), "tunedModels/x", "--y", 120.0, 5, false),
    ] {
        let Ok(Command::Ask(ask)) = parsed(line, key) else { panic!("{line}") };
        assert_eq!((&*ask.model, &*ask.prompt, ask.stream), (model, prompt, stream), "{line}");
        assert_eq!((ask.deadline.as_secs_f64(), ask.attempts), (deadline, attempts), "{line}");
        assert_eq!(ask.key.is_some(), key.is_some(), "{line}");
        assert!(!format!("{ask:?}").contains(KEY), "{line}");
    }
}

#[test]
fn bad_arguments_are_told_in_one_sentence() {
    for (line, key, says) in [
        ("hello", None, "GEMINI_API_KEY"),
        ("--stream", None, "GEMINI_API_KEY"),
        ("--simulate --stream", Some(KEY), "no other option"),
        ("--tone friendly", Some(KEY), "--tone"),
        ("-x", Some(KEY), "-x"),
        ("--stream=yes", Some(KEY), "yes"),
        ("--deadline", Some(KEY), "needs a value"),
        ("--deadline --stream", Some(KEY), "needs a value"),
        ("--deadline 0", Some(KEY), "above 0"),
        ("--deadline -1", Some(KEY), "above 0"),
        ("--deadline soon", Some(KEY), "above 0"),
        ("--deadline NaN", Some(KEY), "above 0"),
        ("--deadline inf", Some(KEY), "above 0"),
        ("--deadline 1e300", Some(KEY), "above 0"),
        ("--deadline 86401", Some(KEY), "86400"),
        ("--attempts 0", Some(KEY), "1 to 100"),
        ("--attempts -3", Some(KEY), "1 to 100"),
        ("--attempts 101", Some(KEY), "1 to 100"),
        ("--attempts 2.5", Some(KEY), "1 to 100"),
        ("--prompt=", Some(KEY), "prompt is empty"),
        ("--prompt a b", Some(KEY), "not both"),
        ("--model=", Some(KEY), "--model"),
        ("--model ../x", Some(KEY), "--model"),
        ("--model a?b", Some(KEY), "--model"),
        ("--model m:generateContent", Some(KEY), "--model"),
        ("--base-url h", None, "must be a URL"),
        ("--base-url http://", None, "must be a URL"),
        ("--base-url ftp://h", None, "http://"),
        ("--base-url mailto:a@b", None, "http://"),
        ("--base-url http://h?key=secret", None, "no query"),
        ("--base-url http://me:secret@h", None, "password"),
        ("", Some("a\nb"), "GEMINI_API_KEY"),
        ("", Some("käy"), "GEMINI_API_KEY"),
    ] {
        let error = parsed(line, key).err().unwrap_or_else(|| panic!("{line}"));
        assert!(error.contains(says), "{line}: {error}");
        assert!(!error.contains('\n') && !error.contains("secret"), "{line}: {error}");
    }
}
