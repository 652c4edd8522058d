//! `/proc` (`proc(5)`, `Documentation/filesystems/proc.rst`).

mod cpuinfo;
mod fds;
mod global;
mod links;
mod maps;
mod memory;
mod namespaces;
mod pid;
mod process;
mod smaps;
mod stat;
mod status;
mod subject;
mod sysctl;
mod sysvipc;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;

pub(crate) use pid::process_of;

use super::pseudo::{DirBuilder, Listed, Numbers, PseudoDir, PseudoFs, list_directory};
use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::task::Pid;
use crate::vfs::{Attr, DirSink, FileSystem, FileType, FsType, Inode, InodeRef, MountRequest};
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use core::any::Any;
pub(super) use status::list_text;
use subject::Subject;

/// `PROC_SUPER_MAGIC` of `linux/magic.h`.
const MAGIC: u64 = 0x9fa0;

/// The type, for `mount(2)`.
pub const FS_TYPE: FsType = FsType { name: "proc", needs_device: false, mount };

fn mount(ctx: &Ctx, _request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    Ok(new(ctx.kernel))
}

/// A new instance.
pub fn new(kernel: &Kernel) -> Arc<dyn FileSystem> {
    let numbers = Numbers::new(kernel);
    let fixed = sysctl::add(global::add(DirBuilder::new(&numbers)), kernel)
        .link("self", |ctx| ctx.task.process.pid.to_string().into_bytes())
        .link("thread-self", |ctx| format!("{}/task/{}", ctx.task.process.pid, ctx.task.tid()).into_bytes())
        .link("mounts", |_| b"self/mounts".to_vec())
        .build();
    let dev = numbers.dev;
    Arc::new(PseudoFs { name: "proc", magic: MAGIC, dev, root: Arc::new(Root { fixed, numbers }) })
}

/// The root: what is always there, and the processes.
struct Root {
    fixed: Arc<PseudoDir>,
    numbers: Arc<Numbers>,
}

/// A process or thread id as a name: decimal without leading zeroes.
fn parse_pid(name: &[u8]) -> Option<Pid> {
    let digits = name.iter().all(u8::is_ascii_digit) && name.first().is_some_and(|&b| b != b'0');
    digits.then(|| core::str::from_utf8(name).ok()?.parse().ok())?
}

impl Inode for Root {
    fn attr(&self) -> Result<Attr> {
        Ok(self.fixed.attr())
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn lookup(&self, ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        if let Some(found) = self.fixed.find(name) {
            return Ok(found);
        }
        let subject = parse_pid(name).and_then(|pid| Subject::process(ctx.kernel, pid)).ok_or(Errno::ENOENT)?;
        Ok(pid::directory(&self.numbers, subject))
    }

    fn cacheable(&self) -> bool {
        false
    }

    fn read_dir(&self, ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        // Processes come and go while the list is read: they are found again by their ids, behind what is fixed.
        const FIRST: u64 = 1 << 16;
        let fixed = self.fixed.list();
        let ino = self.fixed.attr().ino;
        let mut full = false;
        if cookie < FIRST {
            let mut last = cookie;
            list_directory(ino, &fixed, cookie, &mut |entry| {
                full = !sink(entry);
                last = entry.next;
                !full
            });
            if full {
                return Ok(());
            }
        }
        let next_pid = cookie.saturating_sub(FIRST);
        for process in ctx.kernel.tasks.processes().iter().filter(|p| p.pid as u64 >= next_pid) {
            let name = process.pid.to_string();
            let entry = crate::vfs::DirEntry {
                ino: pid::ino(process.pid, process.pid, 0),
                file_type: FileType::Directory,
                name: name.as_bytes(),
                next: FIRST + process.pid as u64 + 1,
            };
            if !sink(&entry) {
                break;
            }
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The entries of a directory of ids.
fn listed_ids(ids: impl Iterator<Item = (u64, FileType, alloc::string::String)>) -> alloc::vec::Vec<Listed> {
    ids.map(|(ino, file_type, name)| Listed::new(ino, file_type, name.as_bytes())).collect()
}
