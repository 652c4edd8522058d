//! Memory: protection, mapping flags, advice.

use super::{Kind, Printer, text};
use alloc::format;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("prot", |p, v| p.flags(v, PROT, "PROT_???")),
    Kind::entry("map_flags", map_flags),
    Kind::entry("mremap_flags", mremap_flags),
    Kind::entry("msync_flags", |p, v| p.flags(v, &[(1, "MS_ASYNC"), (2, "MS_INVALIDATE"), (4, "MS_SYNC")], "MS_???")),
    Kind::entry("madvise", |p, v| p.choice(v, ADVICE, "MADV_???")),
    Kind::entry("mlock_flags", |p, v| p.flags(v, &[(1, "MLOCK_ONFAULT")], "MLOCK_???")),
    Kind::entry("mlockall_flags", |p, v| {
        p.flags(v, &[(1, "MCL_CURRENT"), (2, "MCL_FUTURE"), (4, "MCL_ONFAULT")], "MCL_???");
    }),
    Kind::entry("memfd_flags", |p, v| {
        let names = [(1, "MFD_CLOEXEC"), (2, "MFD_ALLOW_SEALING"), (4, "MFD_HUGETLB"), (8, "MFD_NOEXEC_SEAL")];
        p.flags(v, &names, "MFD_???");
    }),
    Kind::exit("mincore", mincore),
];

const PROT: &[(u64, &str)] = &[
    (0, "PROT_NONE"),
    (1, "PROT_READ"),
    (2, "PROT_WRITE"),
    (4, "PROT_EXEC"),
    (0x100_0000, "PROT_GROWSDOWN"),
    (0x200_0000, "PROT_GROWSUP"),
];

const MAP: &[(u64, &str)] = &[
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    (0x40, "MAP_32BIT"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x10000, "MAP_NONBLOCK"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x1000, "MAP_EXECUTABLE"),
    (0x2000, "MAP_LOCKED"),
    (0x20000, "MAP_STACK"),
    (0x40000, "MAP_HUGETLB"),
    (0x80000, "MAP_SYNC"),
    (0x10_0000, "MAP_FIXED_NOREPLACE"),
];

fn map_flags(p: &mut Printer, value: u64) {
    let kind = match value & 0xf {
        1 => "MAP_SHARED".into(),
        2 => "MAP_PRIVATE".into(),
        3 => "MAP_SHARED_VALIDATE".into(),
        other => format!("{} /* MAP_??? */", text::hex(other)),
    };
    p.push(&kind);
    if value & !0xf != 0 {
        p.push("|");
        p.flags(value & !0xf, MAP, "MAP_???");
    }
}

fn mremap_flags(p: &mut Printer, value: u64) {
    p.flags(value, &[(1, "MREMAP_MAYMOVE"), (2, "MREMAP_FIXED"), (4, "MREMAP_DONTUNMAP")], "MREMAP_???");
    // The new address counts only where the caller chooses it.
    if value & 2 != 0 {
        p.push(", ");
        p.address(p.following());
    }
    p.ended = true;
}

const ADVICE: &[(u64, &str)] = &[
    (0, "MADV_NORMAL"),
    (1, "MADV_RANDOM"),
    (2, "MADV_SEQUENTIAL"),
    (3, "MADV_WILLNEED"),
    (4, "MADV_DONTNEED"),
    (8, "MADV_FREE"),
    (9, "MADV_REMOVE"),
    (10, "MADV_DONTFORK"),
    (11, "MADV_DOFORK"),
    (12, "MADV_MERGEABLE"),
    (13, "MADV_UNMERGEABLE"),
    (14, "MADV_HUGEPAGE"),
    (15, "MADV_NOHUGEPAGE"),
    (16, "MADV_DONTDUMP"),
    (17, "MADV_DODUMP"),
    (18, "MADV_WIPEONFORK"),
    (19, "MADV_KEEPONFORK"),
    (20, "MADV_COLD"),
    (21, "MADV_PAGEOUT"),
    (22, "MADV_POPULATE_READ"),
    (23, "MADV_POPULATE_WRITE"),
];

fn mincore(p: &mut Printer, addr: u64) {
    let pages = p.args[1].div_ceil(crate::mm::PAGE_SIZE);
    let shown = pages.min(p.limit as u64) as usize;
    match p.ctx.read_vec::<u8>(addr, shown) {
        Ok(residence) => {
            let list: alloc::vec::Vec<_> = residence.iter().map(|r| format!("{r}")).collect();
            let text = format!("[{}{}]", list.join(", "), if pages as usize > shown { ", ..." } else { "" });
            p.push(&text);
        }
        Err(_) => p.address(addr),
    }
}
