//! The file tree of the sandbox, put together in a mount namespace that is already private.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::recipe::Root;
use crate::sandbox::{Spec, host_root};

/// Why the tree could not be made: the call and its errno.
pub(super) type Reason = String;

trait Context<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, Reason>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, Reason> {
        self.map_err(|e| format!("{}: {e}", action()))
    }
}

const NONE: Option<&str> = None;

fn bind(from: &Path, to: &Path) -> Result<(), Reason> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .context(|| format!("bind mount of {} on {}", from.display(), to.display()))
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Makes a mount and all below it read-only. Adds the flag and leaves the others, which a user namespace may not clear.
fn make_read_only(path: &Path) -> Result<(), Reason> {
    let c_path = CString::new(path.as_os_str().as_bytes()).context(|| format!("path {}", path.display()))?;
    let attr = MountAttr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is NUL-terminated and the structure has the size that is passed; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c_path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    match Errno::result(result) {
        Ok(_) => Ok(()),
        // Linux before 5.12: remount the top mount with the flags that it has.
        Err(Errno::ENOSYS) => {
            let stat = nix::sys::statvfs::statvfs(path).context(|| format!("statvfs of {}", path.display()))?;
            // The ST_ and MS_ values of these flags are the same (statvfs(3)).
            let kept = MsFlags::from_bits_truncate(stat.flags().bits())
                & (MsFlags::MS_NOSUID
                    | MsFlags::MS_NODEV
                    | MsFlags::MS_NOEXEC
                    | MsFlags::MS_NOATIME
                    | MsFlags::MS_RELATIME);
            mount(NONE, path, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept, NONE)
                .context(|| format!("read-only remount of {}", path.display()))
        }
        Err(e) => Err(format!("mount_setattr of {}: {e}", path.display())),
    }
}

fn bind_read_only(from: &Path, to: &Path) -> Result<(), Reason> {
    bind(from, to)?;
    make_read_only(to)
}

fn mkdir(path: &Path) -> Result<(), Reason> {
    std::fs::create_dir_all(path).context(|| format!("mkdir {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Reason> {
    std::fs::write(path, text).context(|| format!("writing {}", path.display()))
}

/// An empty file to bind another on.
fn touch(path: &Path) -> Result<(), Reason> {
    std::fs::File::create(path).map(drop).context(|| format!("creating {}", path.display()))
}

fn tmpfs(on: &Path, options: &str) -> Result<(), Reason> {
    mount(Some("tmpfs"), on, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
        .context(|| format!("tmpfs on {}", on.display()))
}

/// Puts the tree together below the step's `mnt` and makes it the root directory.
pub(super) fn enter(spec: &Spec) -> Result<(), Reason> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context(|| "making all mounts private".into())?;
    let top = spec.work.join("mnt");
    match spec.root {
        Root::Host => {
            tmpfs(&top, "mode=755,size=64m")?;
            host_system(&top)?;
        }
        Root::Packages => bind(&spec.work.join("sysroot"), &top)?,
    }
    for dir in ["build", "dest", "sources", "inputs", "tmp", "dev", "proc", "run/umlfs"] {
        mkdir(&top.join(dir))?;
    }
    bind(&spec.work.join("build"), &top.join("build"))?;
    bind(&spec.work.join("dest"), &top.join("dest"))?;
    bind(&spec.work.join("tmp"), &top.join("tmp"))?;
    bind_read_only(&spec.work.join("inputs"), &top.join("inputs"))?;
    if spec.root == Root::Host {
        let sysroot = spec.work.join("sysroot");
        mkdir(&top.join("sysroot"))?;
        bind_read_only(&sysroot, &top.join("sysroot"))?;
        let tools = sysroot.join("tools");
        if tools.is_dir() {
            mkdir(&top.join("tools"))?;
            bind_read_only(&tools, &top.join("tools"))?;
        }
    }
    let sources = top.join("sources");
    tmpfs(&sources, "mode=755,size=1m")?;
    for (name, path) in &spec.sources {
        let target = sources.join(name);
        touch(&target)?;
        bind(path, &target)?;
    }
    make_read_only(&sources)?;
    let commands = top.join("host/bin");
    if !spec.commands.is_empty() {
        mkdir(&commands)?;
    }
    for (name, path) in &spec.commands {
        symlink(path, commands.join(name)).context(|| format!("link to {}", path.display()))?;
    }
    let run = top.join("run/umlfs");
    tmpfs(&run, "mode=755,size=16m")?;
    step_init::write_scripts(&run, &spec.phases)?;
    devices(&top.join("dev"))?;
    process_files(&top.join("proc"))?;
    // A user who looks around in the new system may change it: it is a copy.
    make_root(&top, spec.interactive && spec.root == Root::Packages)
}

/// The parts of the host that its compiler and tools need: `/usr` read-only, and a few files of `/etc`.
fn host_system(top: &Path) -> Result<(), Reason> {
    mkdir(&top.join("usr"))?;
    bind_read_only(Path::new("/usr"), &top.join("usr"))?;
    // What an administrator put there by hand is no declared input.
    for local in host_root::LOCAL {
        if top.join(local).is_dir() {
            tmpfs(&top.join(local), "mode=755,size=4k")?;
        }
    }
    for name in host_root::TOP {
        let host = Path::new("/").join(name);
        let here = top.join(name);
        match std::fs::read_link(&host) {
            Ok(target) => symlink(&target, &here).context(|| format!("link {}", here.display()))?,
            Err(_) if host.is_dir() => {
                mkdir(&here)?;
                bind_read_only(&host, &here)?;
            }
            Err(_) => {}
        }
    }
    let etc = top.join("etc");
    mkdir(&etc)?;
    for (name, text) in host_root::ETC {
        write(&etc.join(name), text)?;
    }
    for name in host_root::ETC_FILES {
        let host = Path::new("/etc").join(name);
        if host.is_file() {
            touch(&etc.join(name))?;
            bind_read_only(&host, &etc.join(name))?;
        }
    }
    for name in host_root::ETC_DIRECTORIES {
        let host = Path::new("/etc").join(name);
        if host.is_dir() {
            mkdir(&etc.join(name))?;
            bind_read_only(&host, &etc.join(name))?;
        }
    }
    Ok(())
}

fn devices(dev: &Path) -> Result<(), Reason> {
    tmpfs(dev, "mode=755,size=1m")?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let node = dev.join(name);
        touch(&node)?;
        bind(&Path::new("/dev").join(name), &node)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, dev.join(name)).context(|| format!("link /dev/{name}"))?;
    }
    let shm = dev.join("shm");
    mkdir(&shm)?;
    tmpfs(&shm, "mode=1777")?;
    std::fs::set_permissions(&shm, std::fs::Permissions::from_mode(0o1777)).context(|| "chmod /dev/shm".into())?;
    let pts = dev.join("pts");
    mkdir(&pts)?;
    mount(
        Some("devpts"),
        &pts,
        Some("devpts"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("newinstance,ptmxmode=0666,mode=620"),
    )
    .context(|| "devpts on /dev/pts".into())
}

/// `/proc`, read-only: a root user mapped to the host's root could otherwise change the host's settings in `/proc/sys`.
fn process_files(proc_dir: &Path) -> Result<(), Reason> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("proc"), proc_dir, Some("proc"), flags, NONE) {
        Ok(()) => make_read_only(proc_dir),
        // A container that covers parts of its /proc may not mount a fresh one: its own must do.
        Err(Errno::EPERM) => bind_read_only(Path::new("/proc"), proc_dir),
        Err(e) => Err(format!("proc on /proc: {e}")),
    }
}

fn make_root(top: &Path, writable: bool) -> Result<(), Reason> {
    nix::unistd::chdir(top).context(|| format!("chdir {}", top.display()))?;
    nix::unistd::pivot_root(".", ".").context(|| "pivot_root".into())?;
    umount2(".", MntFlags::MNT_DETACH).context(|| "leaving the host's root".into())?;
    nix::unistd::chdir("/").context(|| "chdir /".into())?;
    if writable {
        return Ok(());
    }
    // The top mount alone: what is to be written lies on mounts of its own.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    match mount(NONE, "/", NONE, flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV, NONE) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => mount(NONE, "/", NONE, flags, NONE).context(|| "read-only remount of /".into()),
        Err(e) => Err(format!("read-only remount of /: {e}")),
    }
}
