//! `image info --map`: where block groups, metadata, used and free blocks of an ext image lie, for terminals and as SVG.

use std::fmt::Write as _;

use ext4::{BlockDevice, BlockUse};

use crate::{Error, HumanSize, Image};

/// Uses of blocks, in the order of the legend: what shows in a cell before what.
const USES: [(BlockUse, &str, char, u8, &str); 8] = [
    (BlockUse::Superblocks, "superblocks and group descriptors", 'S', 35, "#8e44ad"),
    (BlockUse::Bitmaps, "bitmaps", 'B', 31, "#c0392b"),
    (BlockUse::Inodes, "inode tables", 'I', 33, "#d68910"),
    (BlockUse::Journal, "journal", 'J', 34, "#2471a3"),
    (BlockUse::Quotas, "quotas", 'Q', 95, "#d81b60"),
    (BlockUse::Directories, "directories", 'D', 32, "#1e8449"),
    (BlockUse::Files, "files", '█', 36, "#17a2b8"),
    (BlockUse::Free, "free", '·', 90, "#eceff1"),
];
/// How full of files a cell is, in eighths.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Rows that a map has at least, as long as a cell has a block, and at most.
const ROWS: std::ops::Range<u32> = 8..65;
/// Pixels of a row and of a cell in the SVG.
const ROW_HEIGHT: u32 = 14;
const CELL_WIDTH: u32 = 2;
/// Pixels left of the rows, for the numbers of their groups.
const MARGIN: u32 = 90;

/// The blocks of a file system in a grid.
#[derive(Clone, Debug)]
pub struct Map {
    title: String,
    block_size: u64,
    groups: u32,
    /// Cells in a row.
    columns: u32,
    /// Block groups in a row; 1 if a group has several rows.
    groups_per_row: u32,
    rows_per_group: u32,
    blocks_in_cell: u32,
    /// Blocks of each use, by `BlockUse as usize`, row by row; cells without a block at a group's end are all zero.
    cells: Vec<[u32; 8]>,
    /// Blocks of each use in all.
    totals: [u64; 8],
}

impl<D: BlockDevice> Image<D> {
    /// Draws the image's blocks with about `columns` cells in a row.
    ///
    /// # Errors
    /// The image is damaged.
    pub fn map(&mut self, columns: u32) -> Result<Map, Error> {
        let superblock = self.fs.superblock();
        let (groups, per_group) = (superblock.group_count(), superblock.blocks_per_group);
        let first = u64::from(superblock.first_data_block);
        let in_first = u64::from(per_group).min(superblock.blocks_count.saturating_sub(first)) as u32;
        let block_size = u64::from(superblock.block_size);
        // A row of several groups, or a group of several rows.
        let groups_per_row = groups.div_ceil(ROWS.end - 1).next_power_of_two().min(columns);
        let rows_per_group = ROWS.start.div_ceil(groups.max(1)).min(in_first.div_ceil(columns)).max(1);
        let cells_in_group = columns / groups_per_row * rows_per_group;
        let blocks_in_cell = in_first.div_ceil(cells_in_group).max(1);
        let cells_in_group = cells_in_group as usize;
        let mut map = Map {
            title: self.path().display().to_string(),
            block_size,
            groups,
            columns: columns / groups_per_row * groups_per_row,
            groups_per_row,
            rows_per_group,
            blocks_in_cell,
            cells: vec![[0; 8]; groups as usize * cells_in_group],
            totals: [0; 8],
        };
        let done = self.fs.block_uses(&mut |start, len, what| {
            let bit = (start - first) % u64::from(per_group);
            let group = ((start - first) / u64::from(per_group)) as usize;
            if let Some(total) = map.totals.get_mut(what as usize) {
                *total += len;
            }
            let (mut at, end) = (bit, bit + len);
            while at < end {
                let cell = at / u64::from(blocks_in_cell);
                let stop = end.min((cell + 1) * u64::from(blocks_in_cell));
                let index = group * cells_in_group + cell as usize;
                if let Some(count) = map.cells.get_mut(index).and_then(|cell| cell.get_mut(what as usize)) {
                    *count += (stop - at) as u32;
                }
                at = stop;
            }
        });
        done.map_err(|error| self.failed(b"", error))?;
        Ok(map)
    }
}

/// What a cell shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    /// An index of `USES`.
    what: usize,
    /// For files: eighths that are full, less one.
    height: usize,
}

impl Map {
    fn rows(&self) -> usize {
        match self.rows_per_group {
            1 => self.groups.div_ceil(self.groups_per_row) as usize,
            rows => self.groups as usize * rows as usize,
        }
    }

    /// The looks of a row's cells; `None` where there are no blocks.
    fn row(&self, row: usize) -> impl Iterator<Item = Option<Look>> {
        let columns = self.columns as usize;
        let cells = self.cells.get(row * columns..).unwrap_or_default();
        cells.iter().take(columns).map(|cell| self.look(cell))
    }

    fn look(&self, cell: &[u32; 8]) -> Option<Look> {
        let count = |what: BlockUse| cell.get(what as usize).copied().unwrap_or(0);
        // Metadata is little and would vanish between files: it shows wherever there is some.
        let what = USES.iter().position(|(what, ..)| count(*what) > 0)?;
        let eighths = (u64::from(count(BlockUse::Files)) * 8).div_ceil(u64::from(self.blocks_in_cell));
        Some(Look { what, height: (eighths as usize).saturating_sub(1).min(HEIGHTS.len() - 1) })
    }

    /// What stands before a row: the number of its first group, where a group begins there.
    fn label(&self, row: usize) -> Option<usize> {
        let rows = self.rows_per_group as usize;
        row.is_multiple_of(rows).then_some(row / rows * self.groups_per_row as usize)
    }

    fn scale(&self) -> String {
        let groups = match (self.rows_per_group, self.groups_per_row) {
            (1, 1) => "a row is a block group".to_owned(),
            (1, groups) => format!("a row is {groups} block groups"),
            (rows, _) => format!("{rows} rows are a block group"),
        };
        let cell = u64::from(self.blocks_in_cell);
        let blocks = if cell == 1 { "block" } else { "blocks" };
        format!("{groups}, a cell {cell} {blocks} ({})", HumanSize(cell * self.block_size))
    }

    /// Name, amount and share of each use that occurs.
    fn legend(&self) -> impl Iterator<Item = (usize, &'static str, String)> {
        let all: u64 = self.totals.iter().sum();
        USES.iter().enumerate().filter_map(move |(index, (what, name, ..))| {
            let blocks = self.totals.get(*what as usize).copied().filter(|blocks| *blocks > 0)?;
            let tenths = (blocks as u128 * 1000).checked_div(all.into()).unwrap_or(0);
            let size = HumanSize(blocks.saturating_mul(self.block_size));
            Some((index, *name, format!("{size}, {}.{} %", tenths / 10, tenths % 10)))
        })
    }

    /// For a terminal; with `colour`, by ANSI sequences.
    pub fn text(&self, colour: bool) -> String {
        let paint = |text: &str, look: usize| match USES.get(look) {
            Some((.., code, _)) if colour => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        };
        let mut text = format!("{} block groups; {}\n", self.groups, self.scale());
        if self.groups == 1 {
            text = format!("1 block group; {}\n", self.scale());
        }
        for row in 0..self.rows() {
            let label = self.label(row).map_or_else(String::new, |group| group.to_string());
            let _ = write!(text, "{label:>6} ");
            let looks: Vec<Option<Look>> = self.row(row).collect();
            for run in looks.chunk_by(|a, b| a.map(|look| look.what) == b.map(|look| look.what)) {
                let Some(what) = run.first().and_then(|look| look.map(|look| look.what)) else { continue };
                let signs: String = run.iter().flatten().map(|look| sign(*look)).collect();
                text += &paint(&signs, what);
            }
            text.push('\n');
        }
        for (index, name, amount) in self.legend() {
            let sign = match USES.get(index) {
                Some((BlockUse::Files, ..)) => "▁ to █".to_owned(),
                Some((_, _, sign, ..)) => sign.to_string(),
                None => continue,
            };
            let pad = " ".repeat(6 - sign.chars().count());
            let _ = writeln!(text, "{}{pad} {name:<34} {amount}", paint(&sign, index));
        }
        text
    }

    /// An SVG document.
    pub fn svg(&self) -> String {
        let rows = self.rows() as u32;
        let legend: Vec<_> = self.legend().collect();
        let width = MARGIN + self.columns * CELL_WIDTH + 10;
        let bottom = 44 + rows * (ROW_HEIGHT + 2);
        let height = bottom + legend.len() as u32 * 18 + 14;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"10\" y=\"18\" font-size=\"13\">{}</text>\n<text x=\"10\" y=\"34\">{} block groups; {}</text>\n",
            escaped(&self.title),
            self.groups,
            self.scale()
        );
        for row in 0..rows {
            let y = 44 + row * (ROW_HEIGHT + 2);
            if let Some(group) = self.label(row as usize) {
                let _ = writeln!(
                    out,
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">group {group}</text>",
                    MARGIN - 6,
                    y + ROW_HEIGHT - 3
                );
            }
            let looks: Vec<Option<Look>> = self.row(row as usize).collect();
            let mut column = 0;
            for run in looks.chunk_by(|a, b| a == b) {
                let cells = run.len() as u32;
                if let Some((look, (what, name, _, _, fill))) =
                    run.first().copied().flatten().and_then(|look| USES.get(look.what).map(|one| (look, one)))
                {
                    let (x, w) = (MARGIN + column * CELL_WIDTH, cells * CELL_WIDTH);
                    // Files: as high as the cell is full, over what is free.
                    let high = match what {
                        BlockUse::Files => (look.height as u32 + 1) * ROW_HEIGHT / HEIGHTS.len() as u32,
                        _ => ROW_HEIGHT,
                    };
                    if high < ROW_HEIGHT {
                        let free = USES.last().map_or("", |one| one.4);
                        rect(&mut out, [x, y, w, ROW_HEIGHT - high], free, "");
                    }
                    rect(&mut out, [x, y + ROW_HEIGHT - high, w, high], fill, name);
                }
                column += cells;
            }
        }
        for (line, (index, name, amount)) in (0..).zip(&legend) {
            let y = bottom + 8 + line * 18;
            let fill = USES.get(*index).map_or("", |one| one.4);
            rect(&mut out, [MARGIN, y, 12, 12], fill, "");
            let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{name}: {amount}</text>", MARGIN + 18, y + 10);
        }
        out + "</svg>\n"
    }
}

fn sign(look: Look) -> char {
    match USES.get(look.what) {
        Some((BlockUse::Files, ..)) => HEIGHTS.get(look.height).copied().unwrap_or('█'),
        Some((_, _, sign, ..)) => *sign,
        None => ' ',
    }
}

fn rect(out: &mut String, [x, y, w, h]: [u32; 4], fill: &str, title: &str) {
    let _ = write!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{fill}\"");
    let _ = match title {
        "" => writeln!(out, "/>"),
        _ => writeln!(out, "><title>{title}</title></rect>"),
    };
}

fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            // XML has no control characters.
            c if c.is_control() => "?".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(groups: u32, groups_per_row: u32, rows_per_group: u32, cells: Vec<[u32; 8]>) -> Map {
        let mut totals = [0; 8];
        for cell in &cells {
            totals.iter_mut().zip(cell).for_each(|(total, count)| *total += u64::from(*count));
        }
        Map {
            title: "a<b".to_owned(),
            block_size: 1024,
            groups,
            columns: 4,
            groups_per_row,
            rows_per_group,
            blocks_in_cell: 8,
            cells,
            totals,
        }
    }

    fn cell(counts: &[(BlockUse, u32)]) -> [u32; 8] {
        let mut cell = [0; 8];
        for (what, count) in counts {
            cell[*what as usize] = *count;
        }
        cell
    }

    #[test]
    fn cells_show_metadata_first_and_files_by_height() {
        use BlockUse::{Bitmaps, Files, Free, Superblocks};
        let drawn = map(
            2,
            1,
            1,
            vec![
                cell(&[(Superblocks, 1), (Files, 7)]),
                cell(&[(Bitmaps, 2), (Free, 6)]),
                cell(&[(Files, 1), (Free, 7)]),
                cell(&[(Files, 8)]),
                cell(&[(Files, 4), (Free, 4)]),
                cell(&[(Free, 8)]),
                cell(&[(Free, 8)]),
                // The last group is short.
                cell(&[]),
            ],
        );
        let text = drawn.text(false);
        assert!(text.contains("     0 SB▁█\n     1 ▄··\n"), "{text}");
        assert!(text.contains("bitmaps") && !text.contains("journal"), "{text}");
        assert!(text.contains("2 block groups; a row is a block group, a cell 8 blocks (8 KiB)"), "{text}");
        let svg = drawn.svg();
        assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>\n"), "{svg}");
        assert_eq!(svg.matches("<title>free</title>").count(), 1, "equal cells are one: {svg}");
        assert!(drawn.text(true).contains("\x1b[35mS\x1b[0m"));
    }

    #[test]
    fn groups_take_several_rows_or_share_one() {
        let free = cell(&[(BlockUse::Free, 8)]);
        assert!(map(1, 1, 2, vec![free; 8]).text(false).contains("     0 ····\n       ····\n"));
        assert!(map(4, 2, 1, vec![free; 8]).text(false).contains("     0 ····\n     2 ····\n"));
    }
}
