//! The machine's file tree made what the builder's namespaces show (`lfsbuild`, `sandbox/namespaces/mounts.rs`): one writes to
//! `/build`, `/dest` and `/tmp`, and nowhere else.

use std::os::unix::fs::symlink;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use step_init::{DIR, IN_IMAGE, Orders};

/// Why the tree could not be made: the call and its errno.
type Reason = String;

const NONE: Option<&str> = None;

/// Device nodes: name, major and minor number.
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

fn mkdir(path: &str) -> Result<(), Reason> {
    std::fs::create_dir_all(path).map_err(|e| format!("mkdir {path}: {e}"))
}

fn bind(from: &str, to: &str) -> Result<(), Reason> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE).map_err(|e| format!("bind mount of {from} on {to}: {e}"))
}

fn tmpfs(on: &str, flags: MsFlags, options: &str) -> Result<(), Reason> {
    mount(Some("tmpfs"), on, Some("tmpfs"), MsFlags::MS_NOSUID | flags, Some(options))
        .map_err(|e| format!("tmpfs on {on}: {e}"))
}

/// The mount alone, not its file system, which others show for writing.
fn read_only(path: &str, flags: MsFlags) -> Result<(), Reason> {
    mount(NONE, path, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags, NONE)
        .map_err(|e| format!("read-only remount of {path}: {e}"))
}

/// Makes the tree.
pub(crate) fn enter(orders: &Orders) -> Result<(), Reason> {
    // Modes are as written here.
    umask(Mode::empty());
    mkdir(DIR)?;
    bind(IN_IMAGE, DIR)?;
    // An earlier run's.
    match std::fs::remove_file(format!("{DIR}/failure")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(format!("removing {DIR}/failure: {e}")),
        _ => {}
    }
    for dir in ["/build", "/dest", "/tmp"] {
        bind(dir, dir)?;
    }
    devices()?;
    // Not part of the room.
    match umount2("/sys", MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(e) => return Err(format!("umount /sys: {e}")),
    }
    if !orders.packages {
        // What an administrator put there by hand is no declared input.
        for local in ["/usr/local", "/usr/src"].into_iter().filter(|path| Path::new(path).is_dir()) {
            tmpfs(local, MsFlags::MS_NODEV, "mode=755,size=4k")?;
        }
    }
    if orders.packages && orders.interactive {
        // A user who looks around in the new system may change it: it is a copy.
        return Ok(());
    }
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    read_only("/", closed)?;
    read_only("/run", closed)?;
    read_only("/proc", closed | MsFlags::MS_NOEXEC)?;
    if !orders.packages && Path::new("/sysroot/tools").is_dir() {
        bind("/sysroot/tools", "/tools")?;
        read_only("/tools", closed)?;
    }
    Ok(())
}

fn devices() -> Result<(), Reason> {
    tmpfs("/dev", MsFlags::empty(), "mode=755,size=1m")?;
    for (name, major, minor) in DEVICES {
        let path = format!("/dev/{name}");
        mknod(path.as_str(), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))
            .map_err(|e| format!("mknod {path}: {e}"))?;
    }
    for (name, target) in LINKS {
        symlink(target, format!("/dev/{name}")).map_err(|e| format!("link /dev/{name}: {e}"))?;
    }
    mkdir("/dev/shm")?;
    tmpfs("/dev/shm", MsFlags::MS_NODEV, "mode=1777")?;
    mkdir("/dev/pts")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), "/dev/pts", Some("devpts"), flags, Some("ptmxmode=0666,mode=620"))
        .map_err(|e| format!("devpts on /dev/pts: {e}"))
}
