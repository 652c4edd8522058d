//! What is mounted before anything runs.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, pivot_root};
use uml_init::Request;

use crate::Fault;

/// What the image may be, as the kernel's drivers call it; ext4's may read the others.
const ROOT_TYPES: [&str; 3] = ["ext4", "ext3", "ext2"];

/// Mounts the root disk, or a partition of it, and makes it the root.
pub(crate) fn enter_root(partition: Option<u32>, read_only: bool) -> Result<(), Fault> {
    let disk = partition.map_or_else(|| String::from("/dev/ubda"), |number| format!("/dev/ubda{number}"));
    let flags = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    let mut error = Errno::ENODEV;
    let mounted = ROOT_TYPES.iter().any(|kind| match mount(Some(&*disk), "/new", Some(*kind), flags, None::<&str>) {
        Ok(()) => true,
        Err(e) => {
            error = if error == Errno::ENODEV { e } else { error };
            false
        }
    });
    if !mounted {
        let hint = match error {
            Errno::ENODEV => "it needs CONFIG_EXT4_FS=y",
            Errno::ENOENT if partition.is_some() => {
                "it needs CONFIG_MSDOS_PARTITION=y, or CONFIG_EFI_PARTITION=y for a GPT"
            }
            Errno::ENOENT => "it needs CONFIG_BLK_DEV_UBD=y and CONFIG_DEVTMPFS=y",
            _ => "boot without --kernel, or see what its messages say, without `quiet`",
        };
        return Err(Fault::new(format!("the kernel cannot mount the image: {error}"), hint));
    }
    // Both at the same place: the old root lies on the new one until it is taken away.
    chdir("/new")
        .and_then(|()| pivot_root(".", "."))
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| chdir("/"))
        .map_err(|e| Fault::new(format!("the guest cannot make the image its root: {e}"), ""))
}

/// Mounts a file system of the kernel's own; an image without the directory does without it.
fn mount_own(kind: &str, at: &str, flags: MsFlags, data: &str) {
    if at.starts_with("/dev/") {
        let _ = fs::create_dir(at);
    }
    let _ = mount(Some(kind), at, Some(kind), flags, Some(data));
}

/// `/dev` is there before init.
pub(crate) fn devices() {
    mount_own("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755");
}

/// What boot scripts would have mounted and made: as `boot` does without `--kernel`.
pub(crate) fn for_command() {
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_own("proc", "/proc", closed | MsFlags::MS_NOEXEC, "");
    mount_own("sysfs", "/sys", closed | MsFlags::MS_NOEXEC, "");
    mount_own("devpts", "/dev/pts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
    mount_own("tmpfs", "/dev/shm", closed, "mode=1777");
    mount_own("tmpfs", "/run", closed, "mode=0755");
    let descriptors = [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];
    for (name, target) in descriptors {
        let _ = std::os::unix::fs::symlink(format!("/proc/self/{target}"), format!("/dev/{name}"));
    }
}

/// Mounts the host's directories.
pub(crate) fn shares(request: &Request) -> Result<(), Fault> {
    for share in &request.shares {
        let at = Path::new(&share.guest);
        fs::create_dir_all(at).map_err(|e| {
            let what = format!("there is no directory {} in the guest, and it cannot be made: {e}", at.display());
            Fault::new(what, "name one that the image has")
        })?;
        let flags = if share.read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        mount(Some("none"), at, Some("hostfs"), flags, Some(&*share.host)).map_err(|e| {
            let host = share.host.to_string_lossy();
            Fault::new(format!("the guest cannot mount {host} of the host on {}: {e}", at.display()), "")
        })?;
    }
    Ok(())
}

/// The loopback interface is up from the start.
pub(crate) fn loopback_up() {
    // SAFETY: zeros are an interface request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is initialised and lives on; the socket is this function's own. A kernel without a network has none.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket >= 0 {
            libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request);
            libc::close(socket);
        }
    }
}

/// Opens the image's console in place of the one that the kernel found in the first root.
pub(crate) fn open_console() -> io::Result<File> {
    let flags = libc::O_NOCTTY;
    use std::os::unix::fs::OpenOptionsExt;
    let console = File::options().read(true).write(true).custom_flags(flags).open("/dev/console")?;
    dup2_stdin(&console).and_then(|()| dup2_stdout(&console)).and_then(|()| dup2_stderr(&console))?;
    Ok(console)
}
