//! The host's directory where a machine keeps what it needs: the guest's first root, links to the image, the kernel's sockets.
//! Nothing of it is left when the machine has ended, however it ended: what two killed processes have left, the next one removes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Pid, geteuid, getpid, getppid};
use umkernel::machine::BootError;
use uml_init::{INIT, MOUNT_POINTS, REQUEST, Request};

use super::failed;

/// The guest's program.
const PROGRAM: &[u8] = include_bytes!(env!("UMLFS_UML_INIT"));
/// How the directories' names begin.
const PREFIX: &str = "umlfs-uml-";
/// The longest path of the directory: the kernel's sockets lie below it, and a socket's path has 107 bytes.
const LONGEST: usize = 80;

/// The directory, locked for as long as its machine runs.
pub(crate) struct Workplace {
    directory: tempfile::TempDir,
    _lock: Option<File>,
    owner: Pid,
}

impl Workplace {
    /// Makes one, and removes those whose machines were killed.
    pub(crate) fn new() -> Result<Workplace, BootError> {
        let parent = parent();
        sweep(&parent);
        let made = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&parent)
            .map_err(|e| {
                failed(format!("cannot make a directory in {}: {e}", parent.display()), "set TMPDIR to another one")
            })?;
        // A directory that cannot be locked is never swept.
        let lock = File::open(made.path()).ok().filter(|file| file.try_lock().is_ok());
        Ok(Workplace { directory: made, _lock: lock, owner: getpid() })
    }

    /// Its path, without anything that a kernel's command line would stumble over.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The guest's first root.
    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    /// The kernel's socket for commands: `uml_dir=` and `umid=` of the command line.
    pub(crate) fn mconsole(&self) -> PathBuf {
        self.path().join("run/m/mconsole")
    }

    /// Fills the guest's first root.
    pub(crate) fn furnish(&self, request: &Request) -> Result<(), BootError> {
        let root = self.root();
        let write = || {
            fs::DirBuilder::new().mode(0o755).create(&root)?;
            MOUNT_POINTS.iter().try_for_each(|name| fs::create_dir(root.join(name)))?;
            fs::write(root.join(INIT), PROGRAM)?;
            fs::set_permissions(root.join(INIT), fs::Permissions::from_mode(0o755))?;
            fs::write(root.join(REQUEST), request.encode())
        };
        write()
            .map_err(|e| failed(format!("cannot write to {}: {e}", root.display()), "set TMPDIR to another directory"))
    }

    /// Whether the process that made it has gone, so that this one is to remove it.
    pub(crate) fn is_left_alone(&self) -> bool {
        getpid() != self.owner && getppid() != self.owner
    }

    /// Removes it.
    pub(crate) fn remove(&self) {
        // What cannot be removed now, a later machine removes.
        let _ = fs::remove_dir_all(self.path());
    }
}

/// Where the directories are made: the user's place for temporary files, unless its path is too long or would be
/// several words of a command line.
fn parent() -> PathBuf {
    let usable = |path: &PathBuf| {
        let bytes = path.as_os_str().as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@%".contains(byte);
        bytes.len() + PREFIX.len() < LONGEST && bytes.iter().all(plain)
    };
    let named = std::env::temp_dir().canonicalize().ok().filter(usable);
    named.unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// Removes this user's directories that no machine has locked.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let named = OsStr::as_bytes(&entry.file_name()).starts_with(PREFIX.as_bytes());
        let own =
            || entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == geteuid().as_raw() && is_old(&meta));
        if named && own() && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// One that was just made is not locked yet.
fn is_old(meta: &fs::Metadata) -> bool {
    const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);
    meta.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > MINUTE)
}

/// Where the kernel keeps the guest's memory, a file: it must lie on a file system with so much room, best on a tmpfs.
pub(crate) fn memory_directory(memory: u64) -> Result<PathBuf, BootError> {
    let room = |path: &Path| {
        let stat = nix::sys::statvfs::statvfs(path).ok()?;
        let executable = !stat.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC);
        executable.then(|| stat.blocks_available() * stat.fragment_size())
    };
    let places = [PathBuf::from("/dev/shm"), std::env::temp_dir(), PathBuf::from("/tmp")];
    let found = places.iter().find(|place| room(place).is_some_and(|room| room > memory));
    found.cloned().ok_or_else(|| {
        let most = places.iter().filter_map(|place| room(place)).max().unwrap_or(0);
        failed(
            format!("no place for {} MiB of guest memory: /dev/shm and the directories for temporary files lack the room, or forbid programs", memory >> 20),
            format!("--mem takes less ({} MiB would fit), or set TMPDIR to a directory with room", most >> 20),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_directories_without_a_machine_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str, old: bool| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            let then = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
            if old {
                File::open(&path).unwrap().set_modified(then).unwrap();
            }
            path
        };
        let (dead, alive, young, other) =
            (make("umlfs-uml-a", true), make("umlfs-uml-b", true), make("umlfs-uml-c", false), make("other", true));
        let lock = File::open(&alive).unwrap();
        lock.try_lock().unwrap();
        sweep(parent.path());
        assert_eq!([&dead, &alive, &young, &other].map(|path| path.exists()), [false, true, true, true]);
    }

    #[test]
    fn memory_that_nobody_has_room_for_is_refused() {
        assert!(memory_directory(1 << 20).is_ok());
        let error = memory_directory(1 << 60).unwrap_err();
        assert!(error.what.contains("no place") && error.hint.contains("--mem"), "{error:?}");
    }
}
