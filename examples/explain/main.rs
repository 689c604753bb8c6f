//! What does this answer of Gemini mean, and what helps?
//!
//! ```text
//! curl -i … | cargo run --example explain
//! cargo run --example explain -- response.txt
//! cargo run --example explain -- --status 429 body.json
//! cargo run --example explain -- --jsonl < responses.jsonl
//! ```

mod read;
mod say;

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::process::ExitCode;

use lexopt::prelude::*;

const USAGE: &str = "\
explain what a response of Gemini means, and what helps

usage: explain [--status CODE] [FILE]   a response as curl -i prints it, or only its body
       explain --jsonl [FILE]           one JSON object a line, and one for each
Without FILE, or with -, it reads standard input.

A line of --jsonl in:  {\"id\", \"status\", \"headers\", \"content_type\", \"body\", \"endpoint\"}
                       (headers, content_type and endpoint may be missing)
            and out:   {\"id\", \"kind\", \"grpc_status\", \"retryable\", \"retry_after_s\", \"reason\", \"model\",
                        \"quota\": [{\"metric\", \"id\", \"dimension\", \"period\", \"limit\", \"model\"}],
                        \"remedy\", \"docs\", \"successor\"}; kind is null for a good answer
";

struct Args {
    jsonl: bool,
    status: Option<u16>,
    file: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("explain: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let file =
                args.file.as_deref().map_or("standard input".into(), |file| file.display().to_string());
            eprintln!("explain: cannot read {file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn args() -> Result<Option<Args>, lexopt::Error> {
    let mut args = Args { jsonl: false, status: None, file: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("jsonl") => args.jsonl = true,
            Long("status") => {
                let status: u16 = parser.value()?.parse()?;
                if !(100..=999).contains(&status) {
                    return Err("--status takes an HTTP status from 100 to 999".into());
                }
                args.status = Some(status);
            }
            Long("help") | Short('h') => return Ok(None),
            Value(file) if args.file.is_none() => args.file = Some(file.into()),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(args))
}

fn run(args: &Args) -> io::Result<()> {
    let mut input: Box<dyn BufRead> = match &args.file {
        Some(file) if file.as_os_str() != "-" => Box::new(BufReader::new(std::fs::File::open(file)?)),
        _ => Box::new(io::stdin().lock()),
    };
    let mut output = BufWriter::new(io::stdout().lock());
    if args.jsonl {
        // Lines are bytes: one that is not UTF-8 is one that cannot be read, and the rest goes on.
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line)? > 0 {
            if !line.trim_ascii().is_empty() {
                writeln!(output, "{}", say::json_line(&line))?;
            }
            line.clear();
        }
    } else {
        let mut response = Vec::new();
        input.read_to_end(&mut response)?;
        write!(output, "{}", say::prose(&read::response(&response, args.status)))?;
    }
    output.flush()
}
