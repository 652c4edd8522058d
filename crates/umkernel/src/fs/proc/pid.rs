//! `/proc/PID` and `/proc/PID/task/TID`: which files there are.

use super::subject::Subject;
use super::{fds, links, listed_ids, maps, memory, namespaces, parse_pid, process, smaps, stat, status};
use crate::errno::{Errno, Result};
use crate::fs::pseudo::{self, Listed, Numbers, PseudoFile, list_directory};
use crate::kernel::Ctx;
use crate::task::{Pid, Process};
use crate::vfs::{Attr, DirSink, FileType, Inode, InodeRef};
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

type Generate = fn(&Ctx, &Subject) -> Result<Vec<u8>>;
type Store = fn(&Ctx, &Subject, &[u8]) -> Result<()>;

/// What a name stands for.
enum Kind {
    /// A file that anyone may read, or with a look at who asks.
    File(u32, Generate),
    /// A file about mounts: those who poll it hear of changes to them.
    Mounts(Generate),
    /// A file that can be written.
    Setting(u32, Generate, Store),
    /// The process's memory.
    Memory,
    /// A link to a place.
    Place(links::Place),
    /// The descriptors: as links, or what is known of each.
    Descriptors(fds::View),
    /// The namespaces.
    Namespaces,
    /// The threads.
    Threads,
}

/// Names, in the order in which they are listed. The last is for processes only.
static ENTRIES: &[(&str, Kind)] = &[
    ("fd", Kind::Descriptors(fds::View::Links)),
    ("fdinfo", Kind::Descriptors(fds::View::Info)),
    ("ns", Kind::Namespaces),
    ("environ", Kind::File(0o400, memory::environ)),
    ("auxv", Kind::File(0o400, memory::auxv)),
    ("status", Kind::File(0o444, status::status)),
    ("personality", Kind::File(0o400, process::personality)),
    ("limits", Kind::File(0o444, process::limits)),
    ("comm", Kind::Setting(0o644, process::comm, process::set_comm)),
    ("cmdline", Kind::File(0o444, memory::cmdline)),
    ("stat", Kind::File(0o444, stat::stat)),
    ("statm", Kind::File(0o444, stat::statm)),
    ("maps", Kind::File(0o444, maps::maps)),
    ("smaps", Kind::File(0o444, smaps::smaps)),
    ("smaps_rollup", Kind::File(0o444, smaps::rollup)),
    ("mem", Kind::Memory),
    ("cwd", Kind::Place(links::Place::WorkingDirectory)),
    ("root", Kind::Place(links::Place::Root)),
    ("exe", Kind::Place(links::Place::Program)),
    ("mounts", Kind::Mounts(process::mounts)),
    ("mountinfo", Kind::Mounts(process::mountinfo)),
    ("wchan", Kind::File(0o444, process::wchan)),
    ("schedstat", Kind::File(0o444, process::schedstat)),
    ("cgroup", Kind::File(0o444, process::cgroup)),
    ("coredump_filter", Kind::Setting(0o644, process::core_filter, process::set_core_filter)),
    ("oom_score", Kind::File(0o444, process::oom_score)),
    ("oom_score_adj", Kind::Setting(0o644, process::oom_score_adj, process::set_oom_score_adj)),
    ("loginuid", Kind::Setting(0o644, process::login_uid, process::set_login_uid)),
    ("sessionid", Kind::File(0o444, process::session_id)),
    ("task", Kind::Threads),
];

/// The inode number of an entry of a thread's directory; 0 is the directory's own.
pub(super) fn ino(pid: Pid, tid: Pid, entry: usize) -> u64 {
    // Ids are below 2^22 ([`crate::task::PID_MAX_LIMIT`]), entries below 2^14.
    (1 << 62) | (pid as u64) << 38 | (tid as u64) << 14 | entry as u64
}

/// The process whose directory this is, for who takes that for a descriptor of it.
pub(crate) fn process_of(inode: &dyn Inode) -> Option<&Arc<Process>> {
    let directory = inode.as_any().downcast_ref::<PidDir>()?;
    directory.subject.whole.then_some(&directory.subject.process)
}

/// The directory of a process or thread.
pub(super) fn directory(numbers: &Arc<Numbers>, subject: Subject) -> InodeRef {
    Arc::new(PidDir { numbers: numbers.clone(), subject })
}

struct PidDir {
    numbers: Arc<Numbers>,
    subject: Subject,
}

impl PidDir {
    fn ino(&self, entry: usize) -> u64 {
        // A thread's entries differ from those of the process it gives its id to.
        let tid = if self.subject.whole { 0 } else { self.subject.tid };
        ino(self.subject.process.pid, tid, entry)
    }

    fn entries(&self) -> impl Iterator<Item = (usize, &'static str, &'static Kind)> {
        let count = ENTRIES.len() - usize::from(!self.subject.whole);
        ENTRIES.iter().take(count).enumerate().map(|(i, (name, kind))| (i + 1, *name, kind))
    }
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::File(..) | Kind::Mounts(_) | Kind::Setting(..) | Kind::Memory => FileType::Regular,
        Kind::Place(_) => FileType::Symlink,
        Kind::Descriptors(_) | Kind::Namespaces | Kind::Threads => FileType::Directory,
    }
}

impl Inode for PidDir {
    fn attr(&self) -> Result<Attr> {
        Ok(self.numbers.attr_with(self.ino(0), FileType::Directory, 0o555, self.subject.owner()))
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn lookup(&self, _ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        let found = self.entries().find(|(_, n, _)| n.as_bytes() == name);
        let (index, _, kind) = found.ok_or(Errno::ENOENT)?;
        let subject = self.subject.clone();
        let attr = |mode| self.numbers.attr_with(self.ino(index), file_type(kind), mode, subject.owner());
        Ok(match *kind {
            Kind::File(mode, generate) => {
                let attr = attr(mode);
                Arc::new(PseudoFile { attr, generate: bind(generate, subject), store: None, watched: None })
            }
            Kind::Mounts(generate) => {
                let namespaces = subject.task().and_then(|task| task.namespaces.get());
                let watched = namespaces.map(|namespaces| namespaces.mnt.changes().clone());
                let attr = attr(0o444);
                Arc::new(PseudoFile { attr, generate: bind(generate, subject), store: None, watched })
            }
            Kind::Setting(mode, generate, store) => {
                let attr = attr(mode);
                let whose = subject.clone();
                let store: pseudo::Store = Box::new(move |ctx, text| store(ctx, &whose, text));
                let store = Some(Arc::new(store));
                Arc::new(PseudoFile { attr, generate: bind(generate, subject), store, watched: None })
            }
            Kind::Memory => Arc::new(memory::MemoryFile { attr: attr(0o600), subject }),
            Kind::Place(place) => Arc::new(links::PlaceLink { attr: attr(0o777), subject, place }),
            Kind::Descriptors(view) => Arc::new(fds::FdDir {
                attr: attr(if view == fds::View::Links { 0o500 } else { 0o555 }),
                numbers: self.numbers.clone(),
                subject,
                view,
            }),
            Kind::Namespaces => {
                Arc::new(namespaces::NsDir { attr: attr(0o511), numbers: self.numbers.clone(), subject })
            }
            Kind::Threads => Arc::new(ThreadsDir { attr: attr(0o555), numbers: self.numbers.clone(), subject }),
        })
    }

    fn cacheable(&self) -> bool {
        false
    }

    fn read_dir(&self, _ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        let list: Vec<Listed> =
            self.entries().map(|(i, name, kind)| Listed::new(self.ino(i), file_type(kind), name.as_bytes())).collect();
        list_directory(self.ino(0), &list, cookie, sink);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn bind(generate: Generate, subject: Subject) -> Arc<pseudo::Generate> {
    Arc::new(Box::new(move |ctx| generate(ctx, &subject)))
}

/// `/proc/PID/task`.
struct ThreadsDir {
    attr: Attr,
    numbers: Arc<Numbers>,
    subject: Subject,
}

impl Inode for ThreadsDir {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn lookup(&self, ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        let thread = parse_pid(name).and_then(|tid| self.subject.thread(ctx.kernel, tid));
        Ok(directory(&self.numbers, thread.ok_or(Errno::ENOENT)?))
    }

    fn cacheable(&self) -> bool {
        false
    }

    fn read_dir(&self, _ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        let pid = self.subject.process.pid;
        let threads = self.subject.threads();
        let ids = threads.iter().map(|t| (ino(pid, t.tid(), 0), FileType::Directory, t.tid().to_string()));
        list_directory(self.attr.ino, &listed_ids(ids), cookie, sink);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
