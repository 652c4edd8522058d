//! When each step ran: a bar each, in as many lanes as ran at once.

use std::fmt::Write as _;

use super::{Row, escape, seconds};

/// Times in which nothing ran count as this many seconds at most: a build may have been interrupted for days.
const LONGEST_GAP: f64 = 20.0;

/// Sizes in the picture.
const WIDTH: f64 = 1160.0;
const LANE: f64 = 34.0;

/// A step's place: lane, and seconds from the beginning with gaps cut short.
struct Bar<'a, 'b> {
    row: &'a Row<'b>,
    lane: usize,
    from: f64,
    to: f64,
}

pub(super) fn draw(out: &mut String, rows: &[Row<'_>]) {
    let (bars, breaks) = bars(rows);
    let Some(end) = bars.iter().map(|b| b.to).max_by(f64::total_cmp) else {
        out.push_str("<p>Nothing is built yet.</p>\n");
        return;
    };
    let lanes = bars.iter().map(|b| b.lane + 1).max().unwrap_or(1);
    let scale = WIDTH / end.max(1.0);
    let height = lanes as f64 * LANE + 24.0;
    let _ = writeln!(
        out,
        "<p>One lane for each step that ran at once. The darker part of a bar is how much of the processors it had: all of its height \
         stands for one. Dashed lines are pauses in which nothing was built.</p>\n\
         <svg class=\"timeline\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">"
    );
    for at in breaks {
        let x = at * scale;
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} 0V{:.1}\" stroke=\"#8a94a3\" stroke-dasharray=\"4 4\"/>",
            lanes as f64 * LANE
        );
    }
    for bar in &bars {
        let (x, y) = (bar.from * scale, bar.lane as f64 * LANE + 2.0);
        let width = ((bar.to - bar.from) * scale).max(1.0);
        let tall = LANE - 6.0;
        let busy = (bar.row.cpu() / bar.row.wall().max(0.001)).clamp(0.0, 1.0) * tall;
        let colour = crate::graph::colour(bar.row.chapter);
        let _ = write!(
            out,
            "<g><title>{}: {}, processor time {}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{tall}\" \
             fill=\"{colour}\" fill-opacity=\".55\" stroke=\"#55606e\" stroke-width=\".5\"/><rect x=\"{x:.1}\" y=\"{:.1}\" \
             width=\"{width:.1}\" height=\"{busy:.1}\" fill=\"{colour}\"/>",
            escape(bar.row.name),
            seconds(bar.row.wall()),
            seconds(bar.row.cpu()),
            y + tall - busy
        );
        // About six pixels a letter: a name that does not fit is in the title only.
        if width > bar.row.name.len() as f64 * 6.0 + 8.0 {
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#17202b\">{}</text>",
                x + 4.0,
                y + 18.0,
                escape(bar.row.name)
            );
        }
        out.push_str("</g>\n");
    }
    let ticks = 8;
    for i in 0..=ticks {
        let at = end * f64::from(i) / f64::from(ticks);
        let anchor = match i {
            0 => "start",
            i if i == ticks => "end",
            _ => "middle",
        };
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#55606e\">{}</text>",
            at * scale,
            height - 6.0,
            seconds(at)
        );
    }
    out.push_str("</svg>\n");
}

/// When finished steps ran, by their beginnings.
fn times<'a, 'b>(rows: &'a [Row<'b>]) -> Vec<(f64, f64, &'a Row<'b>)> {
    let mut times: Vec<(f64, f64, &Row<'_>)> = rows
        .iter()
        .filter_map(|row| {
            let end = row.record.as_ref()?.finished as f64;
            Some((end - row.wall(), end, row))
        })
        .collect();
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    times
}

/// Seconds in which at least one of the steps ran.
pub(super) fn busy(rows: &[Row<'_>]) -> f64 {
    union(times(rows).into_iter().map(|(start, end, _)| (start, end)))
}

/// The length of a union of intervals that come by their beginnings.
fn union(intervals: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (mut covered, mut until) = (0.0, f64::MIN);
    for (start, end) in intervals {
        covered += (end - start.max(until)).max(0.0);
        until = until.max(end);
    }
    covered
}

/// Puts each finished step into the first lane that is free, and says where pauses were cut short.
fn bars<'a, 'b>(rows: &'a [Row<'b>]) -> (Vec<Bar<'a, 'b>>, Vec<f64>) {
    let times = times(rows);
    let mut bars: Vec<Bar<'_, '_>> = Vec::new();
    let mut breaks = Vec::new();
    let mut lanes: Vec<f64> = Vec::new();
    // What is taken off every time from here on, and until when something ran.
    let mut cut = times.first().map_or(0.0, |t| t.0);
    let mut until = cut;
    for (start, end, row) in times {
        if start - until > LONGEST_GAP {
            cut += start - until - LONGEST_GAP;
            breaks.push(start - cut - LONGEST_GAP / 2.0);
        }
        until = until.max(end);
        // Ends are known to the second.
        let free = lanes.iter().position(|busy_until| *busy_until <= start + 1.0);
        let lane = free.unwrap_or(lanes.len());
        match lanes.get_mut(lane) {
            Some(busy_until) => *busy_until = end,
            None => lanes.push(end),
        }
        bars.push(Bar { row, lane, from: start - cut, to: end - cut });
    }
    (bars, breaks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_at_once_counts_once() {
        assert_eq!(union([].into_iter()), 0.0);
        assert_eq!(union([(1.0, 3.0), (2.0, 2.5), (2.0, 4.0), (10.0, 11.0)].into_iter()), 4.0);
    }
}
