//! What came out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::measures::{self, Kind};
use crate::stats::spread;
use crate::system::System;

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The host's kernel and processor.
    pub host: String,
    /// How many rounds were made.
    pub rounds: u32,
    /// In the order of the table.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub problems: Vec<String>,
}

/// A measure's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Nanoseconds of each operation, or milliseconds of a boot, script or package: see [`Row::unit`].
    pub systems: BTreeMap<System, Figures>,
}

/// A measure's figures on one system.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Of each round.
    pub samples: Vec<f64>,
    /// Each divided by the native one of the same round.
    pub ratios: Vec<f64>,
}

impl Figures {
    fn median(&self) -> Option<f64> {
        spread(&self.samples).map(|s| s.median)
    }

    fn ratio(&self) -> Option<f64> {
        spread(&self.ratios).map(|s| s.median)
    }
}

impl Row {
    /// `"ns"` or `"ms"`.
    pub fn unit(&self) -> &'static str {
        match measures::find(&self.name).map(|measure| measure.kind) {
            Some(Kind::Operation) => "ns",
            _ => "ms",
        }
    }

    /// How the `direct` platform's figure compares with its goal: the figure, the goal.
    fn against_goal(&self) -> Option<(f64, f64)> {
        let measure = measures::find(&self.name)?;
        let figures = self.systems.get(&System::Direct)?;
        let figure = if matches!(measure.kind, Kind::Boot(_)) { figures.median()? } else { figures.ratio()? };
        Some((figure, measure.goal?))
    }
}

impl Report {
    /// Reads a saved run.
    ///
    /// # Errors
    /// The file cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Report> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        serde_json::from_str(&text).map_err(|source| Error::NotARun { path: path.into(), source })
    }

    /// Saves the run: the whole file, or nothing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(Error::file(path))?;
        std::io::Write::write_all(&mut file, self.json().as_bytes()).map_err(Error::file(path))?;
        file.persist(path).map_err(|e| Error::file(path)(e.error))?;
        Ok(())
    }

    /// As JSON: what [`Report::read`] reads.
    pub fn json(&self) -> String {
        // Numbers and strings: nothing that could fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    fn systems(&self) -> Vec<System> {
        let mut systems: Vec<System> = self.rows.iter().flat_map(|row| row.systems.keys().copied()).collect();
        systems.sort();
        systems.dedup();
        systems
    }

    /// As a table, beside an earlier run if there is one: median, and behind it the ratio to native with the least and the
    /// greatest of the rounds.
    pub fn table(&self, earlier: Option<&Report>) -> String {
        let systems = self.systems();
        let mut lines = vec![{
            let mut heads = vec!["".to_string()];
            heads.extend(systems.iter().map(|system| match system {
                System::Native => "native".to_string(),
                other => format!("{}  (x native)", other.name()),
            }));
            heads.push("goal".into());
            heads.extend(earlier.map(|_| "direct before".to_string()));
            heads
        }];
        for row in &self.rows {
            let mut cells = vec![row.name.clone()];
            for system in &systems {
                let figures = row.systems.get(system);
                cells.push(figures.and_then(|figures| cell(figures, row.unit())).unwrap_or_else(|| "-".into()));
            }
            cells.push(match row.against_goal() {
                Some((figure, goal)) if figure <= goal => format!("{goal} met"),
                Some((_, goal)) => format!("{goal} MISSED"),
                None => String::new(),
            });
            if let Some(earlier) = earlier {
                let before = earlier.rows.iter().find(|other| other.name == row.name);
                cells.push(before.and_then(|before| compared(before, row)).unwrap_or_default());
            }
            lines.push(cells);
        }
        let mut text = aligned(&lines);
        let _ = writeln!(text, "\n{}; medians of {} rounds [least-greatest ratio]", self.host, self.rounds);
        for problem in &self.problems {
            let _ = writeln!(text, "not measured: {problem}");
        }
        text
    }
}

/// `direct` in an earlier run and in this one: as ratios, which hosts and loads change less.
fn compared(before: &Row, now: &Row) -> Option<String> {
    let figure = |row: &Row| {
        let figures = row.systems.get(&System::Direct)?;
        figures.ratio().or_else(|| figures.median())
    };
    let (before, now) = (figure(before)?, figure(now)?);
    Some(format!("{before:.2} ({:+.0} %)", (now / before - 1.0) * 100.0))
}

fn cell(figures: &Figures, unit: &str) -> Option<String> {
    let median = human(figures.median()?, unit);
    Some(match spread(&figures.ratios) {
        Some(ratio) if figures.ratios.len() == 1 && ratio.median != 1.0 => format!("{median}  {:.2}", ratio.median),
        Some(ratio) if figures.ratios.iter().any(|&ratio| ratio != 1.0) => {
            format!("{median}  {:.2} [{:.2}-{:.2}]", ratio.median, ratio.low, ratio.high)
        }
        _ => median,
    })
}

/// Three digits and a unit.
fn human(value: f64, unit: &str) -> String {
    let (mut value, units): (f64, &[&str]) =
        if unit == "ns" { (value, &["ns", "us", "ms", "s"]) } else { (value, &["ms", "s"]) };
    let mut index = 0;
    while value >= 1000.0 && index + 1 < units.len() {
        value /= 1000.0;
        index += 1;
    }
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {}", units[index])
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let mut out = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(out, "{cell:width$}   ");
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn report(direct: f64) -> Report {
        let figures = |value: f64| Figures { samples: vec![value], ratios: vec![value / 100.0] };
        let systems = [(System::Native, figures(100.0)), (System::Direct, figures(direct))].into();
        let rows = vec![Row { name: "getppid".into(), systems }];
        Report { host: "a host".into(), rounds: 1, rows, problems: vec!["boot-init on uml: no".into()] }
    }

    #[test]
    fn the_table_says_what_was_reached_and_what_was_before() {
        let text = report(40.0).table(Some(&report(80.0)));
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("getppid   100 ns"), "{text}");
        assert!(line.contains("40.0 ns  0.40") && line.contains("0.45 met"), "{text}");
        assert!(line.ends_with("0.80 (-50 %)"), "{text}");
        assert!(text.contains("not measured: boot-init on uml: no"), "{text}");
        assert!(report(50.0).table(None).contains("0.45 MISSED"));
    }

    #[test]
    fn a_saved_run_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        report(40.0).save(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap().table(None), report(40.0).table(None));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(Report::read(&path), Err(Error::NotARun { .. })));
    }
}
