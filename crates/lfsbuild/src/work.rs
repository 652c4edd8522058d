//! Work directories of steps. Each belongs to the process that works in it, by a lock (flock(2)) on the directory itself: a shell
//! and a build can be open beside each other, and what a dead builder left can be told from what is in use.

use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::store::{Store, remove_tree};

/// How often, and after what time, a lock is tried again: who only looks has it for an instant.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_millis(5);

/// A work directory that is this process's until it is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Deref for Work {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Work {
    /// Removes all that is in it.
    pub(crate) fn clear(&self) -> Result<()> {
        let fail = |e| Error::io("emptying", &self.path, e);
        for entry in std::fs::read_dir(&self.path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_type().map_err(fail)?.is_dir() {
                remove_tree(&entry.path())?;
            } else {
                std::fs::remove_file(entry.path()).map_err(fail)?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// A step's work directory as its last run left it, or an empty one; where another process works in it, an empty one beside it.
    pub(crate) fn work_of(&self, key: &str) -> Result<Work> {
        if let Some(work) = self.claim(key)? {
            return Ok(work);
        }
        let own = format!("{key}.{}", std::process::id());
        self.claim(&own)?
            .ok_or_else(|| Error::Usage { message: format!("the work directory {own} is in use"), hint: None })
    }

    /// Takes a work directory, and makes it if need be; none when another process has it.
    pub(crate) fn claim(&self, name: &str) -> Result<Option<Work>> {
        let path = self.dir("work")?.join(name);
        let mut tries = 0;
        loop {
            std::fs::create_dir_all(&path).map_err(|e| Error::io("creating", &path, e))?;
            match lock(&path, FlockArg::LockExclusiveNonblock) {
                Ok(Some(lock)) => return Ok(Some(Work { path, _lock: lock })),
                // Its owner removed it in between.
                Ok(None) => {}
                Err(e) if e.raw_os_error() == Some(Errno::EWOULDBLOCK as i32) => {
                    tries += 1;
                    if tries == TRIES {
                        return Ok(None);
                    }
                    std::thread::sleep(AGAIN);
                }
                Err(e) => return Err(Error::io("locking", &path, e)),
            }
        }
    }

    /// Whether a process works in that directory just now.
    pub(crate) fn in_use(&self, name: &str) -> bool {
        let path = self.path().join("work").join(name);
        matches!(lock(&path, FlockArg::LockSharedNonblock), Err(e) if e.raw_os_error() == Some(Errno::EWOULDBLOCK as i32))
    }
}

/// Locks a directory; none when it is gone from its place.
fn lock(path: &Path, how: FlockArg) -> std::io::Result<Option<Flock<File>>> {
    let dir = match File::open(path) {
        Ok(dir) => dir,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let lock = Flock::lock(dir, how).map_err(|(_, e)| std::io::Error::from(e))?;
    let ours = lock.metadata()?;
    // A lock on a directory that was removed before we had it keeps nobody out.
    let same = std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
    Ok(same.then_some(lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user_and_a_second_gets_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        assert!(!store.in_use("key"));
        let work = store.work_of("key").unwrap();
        std::fs::write(work.join("kept"), "").unwrap();
        std::fs::create_dir(work.join("sub")).unwrap();
        assert!(work.ends_with("key") && store.in_use("key"));
        assert!(store.claim("key").unwrap().is_none());
        let other = store.work_of("key").unwrap();
        assert_eq!(other.file_name().unwrap().to_str(), Some(format!("key.{}", std::process::id()).as_str()));

        drop(work);
        assert!(!store.in_use("key"));
        let again = store.work_of("key").unwrap();
        assert!(again.join("kept").exists());
        again.clear().unwrap();
        assert_eq!(std::fs::read_dir(&*again).unwrap().count(), 0);
        // Removed by its owner, it can be had anew.
        remove_tree(&again).unwrap();
        assert!(store.claim("key").unwrap().is_some());
    }
}
