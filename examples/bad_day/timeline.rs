//! The run as rows of characters, one column for each half second.

use std::time::Duration;

use super::record::Run;

const COLUMN: u64 = 500;
/// More columns than fit beside a row's name; a run that takes longer is cut there.
const COLUMNS: usize = 48;
const NAME: usize = 20;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The rows, without the indentation.
pub(crate) fn rows(run: &Run) -> Vec<String> {
    let columns = column(run.took).saturating_add(1).min(COLUMNS);
    let count = |times: &mut dyn Iterator<Item = Duration>| {
        let mut counts = vec![0; columns];
        times.filter_map(|at| counts.get_mut(column(at)).map(|n| *n += 1)).for_each(drop);
        counts
    };
    let answered = count(&mut run.answered().map(|request| request.ended));
    let heads = run.seen.failures.iter().map(|failure| failure.at);
    let bodies = run.failed().filter(|(_, failed)| failed.in_body).map(|(request, _)| request.ended);
    let failures = count(&mut heads.chain(bodies));
    let waiting: Vec<usize> = (0..columns).map(|column| waiting(run, column)).collect();
    let mut rows = vec![row("what goes wrong", &signs(run, columns), String::new())];
    for (name, counts) in
        [("answered", answered), ("upstream failures", failures), ("retries waiting", waiting)]
    {
        let most = counts.iter().copied().max().unwrap_or(0);
        rows.push(row(name, &blocks(&counts, most), format!("█ = {most}")));
    }
    rows.push(row("", &axis(columns), String::new()));
    rows
}

fn row(name: &str, cells: &str, note: String) -> String {
    format!("{name:NAME$}{cells}  {note}").trim_end().to_owned()
}

fn column(at: Duration) -> usize {
    usize::try_from(at.as_millis() / u128::from(COLUMN)).unwrap_or(usize::MAX)
}

fn signs(run: &Run, columns: usize) -> String {
    let sign = |column: usize| {
        let at = column as u64 * COLUMN;
        run.phases.iter().find(|phase| (phase.from..phase.to).contains(&at)).map_or('·', |phase| phase.sign)
    };
    (0..columns).map(sign).collect()
}

/// The most that waited at once, looked at ten times in the half second.
fn waiting(run: &Run, column: usize) -> usize {
    let step = COLUMN / 10;
    let at = |i: u64| Duration::from_millis(column as u64 * COLUMN + i * step);
    let waits = |at: Duration| run.seen.waits.iter().filter(|w| (w.at..w.at + w.wait).contains(&at)).count();
    (0..10).map(|i| waits(at(i))).max().unwrap_or(0)
}

/// Zero is a dot, so that it is not taken for little.
pub(crate) fn blocks(counts: &[usize], most: usize) -> String {
    let block = |count: usize| match count {
        0 => '·',
        n => LEVELS[(n * LEVELS.len()).div_ceil(most.max(1)).clamp(1, LEVELS.len()) - 1],
    };
    counts.iter().map(|count| block(*count)).collect()
}

/// A mark each five seconds.
fn axis(columns: usize) -> String {
    let mut axis = String::new();
    for column in (0..columns).step_by(10) {
        axis += &format!("{:10}", format!("{} s", column as u64 * COLUMN / 1000));
    }
    axis
}
