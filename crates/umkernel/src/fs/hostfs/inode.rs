//! Inodes of hostfs: every operation asks the share server.

use super::channel::stat;
use super::pages::Pages;
use super::protocol::{CHANGE, CHUNK, OPEN_READ, OPEN_WRITE, Op, Request, Stat, encode_change};
use super::{HostFs, VALID};
use crate::bail;
use crate::errno::{Errno, Error, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::Mutex;
use crate::vfs::{
    Attr, DirEntry, DirSink, FileOps, FileType, HostExtent, Inode, InodeCommon, InodeRef, NewInode, OpenFlags, SetAttr,
};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};

/// A file of the host's, or a directory.
pub(super) struct HostInode {
    fs: Arc<HostFs>,
    /// What the server calls it.
    node: u64,
    /// The host's device and number.
    identity: (u64, u64),
    file_type: FileType,
    known: Mutex<Known>,
    /// When its name was last seen to be its own, in nanoseconds of CLOCK_MONOTONIC.
    named_at: AtomicU64,
    pages: Mutex<Pages>,
    common: InodeCommon,
    me: Weak<HostInode>,
}

/// What the server said of it.
#[derive(Clone, Copy)]
struct Known {
    attr: Attr,
    /// When it was asked; `None` if that was overtaken by a change.
    asked: Option<Moment>,
    /// When the last change by the guest was done, in nanoseconds of CLOCK_MONOTONIC.
    changed_at: u64,
}

/// When a request was sent: what it tells is not older.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Nanoseconds of CLOCK_MONOTONIC.
    at: u64,
    /// The share's epoch.
    epoch: u64,
}

impl Moment {
    pub(super) fn now(fs: &HostFs) -> Moment {
        Moment { at: host::monotonic_ns(), epoch: fs.epoch.load(Ordering::Acquire) }
    }
}

/// Marks numbers of files that are on another device than the share's directory, so that they are unlike that one's.
const ELSEWHERE: u64 = 0x9e37_79b9_7f4a_7c15;

impl HostInode {
    /// The inode for what the server has found or made: the one in memory, if there is one. `asked`: when.
    pub(super) fn get(fs: &Arc<HostFs>, stat: &Stat, asked: Moment) -> Result<Arc<HostInode>> {
        let identity = (stat.dev, stat.ino);
        let Some(file_type) = FileType::from_mode(stat.mode as u32) else { bail!(EIO) };
        let mut inodes = fs.inodes.lock();
        // A file that is open on the server keeps its number: this is the same one.
        if let Some(inode) = inodes.get(&identity).and_then(Weak::upgrade) {
            drop(inodes);
            if stat.node != inode.node {
                fs.channel.forget(stat.node);
            }
            inode.told(stat, asked);
            inode.named_at.store(asked.at, Ordering::Relaxed);
            return Ok(inode);
        }
        let inode = Arc::new_cyclic(|me| HostInode {
            fs: fs.clone(),
            node: stat.node,
            identity,
            file_type,
            known: Mutex::new(Known { attr: attr(fs, stat, file_type), asked: Some(asked), changed_at: 0 }),
            named_at: AtomicU64::new(asked.at),
            pages: Mutex::default(),
            common: InodeCommon::default(),
            me: me.clone(),
        });
        fs.nodes.fetch_add(1, Ordering::Relaxed);
        inodes.insert(identity, Arc::downgrade(&inode));
        Ok(inode)
    }

    /// Takes note of what the server said of it, unless the guest has changed it since it was asked.
    fn told(&self, stat: &Stat, asked: Moment) -> Attr {
        let attr = attr(&self.fs, stat, self.file_type);
        let mut known = self.known.lock();
        if asked.at > known.changed_at {
            known.attr = attr;
            known.asked = Some(asked);
        }
        attr
    }

    /// Asks for a change, and takes note of what it is like then.
    fn change<T>(&self, ask: impl FnOnce() -> Result<(T, Stat)>) -> Result<(T, Attr)> {
        let asked = Moment::now(&self.fs);
        let (value, stat) = ask()?;
        let attr = attr(&self.fs, &stat, self.file_type);
        let mut known = self.known.lock();
        // Of two changes at the same time, nobody knows which was the last.
        let alone = asked.at > known.changed_at;
        *known = Known { attr, asked: alone.then_some(asked), changed_at: host::monotonic_ns() };
        Ok((value, attr))
    }

    /// As [`HostInode::change`], by a request that is answered with nothing else.
    fn change_by(&self, request: Request, pieces: &[&[u8]]) -> Result<Attr> {
        Ok(self.change(|| Ok(((), self.fs.channel.stat_with(request, pieces)?)))?.1)
    }

    fn request(&self, op: Op) -> Request {
        Request::new(op, self.node)
    }

    /// What it is like now, whatever was known.
    fn ask_attr(&self) -> Result<Attr> {
        let asked = Moment::now(&self.fs);
        Ok(self.told(&self.fs.channel.stat(self.request(Op::Attr))?, asked))
    }

    /// Makes a name in this directory.
    fn make(&self, request: Request, pieces: &[&[u8]]) -> Result<InodeRef> {
        let made = self.fs.channel.stat_with(request, pieces);
        self.fs.names_changed();
        Ok(HostInode::get(&self.fs, &made?, Moment::now(&self.fs))?)
    }

    /// Changes names of this directory.
    fn change_names(&self, request: Request, pieces: &[&[u8]]) -> Result<()> {
        let changed = self.fs.channel.done(request, pieces);
        self.fs.names_changed();
        changed
    }

    /// The node of an inode that is to be of this share.
    fn node_of(&self, inode: &InodeRef) -> Result<u64> {
        match inode.as_any().downcast_ref::<HostInode>() {
            Some(inode) if Arc::ptr_eq(&inode.fs, &self.fs) => Ok(inode.node),
            _ => bail!(EXDEV),
        }
    }

    fn read_chunk(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let request = Request { a: offset, b: buffer.len() as u64, ..self.request(Op::Read) };
        self.fs.channel.ask(
            request,
            |_| Ok(0),
            |_, payload| {
                let len = payload.len().min(buffer.len());
                buffer[..len].copy_from_slice(&payload[..len]);
                Ok(len)
            },
        )
    }

    /// Writes at most a chunk; returns the bytes written and the offset behind them.
    fn write_chunk(&self, offset: u64, append: bool, src: &mut dyn IoSrc) -> Result<(usize, u64)> {
        let request = Request { a: offset, b: append.into(), ..self.request(Op::Write) };
        let mut bytes = Vec::new();
        let mut taken = 0;
        // Not locked while the guest's memory is read, which may be a mapping of this very file.
        let keep = self.pages.lock().is_mapped();
        let fill = |place: &mut [u8]| {
            let len = src.remaining().min(place.len());
            taken = src.take(&mut place[..len])?;
            if keep {
                bytes.extend_from_slice(&place[..taken]);
            }
            Ok(taken)
        };
        let done = |written: u64, payload: &[u8]| {
            let end = payload.get(Stat::SIZE..).and_then(|rest| rest.first_chunk());
            let Some(end) = end else { return Err(Error::new(Errno::EIO, "the share server talks nonsense")) };
            Ok(((written as usize, u64::from_le_bytes(*end)), stat(payload)?))
        };
        let written = self.change(|| self.fs.channel.ask(request, fill, done));
        let ((written, end), attr) = written.inspect_err(|_| src.untake(taken))?;
        src.untake(taken.saturating_sub(written));
        if keep {
            let mut pages = self.pages.lock();
            // After an append the end is the file's, which the host may have cut off by then.
            pages.written(&self.fs.store, end.saturating_sub(written as u64), &bytes[..written.min(bytes.len())]);
            pages.followed(&attr);
        }
        Ok((written, end))
    }
}

fn attr(fs: &HostFs, stat: &Stat, file_type: FileType) -> Attr {
    let elsewhere = if stat.dev == fs.host_dev { 0 } else { stat.dev.wrapping_mul(ELSEWHERE) };
    Attr {
        dev: fs.dev,
        ino: stat.ino ^ elsewhere,
        file_type,
        mode: stat.mode as u32 & 0o7777,
        nlink: stat.nlink,
        uid: stat.uid as u32,
        gid: stat.gid as u32,
        rdev: 0,
        size: stat.size,
        blksize: stat.blksize as u32,
        blocks: stat.blocks,
        atime: stat.atime,
        mtime: stat.mtime,
        ctime: stat.ctime,
        btime: None,
    }
}

/// A record of `getdents64(2)`: number, offset of the next, type, name; and how long the record is.
fn record(records: &[u8]) -> Option<(u64, u64, u8, &[u8], usize)> {
    const HEAD: usize = 19;
    let word = |at: usize| Some(u64::from_le_bytes(*records.get(at..)?.first_chunk()?));
    let len = usize::from(u16::from_le_bytes(*records.get(16..)?.first_chunk()?));
    let name = records.get(HEAD..len)?;
    let name = &name[..name.iter().position(|&byte| byte == 0)?];
    Some((word(0)?, word(8)?, *records.get(18)?, name, len))
}

impl Inode for HostInode {
    fn attr(&self) -> Result<Attr> {
        let known = *self.known.lock();
        let now = Moment::now(&self.fs);
        let valid = |asked: Moment| now.at.saturating_sub(asked.at) < VALID && now.epoch == asked.epoch;
        if known.asked.is_some_and(valid) { Ok(known.attr) } else { self.ask_attr() }
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn common(&self) -> Option<&InodeCommon> {
        Some(&self.common)
    }

    /// The host does that.
    fn keeps_times(&self) -> bool {
        false
    }

    fn set_attr(&self, set: &SetAttr) -> Result<()> {
        // A new size brings its times with it.
        let change = if set.size.is_some() { SetAttr { atime: None, mtime: None, ..*set } } else { *set };
        let mut message = [0; CHANGE];
        encode_change(&change, &mut message);
        let mut pages = self.pages.lock();
        let attr = self.change_by(self.request(Op::Change), &[&message])?;
        if set.size.is_some() && pages.is_mapped() {
            pages.cut(&self.fs.store, attr.size);
            pages.followed(&attr);
        }
        Ok(())
    }

    fn lookup(&self, ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        self.fs.make_room(ctx);
        let asked = Moment::now(&self.fs);
        let found = self.fs.channel.stat_with(self.request(Op::Lookup), &[name])?;
        Ok(HostInode::get(&self.fs, &found, asked)?)
    }

    fn changes_by_itself(&self) -> bool {
        true
    }

    fn still_has(&self, name: &[u8], child: &InodeRef) -> bool {
        let Some(child) = child.as_any().downcast_ref::<HostInode>() else { return false };
        let asked = Moment::now(&self.fs);
        if asked.at.saturating_sub(child.named_at.load(Ordering::Relaxed)) < VALID {
            return true;
        }
        let Ok(found) = self.fs.channel.stat_with(self.request(Op::Named), &[name]) else { return false };
        let same = (found.dev, found.ino) == child.identity;
        if same {
            child.told(&found, asked);
            child.named_at.store(asked.at, Ordering::Relaxed);
        }
        same
    }

    fn create(&self, name: &[u8], new: &NewInode) -> Result<InodeRef> {
        let mode = new.file_type.mode_bits() | new.mode;
        self.make(Request { a: mode.into(), ..self.request(Op::Create) }, &[name])
    }

    fn symlink(&self, name: &[u8], target: &[u8], _new: &NewInode) -> Result<InodeRef> {
        self.make(self.request(Op::Symlink), &[name, b"\0", target])
    }

    fn link(&self, name: &[u8], target: &InodeRef) -> Result<()> {
        let other = self.node_of(target)?;
        self.change_names(Request { other, ..self.request(Op::Link) }, &[name])
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.change_names(self.request(Op::Unlink), &[name])
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.change_names(self.request(Op::Rmdir), &[name])
    }

    fn rename(&self, name: &[u8], new_dir: &InodeRef, new_name: &[u8], flags: u32) -> Result<()> {
        let other = self.node_of(new_dir)?;
        let request = Request { other, a: flags.into(), ..self.request(Op::Rename) };
        self.change_names(request, &[name, b"\0", new_name])
    }

    fn read_link(&self, _ctx: &Ctx) -> Result<Vec<u8>> {
        self.fs.channel.bytes(self.request(Op::ReadLink), &[])
    }

    fn read_dir(&self, _ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        if self.file_type != FileType::Directory {
            bail!(ENOTDIR);
        }
        /// Asked for at once. Who lists may have room for less, and asks for the rest once more.
        const PIECE: u64 = 8192;
        let own = self.attr()?.ino;
        let mut at = cookie;
        loop {
            let request = Request { a: at, b: PIECE, ..self.request(Op::ReadDir) };
            let records = self.fs.channel.bytes(request, &[])?;
            let mut rest = &records[..];
            while let Some((mut ino, next, file_type, name, len)) = record(rest) {
                rest = &rest[len..];
                if name == b".." && self.node == self.fs.root_node {
                    // What lies above is not the guest's to know.
                    ino = own;
                }
                let file_type = FileType::from_mode(u32::from(file_type) << 12).unwrap_or(FileType::Regular);
                if !sink(&DirEntry { ino, file_type, name, next }) {
                    return Ok(());
                }
                at = next;
            }
            // Nothing, or nothing that makes sense.
            if rest.len() == records.len() {
                return Ok(());
            }
        }
    }

    fn open(self: Arc<Self>, _ctx: &Ctx, flags: OpenFlags) -> Result<Option<Box<dyn FileOps>>> {
        if self.file_type == FileType::Regular {
            let a = if flags.readable() { OPEN_READ } else { 0 } | if flags.writable() { OPEN_WRITE } else { 0 };
            let asked = Moment::now(&self.fs);
            self.told(&self.fs.channel.stat(Request { a, ..self.request(Op::Open) })?, asked);
        }
        Ok(None)
    }

    fn read_at(&self, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let mut done = 0;
        while dst.remaining() > 0 {
            let want = dst.remaining().min(CHUNK);
            let request = Request { a: offset + done as u64, b: want as u64, ..self.request(Op::Read) };
            let put = self.fs.channel.ask(request, |_| Ok(0), |_, payload| Ok((payload.len(), dst.put(payload)?)));
            match put {
                Ok((got, n)) => {
                    done += n;
                    if got < want || n < got {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, append: bool, src: &mut dyn IoSrc) -> Result<(usize, u64)> {
        let (mut done, mut end) = (0, offset);
        while src.remaining() > 0 {
            match self.write_chunk(end, append, src) {
                Ok((0, _)) => break,
                Ok((n, behind)) => {
                    done += n;
                    end = behind;
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok((done, end))
    }

    fn fallocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let request = Request { other: mode.into(), a: offset, b: len, ..self.request(Op::Allocate) };
        // Copies that are mapped do not follow: the file gets another at its next mapping.
        self.change_by(request, &[]).map(drop)
    }

    fn seek_data_or_hole(&self, offset: u64, hole: bool) -> Result<u64> {
        let request = Request { a: offset, b: hole.into(), ..self.request(Op::Seek) };
        self.fs.channel.ask(request, |_| Ok(0), |at, _| Ok(at))
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.fs.channel.done(Request { a: data_only.into(), ..self.request(Op::Sync) }, &[])
    }

    /// A store by the guest to a shared mapping would not reach the host.
    fn maps_shared_writable(&self) -> bool {
        false
    }

    fn host_extents(&self, offset: u64, len: u64, _shared: bool) -> Result<Vec<HostExtent>> {
        if self.file_type != FileType::Regular {
            bail!(ENODEV);
        }
        if len == 0 {
            return Ok(Vec::new());
        }
        let mut pages = self.pages.lock();
        let attr = self.ask_attr()?;
        pages.extents(&self.fs.store, &attr, offset, len, |at, buffer| self.read_chunk(at, buffer))
    }

    fn xattr_get(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.fs.channel.bytes(self.request(Op::XattrGet), &[name])
    }

    fn xattr_set(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let request = Request { a: flags.into(), ..self.request(Op::XattrSet) };
        self.change_by(request, &[name, b"\0", value]).map(drop)
    }

    fn xattr_list(&self) -> Result<Vec<Vec<u8>>> {
        let names = self.fs.channel.bytes(self.request(Op::XattrList), &[])?;
        Ok(names.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn xattr_remove(&self, name: &[u8]) -> Result<()> {
        self.change_by(self.request(Op::XattrRemove), &[name]).map(drop)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for HostInode {
    fn drop(&mut self) {
        self.pages.get_mut().free(&self.fs.store);
        let mut inodes = self.fs.inodes.lock();
        if inodes.get(&self.identity).is_some_and(|inode| Weak::ptr_eq(inode, &self.me)) {
            inodes.remove(&self.identity);
        }
        drop(inodes);
        self.fs.nodes.fetch_sub(1, Ordering::Relaxed);
        self.fs.channel.forget(self.node);
    }
}
