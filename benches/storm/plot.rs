//! Requests over time, drawn by hand: one small picture for each contender, one below the other.

use std::fmt::Write as _;
use std::path::Path;

use crate::report::{Row, Table};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 64.0;
const GAP: f64 = 26.0;
const LEFT: f64 = 12.0;

/// `<folder>/<cell>.svg`: calls a second in the darker colour, answers in the lighter one before them.
pub(crate) fn write(folder: &Path, table: &Table) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let file = folder.join(format!("{}.svg", table.name));
    std::fs::write(&file, picture(table)).map_err(|error| format!("{}: {error}", file.display()))
}

fn picture(table: &Table) -> String {
    let seconds = table.rows.iter().map(|row| row.seeds[0].calls_by_second.len()).max().unwrap_or(1).max(1);
    let height = 40.0 + table.rows.len() as f64 * (HEIGHT + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{}: {}, {seconds} s</text>\n",
        WIDTH + 2.0 * LEFT,
        escape(&table.name),
        escape(&table.title)
    );
    for (n, row) in table.rows.iter().enumerate() {
        draw(&mut svg, row, 40.0 + n as f64 * (HEIGHT + GAP), seconds);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, row: &Row, top: f64, seconds: usize) {
    let figures = &row.seeds[0];
    let bins = seconds.min(WIDTH as usize / 2);
    let calls = binned(&figures.calls_by_second, seconds, bins);
    let answers = binned(&figures.answers_by_second, seconds, bins);
    let most = calls.iter().chain(&answers).copied().fold(1.0, f64::max);
    writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\">{}: at most {most:.0} calls in a second, {:.1} % answered</text>",
        top + 10.0,
        escape(row.contender),
        100.0 * figures.share()
    )
    .expect("a string takes all");
    for (values, colour) in [(&calls, "#b3452c"), (&answers, "#7fb6a3")] {
        let base = top + 14.0 + HEIGHT;
        let step = WIDTH / bins as f64;
        let mut path = format!("M{LEFT} {base:.1}");
        for (n, value) in values.iter().enumerate() {
            let (x, y) = (LEFT + n as f64 * step, base - HEIGHT * value / most);
            write!(path, "L{x:.1} {y:.1}L{:.1} {y:.1}", x + step).expect("a string takes all");
        }
        writeln!(
            svg,
            "<path d=\"{path}L{:.1} {base:.1}Z\" fill=\"{colour}\" fill-opacity=\"0.8\"/>",
            LEFT + WIDTH
        )
        .expect("a string takes all");
    }
}

/// The busiest second of each bin.
fn binned(seconds: &[u32], all: usize, bins: usize) -> Vec<f64> {
    let mut binned = vec![0.0; bins];
    for (second, count) in seconds.iter().enumerate() {
        let bin = &mut binned[(second * bins / all).min(bins - 1)];
        *bin = f64::max(*bin, f64::from(*count));
    }
    binned
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
