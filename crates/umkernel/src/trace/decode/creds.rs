//! Credentials.

use super::{Kind, Printer, When};
use alloc::format;
use alloc::vec::Vec;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("id", |p, v| p.push(&format!("{}", v as i32))),
    Kind::exit("id_out", |p, v| p.structure(v, |p, id: u32| p.push(&format!("[{id}]")))),
    Kind::entry("groups_in", |p, v| groups(p, v, p.args[0] as usize)),
    Kind { name: "groups_out", when: When::Exit, decode: filled_groups },
    Kind::entry("cap_header", cap_header),
    Kind::entry("cap_data_in", |p, v| p.address(v)),
    Kind::exit("cap_data_out", |p, v| p.address(v)),
];

fn groups(p: &mut Printer, addr: u64, count: usize) {
    match p.ctx.read_vec::<u32>(addr, count.min(p.limit)) {
        Ok(list) => {
            let dots = if count > p.limit { ", ..." } else { "" };
            let list: Vec<_> = list.iter().map(|g| format!("{g}")).collect();
            p.push(&format!("[{}{dots}]", list.join(", ")));
        }
        Err(_) => p.address(addr),
    }
}

fn filled_groups(p: &mut Printer, addr: u64) {
    match p.result {
        // With a size of 0 the list is only counted.
        Some(Ok(count)) if p.args[0] != 0 => groups(p, addr, *count),
        _ => p.address(addr),
    }
}

fn cap_header(p: &mut Printer, addr: u64) {
    const VERSIONS: &[(u64, &str)] = &[
        (0x1998_0330, "_LINUX_CAPABILITY_VERSION_1"),
        (0x2007_1026, "_LINUX_CAPABILITY_VERSION_2"),
        (0x2008_0522, "_LINUX_CAPABILITY_VERSION_3"),
    ];
    p.structure(addr, |p, [version, pid]: [u32; 2]| {
        p.push("{version=");
        p.choice(u64::from(version), VERSIONS, "_LINUX_CAPABILITY_VERSION_???");
        p.push(&format!(", pid={}}}", pid as i32));
    });
}
