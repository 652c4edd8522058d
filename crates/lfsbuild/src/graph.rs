//! The plan as a picture: what needs what. DOT for Graphviz, or SVG laid out here.
//!
//! Only the edges that say something new are drawn: where a step needs another already through a third, the direct edge is left
//! out (the transitive reduction).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::builder::Builder;

/// A step in the picture.
#[derive(Debug, Clone)]
pub struct Node {
    /// `NAME/STAGE`.
    pub name: String,
    /// Chapter of the book, where the recipe names one.
    pub chapter: Option<u32>,
    /// Expected time in standard build units.
    pub sbu: f64,
    /// Whether the store has its package.
    pub finished: bool,
    /// Length of the longest chain of steps in front of it.
    layer: usize,
}

/// Steps and the needs between them.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// The steps, needed ones first.
    pub nodes: Vec<Node>,
    /// Index of the needed step, and of the one that needs it.
    pub edges: Vec<(usize, usize)>,
}

/// Sizes in the SVG, in pixels.
const NODE: (f64, f64) = (150.0, 26.0);
const GAP: (f64, f64) = (46.0, 12.0);
const MARGIN: f64 = 16.0;

/// How often the order within the layers is improved; it does not change after a few rounds.
const SWEEPS: usize = 8;

impl Graph {
    /// The plan of a builder.
    pub fn of(builder: &Builder) -> Graph {
        let steps = &builder.plan.steps;
        let index: BTreeMap<&str, usize> = steps.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
        let needs: Vec<Vec<usize>> = steps
            .iter()
            .map(|s| s.needs.iter().filter_map(|(need, _)| index.get(need.step.as_str()).copied()).collect())
            .collect();
        let mut nodes: Vec<Node> = Vec::new();
        for (step, needs) in steps.iter().zip(&needs) {
            let stage = builder.plan.stage(step).map(|(_, stage)| stage);
            let layer = needs.iter().filter_map(|n| nodes.get(*n)).map(|n| n.layer + 1).max().unwrap_or(0);
            nodes.push(Node {
                name: step.name.clone(),
                chapter: stage
                    .and_then(|s| s.book.as_ref())
                    .and_then(|b| b.split(['.', ',', ' ']).next()?.parse().ok()),
                sbu: stage.map_or(0.0, |s| s.sbu),
                finished: builder.store.record(&step.key).is_some(),
                layer,
            });
        }
        Graph { nodes, edges: reduced(&needs) }
    }

    /// The graph in Graphviz's language.
    pub fn dot(&self) -> String {
        let mut text =
            String::from("digraph plan {\n    rankdir=LR;\n    node [shape=box, fontname=\"sans-serif\"];\n");
        for node in &self.nodes {
            let style = if node.finished { "filled" } else { "dashed" };
            // Names are letters, digits and + - . _ /: nothing that quotes would not hold.
            let _ = writeln!(text, "    \"{0}\" [label=\"{0}\\n{1} SBU\", style={style}];", node.name, node.sbu);
        }
        for (from, to) in &self.edges {
            if let (Some(from), Some(to)) = (self.nodes.get(*from), self.nodes.get(*to)) {
                let _ = writeln!(text, "    \"{}\" -> \"{}\";", from.name, to.name);
            }
        }
        text.push_str("}\n");
        text
    }

    /// The graph as an SVG document: layers from left to right, a step right of all that it needs.
    pub fn svg(&self) -> String {
        let rows = self.rows();
        let layers = self.nodes.iter().map(|n| n.layer + 1).max().unwrap_or(0);
        let tallest = (0..layers).map(|l| self.nodes.iter().filter(|n| n.layer == l).count()).max().unwrap_or(0);
        let pitch = (NODE.0 + GAP.0, NODE.1 + GAP.1);
        let width = layers as f64 * pitch.0 - GAP.0 + 2.0 * MARGIN;
        let height = tallest as f64 * pitch.1 - GAP.1 + 2.0 * MARGIN;
        let place = |i: usize| {
            let layer = self.nodes.get(i).map_or(0, |n| n.layer);
            let count = self.nodes.iter().filter(|n| n.layer == layer).count();
            let row = rows.get(i).copied().unwrap_or(0);
            // Each layer is centred.
            let top = (tallest - count) as f64 / 2.0 * pitch.1;
            (MARGIN + layer as f64 * pitch.0, MARGIN + top + row as f64 * pitch.1)
        };
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<style>.edge{{fill:none;stroke:#8a94a3;stroke-width:1}}\
             .node rect{{stroke:#55606e;rx:4}}.todo rect{{stroke-dasharray:4 3}}.node text{{fill:#17202b}}</style>\n"
        );
        for (from, to) in &self.edges {
            let ((x1, y1), (x2, y2)) = (place(*from), place(*to));
            let (x1, y1, y2) = (x1 + NODE.0, y1 + NODE.1 / 2.0, y2 + NODE.1 / 2.0);
            let bend = (x2 - x1) / 2.0;
            let _ = writeln!(
                text,
                "<path class=\"edge\" d=\"M{x1} {y1}C{} {y1} {} {y2} {x2} {y2}\"/>",
                x1 + bend,
                x2 - bend
            );
        }
        for (i, node) in self.nodes.iter().enumerate() {
            let (x, y) = place(i);
            let class = if node.finished { "node" } else { "node todo" };
            let _ = writeln!(
                text,
                "<g class=\"{class}\"><title>{0}: {1} SBU, {2}</title><rect x=\"{x}\" y=\"{y}\" width=\"{3}\" height=\"{4}\" \
                 fill=\"{5}\"/><text x=\"{6}\" y=\"{7}\">{0}</text></g>",
                node.name,
                node.sbu,
                if node.finished { "built" } else { "to be built" },
                NODE.0,
                NODE.1,
                colour(node.chapter),
                x + 8.0,
                y + NODE.1 / 2.0 + 4.0,
            );
        }
        text.push_str("</svg>\n");
        text
    }

    /// Each node's place within its layer: where the middle of its neighbours is, so that few edges cross.
    fn rows(&self) -> Vec<usize> {
        let layers = self.nodes.iter().map(|n| n.layer + 1).max().unwrap_or(0);
        let mut order: Vec<Vec<usize>> = (0..layers)
            .map(|l| self.nodes.iter().enumerate().filter(|(_, n)| n.layer == l).map(|(i, _)| i).collect())
            .collect();
        let mut rows = vec![0usize; self.nodes.len()];
        let number = |order: &[Vec<usize>], rows: &mut Vec<usize>| {
            for layer in order {
                for (row, node) in layer.iter().enumerate() {
                    if let Some(place) = rows.get_mut(*node) {
                        *place = row;
                    }
                }
            }
        };
        number(&order, &mut rows);
        for _ in 0..SWEEPS {
            for layer in &mut order {
                let middle = |node: &usize| {
                    let near: Vec<usize> = self
                        .edges
                        .iter()
                        .filter_map(|(a, b)| if a == node { Some(*b) } else { (b == node).then_some(*a) })
                        .filter_map(|n| rows.get(n).copied())
                        .collect();
                    match near.len() {
                        0 => rows.get(*node).copied().unwrap_or(0) as f64,
                        n => near.iter().sum::<usize>() as f64 / n as f64,
                    }
                };
                layer.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
            }
            number(&order, &mut rows);
        }
        rows
    }
}

/// A colour for each chapter of the book.
pub(crate) fn colour(chapter: Option<u32>) -> &'static str {
    match chapter {
        Some(5) => "#f6c8a8",
        Some(6) => "#f3e2a0",
        Some(7) => "#bfe3b4",
        Some(8) => "#b5d6f2",
        Some(9 | 10) => "#d9c3ee",
        _ => "#dfe4ea",
    }
}

/// The needs without those that follow from others. `needs` gives each step's; all are before it.
fn reduced(needs: &[Vec<usize>]) -> Vec<(usize, usize)> {
    // All that a step reaches, itself left out.
    let mut reach: Vec<Vec<bool>> = Vec::with_capacity(needs.len());
    let mut edges = Vec::new();
    let reaches = |reach: &[Vec<bool>], from: usize, to: usize| reach.get(from).and_then(|r| r.get(to)) == Some(&true);
    for (to, own) in needs.iter().enumerate() {
        let mut all = vec![false; needs.len()];
        for &from in own {
            if !own.iter().any(|&other| other != from && reaches(&reach, other, from)) {
                edges.push((from, to));
            }
            for (place, reached) in all.iter_mut().zip(reach.get(from).map(Vec::as_slice).unwrap_or_default()) {
                *place |= *reached;
            }
            if let Some(place) = all.get_mut(from) {
                *place = true;
            }
        }
        reach.push(all);
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_that_follow_from_others_are_left_out() {
        // 0 <- 1 <- 2, and 2 needs 0, too; 3 needs 0 only.
        let needs = vec![vec![], vec![0], vec![0, 1], vec![0]];
        assert_eq!(reduced(&needs), [(0, 1), (1, 2), (0, 3)]);
    }

    #[test]
    fn a_step_stands_right_of_what_it_needs() {
        let node = |name: &str, layer| Node { name: name.into(), chapter: None, sbu: 1.0, finished: true, layer };
        let graph = Graph { nodes: vec![node("a/x", 0), node("b/x", 1)], edges: vec![(0, 1)] };
        let svg = graph.svg();
        assert!(svg.contains("<rect x=\"16\"") && svg.contains("<rect x=\"212\""), "{svg}");
        assert!(graph.dot().contains("\"a/x\" -> \"b/x\";"), "{}", graph.dot());
    }
}
