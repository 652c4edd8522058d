//! `inotify(7)`: a descriptor that tells of what happens to files.

use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::{IoDst, bytes_of};
use crate::sync::PollTable;
use crate::vfs::notify::{Event, Existing, Group};
use crate::vfs::{
    AT_FDCWD, AT_SYMLINK_NOFOLLOW, Access, File, FileOps, NotifyEvents, OpenFlags, PollEvents, WalkFlags,
};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// `FIONREAD` of `ioctl(2)`.
const FIONREAD: u32 = 0x541b;
/// Bytes of a `struct inotify_event` without its name, of which a name takes a multiple.
const HEADER: usize = 16;

/// How `inotify_add_watch(2)` looks for the file, and what it does with a mark that is there.
const ONLYDIR: u32 = 0x100_0000;
const DONT_FOLLOW: u32 = 0x200_0000;
const MASK_CREATE: u32 = 0x1000_0000;
const MASK_ADD: u32 = 0x2000_0000;

/// An inotify descriptor.
struct Inotify {
    group: Arc<Group>,
}

/// A new descriptor; `flags` are `O_NONBLOCK` and `O_CLOEXEC`.
///
/// # Errors
/// `EMFILE` by the user's limit.
pub fn create(ctx: &Ctx, flags: OpenFlags) -> Result<Arc<File>> {
    let ops = Inotify { group: ctx.kernel.vfs.notify_group(ctx)? };
    Ok(ctx.kernel.vfs.anon_file("anon_inode:inotify", Box::new(ops), flags & OpenFlags::NONBLOCK))
}

fn group_of(file: &File) -> Result<&Arc<Group>> {
    match file.ops_as::<Inotify>() {
        Some(inotify) => Ok(&inotify.group),
        None => bail!(EINVAL, "not an inotify descriptor"),
    }
}

/// `inotify_add_watch(2)`.
///
/// # Errors
/// Those of the man page.
pub fn add_watch(ctx: &Ctx, file: &File, path: &[u8], mask: u32) -> Result<i32> {
    let events = NotifyEvents::from_bits_retain(mask);
    let kept = NotifyEvents::ALL | NotifyEvents::EXCL_UNLINK | NotifyEvents::ONESHOT;
    if !events.intersects(NotifyEvents::ALL) || mask & (MASK_ADD | MASK_CREATE) == MASK_ADD | MASK_CREATE {
        bail!(EINVAL, "no event to wait for");
    }
    let group = group_of(file)?;
    let mut walk =
        WalkFlags::from_at(if mask & DONT_FOLLOW != 0 { AT_SYMLINK_NOFOLLOW } else { 0 }, AT_SYMLINK_NOFOLLOW)?;
    walk.set(WalkFlags::DIRECTORY, mask & ONLYDIR != 0);
    let location = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, path, walk)?;
    location.permission(ctx.creds(), Access::READ)?;
    let existing = match mask & (MASK_ADD | MASK_CREATE) {
        0 => Existing::Replace,
        MASK_ADD => Existing::Add,
        _ => Existing::Refuse,
    };
    group.mark(ctx, &location.dentry.inode, events & kept, existing)
}

/// `inotify_rm_watch(2)`.
///
/// # Errors
/// `EINVAL` for another descriptor, or for a watch that it does not have.
pub fn remove_watch(file: &File, number: i32) -> Result<()> {
    group_of(file)?.unmark(number)
}

/// Bytes of an event.
fn size(event: &Event) -> usize {
    // The name is ended by a zero byte at least.
    let name = if event.name.is_empty() { 0 } else { (event.name.len() + 1).next_multiple_of(HEADER) };
    HEADER + name
}

fn encode(event: &Event) -> Vec<u8> {
    let size = size(event);
    let mut raw = bytes_of(&[event.number as u32, event.events.bits(), event.cookie, (size - HEADER) as u32]).to_vec();
    raw.extend_from_slice(&event.name);
    raw.resize(size, 0);
    raw
}

impl FileOps for Inotify {
    fn read(&self, ctx: &Ctx, file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let room = dst.remaining();
        let take = || {
            let mut left = room;
            self.group.take(|event| {
                let fits = size(event) <= left;
                left -= if fits { size(event) } else { 0 };
                fits
            })
        };
        let events = match take() {
            Some(events) => events,
            None if file.nonblocking() => bail!(EAGAIN),
            None => ctx.wait_for(&self.group.readable, take)?,
        };
        if events.is_empty() {
            bail!(EINVAL, "there is no room for the next event");
        }
        let raw: Vec<u8> = events.iter().flat_map(encode).collect();
        let done = dst.put(&raw)?;
        if done < raw.len() {
            bail!(EFAULT);
        }
        Ok(done)
    }

    fn signals(&self) -> bool {
        true
    }

    fn poll(&self, _ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.group.readable);
        }
        let mut events = PollEvents::empty();
        events.set(PollEvents::IN | PollEvents::RDNORM, self.group.waiting(|queue| !queue.is_empty()));
        events
    }

    fn ioctl(&self, ctx: &Ctx, _file: &File, cmd: u32, arg: u64) -> Result<usize> {
        if cmd != FIONREAD {
            bail!(ENOTTY);
        }
        let bytes: usize = self.group.waiting(|queue| queue.iter().map(size).sum());
        ctx.write_val(arg, &(bytes as u32))?;
        Ok(0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
