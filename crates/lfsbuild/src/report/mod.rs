//! `umlfs report`: one HTML file that tells how a system was built. It needs nothing besides itself: no script, no other file.

mod timeline;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::builder::{Builder, SBU_SECONDS};
use crate::graph::Graph;
use crate::store::Record;

/// The step that defines the standard build unit.
const UNIT: &str = "binutils/pass1";

/// Rows in the table of the slowest phases.
const SLOWEST: usize = 20;

/// A step with what is known of its build.
struct Row<'a> {
    name: &'a str,
    book: &'a str,
    chapter: Option<u32>,
    expected: f64,
    record: Option<Record>,
}

impl Row<'_> {
    fn wall(&self) -> f64 {
        self.record.as_ref().map_or(0.0, |r| r.wall_seconds)
    }

    fn cpu(&self) -> f64 {
        self.record.as_ref().map_or(0.0, |r| r.cpu_seconds)
    }

    fn size(&self) -> u64 {
        self.record.as_ref().map_or(0, |r| r.outputs.values().map(|a| a.installed_size).sum())
    }
}

/// Writes the report on a profile to a file, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write(builder: &Builder, path: &std::path::Path) -> crate::error::Result<()> {
    crate::store::write_whole(path, html(builder).as_bytes())
}

/// The report on a profile, as an HTML document.
pub fn html(builder: &Builder) -> String {
    let graph = Graph::of(builder);
    let rows: Vec<Row<'_>> = builder
        .plan
        .steps
        .iter()
        .zip(&graph.nodes)
        .map(|(step, node)| Row {
            name: &step.name,
            book: builder.plan.stage(step).and_then(|(_, s)| s.book.as_deref()).unwrap_or(""),
            chapter: node.chapter,
            expected: node.sbu,
            record: builder.store.record(&step.key),
        })
        .collect();
    let unit = rows.iter().find(|r| r.name == UNIT).map(Row::cpu).filter(|s| *s > 0.0);
    let mut out = String::new();
    let title = format!("umlfs: how {} was built", builder.profile.name);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n<p>{1}</p>\n",
        escape(&title),
        escape(&builder.profile.summary)
    );
    facts(&mut out, builder, &rows, unit);
    out.push_str("<h2>Timeline</h2>\n");
    timeline::draw(&mut out, &rows);
    critical_path(&mut out, builder, &rows);
    steps(&mut out, &rows, unit);
    phases(&mut out, &rows);
    suites(&mut out, &rows);
    sizes(&mut out, builder, &rows);
    let _ = write!(
        out,
        "<h2>What needs what</h2>\n<p>A step stands right of all that it needs; needs that follow from others are not drawn. \
         Colours are the book's chapters.</p>\n<div class=\"wide\">{}</div>\n",
        graph.svg()
    );
    out.push_str("</body></html>\n");
    out
}

fn facts(out: &mut String, builder: &Builder, rows: &[Row<'_>], unit: Option<f64>) {
    let done = rows.iter().filter(|r| r.record.is_some()).count();
    let cpu: f64 = rows.iter().map(Row::cpu).sum();
    let wall: f64 = rows.iter().map(Row::wall).sum();
    out.push_str("<div class=\"facts\">\n");
    let mut fact = |name: &str, value: String| {
        let _ = writeln!(out, "<div><b>{}</b><span>{name}</span></div>", escape(&value));
    };
    fact("steps finished", format!("{done} of {}", rows.len()));
    fact("processor time of all steps", seconds(cpu));
    fact("steps' wall time, added up", seconds(wall));
    match unit {
        Some(unit) => {
            fact("one SBU here (binutils pass 1, processor time)", seconds(unit));
            fact("SBU in all", format!("{:.1}", cpu / unit));
        }
        None => {
            fact("SBU in all, at 175 s each (binutils pass 1 is not in the cache)", format!("{:.1}", cpu / SBU_SECONDS))
        }
    }
    fact("SBU expected for what is finished", {
        format!("{:.1}", rows.iter().filter(|r| r.record.is_some()).map(|r| r.expected).sum::<f64>())
    });
    if let Some(run) = builder.last_run() {
        let of_run = |row: &&Row<'_>| run.built.iter().any(|b| b == row.name);
        // Not `sum`, which is -0 of nothing.
        let used = rows.iter().filter(of_run).map(Row::cpu).fold(0.0, |sum, cpu| sum + cpu);
        let took = (run.ended - run.began).max(0.001);
        let processors = run.used_processors();
        let saved: f64 = rows.iter().filter(|r| r.record.is_some() && !of_run(r)).map(Row::wall).sum();
        let hits = run.planned.saturating_sub(run.built.len());
        fact("latest run: built, and found in the cache or left", format!("{} + {hits}", run.built.len()));
        fact("latest run took", seconds(took));
        fact(
            "latest run: processors in use",
            format!("{:.0} % of {processors}", 100.0 * used / took / processors as f64),
        );
        fact(
            "processors in use while any of the steps ran, in all runs",
            format!("{:.0} % of {processors}", 100.0 * cpu / timeline::busy(rows).max(0.001) / processors as f64),
        );
        fact("time that the cache saved", seconds(saved));
    }
    out.push_str("</div>\n");
}

/// The chain of steps, each needing the one before, that takes longest: no number of processors makes a build shorter.
fn critical_path(out: &mut String, builder: &Builder, rows: &[Row<'_>]) {
    let index: BTreeMap<&str, usize> = rows.iter().enumerate().map(|(i, r)| (r.name, i)).collect();
    let mut best: Vec<(f64, Option<usize>)> = Vec::new();
    for (row, step) in rows.iter().zip(&builder.plan.steps) {
        let before = step
            .needs
            .iter()
            .filter_map(|(need, _)| index.get(need.step.as_str()).copied())
            .filter_map(|i| Some((best.get(i)?.0, i)))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        best.push((before.map_or(0.0, |b| b.0) + row.wall(), before.map(|b| b.1)));
    }
    let mut at = (0..best.len()).max_by(|a, b| {
        let length = |i: &usize| best.get(*i).map_or(0.0, |b| b.0);
        length(a).total_cmp(&length(b))
    });
    let total = at.and_then(|i| best.get(i)).map_or(0.0, |b| b.0);
    let mut chain = Vec::new();
    while let Some(i) = at {
        chain.push(i);
        at = best.get(i).and_then(|b| b.1);
    }
    let _ = write!(
        out,
        "<h2>Critical path: {}</h2>\n<p>The longest chain of steps that wait for each other. More processors do not make a build \
         shorter than this.</p>\n<ol class=\"path\">\n",
        seconds(total)
    );
    for row in chain.into_iter().rev().filter_map(|i| rows.get(i)).filter(|r| r.wall() >= 0.5) {
        let share = 100.0 * row.wall() / total.max(0.001);
        let _ = writeln!(
            out,
            "<li><span class=\"bar\" style=\"width:{share:.1}%;background:{}\"></span>{} <i>{}</i></li>",
            crate::graph::colour(row.chapter),
            escape(row.name),
            seconds(row.wall())
        );
    }
    out.push_str("</ol>\n");
}

fn steps(out: &mut String, rows: &[Row<'_>], unit: Option<f64>) {
    out.push_str(
        "<h2>Steps</h2>\n<div class=\"wide\"><table><tr><th>step<th>section<th>state<th>SBU expected<th>SBU measured<th>wall time\
         <th>processor time<th>at once<th>files<th>size<th>licence</tr>\n",
    );
    for row in rows {
        let _ = write!(out, "<tr><td>{}<td>{}", escape(row.name), escape(row.book));
        match &row.record {
            None => {
                let _ = writeln!(out, "<td>to be built<td class=n>{}<td><td><td><td><td><td><td></tr>", row.expected);
            }
            Some(record) => {
                let entries: u64 = record.outputs.values().map(|a| a.entries).sum();
                let _ = writeln!(
                    out,
                    "<td>finished<td class=n>{}<td class=n>{:.2}<td class=n>{}<td class=n>{}<td class=n>{:.1}<td class=n>{entries}\
                     <td class=n>{}<td>{}</tr>",
                    row.expected,
                    record.cpu_seconds / unit.unwrap_or(SBU_SECONDS),
                    seconds(record.wall_seconds),
                    seconds(record.cpu_seconds),
                    record.cpu_seconds / record.wall_seconds.max(0.001),
                    bytes(row.size()),
                    escape(&record.license)
                );
            }
        }
    }
    out.push_str("</table></div>\n");
}

fn phases(out: &mut String, rows: &[Row<'_>]) {
    let mut all: Vec<(f64, &str, &str)> = rows
        .iter()
        .filter_map(|row| Some((row.name, row.record.as_ref()?)))
        .flat_map(|(name, record)| record.phases.iter().map(move |(phase, time)| (*time, name, phase.as_str())))
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let longest = all.first().map_or(1.0, |a| a.0.max(0.001));
    out.push_str("<h2>Slowest phases</h2>\n<table>\n");
    for (time, step, phase) in all.into_iter().take(SLOWEST) {
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{}<td class=n>{}<td class=chart><span class=\"bar\" style=\"width:{:.1}%\"></span></tr>",
            escape(step),
            escape(phase),
            seconds(time),
            100.0 * time / longest
        );
    }
    out.push_str("</table>\n");
}

/// The packages' own test suites, where they were run.
fn suites(out: &mut String, rows: &[Row<'_>]) {
    let run: Vec<_> = rows.iter().filter_map(|r| Some((r.name, r.record.as_ref()?.tests.as_ref()?))).collect();
    if run.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Test suites</h2>\n<table><tr><th>step<th>passed<th>failed<th>skipped<th>failed as expected<th>ended<th>time</tr>\n",
    );
    for (step, result) in run {
        let c = result.counts;
        let _ = writeln!(
            out,
            "<tr><td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td>{}<td class=n>{}</tr>",
            escape(step),
            c.passed,
            c.failed,
            c.skipped,
            c.xfailed,
            escape(&result.status),
            seconds(result.seconds)
        );
    }
    out.push_str("</table>\n");
}

fn sizes(out: &mut String, builder: &Builder, rows: &[Row<'_>]) {
    let mut all: Vec<(u64, &str)> = rows.iter().filter(|r| r.record.is_some()).map(|r| (r.size(), r.name)).collect();
    all.sort_by(|a, b| b.cmp(a));
    let largest = all.first().map_or(1, |a| a.0.max(1));
    let total: u64 = all.iter().map(|a| a.0).sum();
    let _ = writeln!(out, "<h2>Package sizes: {}</h2>\n<table>", bytes(total));
    for (size, name) in all {
        let _ = writeln!(
            out,
            "<tr><td>{}<td class=n>{}<td class=chart><span class=\"bar\" style=\"width:{:.1}%\"></span></tr>",
            escape(name),
            bytes(size),
            100.0 * size as f64 / largest as f64
        );
    }
    out.push_str("</table>\n");
    let images = images(builder);
    if !images.is_empty() {
        out.push_str("<h2>Images</h2>\n<table>\n");
        for (name, size, allocated) in images {
            let _ = writeln!(
                out,
                "<tr><td>{}<td class=n>{}<td>of which {} are on the disk</tr>",
                escape(&name),
                bytes(size),
                bytes(allocated)
            );
        }
        out.push_str("</table>\n");
    }
}

/// The profile's images in the cache: name, size, and bytes that the host's disk holds of it.
fn images(builder: &Builder) -> Vec<(String, u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let prefix = format!("{}-", builder.profile.name);
    let mut found: Vec<_> = std::fs::read_dir(builder.store.path().join("images"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?)))
        // Not those of `tiny-test` for `tiny`: what follows is the key alone.
        .filter(|(name, _)| name.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('-')))
        .map(|(name, meta)| (name, meta.len(), meta.blocks() * 512))
        .collect();
    found.sort();
    found
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `3.2 s`, `12:05 min`.
fn seconds(seconds: f64) -> String {
    // The sum of no steps is -0.0.
    match seconds + 0.0 {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{}:{:02} min", s as u64 / 60, s as u64 % 60),
        s => format!("{}:{:02} h", s as u64 / 3600, s as u64 / 60 % 60),
    }
}

fn bytes(size: u64) -> String {
    match size {
        s if s < 10 << 10 => format!("{s} B"),
        s if s < 10 << 20 => format!("{} KiB", s >> 10),
        s => format!("{} MiB", s >> 20),
    }
}

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#c9d1da;--bar:#5b8fc7}\
@media(prefers-color-scheme:dark){:root{--line:#3b4552;--bar:#4d7cae}}\
body{font:15px/1.45 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid var(--line)}\
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:.6rem}\
.facts div{border:1px solid var(--line);border-radius:6px;padding:.5rem .8rem}.facts b{display:block;font-size:1.25rem}\
.facts span{font-size:.85rem}table{border-collapse:collapse;font-size:.9rem}td,th{padding:.15rem .7rem .15rem 0;text-align:left}td{white-space:nowrap}\
td{border-top:1px solid var(--line)}.n{text-align:right;font-variant-numeric:tabular-nums}.chart{width:20rem}\
.bar{display:inline-block;height:.7em;min-width:1px;background:var(--bar);border-radius:2px;margin-right:.5em}\
.wide{overflow-x:auto}.wide svg,.timeline{background:#fff;border-radius:6px}.path{list-style:none;padding:0}\
.timeline{width:100%;height:auto}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(seconds(3.21), "3.2 s");
        assert_eq!(seconds([].iter().sum()), "0.0 s");
        assert_eq!(seconds(125.0), "2:05 min");
        assert_eq!(seconds(7500.0), "2:05 h");
        assert_eq!(bytes(100), "100 B");
        assert_eq!(bytes(5 << 20), "5120 KiB");
        assert_eq!(bytes(50 << 20), "50 MiB");
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}
