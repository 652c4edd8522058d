//! The hash index of a directory: every leaf once, in the order of the hashes, with the names that belong there.

use super::{Checker, Mend};
use crate::cache::Block;
use crate::csum::index_count_offset;
use crate::device::BlockDevice;
use crate::dir::Entries;
use crate::error::Place;
use crate::features::Incompat;
use crate::inode::Inode;
use crate::le::{u8_at, u16_at, u32_at};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

/// The blocks of an indexed directory, by their numbers in it.
struct Parts<'a> {
    nodes: BTreeMap<u32, &'a Block>,
    leaves: BTreeMap<u32, &'a Block>,
    seen: BTreeSet<u32>,
    version: u8,
}

impl<D: BlockDevice> Checker<'_, D> {
    pub(super) fn check_index(&mut self, dir: &Inode, nodes: &[(u32, Block)], leaves: &[(u32, u64, Block)]) {
        let problem = match nodes.first() {
            Some((0, root)) => {
                let mut parts = Parts {
                    nodes: nodes.iter().map(|(l, b)| (*l, b)).collect(),
                    leaves: leaves.iter().map(|(l, _, b)| (*l, b)).collect(),
                    seen: BTreeSet::new(),
                    version: u8_at(root, 28),
                };
                self.index_problem(root, &mut parts)
            }
            _ => Some(String::from("the directory's hash index has no root")),
        };
        if let Some(what) = problem {
            self.found(Place::Inode(dir.ino), Mend::DropIndex(dir.ino), what);
        }
    }

    fn index_problem(&self, root: &[u8], parts: &mut Parts<'_>) -> Option<String> {
        let levels = u8_at(root, 30);
        let most = if self.fs.sb.features.incompat.contains(Incompat::LARGEDIR) { 2 } else { 1 };
        if u32_at(root, 24) != 0 || u8_at(root, 29) != 8 || u8_at(root, 31) & 1 != 0 || levels > most {
            return Some(String::from("the root of the directory's hash index is malformed"));
        }
        if self.fs.hash_name(b"x", parts.version).is_none() {
            return Some(format!("the directory's hash version {} is not known", parts.version));
        }
        if let Some(what) = self.node_problem(root, 0, levels, (0, u64::from(u32::MAX) + 1), parts) {
            return Some(what);
        }
        let stray = parts.nodes.keys().chain(parts.leaves.keys()).find(|l| **l != 0 && !parts.seen.contains(l));
        stray.map(|l| format!("block {l} of the directory is not in its hash index"))
    }

    /// Looks at a node for hashes in `range`, and at all below it.
    fn node_problem(
        &self,
        node: &[u8],
        lblk: u32,
        levels: u8,
        range: (u64, u64),
        parts: &mut Parts<'_>,
    ) -> Option<String> {
        let tail = if self.fs.sb.has_metadata_csum() { 8 } else { 0 };
        let Some(off) = index_count_offset(node).filter(|off| (*off == 8) != (lblk == 0)) else {
            return Some(format!("block {lblk} of the directory is no block of its hash index"));
        };
        let (limit, count) = (usize::from(u16_at(node, off)), usize::from(u16_at(node, off + 2)));
        if limit != (node.len() - off - tail) / 8 || count == 0 || count > limit {
            return Some(format!("block {lblk} of the directory's hash index states {count} entries of {limit}"));
        }
        for i in 0..count {
            let hash = |i: usize| if i == 0 { range.0 } else { u64::from(u32_at(node, off + 8 * i)) };
            let (start, end) = (hash(i), if i + 1 < count { hash(i + 1) } else { range.1 });
            if start > end || start < range.0 {
                return Some(format!("block {lblk} of the directory's hash index is out of order"));
            }
            let target = u32_at(node, off + 8 * i + 4) & 0x0FFF_FFFF;
            if !parts.seen.insert(target) {
                return Some(format!("the directory's hash index leads to block {target} twice"));
            }
            let problem = if levels > 0 {
                match parts.nodes.get(&target).copied().filter(|_| target != 0) {
                    Some(below) => self.node_problem(below, target, levels - 1, (start, end), parts),
                    None => Some(format!("the directory's hash index leads to block {target}, which is no node")),
                }
            } else {
                match parts.leaves.get(&target).copied() {
                    Some(leaf) => self.leaf_problem(leaf, target, (start, end), parts.version),
                    None => Some(format!("the directory's hash index leads to block {target}, which is no leaf")),
                }
            };
            if problem.is_some() {
                return problem;
            }
        }
        None
    }

    fn leaf_problem(&self, leaf: &[u8], lblk: u32, range: (u64, u64), version: u8) -> Option<String> {
        for e in Entries::new(leaf, self.fs.bs) {
            // A malformed entry has its finding already.
            let Ok(e) = e else { return None };
            if e.ino == 0 {
                continue;
            }
            let hash = self.fs.hash_name(e.name, version).map_or(0, |h| u64::from(h.major));
            // Bit 0 of a start says that names of the hash before it continue here.
            if hash < range.0 & !1 || hash > range.1 || hash == range.1 && range.1 & 1 == 0 {
                return Some(format!("block {lblk} of the directory has a name whose hash belongs elsewhere"));
            }
        }
        None
    }
}
