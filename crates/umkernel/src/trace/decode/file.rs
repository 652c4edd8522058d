//! Files: open flags, stat structures, directory entries, locks.

use super::{Kind, Printer, When, mode, text};
use alloc::format;
use alloc::string::String;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("open_flags", |p, v| p.push(&open_flags(v))),
    Kind::entry("fd_flags", |p, v| p.flags(v & 0xffff_ffff, OPEN, "O_???")),
    Kind::entry("open_how", open_how),
    Kind::entry("access_mode", |p, v| p.flags(v & 0xffff_ffff, ACCESS, "?_OK")),
    Kind::entry("at_flags", |p, v| p.flags(v & 0xffff_ffff, AT_FLAGS, "AT_???")),
    Kind::entry("whence", |p, v| p.choice(v & 0xffff_ffff, WHENCE, "SEEK_???")),
    Kind::entry("rename_flags", |p, v| p.flags(v & 0xffff_ffff, RENAME, "RENAME_???")),
    Kind::entry("fallocate_mode", |p, v| p.flags(v & 0xffff_ffff, FALLOCATE, "FALLOC_FL_???")),
    Kind::entry("fadvise", |p, v| p.choice(v & 0xffff_ffff, FADVISE, "POSIX_FADV_???")),
    Kind::entry("xattr_flags", |p, v| p.flags(v, &[(1, "XATTR_CREATE"), (2, "XATTR_REPLACE")], "XATTR_???")),
    Kind::entry("flock", |p, v| p.flags(v & 0xffff_ffff, FLOCK, "LOCK_???")),
    Kind::entry("fcntl_cmd", |p, v| p.choice(v & 0xffff_ffff, FCNTL, "F_???")),
    Kind { name: "fcntl_arg", when: When::ExitIf(asks_for_lock), decode: fcntl_argument },
    Kind::entry("close_range_flags", |p, v| {
        p.flags(v, &[(2, "CLOSE_RANGE_UNSHARE"), (4, "CLOSE_RANGE_CLOEXEC")], "CLOSE_RANGE_???");
    }),
    Kind::entry("dev", device),
    Kind::exit("stat", stat),
    Kind::exit("statx", statx),
    Kind::entry("statx_mask", |p, v| p.flags(v & 0xffff_ffff, STATX_MASK, "STATX_???")),
    Kind::exit("statfs", statfs),
    Kind::exit("dirents", dirents),
    Kind::exit("off_out", |p, v| p.structure(v, |p, offset: i64| p.push(&format!("[{offset}]")))),
];

const OPEN: &[(u64, &str)] = &[
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o4_010_000, "O_SYNC"),
    (0o10_000, "O_DSYNC"),
    (0o20_000, "O_ASYNC"),
    (0o40_000, "O_DIRECT"),
    (0o100_000, "O_LARGEFILE"),
    (0o400_000, "O_NOFOLLOW"),
    (0o1_000_000, "O_NOATIME"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o10_000_000, "O_PATH"),
    (0o20_200_000, "O_TMPFILE"),
    (0o200_000, "O_DIRECTORY"),
];

pub(super) fn open_flags(value: u64) -> String {
    let value = value & 0xffff_ffff;
    let access = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"][(value & 3) as usize];
    match value & !3 {
        0 => access.into(),
        rest => format!("{access}|{}", super::flags::show(rest, OPEN, "O_???")),
    }
}

/// Whether `open(2)` with these flags takes a mode.
pub(super) fn creates(flags: u64) -> bool {
    flags & 0o100 != 0 || flags & 0o20_200_000 == 0o20_200_000
}

const RESOLVE: &[(u64, &str)] = &[
    (1, "RESOLVE_NO_XDEV"),
    (2, "RESOLVE_NO_MAGICLINKS"),
    (4, "RESOLVE_NO_SYMLINKS"),
    (8, "RESOLVE_BENEATH"),
    (16, "RESOLVE_IN_ROOT"),
    (32, "RESOLVE_CACHED"),
];

fn open_how(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, how: [u64; 3]| {
        let mut text = format!("{{flags={}", open_flags(how[0]));
        if creates(how[0]) || how[1] != 0 {
            text += &format!(", mode={}", mode::permissions(how[1] as u32));
        }
        text += &format!(", resolve={}}}", super::flags::show(how[2], RESOLVE, "RESOLVE_???"));
        p.push(&text);
    });
}

const ACCESS: &[(u64, &str)] = &[(0, "F_OK"), (4, "R_OK"), (2, "W_OK"), (1, "X_OK")];
const AT_FLAGS: &[(u64, &str)] = &[
    (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x200, "AT_REMOVEDIR"),
    (0x400, "AT_SYMLINK_FOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (0x2000, "AT_STATX_FORCE_SYNC"),
    (0x4000, "AT_STATX_DONT_SYNC"),
    (0x8000, "AT_RECURSIVE"),
];
const WHENCE: &[(u64, &str)] = &[(0, "SEEK_SET"), (1, "SEEK_CUR"), (2, "SEEK_END"), (3, "SEEK_DATA"), (4, "SEEK_HOLE")];
const RENAME: &[(u64, &str)] = &[(1, "RENAME_NOREPLACE"), (2, "RENAME_EXCHANGE"), (4, "RENAME_WHITEOUT")];
const FALLOCATE: &[(u64, &str)] = &[
    (1, "FALLOC_FL_KEEP_SIZE"),
    (2, "FALLOC_FL_PUNCH_HOLE"),
    (8, "FALLOC_FL_COLLAPSE_RANGE"),
    (0x10, "FALLOC_FL_ZERO_RANGE"),
    (0x20, "FALLOC_FL_INSERT_RANGE"),
    (0x40, "FALLOC_FL_UNSHARE_RANGE"),
];
const FADVISE: &[(u64, &str)] = &[
    (0, "POSIX_FADV_NORMAL"),
    (1, "POSIX_FADV_RANDOM"),
    (2, "POSIX_FADV_SEQUENTIAL"),
    (3, "POSIX_FADV_WILLNEED"),
    (4, "POSIX_FADV_DONTNEED"),
    (5, "POSIX_FADV_NOREUSE"),
];
const FLOCK: &[(u64, &str)] = &[(1, "LOCK_SH"), (2, "LOCK_EX"), (8, "LOCK_UN"), (4, "LOCK_NB")];
const FCNTL: &[(u64, &str)] = &[
    (0, "F_DUPFD"),
    (1, "F_GETFD"),
    (2, "F_SETFD"),
    (3, "F_GETFL"),
    (4, "F_SETFL"),
    (5, "F_GETLK"),
    (6, "F_SETLK"),
    (7, "F_SETLKW"),
    (8, "F_SETOWN"),
    (9, "F_GETOWN"),
    (10, "F_SETSIG"),
    (11, "F_GETSIG"),
    (36, "F_OFD_GETLK"),
    (37, "F_OFD_SETLK"),
    (38, "F_OFD_SETLKW"),
    (1024, "F_SETLEASE"),
    (1025, "F_GETLEASE"),
    (1026, "F_NOTIFY"),
    (1030, "F_DUPFD_CLOEXEC"),
    (1031, "F_SETPIPE_SZ"),
    (1032, "F_GETPIPE_SZ"),
    (1033, "F_ADD_SEALS"),
    (1034, "F_GET_SEALS"),
];
const SEALS: &[(u64, &str)] =
    &[(1, "F_SEAL_SEAL"), (2, "F_SEAL_SHRINK"), (4, "F_SEAL_GROW"), (8, "F_SEAL_WRITE"), (16, "F_SEAL_FUTURE_WRITE")];

/// Whether this is an `F_GETLK` or `F_OFD_GETLK`.
fn asks_for_lock(p: &Printer) -> bool {
    matches!(p.preceding() & 0xffff_ffff, 5 | 36)
}

/// The argument of `fcntl(2)`, which is no argument at all for some commands.
fn fcntl_argument(p: &mut Printer, value: u64) {
    match p.preceding() & 0xffff_ffff {
        1 | 3 | 9 | 11 | 1025 | 1032 | 1034 => p.omitted = true,
        2 => p.flags(value, &[(1, "FD_CLOEXEC")], "FD_???"),
        4 => p.push(&open_flags(value)),
        5..=7 | 36..=38 => file_lock(p, value),
        10 => p.push(&super::signal::argument(value)),
        1033 => p.flags(value, SEALS, "F_SEAL_???"),
        _ => p.signed(value),
    }
}

fn file_lock(p: &mut Printer, addr: u64) {
    // l_type and l_whence, two bytes each, padding, l_start, l_len, l_pid.
    p.structure(addr, |p, words: [u64; 4]| {
        let (kind, whence) = (words[0] & 0xffff, words[0] >> 16 & 0xffff);
        p.push("{l_type=");
        p.choice(kind, &[(0, "F_RDLCK"), (1, "F_WRLCK"), (2, "F_UNLCK")], "F_???");
        p.push(", l_whence=");
        p.choice(whence, WHENCE, "SEEK_???");
        p.push(&format!(", l_start={}, l_len={}", words[1] as i64, words[2] as i64));
        if asks_for_lock(p) {
            p.push(&format!(", l_pid={}", words[3] as i32));
        }
        p.push("}");
    });
}

/// What `fcntl(2)` returns, which for some commands is a flag word.
pub(super) fn fcntl_result(command: u64, value: u64) -> String {
    match command & 0xffff_ffff {
        1 if value != 0 => format!("{value:#x} (flags {})", super::flags::show(value, &[(1, "FD_CLOEXEC")], "FD_???")),
        3 => format!("{} (flags {})", text::hex(value), open_flags(value)),
        1034 => format!("{} (seals {})", text::hex(value), super::flags::show(value, SEALS, "F_SEAL_???")),
        _ => format!("{}", value as i64),
    }
}

fn device(p: &mut Printer, value: u64) {
    // mknod(2) looks at the number only for devices.
    if matches!(p.preceding() & 0o170_000, 0o020_000 | 0o060_000) {
        p.push(&mode::device(value));
    } else {
        p.omitted = true;
    }
}

/// `struct stat` of x86-64 as 18 words: st_dev, st_ino, st_nlink, st_mode and st_uid, st_gid, st_rdev, st_size, ...
fn stat(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, words: [u64; 18]| {
        let (mode, rdev, size) = (words[3] as u32, words[5], words[6]);
        p.push(&attributes("st", mode, rdev, size));
        p.push(", ...}");
    });
}

/// `{st_mode=S_IFREG|0644, st_size=3`, or a device's number in place of the size.
fn attributes(prefix: &str, mode: u32, rdev: u64, size: u64) -> String {
    let mode_text = mode::with_type(mode);
    match mode & 0o170_000 {
        0o020_000 | 0o060_000 => format!("{{{prefix}_mode={mode_text}, {prefix}_rdev={}", mode::device(rdev)),
        _ => format!("{{{prefix}_mode={mode_text}, {prefix}_size={size}"),
    }
}

const STATX_MASK: &[(u64, &str)] = &[
    (0xfff, "STATX_ALL"),
    (0x7ff, "STATX_BASIC_STATS"),
    (0x1, "STATX_TYPE"),
    (0x2, "STATX_MODE"),
    (0x4, "STATX_NLINK"),
    (0x8, "STATX_UID"),
    (0x10, "STATX_GID"),
    (0x20, "STATX_ATIME"),
    (0x40, "STATX_MTIME"),
    (0x80, "STATX_CTIME"),
    (0x100, "STATX_INO"),
    (0x200, "STATX_SIZE"),
    (0x400, "STATX_BLOCKS"),
    (0x800, "STATX_BTIME"),
    (0x1000, "STATX_MNT_ID"),
    (0x2000, "STATX_DIOALIGN"),
];

const STATX_ATTRIBUTES: &[(u64, &str)] = &[
    (0x4, "STATX_ATTR_COMPRESSED"),
    (0x10, "STATX_ATTR_IMMUTABLE"),
    (0x20, "STATX_ATTR_APPEND"),
    (0x40, "STATX_ATTR_NODUMP"),
    (0x800, "STATX_ATTR_ENCRYPTED"),
    (0x2000, "STATX_ATTR_MOUNT_ROOT"),
];

/// `struct statx`: stx_mask and stx_blksize, stx_attributes, stx_nlink and stx_uid, stx_gid and stx_mode, stx_ino,
/// stx_size, ...; stx_rdev in two halves at byte 128.
fn statx(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, words: [u64; 17]| {
        let mode = (words[3] >> 32) as u32 & 0xffff;
        let (major, minor) = (words[16] & 0xffff_ffff, words[16] >> 32);
        let rdev = (major & 0xfff) << 8 | minor & 0xff | (minor & !0xff) << 12;
        p.push("{stx_mask=");
        p.flags(words[0] & 0xffff_ffff, STATX_MASK, "STATX_???");
        p.push(", stx_attributes=");
        p.flags(words[1], STATX_ATTRIBUTES, "STATX_ATTR_???");
        p.push(", ");
        p.push(&attributes("stx", mode, rdev, words[5])[1..]);
        p.push(", ...}");
    });
}

const FILE_SYSTEMS: &[(u64, &str)] = &[
    (0xef53, "EXT2_SUPER_MAGIC"),
    (0x0102_1994, "TMPFS_MAGIC"),
    (0x9fa0, "PROC_SUPER_MAGIC"),
    (0x6265_6572, "SYSFS_MAGIC"),
    (0x1cd1, "DEVPTS_SUPER_MAGIC"),
    (0x5049_5045, "PIPEFS_MAGIC"),
    (0x794c_7630, "OVERLAYFS_SUPER_MAGIC"),
    (0x4d44, "MSDOS_SUPER_MAGIC"),
    (0x00c0_ffee, "HOSTFS_SUPER_MAGIC"),
    (0x8584_58f6, "RAMFS_MAGIC"),
    (0x0102_1997, "V9FS_MAGIC"),
];

const MOUNT_STATE: &[(u64, &str)] = &[
    (0x20, "ST_VALID"),
    (0x1, "ST_RDONLY"),
    (0x2, "ST_NOSUID"),
    (0x4, "ST_NODEV"),
    (0x8, "ST_NOEXEC"),
    (0x10, "ST_SYNCHRONOUS"),
    (0x40, "ST_MANDLOCK"),
    (0x400, "ST_NOATIME"),
    (0x800, "ST_NODIRATIME"),
    (0x1000, "ST_RELATIME"),
];

fn statfs(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, w: [u64; 11]| {
        p.push("{f_type=");
        p.choice(w[0], FILE_SYSTEMS, "???_MAGIC");
        p.push(&format!(", f_bsize={}, f_blocks={}, f_bfree={}, f_bavail={}", w[1], w[2], w[3], w[4]));
        let (low, high) = (w[7] & 0xffff_ffff, w[7] >> 32);
        p.push(&format!(", f_files={}, f_ffree={}", w[5], w[6]));
        p.push(&format!(", f_fsid={{val=[{}, {}]}}", text::hex(low), text::hex(high)));
        p.push(&format!(", f_namelen={}, f_frsize={}, f_flags=", w[8], w[9]));
        p.flags(w[10], MOUNT_STATE, "ST_???");
        p.push("}");
    });
}

/// How many entries there are; their text would fill pages.
fn dirents(p: &mut Printer, addr: u64) {
    const RECLEN: usize = 16;
    let Some(Ok(len)) = p.result else { return p.address(addr) };
    let mut bytes = alloc::vec![0; *len];
    if p.ctx.read_user(addr, &mut bytes).is_err() {
        return p.address(addr);
    }
    let (mut count, mut at) = (0, 0);
    while let Some(record) = bytes.get(at + RECLEN..at + RECLEN + 2) {
        let len = usize::from(u16::from_ne_bytes([record[0], record[1]]));
        if len == 0 {
            break;
        }
        count += 1;
        at += len;
    }
    let text = format!("{} /* {count} entries */", text::hex(addr));
    p.push(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_read_as_strace_prints_them() {
        assert_eq!(open_flags(0), "O_RDONLY");
        assert_eq!(open_flags(0o2_003_102), "O_RDWR|O_CREAT|O_TRUNC|O_APPEND|O_CLOEXEC");
        assert_eq!(open_flags(0o2_204_000), "O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_DIRECTORY");
        assert_eq!(open_flags(0o20_200_002), "O_RDWR|O_TMPFILE");
        assert!(creates(0o100) && creates(0o20_200_001) && !creates(0o200_000));
    }

    #[test]
    fn fcntl_results_are_flag_words_where_they_are() {
        assert_eq!(fcntl_result(1, 0), "0");
        assert_eq!(fcntl_result(1, 1), "0x1 (flags FD_CLOEXEC)");
        assert_eq!(fcntl_result(3, 0o102_002), "0x8402 (flags O_RDWR|O_APPEND|O_LARGEFILE)");
        assert_eq!(fcntl_result(0, 11), "11");
    }
}
