//! The report at the end: at most 80 columns, escape codes only where they are wanted.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use tower_gemini::Kind;
use tower_gemini::retry::GaveUp;

use super::record::{Failed, Phase, Run};
use super::timeline;

pub(crate) const WIDTH: usize = 80;

/// How text is set off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    pub(crate) color: bool,
}

impl Style {
    fn heading(self, text: &str) -> String {
        self.set("1", text)
    }

    fn set(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

pub(crate) fn write(run: &Run, style: Style, out: &mut dyn Write) -> io::Result<()> {
    users(run, style, out)?;
    upstream(run, style, out)?;
    absorbed(run, style, out)?;
    writeln!(out, "\n{}  one column is half a second", style.heading("TIMELINE"))?;
    for row in timeline::rows(run) {
        writeln!(out, "  {row}")?;
    }
    let point = |ms: u64| ms as f64 / 1000.0;
    for Phase { sign, from, to, what, .. } in &run.phases {
        writeln!(out, "  {sign} {:4.1} to {:4.1} s  {what}", point(*from), point(*to))?;
    }
    writeln!(out)?;
    for line in wrap(&closing(run), WIDTH) {
        writeln!(out, "{}", style.set("1;32", &line))?;
    }
    for surprise in run.surprises() {
        writeln!(out, "{}", style.set("1;31", &format!("unexpected: {surprise}")))?;
    }
    Ok(())
}

fn users(run: &Run, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let (answered, failed) = (run.answered().count(), run.failed().count());
    let times = latencies(run);
    writeln!(out, "{}", style.heading("WHAT THE USER SAW"))?;
    writeln!(out, "  {} requests: {answered} answered, {failed} failed", run.requests.len())?;
    writeln!(
        out,
        "  until the answer: p50 {}, p95 {}, longest {}",
        seconds(percentile(&times, 50)),
        seconds(percentile(&times, 95)),
        seconds(percentile(&times, 100)),
    )?;
    let mut kinds: BTreeMap<(Kind, &str), Vec<Duration>> = BTreeMap::new();
    for (request, Failed { kind, why, .. }) in run.failed() {
        kinds.entry((kind, why)).or_default().push(request.latency);
    }
    for ((kind, why), mut times) in kinds {
        times.sort_unstable();
        let longest = seconds(percentile(&times, 100));
        let first = format!("{kind}, within {longest}: {why}.");
        let lines = wrap(&first, WIDTH - 6).into_iter().chain(wrap(kind.remedy(), WIDTH - 6));
        for (i, line) in lines.enumerate() {
            let count = if i == 0 { times.len().to_string() } else { String::new() };
            writeln!(out, "{count:>5} {line}")?;
        }
    }
    Ok(())
}

fn upstream(run: &Run, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let (calls, requests) = (run.calls.len(), run.requests.len());
    let most = run.requests.iter().map(|request| request.attempts).max().unwrap_or(0);
    let each = calls as f64 / requests.max(1) as f64;
    writeln!(out, "\n{}", style.heading("WHAT THE UPSTREAM SAW"))?;
    writeln!(out, "  {calls} calls for {requests} requests: {each:.2} each, at most {most}")?;
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    for label in &run.calls {
        *labels.entry(label).or_default() += 1;
    }
    let cells: Vec<String> = labels.iter().map(|(label, n)| format!("{n:5}  {label}")).collect();
    for pair in cells.chunks(2) {
        writeln!(out, "{}", format!("{:40}{}", pair[0], pair.get(1).map_or("", String::as_str)).trim_end())?;
    }
    Ok(())
}

fn absorbed(run: &Run, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let mut kinds: BTreeMap<Kind, (usize, usize)> = BTreeMap::new();
    for failure in &run.seen.failures {
        kinds.entry(failure.kind).or_default().0 += 1;
    }
    for (_, failed) in run.failed().filter(|(_, failed)| failed.in_body) {
        kinds.entry(failed.kind).or_default().0 += 1;
    }
    for kind in run.answered().flat_map(|request| &request.absorbed) {
        kinds.entry(*kind).or_default().1 += 1;
    }
    writeln!(out, "\n{}", style.heading("WHAT WAS ABSORBED"))?;
    writeln!(out, "  {:20}{:>8}  {:>9}", "kind of failure", "seen", "absorbed")?;
    for (kind, (seen, absorbed)) in &kinds {
        let hopeless = |failed: Failed| failed.kind == *kind && failed.why == GaveUp::NotRetryable.as_str();
        let note = if run.failed().any(|(_, failed)| hopeless(failed)) {
            "  another attempt would not help"
        } else {
            ""
        };
        writeln!(out, "  {kind:20}{seen:8}  {absorbed:9}{note}")?;
    }
    let waits = &run.seen.waits;
    let total: Duration = waits.iter().map(|wait| wait.wait).sum();
    let longest = waits.iter().map(|wait| wait.wait).max().unwrap_or_default();
    let server = waits.iter().filter(|wait| wait.named_by_server).count();
    let (count, own) = (waits.len(), waits.len() - server);
    writeln!(out, "  {count} waits, {} in all, longest {}:", seconds(total), seconds(longest))?;
    writeln!(out, "  {server} named by the server, {own} own backoff (scaled down tenfold for this demo)")?;
    let (waited, refused) = run.spared();
    let made = run.calls.iter().filter(|label| label.starts_with("429")).count();
    writeln!(out, "\n{}", style.heading("THE 429s THAT DID NOT HAPPEN"))?;
    writeln!(out, "  {made:3}  429 met: each closed the door for its model")?;
    writeln!(out, "  {waited:3}  requests waited behind it, and went when the server had said")?;
    writeln!(out, "  {refused:3}  failed at once, without a call: the day is spent until midnight Pacific")
}

/// One sentence for somebody who has read nothing else.
pub(crate) fn closing(run: &Run) -> String {
    let (answered, requests) = (run.answered().count(), run.requests.len());
    let first = run.failed_at_first();
    let failed = requests - answered;
    format!(
        "{requests} requests, {answered} answered: without the layers {first} would have failed (that many failed \
         at the first attempt), with them {failed} did, each with its reason and remedy."
    )
}

/// Of the answered requests, sorted.
fn latencies(run: &Run) -> Vec<Duration> {
    let mut times: Vec<_> = run.answered().map(|request| request.latency).collect();
    times.sort_unstable();
    times
}

/// The least value that so many percent do not exceed; zero if there are none.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

pub(crate) fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.2} s") } else { format!("{seconds:.1} s") }
}

/// Lines of at most `width` characters, broken at spaces.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(line) if last == 0 => line.push_str(word),
            Some(line) if last + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
