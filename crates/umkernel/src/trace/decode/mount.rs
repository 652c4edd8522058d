//! Mounts.

use super::{Kind, Printer};
use alloc::format;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("mount_flags", |p, v| p.flags(v, MOUNT, "MS_???")),
    Kind::entry("umount_flags", |p, v| {
        let names = [(1, "MNT_FORCE"), (2, "MNT_DETACH"), (4, "MNT_EXPIRE"), (8, "UMOUNT_NOFOLLOW")];
        p.flags(v & 0xffff_ffff, &names, "MNT_???");
    }),
    Kind::entry("fsopen_flags", |p, v| p.flags(v & 0xffff_ffff, &[(1, "FSOPEN_CLOEXEC")], "FSOPEN_???")),
    Kind::entry("fsmount_flags", |p, v| p.flags(v & 0xffff_ffff, &[(1, "FSMOUNT_CLOEXEC")], "FSMOUNT_???")),
    Kind::entry("fspick_flags", |p, v| p.flags(v & 0xffff_ffff, FSPICK, "FSPICK_???")),
    Kind::entry("fsconfig_cmd", |p, v| p.choice(v & 0xffff_ffff, FSCONFIG, "FSCONFIG_???")),
    Kind::entry("fsconfig_value", |p, v| {
        const SET_STRING: u64 = 1;
        if p.args[1] & 0xffff_ffff == SET_STRING { p.string(v, p.limit) } else { p.address(v) }
    }),
    Kind::entry("mount_attr_flags", |p, v| p.flags(v & 0xffff_ffff, MOUNT_ATTR, "MOUNT_ATTR_???")),
    Kind::entry("mount_attr", mount_attr),
    Kind::entry("move_mount_flags", |p, v| p.flags(v & 0xffff_ffff, MOVE_MOUNT, "MOVE_MOUNT_???")),
    Kind::entry("open_tree_flags", |p, v| p.flags(v & 0xffff_ffff, OPEN_TREE, "OPEN_TREE_???")),
];

const MOUNT: &[(u64, &str)] = &[
    (1, "MS_RDONLY"),
    (2, "MS_NOSUID"),
    (4, "MS_NODEV"),
    (8, "MS_NOEXEC"),
    (16, "MS_SYNCHRONOUS"),
    (32, "MS_REMOUNT"),
    (64, "MS_MANDLOCK"),
    (128, "MS_DIRSYNC"),
    (256, "MS_NOSYMFOLLOW"),
    (1024, "MS_NOATIME"),
    (2048, "MS_NODIRATIME"),
    (4096, "MS_BIND"),
    (8192, "MS_MOVE"),
    (16384, "MS_REC"),
    (32768, "MS_SILENT"),
    (1 << 16, "MS_POSIXACL"),
    (1 << 17, "MS_UNBINDABLE"),
    (1 << 18, "MS_PRIVATE"),
    (1 << 19, "MS_SLAVE"),
    (1 << 20, "MS_SHARED"),
    (1 << 21, "MS_RELATIME"),
    (1 << 24, "MS_STRICTATIME"),
    (1 << 25, "MS_LAZYTIME"),
];

const FSPICK: &[(u64, &str)] =
    &[(1, "FSPICK_CLOEXEC"), (2, "FSPICK_SYMLINK_NOFOLLOW"), (4, "FSPICK_NO_AUTOMOUNT"), (8, "FSPICK_EMPTY_PATH")];

const FSCONFIG: &[(u64, &str)] = &[
    (0, "FSCONFIG_SET_FLAG"),
    (1, "FSCONFIG_SET_STRING"),
    (2, "FSCONFIG_SET_BINARY"),
    (3, "FSCONFIG_SET_PATH"),
    (4, "FSCONFIG_SET_PATH_EMPTY"),
    (5, "FSCONFIG_SET_FD"),
    (6, "FSCONFIG_CMD_CREATE"),
    (7, "FSCONFIG_CMD_RECONFIGURE"),
    (8, "FSCONFIG_CMD_CREATE_EXCL"),
];

const MOUNT_ATTR: &[(u64, &str)] = &[
    (1, "MOUNT_ATTR_RDONLY"),
    (2, "MOUNT_ATTR_NOSUID"),
    (4, "MOUNT_ATTR_NODEV"),
    (8, "MOUNT_ATTR_NOEXEC"),
    (0x10, "MOUNT_ATTR_NOATIME"),
    (0x20, "MOUNT_ATTR_STRICTATIME"),
    (0x80, "MOUNT_ATTR_NODIRATIME"),
    (0x10_0000, "MOUNT_ATTR_IDMAP"),
    (0x20_0000, "MOUNT_ATTR_NOSYMFOLLOW"),
];

const MOVE_MOUNT: &[(u64, &str)] = &[
    (1, "MOVE_MOUNT_F_SYMLINKS"),
    (2, "MOVE_MOUNT_F_AUTOMOUNTS"),
    (4, "MOVE_MOUNT_F_EMPTY_PATH"),
    (0x10, "MOVE_MOUNT_T_SYMLINKS"),
    (0x20, "MOVE_MOUNT_T_AUTOMOUNTS"),
    (0x40, "MOVE_MOUNT_T_EMPTY_PATH"),
    (0x100, "MOVE_MOUNT_SET_GROUP"),
    (0x200, "MOVE_MOUNT_BENEATH"),
];

const OPEN_TREE: &[(u64, &str)] = &[
    (1, "OPEN_TREE_CLONE"),
    (0o2_000_000, "OPEN_TREE_CLOEXEC"),
    (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (0x8000, "AT_RECURSIVE"),
];

/// `struct mount_attr`.
fn mount_attr(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, [set, clear, propagation, namespace]: [u64; 4]| {
        p.push("{attr_set=");
        p.flags(set, MOUNT_ATTR, "MOUNT_ATTR_???");
        p.push(", attr_clr=");
        p.flags(clear, MOUNT_ATTR, "MOUNT_ATTR_???");
        p.push(", propagation=");
        p.flags(propagation, MOUNT, "MS_???");
        p.push(&format!(", userns_fd={namespace}}}"));
    });
}
